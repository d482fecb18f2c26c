//! Which programs of this user run here: each keeps a small file with a lock that it holds. What lies there unlocked is of a
//! program that is gone.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::limits::PRESENCE_BYTES;
use crate::{runtime_dir, state_dir};

/// A program that runs, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    /// `relay`, `server`.
    pub role: String,
    /// Which of them: an atSign, an address.
    pub name: String,
    /// Process.
    pub pid: u32,
    /// Seconds since 1970 at its start.
    pub since: u64,
    /// Version of the program.
    pub version: String,
    /// What else there is to say: where it listens, what it serves.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
}

impl Present {
    /// This process, from now on.
    #[must_use]
    pub fn now(role: &str, name: &str) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (role, name, version) = (role.to_owned(), name.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        Self { role, name, pid: std::process::id(), since, version, facts: BTreeMap::new() }
    }

    /// The same with one thing more to say.
    #[must_use]
    pub fn with(mut self, what: &str, value: impl ToString) -> Self {
        self.facts.insert(what.to_owned(), value.to_string());
        self
    }
}

/// Our own file, for as long as this lives.
#[derive(Debug)]
pub struct Presence {
    path: PathBuf,
    _lock: File,
}

impl Presence {
    /// Says that a program runs. `None`: there is no place for it, which is no trouble.
    #[must_use]
    pub fn hold(present: &Present) -> Option<Self> {
        let dir = places().into_iter().next()?;
        Self::hold_in(&dir, present).inspect_err(|error| tracing::debug!(%error, "nobody can see that we run")).ok()
    }

    fn hold_in(dir: &Path, present: &Present) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        for gone in files(dir).into_iter().filter(|path| !is_held(path)) {
            let _ = fs::remove_file(gone.with_extension("lock"));
            let _ = fs::remove_file(gone);
        }
        let letters = |c: char| if c.is_ascii_alphanumeric() || "@._-".contains(c) { c } else { '_' };
        let name: String = present.name.chars().map(letters).take(64).collect();
        let path = dir.join(format!("{}.{name}.{}.run", present.role, present.pid));
        let open = |path: &Path| OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
        let lock = open(&path.with_extension("lock"))?;
        lock.try_lock().map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
        let draft = path.with_extension("new");
        let mut file = open(&draft)?;
        serde_json::to_writer(&mut file, present)?;
        file.write_all(b"\n")?;
        fs::rename(&draft, &path)?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(self.path.with_extension("lock"));
    }
}

/// Who runs here now.
#[must_use]
pub fn present() -> Vec<Present> {
    present_in(&places())
}

fn present_in(places: &[PathBuf]) -> Vec<Present> {
    let mut paths: Vec<PathBuf> = places.iter().flat_map(|dir| files(dir)).filter(|path| is_held(path)).collect();
    paths.sort();
    paths.dedup();
    paths.iter().filter_map(|path| read(path)).collect()
}

/// Where these files may lie; a program writes to the first.
#[must_use]
pub fn places() -> Vec<PathBuf> {
    let own = runtime_dir().or_else(|| state_dir().map(|dir| dir.join("run")));
    // A service of the system writes there, whoever asks.
    let service = PathBuf::from("/run/postern");
    own.into_iter().chain([service]).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "run")).collect()
}

fn is_held(path: &Path) -> bool {
    let lock = File::open(path.with_extension("lock"));
    lock.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn read(path: &Path) -> Option<Present> {
    let mut text = String::new();
    File::open(path).ok()?.take(PRESENCE_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_runs_is_seen_and_who_is_gone_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let place = dir.path().join("run");
        let one = |name: &str| Present {
            role: "relay".into(),
            name: name.into(),
            pid: std::process::id(),
            since: 7,
            version: "1".into(),
            facts: BTreeMap::from([("listens".into(), "[::]:4443".into())]),
        };
        let [first, second] = ["@relay", "a/../b"].map(one);
        let held = [&first, &second].map(|one| Presence::hold_in(&place, one).expect("held"));
        let mut seen = present_in(std::slice::from_ref(&place));
        seen.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(seen, [first.clone(), second]);
        drop(held);
        assert!(present_in(std::slice::from_ref(&place)).is_empty());
        assert_eq!(fs::read_dir(&place).expect("there").count(), 0);
        // A crash leaves its file, but not its lock; the next one tidies up.
        fs::write(place.join("relay.@old.1.run"), "{}").expect("written");
        fs::write(place.join("relay.@old.1.lock"), "").expect("written");
        assert!(present_in(std::slice::from_ref(&place)).is_empty());
        let _held = Presence::hold_in(&place, &first).expect("held");
        assert!(!place.join("relay.@old.1.run").exists());
    }
}
