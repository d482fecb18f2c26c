//! `from:[@]⟨atSign⟩[:clientConfig:⟨JSON⟩]`: who is speaking.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::request::strip_word;
use crate::{AtSign, ErrorCode, ErrorShape, ProtocolError};

/// A claim, answered with a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// Who is claimed.
    pub at_sign: AtSign,
    /// What the client says of itself.
    pub client: ClientConfig,
}

/// Members of `clientConfig`, all optional; unknown ones are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientConfig {
    /// Version of the client library.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_name: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

impl ClientConfig {
    /// Clients that announce a version above 3.0.37 read errors as JSON.
    pub fn error_shape(&self) -> ErrorShape {
        match self.version.as_deref().and_then(semver) {
            Some(version) if version > (3, 0, 37) => ErrorShape::Json,
            _ => ErrorShape::Text,
        }
    }
}

/// Major, minor, patch; suffixes behind `-` or `+` do not matter here.
fn semver(text: &str) -> Option<(u64, u64, u64)> {
    let core = text.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

impl From {
    /// Claims `at_sign` and says nothing of the client.
    pub fn plain(at_sign: AtSign) -> Self {
        Self { at_sign, client: ClientConfig::default() }
    }

    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let (name, rest) = args.split_once(':').unwrap_or((args, ""));
        let at_sign = AtSign::parse(name)
            .map_err(|error| ProtocolError::new(ErrorCode::InvalidSyntax, format!("invalid atSign: {error}")))?;
        let client = match strip_word(rest, "clientConfig") {
            Some(json) => serde_json::from_str(json).map_err(|_| ProtocolError::invalid_command())?,
            None => ClientConfig::default(),
        };
        Ok(Self { at_sign, client })
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from:{}", self.at_sign)?;
        if self.client != ClientConfig::default() {
            let json = serde_json::to_string(&self.client).map_err(|_| fmt::Error)?;
            write!(f, ":clientConfig:{json}")?;
        }
        Ok(())
    }
}
