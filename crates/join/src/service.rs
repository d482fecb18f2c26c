//! The manager of services that starts the daemon, where there is one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::fail::Fail;

/// What the daemon is called there.
const UNIT: &str = "sshnpd.service";
/// Kept over an upgrade of the system.
const OPENWRT_HOME: &str = "/etc/postern";
const INIT_SCRIPT: &str = "/etc/init.d/sshnpd";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    /// A unit.
    Systemd,
    /// An init script of OpenWrt.
    Procd,
}

impl Manager {
    /// The one that knows our daemon.
    pub(crate) fn find() -> Option<Self> {
        if Path::new("/run/systemd/system").is_dir() && call("systemctl", &["cat", UNIT]).is_ok() {
            return Some(Self::Systemd);
        }
        let has_procd = Path::new("/etc/rc.common").is_file() && Path::new(INIT_SCRIPT).is_file();
        has_procd.then_some(Self::Procd)
    }

    /// Home of the daemon that it starts, if that is not the one of whoever asks.
    pub(crate) fn home(self) -> Option<PathBuf> {
        match self {
            Self::Systemd => {
                let mut ask = Command::new("systemctl");
                ask.args(["show", "--property=User", "--value", UNIT]).stdin(Stdio::null());
                let user = String::from_utf8(ask.output().ok()?.stdout).ok()?;
                home_of(user.trim(), &std::fs::read_to_string("/etc/passwd").ok()?)
            }
            Self::Procd => Some(PathBuf::from(OPENWRT_HOME)),
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        [Self::Systemd, Self::Procd].into_iter().find(|one| one.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Procd => "procd",
        }
    }

    /// At boot from now on, and now.
    pub(crate) fn start(self) -> Result<(), Fail> {
        match self {
            Self::Systemd => call("systemctl", &["enable", UNIT]).and_then(|()| call("systemctl", &["restart", UNIT])),
            Self::Procd => call(INIT_SCRIPT, &["enable"]).and_then(|()| call(INIT_SCRIPT, &["restart"])),
        }
    }

    pub(crate) fn stop(self) -> Result<(), Fail> {
        match self {
            Self::Systemd => call("systemctl", &["disable", "--now", UNIT]),
            Self::Procd => call(INIT_SCRIPT, &["stop"]).and_then(|()| call(INIT_SCRIPT, &["disable"])),
        }
    }
}

fn call(program: &str, words: &[&str]) -> Result<(), Fail> {
    let told = |why: &dyn std::fmt::Display| Fail::world(format!("{program} {}: {why}", words.join(" ")));
    let output = Command::new(program).args(words).stdin(Stdio::null()).output().map_err(|error| told(&error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(told(&format_args!("{} ({})", said.trim(), output.status)))
}

/// The home of a user, by the text of the password file.
fn home_of(user: &str, passwd: &str) -> Option<PathBuf> {
    let mut entries = passwd.lines().map(|line| line.split(':'));
    let home = entries.find_map(|mut fields| (fields.next() == Some(user)).then(|| fields.nth(4)).flatten())?;
    Some(PathBuf::from(home)).filter(|home| home.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\npostern:x:998:998::/var/lib/postern:/usr/sbin/nologin\nodd:x\n";
        assert_eq!(home_of("postern", passwd), Some("/var/lib/postern".into()));
        assert_eq!((home_of("odd", passwd), home_of("", passwd)), (None, None));
    }
}
