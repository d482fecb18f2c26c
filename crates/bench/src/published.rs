//! What a user of the published Python SDK waits for: a put and a get between two atSigns, through our server.

use std::path::Path;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::cpu::Accounts;
use crate::host::Site;
use crate::limits::SETUP_DEADLINE;
use crate::process::Spawn;
use crate::product::{CLIENT, DEVICE, House};
use crate::table::{Samples, Table, progress};

/// Versions of the SDK, by the environments that `cargo xtask interop` makes.
const VERSIONS: [(&str, &str); 2] = [("atsdk 0.2.81", "atsdk-0.2.81"), ("atsdk 0.2.33", "sshnpd-0.4.16")];

/// One version of the SDK.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: &'static str,
    put_ms: Samples,
    get_ms: Samples,
    /// CPU time of the server for one put and one get together, microseconds.
    server_cpu_us: f64,
    /// The same of the Python program.
    client_cpu_us: f64,
    note: Option<String>,
}

/// What the script says.
#[derive(Deserialize)]
struct Said {
    put_ms: Vec<f64>,
    get_ms: Vec<f64>,
    cpu_seconds: f64,
}

/// Measures each version that is installed.
pub(crate) fn run(accounts: &Accounts, site: &Site, rounds: usize) -> Vec<Row> {
    let row = |(name, environment): (&'static str, &str)| {
        progress(&format!("published: {name}"));
        measure(accounts, site, name, environment, rounds).unwrap_or_else(|error| {
            let note = format!("{error:#}");
            progress(&format!("{name}: {note}"));
            let none = Samples::default;
            Row {
                name,
                put_ms: none(),
                get_ms: none(),
                server_cpu_us: f64::NAN,
                client_cpu_us: f64::NAN,
                note: Some(note),
            }
        })
    };
    VERSIONS.into_iter().map(row).collect()
}

fn measure(
    accounts: &Accounts,
    site: &Site,
    name: &'static str,
    environment: &str,
    rounds: usize,
) -> anyhow::Result<Row> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("target/interop").join(environment).join("bin/python");
    ensure!(python.is_file(), "not installed: cargo xtask interop installs it");
    let house = House::stand_server(accounts, site)?;
    let home = house.ca_file().with_file_name("sdk");
    let keys = home.join(".atsign/keys");
    std::fs::create_dir_all(&keys)?;
    for at_sign in [CLIENT, DEVICE] {
        std::fs::copy(house.keys(at_sign), keys.join(format!("{at_sign}_key.atKeys")))?;
    }
    let used = house.server_used();
    let mut script = Spawn::new(python)
        .args([root.join("interop/atsdk/rounds.py")])
        .args([house.root(), CLIENT, DEVICE, &rounds.to_string()])
        .env("HOME", &home)
        .env("SSL_CERT_FILE", house.ca_file())
        .log(home.join("script.log"))
        .stdout()
        .start()?;
    let output = script.output()?;
    script.succeed(SETUP_DEADLINE)?;
    let used = house.server_used().saturating_sub(used);
    let said: Said = serde_json::from_str(&output).context("the script says something else")?;
    #[expect(clippy::cast_precision_loss, reason = "a few hundred rounds")]
    let each = 1e6 / rounds as f64;
    Ok(Row {
        name,
        put_ms: said.put_ms.into_iter().collect(),
        get_ms: said.get_ms.into_iter().collect(),
        server_cpu_us: used.as_secs_f64() * each,
        client_cpu_us: said.cpu_seconds * each,
        note: None,
    })
}

/// Prints the rows.
pub(crate) fn print(rows: &[Row]) {
    let mut table = Table::new(&["between two atSigns", "put ms", "get ms", "server CPU µs", "Python's CPU µs"]);
    for row in rows {
        table.row(vec![
            row.name.to_owned(),
            row.put_ms.show(2),
            row.get_ms.show(2),
            format!("{:.0}", row.server_cpu_us),
            format!("{:.0}", row.client_cpu_us),
        ]);
        if let Some(note) = &row.note {
            table.row(vec![format!("  {note}")]);
        }
    }
    table.print("A put and a get by the published SDK; CPU is for both together, login included");
}
