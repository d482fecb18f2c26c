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

/// Two digits a byte, small or capital; anything else is refused.
pub fn decode_hex(text: &str) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err(CryptoError);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or(CryptoError);
    let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for [high, low] in pairs {
        bytes.push(digit(*high)? << 4 | digit(*low)?);
    }
    Ok(bytes)
}
