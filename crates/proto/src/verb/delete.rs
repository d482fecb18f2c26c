//! `delete[:force][:priority:…][:cached][:public|:@⟨sharedWith⟩]:⟨key⟩[@⟨owner⟩]`

use std::fmt;

use crate::params::Params;
use crate::{AtKey, ErrorCode, ProtocolError};

/// Deletes a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// What it is called; the owner may be missing.
    pub key: AtKey,
    /// An immutable one too.
    pub force: bool,
}

impl Delete {
    /// Of a record that can be deleted without force.
    pub fn of(key: AtKey) -> Self {
        Self { key, force: false }
    }

    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let mut params = Params::new(args);
        let mut force = false;
        while !params.at_key() {
            if params.take_word("force") {
                force = true;
            } else if !params.take_word("nc") {
                let name = params.take().unwrap_or_default();
                params.take_value_of(name);
            }
        }
        // The words alone before a key without scope.
        while params.rest().is_some_and(|rest| rest.contains(':')) {
            if params.take_word("force") {
                force = true;
            } else if !params.take_word("nc") {
                break;
            }
        }
        let text = params.rest().ok_or_else(ProtocolError::invalid_command)?;
        let key =
            AtKey::parse(text).map_err(|error| ProtocolError::new(ErrorCode::InvalidSyntax, error.to_string()))?;
        Ok(Self { key, force })
    }
}

impl fmt::Display for Delete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delete:{}{}", if self.force { "force:" } else { "" }, self.key)
    }
}
