//! Names of records.

use std::fmt;

use crate::AtSign;

/// Longest key text in characters; `cached:` copies may have seven more. Source: reference key grammar.
pub const MAX_KEY_CHARS: usize = 248;

/// Who may read a record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Visibility {
    /// `public:⟨k⟩@owner`: anyone.
    Public,
    /// `@bob:⟨k⟩@owner`: the owner and Bob.
    Shared(AtSign),
    /// `⟨k⟩@owner`: the owner.
    Own,
    /// `private:⟨k⟩@owner`: the server alone.
    Private,
    /// `privatekey:⟨name⟩`: the server alone, no owner part.
    PrivateKey,
    /// `local:⟨k⟩@owner`: never leaves a client.
    Local,
}

/// The full name of a record in its stored form: trimmed, lower case, no spaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AtKey {
    cached: bool,
    visibility: Visibility,
    /// Entity and namespace: `device_info.dev1.sshnp`.
    name: String,
    owner: Option<AtSign>,
}

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyError {
    /// No name, a control character, or `:`/`@` in a wrong place.
    Malformed,
    /// Longer than 248 characters (255 when cached).
    TooLong,
    /// Not an atSign where one is wanted.
    AtSign,
}

impl AtKey {
    /// `public:⟨name⟩@owner`.
    pub fn public(name: &str, owner: &AtSign) -> Self {
        Self::made(Visibility::Public, name, Some(owner))
    }

    /// `@with:⟨name⟩@owner`.
    pub fn shared(with: &AtSign, name: &str, owner: &AtSign) -> Self {
        Self::made(Visibility::Shared(with.clone()), name, Some(owner))
    }

    /// `⟨name⟩@owner`.
    pub fn own(name: &str, owner: &AtSign) -> Self {
        Self::made(Visibility::Own, name, Some(owner))
    }

    /// `private:⟨name⟩@owner`.
    pub fn private(name: &str, owner: &AtSign) -> Self {
        Self::made(Visibility::Private, name, Some(owner))
    }

    /// `privatekey:⟨name⟩`.
    pub fn private_key(name: &str) -> Self {
        Self::made(Visibility::PrivateKey, name, None)
    }

    /// The name of a copy of this record on another server: `cached:⟨key⟩`.
    pub fn cached(mut self) -> Self {
        self.cached = true;
        self
    }

    fn made(visibility: Visibility, name: &str, owner: Option<&AtSign>) -> Self {
        Self { cached: false, visibility, name: fold(name), owner: owner.cloned() }
    }

    /// Parses a stored or written key. An owner is optional only for
    /// `privatekey:`; elsewhere the caller decides what a missing owner means.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let folded = fold(text);
        let (cached, rest) = match folded.strip_prefix("cached:") {
            Some(rest) => (true, rest),
            None => (false, folded.as_str()),
        };
        let longest = if cached { MAX_KEY_CHARS + 7 } else { MAX_KEY_CHARS };
        if folded.chars().count() > longest {
            return Err(KeyError::TooLong);
        }
        let (visibility, rest) = if let Some(rest) = rest.strip_prefix("public:") {
            (Visibility::Public, rest)
        } else if let Some(rest) = rest.strip_prefix("privatekey:") {
            (Visibility::PrivateKey, rest)
        } else if let Some(rest) = rest.strip_prefix("private:") {
            (Visibility::Private, rest)
        } else if let Some(rest) = rest.strip_prefix("local:") {
            (Visibility::Local, rest)
        } else if rest.starts_with('@') {
            let (with, rest) = rest.split_once(':').ok_or(KeyError::Malformed)?;
            (Visibility::Shared(AtSign::parse(with).map_err(|_| KeyError::AtSign)?), rest)
        } else {
            (Visibility::Own, rest)
        };
        // Copies are kept of what others may read; anything else would pass checks meant for the real thing.
        if cached && !matches!(visibility, Visibility::Public | Visibility::Shared(_)) {
            return Err(KeyError::Malformed);
        }
        let (name, owner) = match rest.rsplit_once('@') {
            Some((name, owner)) => (name, Some(AtSign::parse(owner).map_err(|_| KeyError::AtSign)?)),
            None => (rest, None),
        };
        if visibility == Visibility::PrivateKey && owner.is_some() {
            return Err(KeyError::Malformed);
        }
        let key = Self { cached, visibility, name: name.to_owned(), owner };
        key.check_name()?;
        Ok(key)
    }

    fn check_name(&self) -> Result<(), KeyError> {
        let bad = |c: char| c.is_control() || c.is_whitespace() || c == ':' || c == '@';
        if self.name.is_empty() || self.name.contains(bad) { Err(KeyError::Malformed) } else { Ok(()) }
    }

    /// Checks the whole of a key made from parts.
    pub fn check(&self) -> Result<(), KeyError> {
        self.check_name()?;
        let extra = if self.cached { 7 } else { 0 };
        if self.to_string().chars().count() > MAX_KEY_CHARS + extra { Err(KeyError::TooLong) } else { Ok(()) }
    }

    /// Entity and namespace, without visibility and owner.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose record it is; `None` for `privatekey:` or when not written.
    pub fn owner(&self) -> Option<&AtSign> {
        self.owner.as_ref()
    }

    /// Fills in the owner that a request left out.
    pub fn or_owned_by(mut self, owner: &AtSign) -> Self {
        if self.owner.is_none() && self.visibility != Visibility::PrivateKey {
            self.owner = Some(owner.clone());
        }
        self
    }

    /// Who may read it.
    pub fn visibility(&self) -> &Visibility {
        &self.visibility
    }

    /// A copy of another server's record.
    pub fn is_cached(&self) -> bool {
        self.cached
    }

    /// `public:publickey@bob`: what everything for Bob is encrypted to.
    pub fn is_public_key(&self) -> bool {
        self.visibility == Visibility::Public && self.name == "publickey"
    }

    /// The recipient of a shared record.
    pub fn shared_with(&self) -> Option<&AtSign> {
        match &self.visibility {
            Visibility::Shared(with) => Some(with),
            _ => None,
        }
    }

    /// The text after the last dot, if there is one.
    pub fn namespace(&self) -> Option<&str> {
        self.name.rsplit_once('.').map(|(_, ns)| ns)
    }

    /// Whether the dotted tail of the name is the namespace `ns` or lies within it.
    pub fn is_in_namespace(&self, ns: &str) -> bool {
        self.name.strip_suffix(ns).is_some_and(|head| head.ends_with('.'))
    }
}

/// Stored form: trimmed, lower case, no spaces.
fn fold(text: &str) -> String {
    text.trim().chars().filter(|c| *c != ' ').flat_map(char::to_lowercase).collect()
}

impl fmt::Display for AtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cached {
            f.write_str("cached:")?;
        }
        match &self.visibility {
            Visibility::Public => f.write_str("public:")?,
            Visibility::Shared(with) => write!(f, "{with}:")?,
            Visibility::Own => {}
            Visibility::Private => f.write_str("private:")?,
            Visibility::PrivateKey => f.write_str("privatekey:")?,
            Visibility::Local => f.write_str("local:")?,
        }
        f.write_str(&self.name)?;
        match &self.owner {
            Some(owner) => write!(f, "{owner}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed key",
            Self::TooLong => "key is longer than 248 characters",
            Self::AtSign => "key names something that is not an atSign",
        })
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_forms_of_the_protocol() {
        for text in [
            "public:publickey@alice",
            "public:_0f8f@alice",
            "@bob:shared_key@alice",
            "shared_key.bob@alice",
            "@bob:device_info.dev1.sshnp@alice",
            "cached:@alice:shared_key@bob",
            "cached:public:publickey@bob",
            "private:blocklist@alice",
            "privatekey:at_secret",
        ] {
            assert_eq!(AtKey::parse(text).unwrap().to_string(), text);
        }
        let key = AtKey::parse("@Bob:Ping.Dev1.sshnp@Alice").unwrap();
        assert_eq!(key.shared_with().unwrap().as_str(), "@bob");
        assert_eq!(key.namespace(), Some("sshnp"));
        assert!(key.is_in_namespace("sshnp") && key.is_in_namespace("dev1.sshnp") && !key.is_in_namespace("hnp"));
    }

    #[test]
    fn refuses_what_is_no_key() {
        for text in
            ["", "@bob", "@bob:@alice", "public:@alice", "a:b@alice", "a@b@", "privatekey:x@alice", "a\tb@alice"]
        {
            assert!(AtKey::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(AtKey::parse(&format!("{}@alice", "x".repeat(260))), Err(KeyError::TooLong));
    }

    proptest! {
        #[test]
        fn what_parses_prints_and_parses_again(text in "(cached:|public:|@bob:|private:|privatekey:)?[a-zA-Z0-9._@: -]{0,30}(@alice)?") {
            if let Ok(key) = AtKey::parse(&text) {
                prop_assert_eq!(AtKey::parse(&key.to_string()).unwrap(), key);
            }
        }
    }
}
