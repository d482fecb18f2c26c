//! `postern doctor server`: what keeps this server from being reached.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use postern_doctor::{Finding, Report, certificate, clock, dns, folder, reach};
use postern_net::tls::Trust;
use postern_observe::say;

use crate::home::Home;

/// Looks for what keeps this server from being reached, as a client on this machine would. Changes nothing; the server may
/// run meanwhile.
///
/// Exit status: 0 nothing fails, 1 something does, 2 wrong usage.
#[derive(Parser)]
#[command(name = "doctor server", version, max_term_width = 100)]
struct Flags {
    /// The server's directory.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs `doctor server` with its arguments, the program name first.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let flags = match Flags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let findings = runtime.block_on(Box::pin(examine(&flags.dir)));
            runtime.shutdown_background();
            Report::new("server", findings).show(flags.json)
        }
        Err(error) => {
            say(format_args!("doctor server: cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn examine(dir: &Path) -> Vec<Finding> {
    let home = match Home::open(dir) {
        Ok(home) => home,
        Err(error) => {
            let todo = "name the server's directory with --dir, or make one: postern server init";
            return vec![Finding::fail("config", error.to_string(), todo)];
        }
    };
    let settings = home.settings();
    let mut findings = vec![
        Finding::ok("config", format!("{}: a server for {}", dir.display(), settings.host)),
        clock(None),
        private(&dir.join(&settings.tls_key)),
        match home.store().and_then(|store| store.accounts().map_err(crate::home::HomeError::Store)) {
            Ok(accounts) if accounts.is_empty() => Finding::warn(
                "store",
                "no atSign lives here yet",
                format!("postern server add --dir {} @name", dir.display()),
            ),
            Ok(accounts) => Finding::ok("store", format!("{} atSigns live here", accounts.len())),
            Err(error) => {
                Finding::fail("store", error.to_string(), "restore it from a backup, or make room on its disk")
            }
        },
        folder("disk", dir, "what atSigns write"),
    ];
    let (host, port) = (settings.host.as_str(), settings.advertised_port.unwrap_or(settings.listen.port()));
    findings.push(dns(host, port).await);
    let reached = reach("reach", "this server", host, port).await;
    let is_up = reached.level == postern_doctor::Level::Ok;
    findings.push(reached);
    findings.push(match trust(&home) {
        _ if !is_up => Finding::skip("certificate", "not looked at: reach comes first"),
        Ok(trust) => certificate(&trust, host, port).await.0,
        Err(why) => Finding::fail("certificate", why, "restore ca.pem, or start anew with postern server init"),
    });
    findings
}

/// Whom the clients of this server trust.
fn trust(home: &Home) -> Result<Trust, String> {
    match home.ca() {
        Some(path) => {
            let pem = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            Trust::only_pem(&pem).map_err(|error| format!("{}: cannot {error}", path.display()))
        }
        None => Trust::load().map_err(|error| format!("cannot {error}")),
    }
}

/// The private key of the certificate is nobody else's business.
fn private(path: &Path) -> Finding {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(found) if found.mode() & 0o007 != 0 => Finding::fail(
            "key-file",
            format!("{shown} has mode {:04o}", found.mode() & 0o7777),
            format!("chmod 600 {shown}"),
        )
        .because("every user of this machine can read the server's private key, and be this server"),
        Ok(_) => Finding::ok("key-file", format!("{shown} is not for others")),
        Err(error) => Finding::fail("key-file", format!("{shown}: {error}"), "make it readable for this user"),
    }
}
