//! `enroll:⟨operation⟩[:force]:⟨JSON⟩`: keys for apps and devices.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ErrorCode, ProtocolError};

/// What to do with an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrollOperation {
    /// Ask for one.
    Request,
    /// Grant.
    Approve,
    /// Refuse.
    Deny,
    /// Take back.
    Revoke,
    /// Grant again.
    Unrevoke,
    /// Show many.
    List,
    /// Show one.
    Fetch,
    /// Forget a denied or revoked one.
    Delete,
}

/// An enrolment request or decision.
#[derive(Clone, PartialEq, Eq)]
pub struct Enroll {
    /// What to do.
    pub operation: EnrollOperation,
    /// Revoking one's own enrolment needs it.
    pub force: bool,
    /// The JSON; only `list` may leave it out.
    pub params: EnrollParams,
}

/// The JSON members; unknown ones are ignored.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EnrollParams {
    /// Which enrolment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enrollment_id: Option<String>,
    /// Which application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_name: Option<String>,
    /// On which device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// Namespace to `r` or `rw`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<BTreeMap<String, String>>,
    /// Passcode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otp: Option<String>,
    /// AES under the APKAM symmetric key, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted_default_encryption_private_key: Option<String>,
    /// Initial counter block of that, base64; zero when absent. Newer programs send and read it.
    #[serde(rename = "encPrivateKeyIV", skip_serializing_if = "Option::is_none")]
    pub enc_private_key_iv: Option<String>,
    /// AES under the APKAM symmetric key, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted_default_self_encryption_key: Option<String>,
    /// Initial counter block of that, base64; zero when absent.
    #[serde(rename = "selfEncKeyIV", skip_serializing_if = "Option::is_none")]
    pub self_enc_key_iv: Option<String>,
    /// The device that asks reads those two. Ours alone: with a zero block for both, one key stream encrypts two texts,
    /// and whoever stores them reads the shorter.
    #[serde(rename = "takesIV", skip_serializing_if = "Option::is_none")]
    pub takes_iv: Option<bool>,
    /// What to publish as the enrolment's signing key once it is approved, as it stands. Newer programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apsk_legacy: Option<String>,
    /// The same as JSON; never both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apsk: Option<serde_json::Value>,
    /// RSA to the atSign's encryption key, base64.
    #[serde(rename = "encryptedAPKAMSymmetricKey", skip_serializing_if = "Option::is_none")]
    pub encrypted_apkam_symmetric_key: Option<String>,
    /// Base64 of the DER public key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apkam_public_key: Option<String>,
    /// Which states to list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enrollment_status_filter: Option<Vec<String>>,
    /// Life of the keys in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apkam_keys_expiry_in_millis: Option<i64>,
}

impl EnrollOperation {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Request, "request"),
        (Self::Approve, "approve"),
        (Self::Deny, "deny"),
        (Self::Revoke, "revoke"),
        (Self::Unrevoke, "unrevoke"),
        (Self::List, "list"),
        (Self::Fetch, "fetch"),
        (Self::Delete, "delete"),
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(op, _)| *op == self).map_or("", |(_, word)| word)
    }
}

impl Enroll {
    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::invalid_command;
        let (word, rest) = args.split_once(':').unwrap_or((args, ""));
        let operation = EnrollOperation::ALL
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(word))
            .map(|(op, _)| *op)
            .ok_or_else(bad)?;
        let (force, json) = match rest.strip_prefix("force:") {
            Some(json) => (true, json),
            None => (false, rest),
        };
        let params = if json.is_empty() {
            if operation != EnrollOperation::List {
                return Err(ProtocolError::new(ErrorCode::IllegalArguments, "enroll parameters are missing"));
            }
            EnrollParams::default()
        } else {
            serde_json::from_str(json).map_err(|_| bad())?
        };
        Ok(Self { operation, force, params })
    }
}

impl fmt::Display for Enroll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "enroll:{}", self.operation.as_str())?;
        if self.force {
            f.write_str(":force")?;
        }
        // Only a bare `list` may go without its JSON.
        let bare = self.operation == EnrollOperation::List && !self.force && self.params == EnrollParams::default();
        if !bare {
            let json = serde_json::to_string(&self.params).map_err(|_| fmt::Error)?;
            write!(f, ":{json}")?;
        }
        Ok(())
    }
}
