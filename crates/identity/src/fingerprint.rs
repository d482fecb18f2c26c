//! The short form of a public key that people compare.

use std::fmt;

use postern_crypto::{Ed25519PublicKey, RsaPublicKey, decode_base64, encode_base64, sha256};

/// SHA-256 of a public key's DER SubjectPublicKeyInfo. Printed as `SHA256:` and unpadded base64, 50 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

/// A text that is no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFingerprint(String);

const PREFIX: &str = "SHA256:";

impl Fingerprint {
    /// Reads what [`fmt::Display`] prints.
    ///
    /// # Errors
    /// Anything else, padded base64 included.
    pub fn parse(text: &str) -> Result<Self, BadFingerprint> {
        let bad = || BadFingerprint(text.chars().take(80).collect());
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == 43).ok_or_else(bad)?;
        let bytes = decode_base64(&format!("{digits}=")).map_err(|_| bad())?;
        bytes.try_into().map(Self).map_err(|_| bad())
    }
}

impl Fingerprint {
    /// From the 32 bytes of the hash.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the hash.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Of a DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn of_spki(spki: &[u8]) -> Self {
        Self(sha256(spki))
    }

    /// The first 16 bytes, for lines that are to be short: nobody finds another key with the same in fewer than 2^128
    /// tries, and nobody but its owner gains by two keys with the same.
    #[must_use]
    pub fn half(&self) -> [u8; 16] {
        let mut half = [0; 16];
        half.copy_from_slice(&self.0[..16]);
        half
    }
}

impl From<&RsaPublicKey> for Fingerprint {
    fn from(key: &RsaPublicKey) -> Self {
        Self(sha256(key.spki()))
    }
}

impl From<&Ed25519PublicKey> for Fingerprint {
    fn from(key: &Ed25519PublicKey) -> Self {
        Self(sha256(&key.spki()))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", encode_base64(&self.0).trim_end_matches('='))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for BadFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no fingerprint (SHA256: and 43 characters)", self.0)
    }
}

impl std::error::Error for BadFingerprint {}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_crypto::Ed25519PrivateKey;

    #[test]
    fn printed_and_read() {
        let key = Ed25519PrivateKey::generate().unwrap().public_key();
        let fingerprint = Fingerprint::from(&key);
        let text = fingerprint.to_string();
        assert_eq!(text.len(), 50);
        assert_eq!(Fingerprint::parse(&text), Ok(fingerprint));
        for bad in ["", "SHA256:", &text[7..], &format!("{text}="), &text.replace("SHA256", "MD5"), &text[..49]] {
            assert!(Fingerprint::parse(bad).is_err(), "{bad}");
        }
    }
}
