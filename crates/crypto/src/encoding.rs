//! Base64 and hex.

use base64ct::{Base64, Encoding as _};

use crate::CryptoError;

/// Standard alphabet, padded.
pub fn encode_base64(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

/// Standard alphabet, padded; anything else is refused.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, CryptoError> {
    Base64::decode_vec(text).map_err(|_| CryptoError)
}

/// Two lower-case digits a byte.
pub fn hex_lower(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
