//! RSA-2048 as the atProtocol uses it: PKCS#1 v1.5 for signatures and for
//! carrying symmetric keys.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    KeySize, Pkcs1PrivateDecryptingKey, Pkcs1PublicEncryptingKey, PrivateDecryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
    RsaKeyPair, UnparsedPublicKey,
};
use zeroize::Zeroizing;

use crate::{AesKey, CryptoError, decode_base64, encode_base64};

/// Longest key text accepted, in base64 characters; RSA-4096 PKCS#8 has about 3,200.
const MAX_KEY_TEXT: usize = 4096;

/// Digest under a signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignatureHash {
    /// The default.
    #[default]
    Sha256,
    /// Selectable.
    Sha512,
}

/// A private key; its text form is base64 of PKCS#8 DER. Contents are never shown.
pub struct RsaPrivateKey {
    pair: RsaKeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
}

/// A public key; its text form is base64 of the DER SubjectPublicKeyInfo, one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RsaPublicKey {
    spki: Vec<u8>,
}

impl RsaPrivateKey {
    /// A fresh RSA-2048 key. Takes 30 to 200 ms of CPU on a server, seconds on a
    /// gateway: call it beside other work.
    pub fn generate() -> Result<Self, CryptoError> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
        let der: Pkcs8V1Der<'_> = pair.as_der()?;
        let pkcs8 = Zeroizing::new(der.as_ref().to_vec());
        Ok(Self { pair, pkcs8 })
    }

    /// From base64 of PKCS#8 DER.
    pub fn from_base64(text: &str) -> Result<Self, CryptoError> {
        if text.len() > MAX_KEY_TEXT {
            return Err(CryptoError);
        }
        let pkcs8 = Zeroizing::new(decode_base64(text.trim())?);
        let pair = RsaKeyPair::from_pkcs8(&pkcs8).map_err(|_| CryptoError)?;
        Ok(Self { pair, pkcs8 })
    }

    /// Base64 of PKCS#8 DER.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(encode_base64(&self.pkcs8))
    }

    /// The other half.
    pub fn public_key(&self) -> Result<RsaPublicKey, CryptoError> {
        let der: PublicKeyX509Der<'_> = self.pair.public_key().as_der()?;
        Ok(RsaPublicKey { spki: der.as_ref().to_vec() })
    }

    /// Signs, base64. RSASSA-PKCS1-v1_5.
    pub fn sign(&self, hash: SignatureHash, message: &[u8]) -> Result<String, CryptoError> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let scheme = match hash {
            SignatureHash::Sha256 => &RSA_PKCS1_SHA256,
            SignatureHash::Sha512 => &RSA_PKCS1_SHA512,
        };
        self.pair.sign(scheme, &SystemRandom::new(), message, &mut signature)?;
        Ok(encode_base64(&signature))
    }

    /// Opens base64 of an RSAES-PKCS1-v1_5 ciphertext.
    ///
    /// Never tell a peer whether this or a later step failed.
    pub fn decrypt(&self, base64: &str) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        let ciphertext = decode_base64(base64)?;
        let key = PrivateDecryptingKey::from_pkcs8(&self.pkcs8).map_err(|_| CryptoError)?;
        let key = Pkcs1PrivateDecryptingKey::new(key)?;
        let mut plain = Zeroizing::new(vec![0; key.min_output_size()]);
        let len = key.decrypt(&ciphertext, &mut plain)?.len();
        plain.truncate(len);
        Ok(plain)
    }

    /// Opens an AES key: what was encrypted is its base64 text.
    pub fn decrypt_aes_key(&self, base64: &str) -> Result<AesKey, CryptoError> {
        let plain = self.decrypt(base64)?;
        AesKey::from_base64(std::str::from_utf8(&plain).map_err(|_| CryptoError)?)
    }
}

impl RsaPublicKey {
    /// From base64 of the DER SubjectPublicKeyInfo.
    pub fn from_base64(text: &str) -> Result<Self, CryptoError> {
        if text.len() > MAX_KEY_TEXT {
            return Err(CryptoError);
        }
        let spki = decode_base64(text.trim())?;
        PublicEncryptingKey::from_der(&spki).map_err(|_| CryptoError)?;
        Ok(Self { spki })
    }

    /// Base64 of the DER SubjectPublicKeyInfo.
    pub fn to_base64(&self) -> String {
        encode_base64(&self.spki)
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// Checks a base64 signature.
    pub fn verify(&self, hash: SignatureHash, message: &[u8], signature: &str) -> Result<(), CryptoError> {
        self.verify_bytes(hash, message, &decode_base64(signature)?)
    }

    /// Checks a signature.
    pub fn verify_bytes(&self, hash: SignatureHash, message: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let scheme = match hash {
            SignatureHash::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
            SignatureHash::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
        };
        Ok(UnparsedPublicKey::new(scheme, &self.spki).verify(message, signature)?)
    }

    /// Encrypts, base64. RSAES-PKCS1-v1_5; at most 245 bytes with RSA-2048.
    pub fn encrypt(&self, plain: &[u8]) -> Result<String, CryptoError> {
        let key = PublicEncryptingKey::from_der(&self.spki).map_err(|_| CryptoError)?;
        let key = Pkcs1PublicEncryptingKey::new(key)?;
        let mut out = vec![0; key.ciphertext_size()];
        let len = key.encrypt(plain, &mut out)?.len();
        Ok(encode_base64(out.get(..len).ok_or(CryptoError)?))
    }

    /// Encrypts an AES key: its base64 text, as every SDK does.
    pub fn encrypt_aes_key(&self, key: &AesKey) -> Result<String, CryptoError> {
        self.encrypt(key.to_base64().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_travel_and_signatures_hold() {
        let key = RsaPrivateKey::generate().unwrap();
        let again = RsaPrivateKey::from_base64(&key.to_base64()).unwrap();
        let public = RsaPublicKey::from_base64(&again.public_key().unwrap().to_base64()).unwrap();
        let aes = AesKey::generate();
        let opened = key.decrypt_aes_key(&public.encrypt_aes_key(&aes).unwrap()).unwrap();
        assert_eq!(*opened.to_base64(), *aes.to_base64());
        for hash in [SignatureHash::Sha256, SignatureHash::Sha512] {
            let signature = key.sign(hash, b"message").unwrap();
            assert!(public.verify(hash, b"message", &signature).is_ok());
            assert!(public.verify(hash, b"massage", &signature).is_err());
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "!!!!", "AAAA", &"A".repeat(8192)] {
            assert!(RsaPublicKey::from_base64(text).is_err());
            assert!(RsaPrivateKey::from_base64(text).is_err());
        }
    }
}
