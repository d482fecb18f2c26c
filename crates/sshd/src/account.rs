//! Users of this machine.

use std::ffi::CString;
use std::path::PathBuf;

use nix::unistd::{User, geteuid};

use crate::limits::USER_BYTES;

/// A user as the machine knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: nix::unistd::Uid,
    pub(crate) gid: nix::unistd::Gid,
    pub(crate) home: PathBuf,
    pub(crate) shell: PathBuf,
}

impl Account {
    /// Looks a user up, and whether this process can become it.
    ///
    /// # Errors
    /// What the client is told.
    pub(crate) fn find(name: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '$');
        if name.is_empty() || name.len() > USER_BYTES || name.starts_with('-') || !name.chars().all(fits) {
            return Err("that is no name of a user".into());
        }
        let found = User::from_name(name).map_err(|error| format!("the user {name} cannot be looked up: {error}"))?;
        let user = found.ok_or_else(|| format!("there is no user {name} on this device"))?;
        let own = geteuid();
        if !own.is_root() && user.uid != own {
            let own = own_user().unwrap_or_else(|| format!("user {own}"));
            return Err(format!("the daemon runs as {own} and cannot become {name}; log in as {own}"));
        }
        let shell = if user.shell.as_os_str().is_empty() { PathBuf::from("/bin/sh") } else { user.shell };
        Ok(Self { name: user.name, uid: user.uid, gid: user.gid, home: user.dir, shell })
    }

    /// For the system calls that want it so.
    pub(crate) fn c_name(&self) -> CString {
        // A name that was found holds no NUL.
        CString::new(self.name.as_str()).unwrap_or_default()
    }
}

/// The name of the user as whom this process runs; `None`: it has none here.
#[must_use]
pub fn own_user() -> Option<String> {
    User::from_uid(geteuid()).ok().flatten().map(|user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_none_are_not_looked_up() {
        let long = "x".repeat(33);
        for name in ["", "-l", "a b", "a/b", "a\n", &long] {
            assert_eq!(Account::find(name), Err("that is no name of a user".into()), "{name:?}");
        }
        let error = Account::find("nobody-of-that-name").unwrap_err();
        assert!(error.contains("there is no user"), "{error}");
        let own = own_user().unwrap();
        assert_eq!(Account::find(&own).unwrap().name, own);
    }
}
