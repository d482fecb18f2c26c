//! `delete[:priority:…][:cached][:public|:@⟨sharedWith⟩]:⟨key⟩[@⟨owner⟩]`

use std::fmt;

use crate::params::Params;
use crate::{AtKey, ErrorCode, ProtocolError};

/// Deletes a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// What it is called; the owner may be missing.
    pub key: AtKey,
}

impl Delete {
    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let mut params = Params::new(args);
        if params.take_word("priority") {
            params.take();
        }
        let text = params.rest().ok_or_else(ProtocolError::invalid_command)?;
        let key =
            AtKey::parse(text).map_err(|error| ProtocolError::new(ErrorCode::InvalidSyntax, error.to_string()))?;
        Ok(Self { key })
    }
}

impl fmt::Display for Delete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "delete:{}", self.key)
    }
}
