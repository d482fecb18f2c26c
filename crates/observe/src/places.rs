//! Where a program keeps what it learns and what it shows.

use std::env::var_os;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What must last: `$STATE_DIRECTORY` (systemd's), `$XDG_STATE_HOME/postern`, or `~/.local/state/postern`. `None`: no home.
pub fn state_dir() -> Option<PathBuf> {
    let own = |dir: PathBuf| dir.join("postern");
    given_by_systemd("STATE_DIRECTORY")
        .or_else(|| absolute(var_os("XDG_STATE_HOME")).map(own))
        .or_else(|| absolute(var_os("HOME")).map(|home| own(home.join(".local/state"))))
}

/// What a restart may forget, in memory: `$RUNTIME_DIRECTORY` (systemd's), `$XDG_RUNTIME_DIR/postern`, or `/run/postern`
/// for root. `None`: there is no such place.
pub fn runtime_dir() -> Option<PathBuf> {
    let own = |dir: PathBuf| dir.join("postern");
    given_by_systemd("RUNTIME_DIRECTORY").or_else(|| absolute(var_os("XDG_RUNTIME_DIR")).map(own)).or_else(|| {
        let run = Path::new("/run/postern");
        let is_root = var_os("HOME").is_some_and(|home| home == "/root");
        (is_root || run.is_dir()).then(|| run.to_owned())
    })
}

/// The first of the directories that systemd names, which are parted by colons.
fn given_by_systemd(variable: &str) -> Option<PathBuf> {
    let text = var_os(variable)?.into_string().ok()?;
    absolute(text.split(':').next().map(OsString::from))
}

/// A path that is none, or relative, counts as not given. Source: XDG base directories.
fn absolute(path: Option<OsString>) -> Option<PathBuf> {
    path.map(PathBuf::from).filter(|path| path.is_absolute())
}
