//! `update⟨metadata⟩[:public|:@⟨sharedWith⟩]:⟨key⟩[@⟨owner⟩] ⟨value⟩`

use std::fmt;

use crate::metadata::Metadata;
use crate::params::Params;
use crate::{AtKey, ErrorCode, MetadataChange, ProtocolError};

/// Writes a record.
#[derive(Clone, PartialEq, Eq)]
pub struct Update {
    /// What it is called; the owner may be missing.
    pub key: AtKey,
    /// Metadata to set or clear.
    pub metadata: MetadataChange,
    /// At least one character, no line break.
    pub value: String,
}

impl Update {
    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::invalid_command;
        let (head, value) = args.split_once(' ').ok_or_else(bad)?;
        if value.is_empty() {
            return Err(bad());
        }
        let mut params = Params::new(head);
        let metadata = metadata_before_key(&mut params)?;
        let key = AtKey::parse(params.rest().ok_or_else(bad)?)
            .map_err(|error| ProtocolError::new(ErrorCode::InvalidKey, error.to_string()))?;
        Ok(Self { key, metadata, value: value.to_owned() })
    }
}

/// Reads `name:value` pairs up to the key. Known names are checked; unknown ones
/// are newer than we are and skipped with their value.
pub(super) fn metadata_before_key(params: &mut Params<'_>) -> Result<MetadataChange, ProtocolError> {
    let mut change = MetadataChange::default();
    while !params.at_key() {
        let name = params.take().unwrap_or_default();
        let value = params.take().unwrap_or_default();
        if let Some(known) = Metadata::known(name) {
            take_metadata(&mut change, known, value)?;
        }
    }
    Ok(change)
}

pub(super) fn take_metadata(
    change: &mut MetadataChange,
    known: &'static str,
    value: &str,
) -> Result<(), ProtocolError> {
    change
        .take(known, value)
        .map_err(|bad| ProtocolError::new(ErrorCode::InvalidSyntax, format!("invalid value for {}", bad.name)))
}

impl fmt::Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "update{}:{} {}", self.metadata, self.key, self.value)
    }
}
