//! What this machine tells by itself: its clock, its files.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use postern_client::KeyFile;
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use crate::limits::{DISK_FULL, DISK_LOW, NOT_AFTER_MS, NOT_BEFORE_MS, SKEW_FAIL_MS, SKEW_WARN_MS};
use crate::{Finding, date, now_ms};

const SET_CLOCK: &str = "set the clock: timedatectl set-ntp true, or ntpd -q -p pool.ntp.org; a board without a battery needs \
                         that at each start";

/// The clock. `skew_ms`: how far it is ahead of the atServer's, where that has told its own.
#[must_use]
pub fn clock(skew_ms: Option<i64>) -> Finding {
    let now = now_ms();
    let shown = date(now);
    if now < NOT_BEFORE_MS {
        return Finding::fail("clock", format!("the clock shows {shown}, before this program was made"), SET_CLOCK);
    }
    if now > NOT_AFTER_MS {
        return Finding::fail("clock", format!("the clock shows {shown}, in another century"), SET_CLOCK);
    }
    let Some(skew) = skew_ms else { return Finding::ok("clock", format!("{shown}; no other clock to compare with")) };
    let way = if skew > 0 { "ahead of" } else { "behind" };
    let off = format!("the clock shows {shown}, {} s {way} the atServer's", skew.abs() / 1000);
    match skew.abs() {
        SKEW_FAIL_MS.. => Finding::fail("clock", off, SET_CLOCK)
            .because("signed requests are good for minutes: by this clock they are too old, or of the future"),
        SKEW_WARN_MS.. => Finding::warn("clock", off, SET_CLOCK),
        _ => Finding::ok("clock", format!("{shown}, as the atServer's")),
    }
}

/// The key file: there, ours, for nobody else, and whole.
#[must_use]
pub fn key_file(path: &Path) -> Finding {
    let id = "key-file";
    let shown = path.display();
    // A missing or broken file has its own text, which says what to do.
    if let Err(trouble) = KeyFile::load(path) {
        return Finding::fail(id, trouble.to_string(), "see above; without keys nothing else can work");
    }
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error) => return Finding::fail(id, format!("{shown}: {error}"), "make it readable for this user"),
    };
    let (mode, owner, us) = (found.mode() & 0o7777, found.uid(), rustix::process::geteuid().as_raw());
    if mode & 0o077 != 0 {
        return Finding::fail(id, format!("{shown} has mode {mode:04o}"), format!("chmod 600 {shown}"))
            .because("other users of this machine can read the keys, and be this atSign");
    }
    if owner != us {
        return Finding::warn(
            id,
            format!("{shown} belongs to user {owner}, we are {us}"),
            format!("chown {us} {shown}"),
        );
    }
    Finding::ok(id, format!("{shown}, mode {mode:04o}, ours"))
}

/// A folder that is written to: `what` is kept there. One that is not there yet counts as its nearest parent.
#[must_use]
pub fn folder(id: &'static str, path: &Path, what: &str) -> Finding {
    let Some(there) = path.ancestors().find(|path| path.exists()) else {
        return Finding::fail(id, format!("{} cannot be made", path.display()), "name a folder that can");
    };
    let shown = path.display();
    let space = match statvfs(there) {
        Ok(space) => space,
        Err(error) => return Finding::skip(id, format!("{shown}: {error}")),
    };
    if space.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Finding::fail(
            id,
            format!("{shown} is on a read-only file system"),
            "mount it writable, or name another place: XDG_CONFIG_HOME, XDG_STATE_HOME",
        )
        .because(format!("{what} cannot be kept"));
    }
    if access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        return Finding::fail(
            id,
            format!("{} may not be written to by this user", there.display()),
            "change its owner or mode",
        )
        .because(format!("{what} cannot be kept"));
    }
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    // File systems that count no inodes say 0 of 0.
    let no_inodes = space.f_files > 0 && space.f_favail == 0;
    if free < DISK_FULL || no_inodes {
        let lacks = if no_inodes { "no inode is free".to_owned() } else { format!("{} KiB are free", free / 1024) };
        return Finding::fail(id, format!("the disk of {shown} is full: {lacks}"), "make room: old logs, old images")
            .because(format!("{what} cannot be kept"));
    }
    if free < DISK_LOW {
        let what = format!("the disk of {shown} has {} KiB left", free / 1024);
        return Finding::warn(id, what, "make room: old logs, old images");
    }
    Finding::ok(id, format!("{shown} can be written to, {} MiB free", free / 1024 / 1024))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::Level;

    #[test]
    fn clocks_are_judged_by_another() {
        for (skew, level) in [
            (None, Level::Ok),
            (Some(0), Level::Ok),
            (Some(-59_000), Level::Ok),
            (Some(90_000), Level::Warn),
            (Some(-6 * 60_000), Level::Fail),
            (Some(i64::from(i32::MAX) * 1000), Level::Fail),
        ] {
            assert_eq!(clock(skew).level, level, "{skew:?}");
        }
    }

    #[test]
    fn a_folder_may_be_missing_but_not_impossible() {
        let dir = tempfile::tempdir().unwrap();
        assert_ne!(folder("state", &dir.path().join("a/b"), "the journal").level, Level::Fail);
        assert_eq!(folder("state", Path::new("/proc/self/x"), "the journal").level, Level::Fail);
    }

    #[test]
    fn a_key_file_that_is_none_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("@a_key.atKeys");
        assert!(key_file(&path).what.contains("at_activate"));
        std::fs::write(&path, "{}").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(key_file(&path).level, Level::Fail);
    }
}
