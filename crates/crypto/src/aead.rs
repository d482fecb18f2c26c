//! Authenticated encryption in place, for record layers. Nonces are the caller's business.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::CryptoError;

/// Which cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AeadAlgorithm {
    /// AES-256-GCM: fast where the processor has AES instructions.
    Aes256Gcm,
    /// ChaCha20-Poly1305: fast everywhere.
    ChaCha20Poly1305,
}

/// A key for one direction. Its owner uses each nonce once.
pub struct AeadKey(LessSafeKey);

impl AeadKey {
    /// Bytes of a key.
    pub const KEY_BYTES: usize = 32;
    /// Bytes of a nonce.
    pub const NONCE_BYTES: usize = 12;
    /// Bytes of a tag.
    pub const TAG_BYTES: usize = 16;

    /// # Errors
    /// `key` does not have [`Self::KEY_BYTES`].
    pub fn new(algorithm: AeadAlgorithm, key: &[u8]) -> Result<Self, CryptoError> {
        let algorithm = match algorithm {
            AeadAlgorithm::Aes256Gcm => &AES_256_GCM,
            AeadAlgorithm::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        Ok(Self(LessSafeKey::new(UnboundKey::new(algorithm, key)?)))
    }

    /// Encrypts `bytes` in place and returns the tag over them and `associated`.
    ///
    /// # Errors
    /// More bytes than the cipher takes at once (far above any record).
    pub fn seal(
        &self,
        nonce: [u8; Self::NONCE_BYTES],
        associated: &[u8],
        bytes: &mut [u8],
    ) -> Result<[u8; Self::TAG_BYTES], CryptoError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(associated), bytes)?;
        tag.as_ref().try_into().map_err(|_| CryptoError)
    }

    /// Decrypts `bytes`, the last of which are the tag, in place, and returns what was encrypted.
    ///
    /// # Errors
    /// Somebody changed them, or they were made with another key, nonce or `associated`.
    pub fn open<'b>(
        &self,
        nonce: [u8; Self::NONCE_BYTES],
        associated: &[u8],
        bytes: &'b mut [u8],
    ) -> Result<&'b mut [u8], CryptoError> {
        Ok(self.0.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(associated), bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        for algorithm in [AeadAlgorithm::Aes256Gcm, AeadAlgorithm::ChaCha20Poly1305] {
            let key = AeadKey::new(algorithm, &[7; 32]).unwrap();
            let mut bytes = b"hello".to_vec();
            let tag = key.seal([1; 12], b"head", &mut bytes).unwrap();
            assert_ne!(bytes, b"hello");
            bytes.extend(tag);
            assert_eq!(key.open([1; 12], b"head", &mut bytes.clone()).unwrap(), b"hello");
            assert!(key.open([2; 12], b"head", &mut bytes.clone()).is_err());
            assert!(key.open([1; 12], b"haed", &mut bytes.clone()).is_err());
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert!(key.open([1; 12], b"head", &mut changed).is_err());
            }
        }
        assert!(AeadKey::new(AeadAlgorithm::Aes256Gcm, &[7; 31]).is_err());
    }

    /// RFC 8439, section 2.8.2.
    #[test]
    fn chacha20_poly1305_is_the_one_of_the_rfc() {
        let key: Vec<u8> = (0x80..0xa0).collect();
        let key = AeadKey::new(AeadAlgorithm::ChaCha20Poly1305, &key).unwrap();
        let mut text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
            sunscreen would be it."
            .to_vec();
        let nonce = [7, 0, 0, 0, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47];
        let associated = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let tag = key.seal(nonce, &associated, &mut text).unwrap();
        assert_eq!(crate::hex_lower(&tag), "1ae10b594f09e26a7e902ecbd0600691");
    }
}
