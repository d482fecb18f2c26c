//! The signed envelope around requests and replies.

use std::fmt;

use postern_crypto::{
    CryptoError, Ed25519PrivateKey, Ed25519PublicKey, RsaPrivateKey, RsaPublicKey, SignatureHash, sha256,
};
use postern_proto::{AtSign, SigningKeyName, Uuid};
use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value as Json;
use serde_json::value::RawValue;

use crate::enrollment::{self, EnrollmentClaim, EnrollmentFault};
use crate::limits::ENVELOPE_BYTES;
use crate::statement::{Label, StatementError};
use crate::voucher::{VoucherClaim, VoucherError};

/// An envelope as received: read, not yet believed. [`Envelope::verify`] gives the payload.
pub struct Envelope {
    payload: Box<RawValue>,
    /// The payload printed anew, compact, in the sender's order.
    printed: String,
    signature: String,
    hash: SignatureHash,
    enrollment: Result<Option<EnrollmentClaim>, EnrollmentFault>,
    sealed: Option<SealedWire>,
}

/// Why an envelope is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Not the JSON it should be.
    Malformed,
    /// Signed by nobody we asked for.
    Signature,
    /// The signature holds but the payload lacks something.
    Payload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    payload: Box<RawValue>,
    signature: String,
    hashing_algo: String,
    signing_algo: String,
    #[serde(default)]
    enrollment_signature: Option<Json>,
    #[serde(default)]
    sealed_signature: Option<SealedWire>,
}

/// The signature of the requester's identity key, and who vouches for it.
#[derive(Deserialize)]
struct SealedWire {
    voucher: Box<RawValue>,
    s: String,
}

impl Envelope {
    /// Puts `payload` in a signed envelope: RSA-2048, SHA-256, over its compact JSON text.
    pub fn sign<P: Serialize>(payload: &P, key: &RsaPrivateKey) -> Result<String, CryptoError> {
        let text = serde_json::to_string(payload).map_err(|_| CryptoError)?;
        Self::print(&text, key, "")
    }

    /// The same with a second signature beside the first, by the enrolment's key, whose record is `name`. Programs that
    /// do not know it pass it over.
    pub fn sign_twice<P: Serialize>(
        payload: &P,
        key: &RsaPrivateKey,
        name: &SigningKeyName,
        enrolled: &RsaPrivateKey,
    ) -> Result<String, CryptoError> {
        let text = serde_json::to_string(payload).map_err(|_| CryptoError)?;
        let second = enrollment::print(&text, name, enrolled)?;
        Self::print(&text, key, &format!(r#","enrollmentSignature":{second}"#))
    }

    /// The same with the statement [`Label::Request`] of an identity key for which `voucher` vouches.
    pub fn sign_sealed<P: Serialize>(
        payload: &P,
        key: &RsaPrivateKey,
        enrolled: Option<(&SigningKeyName, &RsaPrivateKey)>,
        (identity, voucher): (&Ed25519PrivateKey, &str),
    ) -> Result<String, CryptoError> {
        let text = serde_json::to_string(payload).map_err(|_| CryptoError)?;
        let second = match enrolled {
            Some((name, key)) => format!(r#","enrollmentSignature":{}"#, enrollment::print(&text, name, key)?),
            None => String::new(),
        };
        let sealed = Label::Request.sign(&text, identity);
        let more = format!(r#"{second},"sealedSignature":{{"voucher":{voucher},"s":"{sealed}"}}"#);
        Self::print(&text, key, &more)
    }

    fn print(text: &str, key: &RsaPrivateKey, more: &str) -> Result<String, CryptoError> {
        let signature = key.sign(SignatureHash::Sha256, text.as_bytes())?;
        let algorithms = r#""hashingAlgo":"sha256","signingAlgo":"rsa2048""#;
        Ok(format!(r#"{{"payload":{text},"signature":"{signature}",{algorithms}{more}}}"#))
    }

    /// Reads an envelope. Duplicate names are refused: two readers could see two payloads.
    pub fn parse(text: &str) -> Result<Self, EnvelopeError> {
        let malformed = EnvelopeError::Malformed;
        // An array would be taken for the fields in their order.
        if text.len() > ENVELOPE_BYTES || !text.trim_start().starts_with('{') {
            return Err(malformed);
        }
        let wire: Wire = serde_json::from_str(text).map_err(|_| malformed)?;
        let hash = match wire.hashing_algo.as_str() {
            "sha256" => SignatureHash::Sha256,
            "sha512" => SignatureHash::Sha512,
            _ => return Err(malformed),
        };
        if wire.signing_algo != "rsa2048" {
            return Err(malformed);
        }
        let Strict(tree) = serde_json::from_str(wire.payload.get()).map_err(|_| malformed)?;
        let printed = tree.to_string();
        let claim = wire.enrollment_signature.filter(|json| !json.is_null()).map(|json| {
            let wire = serde_json::from_value(json).map_err(|_| EnrollmentFault::Malformed)?;
            EnrollmentClaim::read(wire)
        });
        let enrollment = claim.transpose();
        let sealed = wire.sealed_signature;
        Ok(Self { payload: wire.payload, printed, signature: wire.signature, hash, enrollment, sealed })
    }

    /// The second signature, if there is one, of a shape that can be checked and by a key of `requester`.
    pub fn enrollment_claim(&self, requester: &AtSign) -> Result<Option<&EnrollmentClaim>, EnrollmentFault> {
        let claim = self.enrollment.as_ref().map_err(Clone::clone)?.as_ref();
        claim.map(|claim| claim.is_of(requester)).transpose()?;
        Ok(claim)
    }

    /// Checks the second signature with what the record says that it names.
    pub fn verify_enrollment(&self, claim: &EnrollmentClaim, record: &str) -> Result<(), EnrollmentFault> {
        claim.verify([self.payload.get(), &self.printed], record)
    }

    /// The voucher of the identity key that signed it as well.
    pub fn sealed_voucher(&self) -> Result<VoucherClaim, VoucherError> {
        VoucherClaim::parse(self.sealed.as_ref().ok_or(VoucherError::Missing)?.voucher.get())
    }

    /// Checks the signature of the identity key and hands out the payload, as it came.
    pub fn verify_sealed<P: DeserializeOwned>(&self, key: &Ed25519PublicKey) -> Result<P, StatementError> {
        let sealed = self.sealed.as_ref().ok_or(StatementError::Signature)?;
        Label::Request.verify(self.payload.get(), key, &sealed.s)?;
        serde_json::from_str(self.payload.get()).map_err(|_| StatementError::Payload)
    }

    /// SHA-256 of the payload's text, as it came.
    pub fn payload_hash(&self) -> [u8; 32] {
        sha256(self.payload.get().as_bytes())
    }

    /// The payload, not yet believed: good for finding the keys to believe it with.
    pub fn claimed<P: DeserializeOwned>(&self) -> Result<P, EnvelopeError> {
        serde_json::from_str(&self.printed).map_err(|_| EnvelopeError::Payload)
    }

    /// The session that an envelope speaks of, believed or not: where to send a complaint.
    pub fn claimed_session(&self) -> Option<Uuid> {
        let tree: Json = serde_json::from_str(&self.printed).ok()?;
        Uuid::parse(tree.get("sessionId")?.as_str()?)
    }

    /// Checks the signature and hands out the payload. The text as it came is
    /// tried first, then the text printed anew, which is what the reference signs.
    pub fn verify<P: DeserializeOwned>(&self, key: &RsaPublicKey) -> Result<P, EnvelopeError> {
        let holds = |text: &str| key.verify(self.hash, text.as_bytes(), &self.signature).is_ok();
        if !holds(self.payload.get()) && !holds(&self.printed) {
            return Err(EnvelopeError::Signature);
        }
        if !self.printed.starts_with('{') {
            return Err(EnvelopeError::Payload);
        }
        serde_json::from_str(&self.printed).map_err(|_| EnvelopeError::Payload)
    }
}

/// A JSON value in which no object has a name twice, at any depth.
struct Strict(Json);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tree;
        impl<'de> Visitor<'de> for Tree {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON without duplicate names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
                let mut map = serde_json::Map::new();
                while let Some((name, Strict(value))) = access.next_entry::<String, Strict>()? {
                    if map.insert(name, value).is_some() {
                        return Err(A::Error::custom("duplicate name"));
                    }
                }
                Ok(Json::Object(map))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
                let mut list = Vec::new();
                while let Some(Strict(value)) = access.next_element()? {
                    list.push(value);
                }
                Ok(Json::Array(list))
            }

            fn visit_bool<E>(self, v: bool) -> Result<Json, E> {
                Ok(v.into())
            }

            fn visit_i64<E>(self, v: i64) -> Result<Json, E> {
                Ok(v.into())
            }

            fn visit_u64<E>(self, v: u64) -> Result<Json, E> {
                Ok(v.into())
            }

            fn visit_f64<E>(self, v: f64) -> Result<Json, E> {
                Ok(v.into())
            }

            fn visit_str<E>(self, v: &str) -> Result<Json, E> {
                Ok(v.into())
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }
        }
        deserializer.deserialize_any(Tree).map(Strict)
    }
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed envelope",
            Self::Signature => "signature does not verify",
            Self::Payload => "payload lacks a required field",
        })
    }
}

impl std::error::Error for EnvelopeError {}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn signed_text_is_compact_and_in_the_senders_order() {
        let key = RsaPrivateKey::generate().unwrap();
        let public = key.public_key().unwrap();
        let payload = json!({"z": 1, "a": "grüß/\u{7}\"", "n": null});
        let text = Envelope::sign(&payload, &key).unwrap();
        assert!(text.starts_with(r#"{"payload":{"z":1,"a":"grüß/\u0007\"","n":null},"signature":""#), "{text}");
        let got: Json = Envelope::parse(&text).unwrap().verify(&public).unwrap();
        assert_eq!(got, payload);
        // Another writer's spacing: the signature is over the compact form.
        let spaced = text.replace(r#"{"z":1,"#, r#"{ "z" : 1 , "#);
        assert!(Envelope::parse(&spaced).unwrap().verify::<Json>(&public).is_ok());
        // Changed content is refused.
        let changed = text.replace(r#""z":1"#, r#""z":2"#);
        assert_eq!(Envelope::parse(&changed).unwrap().verify::<Json>(&public), Err(EnvelopeError::Signature));
        let other = RsaPrivateKey::generate().unwrap().public_key().unwrap();
        assert_eq!(Envelope::parse(&text).unwrap().verify::<Json>(&other), Err(EnvelopeError::Signature));
    }

    #[test]
    fn malformed_ones_are_refused() {
        for text in [
            "",
            "connected",
            "{}",
            r#"{"payload":{},"signature":1,"hashingAlgo":"sha256","signingAlgo":"rsa2048"}"#,
            r#"{"payload":{},"signature":"","hashingAlgo":"md5","signingAlgo":"rsa2048"}"#,
            r#"{"payload":{"a":1,"a":2},"signature":"","hashingAlgo":"sha256","signingAlgo":"rsa2048"}"#,
            r#"{"payload":{"a":{"b":1,"b":2}},"signature":"","hashingAlgo":"sha256","signingAlgo":"rsa2048"}"#,
        ] {
            assert_eq!(Envelope::parse(text).err(), Some(EnvelopeError::Malformed), "{text}");
        }
    }
}
