//! The device's answer.

use std::fmt;

use postern_crypto::{CryptoError, RsaPrivateKey, RsaPublicKey};
use postern_proto::Uuid;
use serde_json::{Map, Value as Json};
use zeroize::Zeroizing;

use crate::keys::SealedKeys;
use crate::limits::PRIVATE_KEY_BYTES;
use postern_identity::{Envelope, EnvelopeError};

/// A yes with the keys of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Which session.
    pub session_id: Uuid,
    /// `None`: not encrypted.
    pub keys: Option<SealedKeys>,
    /// For the client's own ssh tunnel, when the session itself is not encrypted.
    pub ephemeral: Option<EphemeralSshKey>,
}

/// Text of a private ssh key that is good for seconds. Its `Debug` shows nothing; zeroed on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct EphemeralSshKey(Zeroizing<String>);

impl EphemeralSshKey {
    /// Takes the text of a key file: PEM of any kind. `None` when it is something else, or too long.
    pub fn parse(text: &str) -> Option<Self> {
        let printable = |b: u8| b == b'\n' || b == b'\r' || (b' '..=b'~').contains(&b);
        let good = text.len() <= PRIVATE_KEY_BYTES
            && text.trim_start().starts_with("-----BEGIN ")
            && text.trim_end().ends_with("PRIVATE KEY-----")
            && text.bytes().all(printable);
        // ssh reads no key file whose last line has no end.
        good.then(|| Self(Zeroizing::new(format!("{}\n", text.trim()))))
    }

    /// The secret.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EphemeralSshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EphemeralSshKey(..)")
    }
}

/// Why there is no session, as the client tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyError {
    /// The daemon's own words.
    Refused(String),
    /// An envelope that cannot be believed.
    Envelope(EnvelopeError),
    /// Signed, but for another session.
    OtherSession,
    /// We asked for encryption and got no keys.
    NoKeys,
}

impl Reply {
    /// The signed text. `is_ssh`: with the member `ephemeralPrivateKey`, null when the
    /// session is encrypted, which needs no key of its own on the device.
    pub fn print(&self, is_ssh: bool, key: &RsaPrivateKey) -> Result<Zeroizing<String>, CryptoError> {
        let mut payload = Map::new();
        let mut put = |name: &str, value: Json| payload.insert(name.to_owned(), value);
        put("status", "connected".into());
        put("sessionId", self.session_id.as_str().into());
        if is_ssh {
            put("ephemeralPrivateKey", self.ephemeral.as_ref().map_or(Json::Null, |key| key.reveal().into()));
        }
        match &self.keys {
            None => {
                put("sessionAESKey", Json::Null);
                put("sessionIV", Json::Null);
            }
            Some(SealedKeys { first, second: None }) => {
                put("sessionAESKey", first.0.as_str().into());
                put("sessionIV", first.1.as_str().into());
            }
            Some(SealedKeys { first, second: Some(second) }) => {
                put("aesKeyC2D", first.0.as_str().into());
                put("ivC2D", first.1.as_str().into());
                put("aesKeyD2C", second.0.as_str().into());
                put("ivD2C", second.1.as_str().into());
            }
        }
        Envelope::sign(&payload, key).map(Zeroizing::new)
    }

    /// Reads and checks the answer to `session_id`. Text that is no JSON object is a refusal.
    pub fn read(text: &str, session_id: &Uuid, device: &RsaPublicKey) -> Result<Self, ReplyError> {
        if !text.trim_start().starts_with('{') {
            let words: String = text.chars().filter(|c| !c.is_control()).take(500).collect();
            return Err(ReplyError::Refused(words));
        }
        let envelope = Envelope::parse(text).map_err(ReplyError::Envelope)?;
        let payload: Map<String, Json> = envelope.verify(device).map_err(ReplyError::Envelope)?;
        let text = |name: &str| payload.get(name).and_then(Json::as_str).map(str::to_owned);
        let claimed = text("sessionId").as_deref().and_then(Uuid::parse);
        if claimed.as_ref() != Some(session_id) {
            return Err(ReplyError::OtherSession);
        }
        let pair = |key: &str, iv: &str| Some((text(key)?, text(iv)?));
        let first = pair("sessionAESKey", "sessionIV").or_else(|| pair("aesKeyC2D", "ivC2D"));
        let keys = first.map(|first| SealedKeys { first, second: pair("aesKeyD2C", "ivD2C") });
        let ephemeral = payload.get("ephemeralPrivateKey").and_then(Json::as_str).and_then(EphemeralSshKey::parse);
        Ok(Self { session_id: session_id.clone(), keys, ephemeral })
    }
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) => f.write_str(text),
            Self::Envelope(error) => write!(f, "the device daemon's reply is not to be believed: {error}"),
            Self::OtherSession => f.write_str("the device daemon's reply is for another session"),
            Self::NoKeys => f.write_str("the device daemon's reply holds no session keys"),
        }
    }
}

impl std::error::Error for ReplyError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(twin: bool) -> SealedKeys {
        let pair = |n: u8| (format!("k{n}"), format!("i{n}"));
        SealedKeys { first: pair(1), second: twin.then(|| pair(2)) }
    }

    #[test]
    fn both_dialects_round_trip_and_are_bound_to_the_session() {
        let key = RsaPrivateKey::generate().unwrap();
        let public = key.public_key().unwrap();
        let id = Uuid::from_random([1; 16]);
        for keys in [None, Some(sealed(false)), Some(sealed(true))] {
            let pem = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n";
            let ephemeral = keys.is_none().then(|| EphemeralSshKey::parse(pem).unwrap());
            let reply = Reply { session_id: id.clone(), keys, ephemeral };
            let text = reply.print(true, &key).unwrap();
            assert_eq!(Reply::read(&text, &id, &public), Ok(reply));
            let other = Uuid::from_random([2; 16]);
            assert_eq!(Reply::read(&text, &other, &public), Err(ReplyError::OtherSession));
        }
    }

    #[test]
    fn a_key_file_is_a_key_file() {
        let pem = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----";
        assert_eq!(EphemeralSshKey::parse(pem).unwrap().reveal(), format!("{pem}\n"));
        assert!(!format!("{:?}", EphemeralSshKey::parse(pem)).contains("AA=="));
        for bad in ["", "connected", &pem.replace("AA==", "A\u{1b}[2J"), &pem.replace("AA", &"A".repeat(20_000))] {
            assert!(EphemeralSshKey::parse(bad).is_none());
        }
    }

    #[test]
    fn plain_text_is_a_refusal_in_the_daemons_words() {
        let key = RsaPrivateKey::generate().unwrap().public_key().unwrap();
        let id = Uuid::from_random([1; 16]);
        let text = "Daemon does not permit connections to h:1\u{1b}[2J";
        assert_eq!(
            Reply::read(text, &id, &key),
            Err(ReplyError::Refused("Daemon does not permit connections to h:1[2J".into()))
        );
    }
}
