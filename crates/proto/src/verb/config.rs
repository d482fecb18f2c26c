//! `config:block:(add|remove):@a @b`, `config:block:show`; `config:(set|reset|print):⟨name⟩`.

use std::fmt;

use crate::params::Params;
use crate::{AtSign, ErrorCode, ProtocolError};

/// Looks at and changes the block list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigRequest {
    /// These are blocked from now on.
    Block(Vec<AtSign>),
    /// These no longer.
    Unblock(Vec<AtSign>),
    /// Who is blocked.
    ShowBlocked,
    /// Settings of the server itself, which the reference changes in test mode only.
    Setting(String),
}

/// Most atSigns in one line.
const MAX_NAMES: usize = 1000;

impl ConfigRequest {
    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::invalid_command;
        let mut params = Params::new(args);
        let word = params.take().unwrap_or_default().to_ascii_lowercase();
        let rest = params.rest();
        match word.as_str() {
            "block" => {}
            "set" | "reset" | "print" if rest.is_some_and(|name| !name.is_empty()) => {
                return Ok(Self::Setting(args.to_owned()));
            }
            _ => return Err(bad()),
        }
        let operation = params.take().unwrap_or_default().trim().to_ascii_lowercase();
        match (operation.as_str(), params.rest()) {
            ("show", None) => Ok(Self::ShowBlocked),
            ("add", Some(list)) => names(list).map(Self::Block),
            ("remove", Some(list)) => names(list).map(Self::Unblock),
            _ => Err(bad()),
        }
    }
}

fn names(list: &str) -> Result<Vec<AtSign>, ProtocolError> {
    let mut names = Vec::new();
    for name in list.split_ascii_whitespace() {
        if names.len() == MAX_NAMES {
            let text = format!("at most {MAX_NAMES} atSigns in one command");
            return Err(ProtocolError::new(ErrorCode::IllegalArguments, text));
        }
        let name = Some(name).filter(|name| name.starts_with('@')).and_then(|name| AtSign::parse(name).ok());
        names.push(name.ok_or_else(ProtocolError::invalid_command)?);
    }
    if names.is_empty() { Err(ProtocolError::invalid_command()) } else { Ok(names) }
}

impl fmt::Display for ConfigRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, names) = match self {
            Self::ShowBlocked => return f.write_str("config:block:show"),
            Self::Setting(args) => return write!(f, "config:{args}"),
            Self::Block(names) => ("add", names),
            Self::Unblock(names) => ("remove", names),
        };
        write!(f, "config:block:{word}")?;
        for (i, name) in names.iter().enumerate() {
            write!(f, "{}{name}", if i == 0 { ':' } else { ' ' })?;
        }
        Ok(())
    }
}
