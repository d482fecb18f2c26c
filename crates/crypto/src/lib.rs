//! Keys by purpose and side, signatures, RSA, AES-CTR and key files; the only crate that names a cipher library.
//!
//! Bytes in, bytes out: it knows no verbs, no sockets, no clock. Everything here
//! that the 2024 programs need speaks the terms of the atProtocol: RSA-2048
//! with PKCS#1 v1.5 and AES-256 in counter mode without a tag.

mod aead;
mod aes;
mod ed25519;
mod encoding;
mod keyfile;
mod rsa;
mod ssh;

pub use aead::{AeadAlgorithm, AeadKey};
pub use aes::{AesKey, CtrStream, Iv};
pub use ed25519::{ED25519_SIGNATURE_BYTES, Ed25519PrivateKey, Ed25519PublicKey};
pub use encoding::{decode_base32, decode_base64, decode_hex, encode_base32, encode_base64, hex_lower};
pub use keyfile::{AtKeys, KeyFileError};
pub use rsa::{RsaPrivateKey, RsaPublicKey, SignatureHash};
pub use ssh::{SshAlgorithm, SshKeyPair};

use std::fmt;

/// A cryptographic operation failed. Why is not told: the difference between
/// "wrong padding" and "wrong key" is what attackers ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CryptoError;

impl fmt::Display for CryptoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cryptographic operation failed")
    }
}

impl std::error::Error for CryptoError {}

impl From<aws_lc_rs::error::Unspecified> for CryptoError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self
    }
}

/// Random bytes from the operating system's generator.
///
/// # Panics
/// When the system has no randomness: nothing we do would be safe then.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system provides randomness");
    bytes
}

/// SHA-512 of `parts` in sequence, as lower-case hex: the CRAM digest.
pub fn sha512_hex(parts: &[&[u8]]) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA512);
    for part in parts {
        context.update(part);
    }
    hex_lower(context.finish().as_ref())
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// HMAC-SHA256 under `key` of `parts`, each with its length (8 bytes, big-endian) in front, so that no two sequences of
/// parts are the same bytes.
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    use aws_lc_rs::hmac;
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// Compares without telling by its duration where the difference is.
pub fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}
