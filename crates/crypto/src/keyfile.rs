//! `.atKeys`: the keys of an atSign at rest.
//!
//! One JSON object of strings. Four members are AES-256-CTR ciphertext with a zero
//! IV under the self encryption key, which stands in clear beside them: the file
//! is as secret as its permissions. Source: the atProtocol's key file format.

use std::fmt;

use serde_json::{Map, Value as Json};
use zeroize::Zeroizing;

use crate::{AesKey, CryptoError, Iv, RsaPrivateKey, RsaPublicKey, SignatureHash};

/// Largest key file read, in bytes. Real ones have about 8 KiB.
const MAX_FILE_BYTES: usize = 64 * 1024;

/// Everything one enrolment of an atSign holds.
pub struct AtKeys {
    /// Proves who we are to our own atServer.
    pub pkam: RsaPrivateKey,
    /// Opens what others encrypt to the atSign and signs session envelopes.
    pub encryption: RsaPrivateKey,
    /// Public half of [`Self::encryption`], published as `public:publickey`.
    pub encryption_public: RsaPublicKey,
    /// Encrypts the atSign's own records.
    pub self_encryption: AesKey,
    /// Opens what the approver of the enrolment sent.
    pub apkam_symmetric: Option<AesKey>,
    /// Which enrolment `pkam` belongs to; absent in files of the legacy form.
    pub enrollment_id: Option<String>,
}

/// Why a text is no usable key file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyFileError {
    /// Not a JSON object of strings, or larger than 64 KiB.
    Malformed,
    /// This member is missing.
    Missing(&'static str),
    /// This member does not open or is not the key it should be.
    BadKey(&'static str),
}

impl AtKeys {
    /// Makes all keys of a new atSign. Two RSA-2048 keys: 60 to 400 ms of CPU.
    pub fn generate() -> Result<Self, CryptoError> {
        let encryption = RsaPrivateKey::generate()?;
        Ok(Self {
            pkam: RsaPrivateKey::generate()?,
            encryption_public: encryption.public_key()?,
            encryption,
            self_encryption: AesKey::generate(),
            apkam_symmetric: Some(AesKey::generate()),
            enrollment_id: None,
        })
    }

    /// Reads the text of a key file. Unknown members are ignored.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        if text.len() > MAX_FILE_BYTES {
            return Err(KeyFileError::Malformed);
        }
        let json: Map<String, Json> = serde_json::from_str(text).map_err(|_| KeyFileError::Malformed)?;
        let member = |name: &'static str| {
            json.get(name).and_then(Json::as_str).filter(|t| !t.is_empty()).ok_or(KeyFileError::Missing(name))
        };
        let aes = |name: &'static str| {
            member(name).and_then(|text| AesKey::from_base64(text).map_err(|_| KeyFileError::BadKey(name)))
        };
        let self_encryption = aes("selfEncryptionKey")?;
        let opened = |name: &'static str| {
            member(name)
                .and_then(|text| self_encryption.decrypt_text(Iv::ZERO, text).map_err(|_| KeyFileError::BadKey(name)))
        };
        let private = |name: &'static str| {
            opened(name).and_then(|text| RsaPrivateKey::from_base64(&text).map_err(|_| KeyFileError::BadKey(name)))
        };
        let encryption_public = opened("aesEncryptPublicKey").and_then(|text| {
            RsaPublicKey::from_base64(&text).map_err(|_| KeyFileError::BadKey("aesEncryptPublicKey"))
        })?;
        let encryption = private("aesEncryptPrivateKey")?;
        belong_together(&encryption, &encryption_public).map_err(|_| KeyFileError::BadKey("aesEncryptPublicKey"))?;
        Ok(Self {
            pkam: private("aesPkamPrivateKey")?,
            encryption,
            encryption_public,
            apkam_symmetric: match member("apkamSymmetricKey") {
                Ok(_) => Some(aes("apkamSymmetricKey")?),
                Err(_) => None,
            },
            enrollment_id: member("enrollmentId").ok().map(str::to_owned),
            self_encryption,
        })
    }

    /// The text of the file for `at_sign` (with `@`), all members.
    pub fn print(&self, at_sign: &str) -> Result<Zeroizing<String>, CryptoError> {
        let seal = |text: &str| self.self_encryption.encrypt_text(Iv::ZERO, text).map(Json::String);
        let plain = |key: &AesKey| Json::String(key.to_base64().to_string());
        let mut json = Map::new();
        let mut put = |name: &str, value: Json| json.insert(name.to_owned(), value);
        put("aesPkamPublicKey", seal(&self.pkam.public_key()?.to_base64())?);
        put("aesPkamPrivateKey", seal(&self.pkam.to_base64())?);
        put("aesEncryptPublicKey", seal(&self.encryption_public.to_base64())?);
        put("aesEncryptPrivateKey", seal(&self.encryption.to_base64())?);
        put("selfEncryptionKey", plain(&self.self_encryption));
        put(at_sign, plain(&self.self_encryption));
        if let Some(key) = &self.apkam_symmetric {
            put("apkamSymmetricKey", plain(key));
        }
        if let Some(id) = &self.enrollment_id {
            put("enrollmentId", id.clone().into());
        }
        Ok(Zeroizing::new(Json::Object(json).to_string()))
    }
}

/// The halves of one pair: what the one signs the other verifies. Two files mixed up would otherwise show much
/// later, as values that nobody can open. About a millisecond.
fn belong_together(private: &RsaPrivateKey, public: &RsaPublicKey) -> Result<(), CryptoError> {
    let (hash, text) = (SignatureHash::Sha256, b"the halves of one pair");
    public.verify(hash, text, &private.sign(hash, text)?)
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("not an .atKeys file (a JSON object of at most 64 KiB)"),
            Self::Missing(name) => write!(f, "the member {name} is missing"),
            Self::BadKey(name) => write!(f, "the member {name} does not hold the key it should"),
        }
    }
}

impl std::error::Error for KeyFileError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let mut keys = AtKeys::generate().unwrap();
        keys.enrollment_id = Some("6f9619ff-8b86-4d01-b42d-00cf4fc964ff".into());
        let text = keys.print("@alice").unwrap();
        let read = AtKeys::parse(&text).unwrap();
        assert_eq!(*read.print("@alice").unwrap(), *text);
        assert_eq!(read.encryption_public, keys.encryption.public_key().unwrap());
    }

    #[test]
    fn damage_is_named() {
        let keys = AtKeys::generate().unwrap();
        let text = keys.print("@alice").unwrap();
        let without = text.replace("aesPkamPrivateKey", "x");
        assert_eq!(AtKeys::parse(&without).err(), Some(KeyFileError::Missing("aesPkamPrivateKey")));
        assert_eq!(AtKeys::parse("[]").err(), Some(KeyFileError::Malformed));
        assert_eq!(
            AtKeys::parse(r#"{"selfEncryptionKey":"AAAA"}"#).err(),
            Some(KeyFileError::BadKey("selfEncryptionKey"))
        );
    }
}
