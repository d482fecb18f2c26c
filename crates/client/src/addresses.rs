//! Where atServers were last time: a file that spares a directory of another host its three round trips.
//!
//! Nothing in it is secret and nothing in it is believed: whoever answers there must show a certificate of that host, and
//! the directory is asked again beside the work.

use std::fs;
use std::io::{self, Read as _};
use std::path::PathBuf;

use postern_proto::{AtSign, ServerAddress};

use crate::files::{make_private_folder, replace};
use crate::limits::{ADDRESSES, ADDRESSES_BYTES};

/// The file of remembered addresses, one a line: directory, atSign, address.
#[derive(Clone, Debug)]
pub struct AddressBook {
    file: PathBuf,
}

impl AddressBook {
    /// `$XDG_CACHE_HOME/postern/addresses`, by default below `~/.cache`; `None` without a home.
    #[must_use]
    pub fn usual() -> Option<Self> {
        let cache = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let cache = cache.or_else(|| Some(crate::home_dir().ok()?.join(".cache")))?;
        Some(Self::at(cache.join("postern").join("addresses")))
    }

    /// This file.
    #[must_use]
    pub fn at(file: PathBuf) -> Self {
        Self { file }
    }

    /// Where the atServer of `who` was, as `root` said then.
    #[must_use]
    pub fn find(&self, root: &ServerAddress, who: &AtSign) -> Option<ServerAddress> {
        self.lines().iter().find_map(|line| Line::parse(line)?.address_of(root, who))
    }

    /// Remembers it, for the next time. Writes only what is new.
    ///
    /// # Errors
    /// The file cannot be written; nothing is lost but time.
    pub fn remember(&self, root: &ServerAddress, who: &AtSign, address: &ServerAddress) -> io::Result<()> {
        self.change(root, who, Some(address))
    }

    /// Forgets where `who` was: it is not there any more.
    ///
    /// # Errors
    /// As [`Self::remember`].
    pub fn forget(&self, root: &ServerAddress, who: &AtSign) -> io::Result<()> {
        self.change(root, who, None)
    }

    fn change(&self, root: &ServerAddress, who: &AtSign, address: Option<&ServerAddress>) -> io::Result<()> {
        let lines = self.lines();
        let about = |line: &String| Line::parse(line).is_some_and(|line| line.root == *root && line.who == *who);
        let fresh = address.map(|address| format!("{root} {who} {address}"));
        if lines.iter().filter(|line| about(line)).eq(fresh.iter()) {
            return Ok(());
        }
        // The newest first, so that a full file loses its oldest.
        let kept = lines.into_iter().filter(|line| !about(line) && Line::parse(line).is_some());
        let text: String = fresh.into_iter().chain(kept).take(ADDRESSES).map(|line| line + "\n").collect();
        // Whom somebody reaches is their own business. Another program of ours that writes at the same time wins or loses
        // whole.
        make_private_folder(&self.file)?;
        replace(&self.file, &text, 0o600)
    }

    fn lines(&self) -> Vec<String> {
        let mut text = String::new();
        let read = fs::File::open(&self.file).and_then(|file| file.take(ADDRESSES_BYTES).read_to_string(&mut text));
        match read {
            Ok(_) => text.lines().map(str::to_owned).collect(),
            Err(_) => Vec::new(),
        }
    }
}

struct Line {
    root: ServerAddress,
    who: AtSign,
    address: ServerAddress,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (root, who, address) = (words.next()?, words.next()?, words.next()?);
        let none_left = words.next().is_none();
        none_left.then_some(())?;
        Some(Self { root: root.parse().ok()?, who: AtSign::parse(who).ok()?, address: address.parse().ok()? })
    }

    fn address_of(self, root: &ServerAddress, who: &AtSign) -> Option<ServerAddress> {
        (self.root == *root && self.who == *who).then_some(self.address)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn at(text: &str) -> ServerAddress {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_remembered_is_found_and_what_moved_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let book = AddressBook::at(dir.path().join("postern").join("addresses"));
        let (root, other) = (at("root.example:64"), at("other.example:64"));
        let (alice, bob) = (AtSign::parse("@alice").unwrap(), AtSign::parse("@bob").unwrap());
        assert_eq!(book.find(&root, &alice), None);
        book.remember(&root, &alice, &at("a.example:6464")).unwrap();
        book.remember(&root, &bob, &at("[::1]:7000")).unwrap();
        book.remember(&root, &alice, &at("b.example:6464")).unwrap();
        assert_eq!(book.find(&root, &alice), Some(at("b.example:6464")));
        assert_eq!(book.find(&root, &bob), Some(at("[::1]:7000")));
        assert_eq!(book.find(&other, &alice), None, "another directory knows another @alice");
        book.forget(&root, &alice).unwrap();
        assert_eq!(book.find(&root, &alice), None);
        let mode = fs::metadata(&book.file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(book.file.parent().unwrap()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_damaged_or_endless_file_is_passed_over_and_mended() {
        let dir = tempfile::tempdir().unwrap();
        let book = AddressBook::at(dir.path().join("addresses"));
        let (root, alice) = (at("root.example:64"), AtSign::parse("@alice").unwrap());
        fs::write(&book.file, "root.example:64 @alice\n\u{7} x y\nroot.example:64 @alice a.example:1 more\n").unwrap();
        assert_eq!(book.find(&root, &alice), None);
        for n in 0..ADDRESSES + 10 {
            let who = AtSign::parse(&format!("@a{n}")).unwrap();
            book.remember(&root, &who, &at("a.example:1")).unwrap();
        }
        let text = fs::read_to_string(&book.file).unwrap();
        assert_eq!(text.lines().count(), ADDRESSES);
        assert!(text.len() < usize::try_from(ADDRESSES_BYTES).unwrap());
        assert_eq!(book.find(&root, &AtSign::parse("@a0").unwrap()), None, "the oldest went");
        assert!(book.find(&root, &AtSign::parse("@a521").unwrap()).is_some());
    }
}
