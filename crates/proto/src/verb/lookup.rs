//! `lookup`, `plookup` and `llookup`: reading records.

use std::fmt;

use crate::params::Params;
use crate::{AtKey, AtSign, Detail, ErrorCode, ProtocolError, Visibility};

/// `[p]lookup:[bypassCache:(true|false):][meta:|all:]⟨key⟩@⟨owner⟩`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Ask the owner's server even if a copy is at hand.
    pub bypass_cache: bool,
    /// How much to return.
    pub detail: Detail,
    /// Entity and namespace, folded.
    pub name: String,
    /// Whose record.
    pub owner: AtSign,
}

/// `llookup[:meta|:all][:cached][:public|:@⟨sharedWith⟩]:⟨key⟩@⟨owner⟩`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Llookup {
    /// How much to return.
    pub detail: Detail,
    /// The stored name.
    pub key: AtKey,
}

impl Lookup {
    /// Key, value and metadata of `⟨name⟩@owner`.
    pub fn all(name: &str, owner: &AtSign) -> Self {
        Self { bypass_cache: false, detail: Detail::All, name: name.to_lowercase(), owner: owner.clone() }
    }

    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let mut params = Params::new(args);
        let mut bypass_cache = false;
        let mut detail = Detail::Value;
        loop {
            if params.take_word("bypassCache") {
                bypass_cache = params.take().is_some_and(|v| v.eq_ignore_ascii_case("true"));
            } else if params.take_word("all") {
                detail = Detail::All;
            } else if params.take_word("meta") {
                detail = Detail::Meta;
            } else {
                break;
            }
        }
        let key = key_of(&params)?;
        let owner = key.owner().cloned().ok_or_else(ProtocolError::invalid_command)?;
        if *key.visibility() != Visibility::Own || key.is_cached() {
            return Err(ProtocolError::invalid_command());
        }
        Ok(Self { bypass_cache, detail, name: key.name().to_owned(), owner })
    }
}

impl Llookup {
    /// The value of a key of ours.
    pub fn value(key: AtKey) -> Self {
        Self { detail: Detail::Value, key }
    }

    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let mut params = Params::new(args);
        let detail = if params.take_word("meta") {
            Detail::Meta
        } else if params.take_word("all") {
            Detail::All
        } else {
            Detail::Value
        };
        let key = key_of(&params)?;
        // Names without an owner are the server's own: they cannot be read this way.
        if key.owner().is_none() {
            return Err(ProtocolError::invalid_command());
        }
        Ok(Self { detail, key })
    }
}

fn key_of(params: &Params<'_>) -> Result<AtKey, ProtocolError> {
    let text = params.rest().ok_or_else(ProtocolError::invalid_command)?;
    AtKey::parse(text).map_err(|error| ProtocolError::new(ErrorCode::InvalidSyntax, error.to_string()))
}

fn detail_word(detail: Detail) -> &'static str {
    match detail {
        Detail::Value => "",
        Detail::Meta => "meta:",
        Detail::All => "all:",
    }
}

/// Without the verb: `lookup` and `plookup` have the same arguments.
impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bypass_cache {
            f.write_str("bypassCache:true:")?;
        }
        write!(f, "{}{}{}", detail_word(self.detail), self.name, self.owner)
    }
}

impl fmt::Display for Llookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "llookup:{}{}", detail_word(self.detail), self.key)
    }
}
