//! Base64, base32 and hex.

use base32ct::{Base32Unpadded, Encoding as _};
use base64ct::{Base64, Encoding as _};
use zeroize::Zeroizing;

use crate::CryptoError;

/// Standard alphabet, padded.
pub fn encode_base64(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

/// Standard alphabet, padded; anything else is refused.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, CryptoError> {
    Base64::decode_vec(text).map_err(|_| CryptoError)
}

/// Lower-case letters and `2` to `7`, unpadded: survives being read aloud, and QR codes.
pub fn encode_base32(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(Base32Unpadded::encode_string(bytes))
}

/// What [`encode_base32`] writes; anything else is refused.
pub fn decode_base32(text: &str) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let bytes = Zeroizing::new(Base32Unpadded::decode_vec(text).map_err(|_| CryptoError)?);
    // Bits that belong to no byte: one text for one value.
    if *encode_base32(&bytes) == *text { Ok(bytes) } else { Err(CryptoError) }
}

/// Two lower-case digits a byte.
pub fn hex_lower(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
