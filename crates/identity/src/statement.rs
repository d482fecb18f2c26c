//! What an identity key says: a payload, its signature under a label, and who vouches for the key.

use std::fmt;

use postern_crypto::{Ed25519PrivateKey, Ed25519PublicKey, decode_base64, encode_base64, sha256};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::limits::STATEMENT_BYTES;
use crate::voucher::{VoucherClaim, VoucherError};

/// What a signature is for. None verifies under another label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// A client's request to a device.
    Request,
    /// A device's yes.
    Reply,
    /// A device's no.
    Refusal,
    /// The client's word inside the tunnel.
    Proof,
    /// What a relay is shown.
    Ticket,
    /// The host keys of a device's ssh server.
    HostKeys,
}

/// A statement as received: read, not yet believed. Text form: `{"payload":…,"s":"<base64>","voucher":…}`, the voucher only
/// where the reader has none yet.
pub struct Statement {
    payload: Box<RawValue>,
    signature: Vec<u8>,
    voucher: Option<Box<RawValue>>,
}

/// Why a statement is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatementError {
    /// Not the JSON it should be, or too long.
    Malformed,
    /// Not signed by this key under this label.
    Signature,
    /// Signed, but the payload lacks something.
    Payload,
}

#[derive(Deserialize)]
struct Wire {
    payload: Box<RawValue>,
    s: String,
    #[serde(default)]
    voucher: Option<Box<RawValue>>,
}

impl Label {
    fn text(self) -> &'static str {
        match self {
            Self::Request => "postern request v1",
            Self::Reply => "postern reply v1",
            Self::Refusal => "postern refusal v1",
            Self::Proof => "postern proof v1",
            Self::Ticket => "postern ticket v1",
            Self::HostKeys => "postern hostkeys v1",
        }
    }

    /// What is signed for `text`.
    fn message(self, text: &str) -> Vec<u8> {
        [self.text().as_bytes(), b"\0", text.as_bytes()].concat()
    }

    /// Signs `text`, base64.
    pub fn sign(self, text: &str, key: &Ed25519PrivateKey) -> String {
        encode_base64(&key.sign(&self.message(text)))
    }

    /// Checks a base64 signature over `text`.
    ///
    /// # Errors
    /// It does not hold.
    pub fn verify(self, text: &str, key: &Ed25519PublicKey, signature: &str) -> Result<(), StatementError> {
        let signature = decode_base64(signature).map_err(|_| StatementError::Signature)?;
        self.holds(text, key, &signature)
    }

    fn holds(self, text: &str, key: &Ed25519PublicKey, signature: &[u8]) -> Result<(), StatementError> {
        key.verify(&self.message(text), signature).map_err(|_| StatementError::Signature)
    }
}

impl Statement {
    /// The text of a statement. `voucher`: the text of the key's voucher, for readers who may not know it.
    ///
    /// # Panics
    /// When the payload is not JSON, which no type of ours is.
    pub fn print<P: Serialize>(label: Label, payload: &P, key: &Ed25519PrivateKey, voucher: Option<&str>) -> String {
        let text = serde_json::to_string(payload).expect("our payloads are JSON");
        let signature = label.sign(&text, key);
        let voucher = voucher.map(|voucher| format!(r#","voucher":{voucher}"#)).unwrap_or_default();
        format!(r#"{{"payload":{text},"s":"{signature}"{voucher}}}"#)
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`StatementError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, StatementError> {
        // An array would be taken for the fields in their order.
        if text.len() > STATEMENT_BYTES || !text.starts_with('{') {
            return Err(StatementError::Malformed);
        }
        let Wire { payload, s, voucher } = serde_json::from_str(text).map_err(|_| StatementError::Malformed)?;
        let signature = decode_base64(&s).map_err(|_| StatementError::Malformed)?;
        Ok(Self { payload, signature, voucher })
    }

    /// The voucher that came with it, not yet believed.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn voucher(&self) -> Result<VoucherClaim, VoucherError> {
        VoucherClaim::parse(self.voucher.as_ref().ok_or(VoucherError::Missing)?.get())
    }

    /// The payload, not yet believed: good for finding the keys to believe it with.
    ///
    /// # Errors
    /// [`StatementError::Payload`].
    pub fn claimed<P: DeserializeOwned>(&self) -> Result<P, StatementError> {
        serde_json::from_str(self.payload.get()).map_err(|_| StatementError::Payload)
    }

    /// Checks the signature and hands out the payload.
    ///
    /// # Errors
    /// See [`StatementError`].
    pub fn verify<P: DeserializeOwned>(&self, label: Label, key: &Ed25519PublicKey) -> Result<P, StatementError> {
        label.holds(self.payload.get(), key, &self.signature)?;
        self.claimed()
    }

    /// SHA-256 of the payload's text.
    pub fn hash(&self) -> [u8; 32] {
        sha256(self.payload.get().as_bytes())
    }
}

impl fmt::Display for StatementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "it is malformed",
            Self::Signature => "its signature does not hold",
            Self::Payload => "it lacks a required field",
        })
    }
}

impl std::error::Error for StatementError {}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as Json, json};

    #[test]
    fn a_statement_holds_under_its_label_key_and_payload() {
        let key = Ed25519PrivateKey::generate().unwrap();
        let payload = json!({"v": 1, "sessionId": "6f", "grüß": "\u{7}"});
        let text = Statement::print(Label::Reply, &payload, &key, None);
        let read = Statement::parse(&text).unwrap();
        assert_eq!(read.verify::<Json>(Label::Reply, &key.public_key()), Ok(payload));
        assert_eq!(read.verify::<Json>(Label::Request, &key.public_key()), Err(StatementError::Signature));
        let other = Ed25519PrivateKey::generate().unwrap().public_key();
        assert_eq!(read.verify::<Json>(Label::Reply, &other), Err(StatementError::Signature));
        let changed = Statement::parse(&text.replace("6f", "6e")).unwrap();
        assert_eq!(changed.verify::<Json>(Label::Reply, &key.public_key()), Err(StatementError::Signature));
        assert!(matches!(read.voucher(), Err(VoucherError::Missing)));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "[]", "{}", r#"{"payload":{},"s":"!"}"#, r#"[{},"AAAA",null]"#] {
            assert_eq!(Statement::parse(text).err(), Some(StatementError::Malformed), "{text}");
        }
    }
}
