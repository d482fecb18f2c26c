//! What waiting costs: memory of an idle daemon, and of a server per idle
//! connection.

use std::fs;

use anyhow::Context;
use serde::Serialize;

use crate::cpu::Accounts;
use crate::host::Site;
use crate::peers::{Recipe, SshKit};
use crate::table::{Table, progress};

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
        let field =
            |name: &str| field(&text, name).with_context(|| format!("no {name} for process {pid}"));
        Ok(Self {
            rss: field("Rss:")?,
            private_dirty: field("Private_Dirty:")?,
        })
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

/// The rivals' programs on the device, idle.
pub(crate) fn rivals(accounts: &Accounts, site: &Site, kit: &SshKit) -> Vec<Row> {
    [
        (Recipe::JumpReverse, "ssh -R"),
        (Recipe::Rathole, "rathole client"),
    ]
    .into_iter()
    .map(|(recipe, name)| {
        progress(&format!("idle: {name}"));
        let memory = recipe.stand(kit, accounts, site).and_then(|standing| {
            Memory::of(
                standing
                    .agent
                    .context("this recipe has no program on the device")?,
            )
        });
        let note = memory.as_ref().err().map(|error| format!("{error:#}"));
        Row {
            name: format!("idle daemon: {name}"),
            memory: memory.ok(),
            note,
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
        table.row(vec![
            row.name.clone(),
            rss,
            dirty,
            row.note.clone().unwrap_or_default(),
        ]);
    }
    table.print("Idle");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rollup_is_read_by_name() {
        let text =
            "Rss:                1604 kB\nPrivate_Clean:  4 kB\nPrivate_Dirty:       104 kB\n";
        assert_eq!(
            (field(text, "Rss:"), field(text, "Private_Dirty:")),
            (Some(1604), Some(104))
        );
        assert_eq!(field(text, "Swap:"), None);
    }

    #[test]
    fn our_own_memory_is_not_nothing() {
        assert!(Memory::of(std::process::id()).unwrap().rss > 100);
    }
}
