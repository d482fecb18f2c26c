//! `keys:get:keyName:⟨key⟩`, `keys:get:(self|private|public)`: what an enrolment was given.
//!
//! `put` and `delete` are not part of first activation and come with the whole atServer.

use std::fmt;

use crate::{AtKey, ProtocolError};

/// Reads keys of the enrolment that this connection proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// One by its full name.
    Get(AtKey),
    /// The names of a group.
    List(KeyGroup),
}

/// Groups of keys of an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyGroup {
    /// `self`
    Own,
    /// `private`
    Private,
    /// `public`
    Public,
}

impl Keys {
    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::invalid_command;
        let rest = crate::request::strip_word(args, "get").ok_or_else(bad)?;
        if let Some(name) = crate::request::strip_word(rest, "keyName") {
            return AtKey::parse(name).map(Self::Get).map_err(|_| bad());
        }
        match rest.to_ascii_lowercase().as_str() {
            "self" => Ok(Self::List(KeyGroup::Own)),
            "private" => Ok(Self::List(KeyGroup::Private)),
            "public" => Ok(Self::List(KeyGroup::Public)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get(key) => write!(f, "keys:get:keyName:{key}"),
            Self::List(KeyGroup::Own) => f.write_str("keys:get:self"),
            Self::List(KeyGroup::Private) => f.write_str("keys:get:private"),
            Self::List(KeyGroup::Public) => f.write_str("keys:get:public"),
        }
    }
}
