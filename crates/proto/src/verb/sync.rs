//! `sync:from:⟨commit id⟩[:limit:⟨n⟩][:skipDeletesUntil:⟨commit id⟩][:⟨regex⟩]`

use std::fmt;

use crate::ProtocolError;
use crate::params::Params;

/// Asks for what changed since a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// The last commit that the client knows; −1: none.
    pub from: i64,
    /// Most entries wanted; the server has its own limit.
    pub limit: Option<usize>,
    /// Deletions up to this commit are of no interest.
    pub skip_deletes_until: Option<i64>,
    /// Searched in the full name of the key.
    pub regex: Option<String>,
}

impl Sync {
    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::invalid_command;
        let mut params = Params::new(args);
        if !params.take_word("from") {
            return Err(bad()); // the old form, without the word
        }
        let from = params.take().and_then(|n| n.parse().ok()).filter(|n| *n >= -1).ok_or_else(bad)?;
        let mut sync = Self { from, limit: None, skip_deletes_until: None, regex: None };
        if params.take_word("limit") {
            sync.limit = Some(params.take().and_then(|n| n.parse().ok()).ok_or_else(bad)?);
        }
        if params.take_word("skipDeletesUntil") {
            sync.skip_deletes_until = Some(params.take().and_then(|n| n.parse().ok()).ok_or_else(bad)?);
        }
        sync.regex = params.rest().filter(|regex| !regex.is_empty()).map(str::to_owned);
        Ok(sync)
    }
}

impl fmt::Display for Sync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sync:from:{}", self.from)?;
        if let Some(limit) = self.limit {
            write!(f, ":limit:{limit}")?;
        }
        if let Some(commit) = self.skip_deletes_until {
            write!(f, ":skipDeletesUntil:{commit}")?;
        }
        match &self.regex {
            Some(regex) => write!(f, ":{regex}"),
            None => Ok(()),
        }
    }
}
