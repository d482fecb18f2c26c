//! Ed25519: the keys by which one client or one device speaks for itself.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

use crate::{CryptoError, RsaPrivateKey, decode_base64, encode_base64, random};

/// A private key; its text form is base64 of the 32-byte seed. Contents are never shown.
pub struct Ed25519PrivateKey {
    pair: Ed25519KeyPair,
    seed: Zeroizing<[u8; 32]>,
}

/// A public key; its text form is base64 of the 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ed25519PublicKey([u8; 32]);

/// Length of a signature in bytes.
pub const ED25519_SIGNATURE_BYTES: usize = 64;

/// What stands before the 32 bytes in a DER SubjectPublicKeyInfo. Source: RFC 8410.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

impl Ed25519PrivateKey {
    /// A fresh one: microseconds.
    pub fn generate() -> Result<Self, CryptoError> {
        Self::from_seed(Zeroizing::new(random()))
    }

    /// From base64 of the seed.
    pub fn from_base64(text: &str) -> Result<Self, CryptoError> {
        let bytes = Zeroizing::new(decode_base64(text.trim())?);
        let seed: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| CryptoError)?;
        Self::from_seed(Zeroizing::new(*seed))
    }

    /// One that only who has `from` can make, the same each time; another one for each `purpose`. For machines that cannot
    /// keep a key of its own. HMAC-SHA256 over the purpose, keyed with the private key's text.
    pub fn derive(from: &RsaPrivateKey, purpose: &str) -> Result<Self, CryptoError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, from.to_base64().as_bytes());
        let mut seed = Zeroizing::new([0; 32]);
        seed.copy_from_slice(hmac::sign(&key, purpose.as_bytes()).as_ref());
        Self::from_seed(seed)
    }

    fn from_seed(seed: Zeroizing<[u8; 32]>) -> Result<Self, CryptoError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).map_err(|_| CryptoError)?;
        Ok(Self { pair, seed })
    }

    /// Base64 of the seed.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(encode_base64(self.seed.as_ref()))
    }

    /// The other half.
    pub fn public_key(&self) -> Ed25519PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.pair.public_key().as_ref());
        Ed25519PublicKey(bytes)
    }

    /// Signs.
    pub fn sign(&self, message: &[u8]) -> [u8; ED25519_SIGNATURE_BYTES] {
        let mut signature = [0; ED25519_SIGNATURE_BYTES];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }
}

impl Ed25519PublicKey {
    /// From base64 of the 32 bytes.
    pub fn from_base64(text: &str) -> Result<Self, CryptoError> {
        decode_base64(text)?.try_into().map(Self).map_err(|_| CryptoError)
    }

    /// Base64 of the 32 bytes.
    pub fn to_base64(&self) -> String {
        encode_base64(&self.0)
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> Vec<u8> {
        [SPKI_PREFIX.as_slice(), &self.0].concat()
    }

    /// Checks a signature.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        Ok(UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature)?)
    }
}

impl fmt::Debug for Ed25519PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ed25519PublicKey({})", self.to_base64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_travels_and_its_signature_holds_for_its_message() {
        let key = Ed25519PrivateKey::generate().unwrap();
        let again = Ed25519PrivateKey::from_base64(&key.to_base64()).unwrap();
        let public = Ed25519PublicKey::from_base64(&again.public_key().to_base64()).unwrap();
        let signature = key.sign(b"hello");
        assert_eq!(public.verify(b"hello", &signature), Ok(()));
        assert_eq!(public.verify(b"hellp", &signature), Err(CryptoError));
        assert_eq!(public.verify(b"hello", &signature[..63]), Err(CryptoError));
        assert!(Ed25519PublicKey::from_base64("AAAA").is_err() && Ed25519PrivateKey::from_base64("AAAA").is_err());
    }

    #[test]
    fn a_derived_key_follows_from_its_source_and_purpose() {
        let (one, two) = (RsaPrivateKey::generate().unwrap(), RsaPrivateKey::generate().unwrap());
        let derive = |from, purpose| Ed25519PrivateKey::derive(from, purpose).unwrap().public_key();
        assert_eq!(derive(&one, "a"), derive(&one, "a"));
        assert!(derive(&one, "a") != derive(&one, "b") && derive(&one, "a") != derive(&two, "a"));
    }

    /// RFC 8032, 7.1, test 1.
    #[test]
    fn the_vector_of_the_rfc() {
        let key = Ed25519PrivateKey::from_base64("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=").unwrap();
        assert_eq!(key.public_key().to_base64(), "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        let signature = "5VZDAMNgrHKQhuLMgG6CioSHfx645dl02HPgZSJJAVVfuIIVkKM7rMYeOXAc+bRr0lv18FlbviRlUUFDjnoQCw==";
        assert_eq!(encode_base64(&key.sign(b"")), signature);
    }
}
