//! The second signature of a request: by the key of the client's enrolment, which can be revoked
//! without the whole atSign being made anew.

use std::fmt;

use postern_crypto::{CryptoError, RsaPrivateKey, SignatureHash};
use postern_proto::{AtSign, SigningKeyName};
use serde::Deserialize;

use crate::advertised::AdvertisedKeys;

/// What a request says of its second signature: read, not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrollmentClaim {
    name: SigningKeyName,
    hash: SignatureHash,
    signature: String,
}

/// Why a request's second signature does not do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnrollmentFault {
    /// There is none, and the device demands one.
    Missing,
    /// Not what a signature looks like.
    Malformed,
    /// By a key of somebody else.
    NotTheRequester(AtSign),
    /// The enrolment is over.
    Revoked,
    /// By another algorithm than the strongest that the enrolment advertises.
    Algorithm,
    /// It does not verify.
    Signature,
    /// The key's record could not be fetched.
    Unavailable(String),
}

#[derive(Deserialize)]
pub(crate) struct Wire {
    sk: String,
    sa: String,
    ha: String,
    s: String,
}

/// The member's text for `payload`.
pub(crate) fn print(payload: &str, name: &SigningKeyName, key: &RsaPrivateKey) -> Result<String, CryptoError> {
    let signature = key.sign(SignatureHash::Sha256, payload.as_bytes())?;
    Ok(format!(r#"{{"sk":"{name}","sa":"rsa2048","ha":"sha256","s":"{signature}"}}"#))
}

impl EnrollmentClaim {
    /// Checks the shape. The key must lie in the namespace of active enrolments.
    pub(crate) fn read(wire: Wire) -> Result<Self, EnrollmentFault> {
        let name = SigningKeyName::parse(&wire.sk).ok_or(EnrollmentFault::Malformed)?;
        let hash = match (wire.sa.as_str(), wire.ha.as_str()) {
            ("rsa2048", "sha256") => SignatureHash::Sha256,
            ("rsa2048", "sha512") => SignatureHash::Sha512,
            _ => return Err(EnrollmentFault::Algorithm),
        };
        Ok(Self { name, hash, signature: wire.s })
    }

    /// Where the key lies.
    pub fn key_name(&self) -> &SigningKeyName {
        &self.name
    }

    /// Whether it is a key of who asks.
    pub(crate) fn is_of(&self, requester: &AtSign) -> Result<(), EnrollmentFault> {
        let owner = self.name.owner();
        if owner == requester { Ok(()) } else { Err(EnrollmentFault::NotTheRequester(owner.clone())) }
    }

    /// Checks the signature over one of the payload's texts with what the key's record says.
    pub(crate) fn verify(&self, texts: [&str; 2], record: &str) -> Result<(), EnrollmentFault> {
        let keys = AdvertisedKeys::parse(record).ok_or(EnrollmentFault::Malformed)?;
        let key = keys.strongest_is_rsa().ok_or(EnrollmentFault::Algorithm)?;
        let holds = |text: &str| key.verify(self.hash, text.as_bytes(), &self.signature).is_ok();
        if texts.into_iter().any(holds) { Ok(()) } else { Err(EnrollmentFault::Signature) }
    }
}

impl EnrollmentFault {
    /// Whether the request is refused also by devices that do not demand the signature: what could not be checked is
    /// as good as absent, what was checked and is wrong is not.
    pub fn is_fatal(&self, demanded: bool) -> bool {
        demanded || !matches!(self, Self::Missing | Self::Unavailable(_))
    }
}

/// The text that the client is sent.
impl fmt::Display for EnrollmentFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NOT_VERIFIED: &str = "Enrollment signature not verified";
        match self {
            Self::Missing => {
                f.write_str("This daemon requires session requests signed with the client's enrollment key")
            }
            Self::Malformed => write!(f, "{NOT_VERIFIED}: it is malformed"),
            Self::NotTheRequester(owner) => write!(f, "{NOT_VERIFIED}: its key is of {owner}, not the requester"),
            Self::Revoked => write!(f, "{NOT_VERIFIED}: the client's enrollment is no longer active"),
            Self::Algorithm => {
                write!(f, "{NOT_VERIFIED}: its algorithm is not the strongest that the enrollment advertises")
            }
            Self::Signature => write!(f, "{NOT_VERIFIED}: signature does not verify"),
            Self::Unavailable(why) => write!(f, "Could not check the enrollment signature: {why}"),
        }
    }
}

impl std::error::Error for EnrollmentFault {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::Envelope;
    use serde_json::json;

    fn at_sign(name: &str) -> AtSign {
        AtSign::parse(name).unwrap()
    }

    #[test]
    fn the_second_signature_holds_for_its_owner_and_its_payload_only() {
        let (main, enrolled) = (RsaPrivateKey::generate().unwrap(), RsaPrivateKey::generate().unwrap());
        let name = SigningKeyName::new(Some("6f9619ff-8b86-4d01-b42d-00cf4fc964ff"), &at_sign("client")).unwrap();
        let text = Envelope::sign_twice(&json!({"sessionId": "6f", "port": 22}), &main, &name, &enrolled).unwrap();
        let record = enrolled.public_key().unwrap().to_base64();
        let check = |text: &str, who: &str, record: &str| {
            let envelope = Envelope::parse(text).unwrap();
            let claim = envelope.enrollment_claim(&at_sign(who))?.ok_or(EnrollmentFault::Missing)?.clone();
            envelope.verify_enrollment(&claim, record)
        };
        assert_eq!(check(&text, "client", &record), Ok(()));
        // Old daemons see the envelope they know.
        assert!(Envelope::parse(&text).unwrap().verify::<serde_json::Value>(&main.public_key().unwrap()).is_ok());

        let other = main.public_key().unwrap().to_base64();
        assert_eq!(check(&text, "client", &other), Err(EnrollmentFault::Signature));
        assert_eq!(check(&text.replace(":22", ":23"), "client", &record), Err(EnrollmentFault::Signature));
        let fault = check(&text, "mallory", &record).unwrap_err();
        assert!(fault.to_string().contains("not the requester") && fault.is_fatal(false), "{fault}");
        assert_eq!(check(&text.replace(".a.__e", ".r.__e"), "client", &record), Err(EnrollmentFault::Malformed));
        assert_eq!(
            check(&text.replace(r#""sa":"rsa2048""#, r#""sa":"rot13""#), "client", &record),
            Err(EnrollmentFault::Algorithm)
        );
        let stronger = format!(r#"[{{"alg":"rsa2048","publicKey":"{record}"}},{{"alg":"mldsa65","publicKey":"x"}}]"#);
        assert_eq!(check(&text, "client", &stronger), Err(EnrollmentFault::Algorithm));
        let mangled = text.replace(r#"{"sk":"#, r#"{"sq":"#);
        assert_eq!(check(&mangled, "client", &record), Err(EnrollmentFault::Malformed));

        let plain = Envelope::sign(&json!({"sessionId": "6f"}), &main).unwrap();
        let fault = check(&plain, "client", &record).unwrap_err();
        assert!(fault.is_fatal(true) && !fault.is_fatal(false));
    }
}
