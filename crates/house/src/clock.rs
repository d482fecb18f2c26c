//! Programs that believe another time: libfaketime between them and the clock.

use std::path::PathBuf;
use std::process::Command;

use anyhow::bail;
use postern_testkit::say;

/// Lets `command` believe that it is `offset` (`-4y`, `+30m`) from now; timers run as they should. `false`: there is no
/// libfaketime here, which is printed (and a failure in CI).
///
/// # Errors
/// There is none in CI.
pub fn with_clock(command: &mut Command, offset: &str) -> anyhow::Result<bool> {
    let Some(library) = library() else {
        if std::env::var_os("CI").is_some() {
            bail!("no libfaketime here: install faketime");
        }
        say(format_args!("SKIPPED: no libfaketime here: install faketime"));
        return Ok(false);
    };
    command.env("LD_PRELOAD", library).env("FAKETIME", offset).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Ok(true)
}

fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    folders.flatten().map(|folder| folder.path().join("faketime/libfaketime.so.1")).find(|path| path.exists())
}
