//! As whom clients may log in at the built-in ssh server.

use std::collections::BTreeMap;

use postern_proto::AtSign;
#[cfg(any(feature = "sshd", test))]
use postern_session::Guest;

/// The device's own list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SshUsers(BTreeMap<AtSign, Vec<String>>);

impl SshUsers {
    /// Reads entries `@bob=pi,root`. Entries of one client add up.
    ///
    /// # Errors
    /// What is wrong with which.
    pub(crate) fn parse(entries: &[String]) -> Result<Self, String> {
        let mut users = BTreeMap::<AtSign, Vec<String>>::new();
        for entry in entries {
            let (client, names) =
                entry.split_once('=').ok_or_else(|| format!("{entry:?}: write it as @client=user"))?;
            let client = AtSign::parse(client.trim()).map_err(|error| format!("{client:?}: {error}"))?;
            let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
            users.entry(client).or_default().extend(names.map(str::to_owned));
        }
        Ok(Self(users))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a client may be this user. `own`: as whom the daemon runs, which a manager without an entry may be.
    ///
    /// # Errors
    /// Why not, in words for the client.
    #[cfg(any(feature = "sshd", test))]
    pub(crate) fn may_be(&self, guest: &Guest, user: &str, own: Option<&str>) -> Result<(), String> {
        let client = guest.at_sign();
        let named = self.0.get(client);
        let own = own.filter(|_| guest.is_manager() && named.is_none());
        let may: Vec<&str> = named.into_iter().flatten().map(String::as_str).chain(own).collect();
        if may.contains(&user) {
            return Ok(());
        }
        let may = if may.is_empty() { "nobody here".into() } else { may.join(" or ") };
        // Not a name that we were sent: it goes to terminals.
        Err(format!("{client} may not log in as that user on this device, only as {may}; its --ssh-users says so"))
    }
}

#[cfg(test)]
mod tests {
    use postern_session::PermitOpen;

    use super::*;

    #[test]
    fn the_list_decides_and_managers_without_an_entry_are_the_daemons_user() {
        let users = SshUsers::parse(&["@me=root, pi".into(), "@Bob = pi".into(), "@bob=www".into()]).unwrap();
        let managers = ["me", "bob", "eve"].map(|name| AtSign::parse(name).unwrap());
        let may = |who: &str, user: &str| {
            let guest = Guest::manager(&managers, &AtSign::parse(who).unwrap()).unwrap();
            users.may_be(&guest, user, Some("daemon"))
        };
        assert!(may("me", "root").is_ok() && may("me", "pi").is_ok() && may("bob", "www").is_ok());
        assert!(may("eve", "daemon").is_ok());
        assert!(may("me", "daemon").is_err(), "an entry says it all");
        let why = may("bob", "root").unwrap_err();
        assert!(why.contains("@bob") && why.contains("pi or www"), "{why}");
        assert!(may("eve", "root").unwrap_err().contains("only as daemon"));
    }

    #[test]
    fn guests_of_policy_are_whom_the_list_says_and_nobody_else() {
        let guest = Guest::by_policy(&AtSign::parse("bob").unwrap(), PermitOpen::anything());
        let listed = SshUsers::parse(&["@bob=pi".into()]).unwrap();
        assert!(listed.may_be(&guest, "pi", Some("daemon")).is_ok());
        assert!(SshUsers::default().may_be(&guest, "daemon", Some("daemon")).unwrap_err().contains("nobody"));
    }

    #[test]
    fn entries_that_cannot_be_read_are_named() {
        for entry in ["@bob", "bob bob=pi", "=pi"] {
            assert!(SshUsers::parse(&[entry.into()]).is_err(), "{entry}");
        }
        assert!(SshUsers::parse(&[]).unwrap().is_empty());
    }
}
