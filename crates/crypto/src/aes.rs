//! AES-256 in counter mode, with and without the padding that the atProtocol adds.

use aws_lc_rs::cipher::{
    AES_256, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, StreamingEncryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use zeroize::Zeroizing;

use crate::{CryptoError, decode_base64, encode_base64, random};

const BLOCK: usize = 16;

/// An AES-256 key. Its text form is base64 of the 32 bytes.
#[derive(Clone)]
pub struct AesKey(Zeroizing<[u8; 32]>);

/// A 16-byte initial counter block, big-endian; not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iv([u8; BLOCK]);

impl Iv {
    /// Sixteen zero bytes: what key files and data without `ivNonce` use.
    pub const ZERO: Self = Self([0; BLOCK]);

    /// Random.
    pub fn generate() -> Self {
        Self(random())
    }

    /// From 16 bytes of base64.
    pub fn from_base64(text: &str) -> Result<Self, CryptoError> {
        let bytes = decode_base64(text)?;
        Ok(Self(bytes.try_into().map_err(|_| CryptoError)?))
    }

    /// Base64, 24 characters.
    pub fn to_base64(self) -> String {
        encode_base64(&self.0)
    }
}

impl AesKey {
    /// Random.
    pub fn generate() -> Self {
        Self::from_bytes(random())
    }

    /// From 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// From 32 bytes of base64.
    pub fn from_base64(text: &str) -> Result<Self, CryptoError> {
        let bytes = Zeroizing::new(decode_base64(text)?);
        let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| CryptoError)?;
        Ok(Self::from_bytes(*bytes))
    }

    /// Base64, 44 characters.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(encode_base64(self.0.as_slice()))
    }

    /// Encrypts with PKCS#7 padding in front of counter mode, as every SDK does.
    /// There is no tag: whoever carries the ciphertext can change it.
    pub fn encrypt_padded(&self, iv: Iv, plaintext: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let pad = BLOCK - plaintext.len() % BLOCK;
        let mut data = Vec::with_capacity(plaintext.len() + pad);
        data.extend_from_slice(plaintext);
        data.resize(plaintext.len() + pad, u8::try_from(pad).map_err(|_| CryptoError)?);
        let key = EncryptingKey::ctr(UnboundCipherKey::new(&AES_256, self.0.as_slice())?)?;
        key.less_safe_encrypt(&mut data, EncryptionContext::Iv128(FixedLength::from(&iv.0)))?;
        Ok(data)
    }

    /// Decrypts what [`Self::encrypt_padded`] made: whole blocks, so that a value cut short is seldom taken for whole.
    pub fn decrypt_padded(&self, iv: Iv, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptoError> {
        if !ciphertext.len().is_multiple_of(BLOCK) {
            return Err(CryptoError);
        }
        let mut data = Zeroizing::new(ciphertext.to_vec());
        let key = DecryptingKey::ctr(UnboundCipherKey::new(&AES_256, self.0.as_slice())?)?;
        key.decrypt(&mut data, DecryptionContext::Iv128(FixedLength::from(&iv.0)))?;
        let pad = usize::from(*data.last().ok_or(CryptoError)?);
        let body = data.len().checked_sub(pad).ok_or(CryptoError)?;
        let padding = data.get(body..).ok_or(CryptoError)?;
        if pad == 0 || pad > BLOCK || padding.iter().any(|b| usize::from(*b) != pad) {
            return Err(CryptoError);
        }
        data.truncate(body);
        Ok(data)
    }

    /// [`Self::encrypt_padded`] of text, in base64.
    pub fn encrypt_text(&self, iv: Iv, text: &str) -> Result<String, CryptoError> {
        Ok(encode_base64(&self.encrypt_padded(iv, text.as_bytes())?))
    }

    /// The text behind base64 that [`Self::encrypt_text`] made.
    pub fn decrypt_text(&self, iv: Iv, base64: &str) -> Result<Zeroizing<String>, CryptoError> {
        let plain = self.decrypt_padded(iv, &decode_base64(base64)?)?;
        let text = std::str::from_utf8(&plain).map_err(|_| CryptoError)?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    /// A key stream for one direction of a connection.
    pub fn stream(&self, iv: Iv) -> Result<CtrStream, CryptoError> {
        let key = UnboundCipherKey::new(&AES_256, self.0.as_slice())?;
        let context = EncryptionContext::Iv128(FixedLength::from(&iv.0));
        Ok(CtrStream { cipher: StreamingEncryptingKey::less_safe_ctr(key, context)? })
    }
}

/// AES-256-CTR running on from byte to byte, whatever the pieces it is fed.
/// Encryption and decryption are the same operation.
pub struct CtrStream {
    cipher: StreamingEncryptingKey,
}

impl CtrStream {
    /// Room that [`Self::apply`] wants behind the input's length.
    pub const SLACK: usize = BLOCK;

    /// Writes `input` combined with the key stream to the front of `output`, which
    /// is [`Self::SLACK`] bytes longer at least; gives the filled part.
    pub fn apply<'a>(&mut self, input: &[u8], output: &'a mut [u8]) -> Result<&'a mut [u8], CryptoError> {
        let written = self.cipher.update(input, output)?.written().len();
        if written != input.len() {
            return Err(CryptoError);
        }
        output.get_mut(..written).ok_or(CryptoError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_stream_block_is_the_standard_one() {
        let mut stream = AesKey::from_bytes([0; 32]).stream(Iv::ZERO).unwrap();
        let mut out = [0; 32];
        let got = stream.apply(&[0; 16], &mut out).unwrap();
        assert_eq!(crate::hex_lower(got), "dc95c078a2408989ad48a21492842087");
    }

    #[test]
    fn pieces_do_not_matter() {
        let key = AesKey::from_bytes([7; 32]);
        let data: Vec<u8> = (0..100_000u32).map(|i| i.to_le_bytes()[0]).collect();
        let mut whole = vec![0; data.len() + CtrStream::SLACK];
        let whole = key.stream(Iv::ZERO).unwrap().apply(&data, &mut whole).unwrap().to_vec();
        let mut stream = key.stream(Iv::ZERO).unwrap();
        let mut parts = Vec::new();
        for (i, part) in data.chunks(37).enumerate() {
            let mut out = vec![0; part.len() + CtrStream::SLACK + i % 3];
            parts.extend_from_slice(stream.apply(part, &mut out).unwrap());
        }
        assert_eq!(parts, whole);
    }

    #[test]
    fn padded_text_round_trips_and_bad_padding_is_an_error() {
        let key = AesKey::generate();
        for len in [0, 1, 15, 16, 17, 1000] {
            let text = "x".repeat(len);
            let iv = Iv::generate();
            let sealed = key.encrypt_text(iv, &text).unwrap();
            assert_eq!(decode_base64(&sealed).unwrap().len(), (len / 16 + 1) * 16);
            assert_eq!(*key.decrypt_text(iv, &sealed).unwrap(), text);
        }
        assert!(key.decrypt_padded(Iv::ZERO, &[0; 16]).is_err() || key.decrypt_padded(Iv::ZERO, &[0; 17]).is_err());
        assert!(key.decrypt_padded(Iv::ZERO, &[]).is_err());
    }
}
