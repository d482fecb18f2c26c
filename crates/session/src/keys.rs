//! Session keys: made by the device, carried to the client under its ephemeral key.

use postern_crypto::{AesKey, CryptoError, CtrStream, Iv, RsaPrivateKey, RsaPublicKey};

/// Key and initial counter block of one direction.
#[derive(Clone)]
pub struct DirectionKey {
    /// AES-256.
    pub key: AesKey,
    /// Where its counter starts.
    pub iv: Iv,
}

/// The keys of a stream, named by who writes with them.
#[derive(Clone)]
pub struct StreamKeys {
    /// Client to device.
    pub c2d: DirectionKey,
    /// Device to client.
    pub d2c: DirectionKey,
}

/// Session keys encrypted to the client, base64. Without a second pair both
/// directions use the first (the 2024 dialect).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedKeys {
    /// Client to device, or both: key and IV.
    pub first: (String, String),
    /// Device to client.
    pub second: Option<(String, String)>,
}

/// The client's key pair for one process; the private half never leaves memory.
pub struct EphemeralKey(RsaPrivateKey);

impl DirectionKey {
    /// Random.
    pub fn generate() -> Self {
        Self { key: AesKey::generate(), iv: Iv::generate() }
    }

    /// The key stream from its beginning.
    pub fn stream(&self) -> Result<CtrStream, CryptoError> {
        self.key.stream(self.iv)
    }
}

impl StreamKeys {
    /// A key for each direction.
    pub fn twin() -> Self {
        Self { c2d: DirectionKey::generate(), d2c: DirectionKey::generate() }
    }

    /// One key for both directions: what 2024 peers understand.
    pub fn single() -> Self {
        Self::of_single(DirectionKey::generate())
    }

    /// The 2024 form of a key received.
    pub fn of_single(key: DirectionKey) -> Self {
        Self { c2d: key.clone(), d2c: key }
    }

    /// A key for each direction.
    pub fn is_twin(&self) -> bool {
        self.c2d.iv != self.d2c.iv
    }

    /// Encrypts for the client: `twin` says whether it can hold two.
    pub fn seal(&self, to: &RsaPublicKey, twin: bool) -> Result<SealedKeys, CryptoError> {
        let seal = |key: &DirectionKey| -> Result<_, CryptoError> {
            Ok((to.encrypt_aes_key(&key.key)?, to.encrypt(key.iv.to_base64().as_bytes())?))
        };
        Ok(SealedKeys { first: seal(&self.c2d)?, second: if twin { Some(seal(&self.d2c)?) } else { None } })
    }
}

impl EphemeralKey {
    /// RSA-2048: 30 to 200 ms of CPU; make it beside other work.
    pub fn generate() -> Result<Self, CryptoError> {
        RsaPrivateKey::generate().map(Self)
    }

    /// What the request carries.
    pub fn public_base64(&self) -> Result<String, CryptoError> {
        Ok(self.0.public_key()?.to_base64())
    }

    /// Opens what the device sealed.
    pub fn open(&self, sealed: &SealedKeys) -> Result<StreamKeys, CryptoError> {
        let open = |(key, iv): &(String, String)| {
            let key = self.0.decrypt_aes_key(key)?;
            let iv = self.0.decrypt(iv)?;
            let iv = Iv::from_base64(std::str::from_utf8(&iv).map_err(|_| CryptoError)?)?;
            Ok::<_, CryptoError>(DirectionKey { key, iv })
        };
        let first = open(&sealed.first)?;
        match &sealed.second {
            Some(second) => Ok(StreamKeys { c2d: first, d2c: open(second)? }),
            None => Ok(StreamKeys::of_single(first)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_keys_open_at_the_client() {
        let ephemeral = EphemeralKey::generate().unwrap();
        let to = RsaPublicKey::from_base64(&ephemeral.public_base64().unwrap()).unwrap();
        let text = |k: &DirectionKey| (k.key.to_base64().to_string(), k.iv);
        let twin = StreamKeys::twin();
        let got = ephemeral.open(&twin.seal(&to, true).unwrap()).unwrap();
        assert_eq!((text(&got.c2d), text(&got.d2c)), (text(&twin.c2d), text(&twin.d2c)));
        let single = StreamKeys::single();
        let got = ephemeral.open(&single.seal(&to, false).unwrap()).unwrap();
        assert_eq!((text(&got.c2d), text(&got.d2c)), (text(&single.c2d), text(&single.c2d)));
    }
}
