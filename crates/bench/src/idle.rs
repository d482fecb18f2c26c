//! What waiting costs: memory of an idle daemon, and of a server per idle
//! connection.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::Context;
use serde::Serialize;

use crate::cpu::Accounts;
use crate::host::Site;
use crate::peers::{Recipe, SshKit};
use crate::table::{Check, Table, progress};

/// Memory of one process, KiB.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    /// Resident set, shared pages included.
    pub(crate) rss: u64,
    /// Pages that only this process has and has written.
    pub(crate) private_dirty: u64,
}

impl Memory {
    /// Reads it from `/proc`.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .with_context(|| format!("failed to read the memory of process {pid}"))?;
        let field = |name: &str| field(&text, name).with_context(|| format!("no {name} for process {pid}"));
        Ok(Self { rss: field("Rss:")?, private_dirty: field("Private_Dirty:")? })
    }
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// One idle program's row.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) memory: Option<Memory>,
    pub(crate) note: Option<String>,
}

impl Row {
    pub(crate) fn measured(name: &str, memory: Memory) -> Self {
        Self { name: name.to_owned(), memory: Some(memory), note: None }
    }

    pub(crate) fn failed(name: &str, why: &str) -> Self {
        progress(&format!("{name}: {why}"));
        Self { name: name.to_owned(), memory: None, note: Some(why.to_owned()) }
    }

    /// The bound a daemon of ours is held to: 12 MB of 1,000,000 bytes.
    pub(crate) fn check(&self) -> Check {
        #[expect(clippy::cast_precision_loss, reason = "a few thousand pages")]
        let megabytes = self.memory.map_or(f64::NAN, |memory| memory.rss as f64 * 1024.0 / 1e6);
        Check::at_most(format!("{}: RSS", self.name), megabytes, 12.0, "MB")
    }
}

/// Memory of a server that 5,000 idle authenticated monitors are connected to,
/// over their number. Measured by the server's own test, which speaks to a
/// server process as devices do.
pub(crate) fn per_monitor() -> Check {
    progress("idle: 5,000 monitors on one server");
    let measured = run_memory_test().and_then(|text| {
        let each = text.lines().filter_map(whole_each).reduce(f64::max);
        each.with_context(|| format!("no figure in: {}", text.trim()))
    });
    let figure = "server: memory of the whole process over 5,000 idle monitors";
    match measured {
        Ok(bytes) => Check::at_most(figure, bytes / 1e3, 25.0, "kB"),
        Err(error) => Check::not_measured(format!("{figure}: {error:#}")),
    }
}

fn run_memory_test() -> anyhow::Result<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--quiet", "--release", "-p", "postern-server", "--test", "memory"])
        .args(["--", "--ignored", "--nocapture"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .stdin(Stdio::null())
        .output()
        .context("no cargo")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

/// Bytes each of the whole, from a line of the test.
fn whole_each(line: &str) -> Option<f64> {
    let (before, _) = line.split_once(" each of the whole")?;
    before.rsplit(' ').next()?.parse().ok()
}

/// The rivals' programs on the device, idle.
pub(crate) fn rivals(accounts: &Accounts, site: &Site, kit: &SshKit) -> Vec<Row> {
    [(Recipe::JumpReverse, "ssh -R"), (Recipe::Rathole, "rathole client")]
        .into_iter()
        .map(|(recipe, name)| {
            progress(&format!("idle: {name}"));
            let memory = recipe
                .stand(kit, accounts, site)
                .and_then(|standing| Memory::of(standing.agent.context("this recipe has no program on the device")?));
            let name = format!("idle daemon: {name}");
            match memory {
                Ok(memory) => Row::measured(&name, memory),
                Err(error) => Row::failed(&name, &format!("{error:#}")),
            }
        })
        .collect()
}

/// Prints the rows.
pub(crate) fn print(rows: &[Row]) {
    let mut table = Table::new(&["idle", "RSS KiB", "private dirty KiB", ""]);
    for row in rows {
        let (rss, dirty) = row.memory.map_or_else(
            || ("-".to_owned(), "-".to_owned()),
            |memory| (memory.rss.to_string(), memory.private_dirty.to_string()),
        );
        table.row(vec![row.name.clone(), rss, dirty, row.note.clone().unwrap_or_default()]);
    }
    table.print("Idle");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rollup_is_read_by_name() {
        let text = "Rss:                1604 kB\nPrivate_Clean:  4 kB\nPrivate_Dirty:       104 kB\n";
        assert_eq!((field(text, "Rss:"), field(text, "Private_Dirty:")), (Some(1604), Some(104)));
        assert_eq!(field(text, "Swap:"), None);
    }

    #[test]
    fn the_figure_of_the_memory_test_is_found() {
        let line =
            "5000 idle monitors, 0 s later: RSS 1 -> 2 bytes, 9 each; 17044 each of the whole; private dirty 8 each";
        assert_eq!(whole_each(line), Some(17_044.0));
        assert_eq!(whole_each("running 1 test"), None);
    }

    #[test]
    fn our_own_memory_is_not_nothing() {
        assert!(Memory::of(std::process::id()).unwrap().rss > 100);
    }
}
