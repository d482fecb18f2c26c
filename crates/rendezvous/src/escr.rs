//! "Encrypted signed challenge and response": the relay asks each socket something new, and the socket signs it.
//!
//! Relay → peer: a [`Challenge`] and a newline. Peer → relay: `<session>:<X>` and a newline, see [`EscrProver::answer`].
//! Relay → peer: `ok` and a newline, then data; or [`REFUSED`]. Source: the relay's ESCR mode of NoPorts 5.11.2 and later.

use std::fmt;
use std::sync::Arc;

use base64ct::{Base64, Encoding};
use postern_crypto::{AesKey, CryptoError, Iv, SignatureHash};
use postern_proto::{AtSign, SigningKeyName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::auth::{AuthFailure, HashAlgo};
use crate::limits::AUTH_LINE_BYTES;
use crate::meeting::Side;
use postern_identity::AdvertisedKeys;

/// What a relay says to a socket that has proved itself, without the newline.
pub const ACCEPTED: &str = "ok";

/// What a relay says before it closes a socket that has not, without the newline.
pub const REFUSED: &str = "Socket auth failed";

/// Base64 of 32 random bytes: 44 characters and nothing else. So nobody can have something else signed as a challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge(String);

impl Challenge {
    /// Characters of a challenge.
    pub const CHARS: usize = 44;

    /// A new one of `random` bytes. One challenge is good for one socket.
    #[must_use]
    pub fn new(random: [u8; 32]) -> Self {
        Self(Base64::encode_string(&random))
    }

    /// Reads one, with or without its newline.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let bytes = Base64::decode_vec(line).ok()?;
        (bytes.len() == 32).then(|| Self(line.to_owned()))
    }

    /// The line to send.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{}\n", self.0)
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The signed part. This order of fields is what every known program writes.
#[derive(Serialize, Deserialize)]
struct Proof<'a> {
    sid: &'a str,
    c: &'a str,
    side: &'a str,
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    p: &'a RawValue,
    s: &'a str,
    ha: &'a str,
    sa: &'a str,
    sk: &'a str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    /// Which connection of the session this socket belongs to; see [`AuthLine`](crate::AuthLine).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct Sealed<'a> {
    iv: &'a str,
    e: &'a str,
}

type Sign = dyn Fn(&[u8]) -> Result<String, CryptoError> + Send + Sync;

/// The private key of an enrolment, lent for nothing but answers to challenges: whoever holds this cannot have it sign
/// anything else, such as the challenge of a login.
#[derive(Clone)]
pub struct ChallengeSigner {
    name: SigningKeyName,
    sign: Arc<Sign>,
}

impl ChallengeSigner {
    /// `sign` gives base64 of an RSA-2048 / SHA-256 signature by the key that `name` publishes.
    pub fn new(
        name: SigningKeyName,
        sign: impl Fn(&[u8]) -> Result<String, CryptoError> + Send + Sync + 'static,
    ) -> Self {
        Self { name, sign: Arc::new(sign) }
    }

    /// The record that shows the public half.
    #[must_use]
    pub fn name(&self) -> &SigningKeyName {
        &self.name
    }
}

impl fmt::Debug for ChallengeSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChallengeSigner({})", self.name)
    }
}

/// What one end of a session holds to prove its sockets with.
#[derive(Clone)]
pub struct EscrProver {
    session_id: String,
    side: Side,
    key: AesKey,
    signer: ChallengeSigner,
}

impl EscrProver {
    /// `key`: the secret of this session between client, device and relay.
    #[must_use]
    pub fn new(session_id: &str, side: Side, key: AesKey, signer: ChallengeSigner) -> Self {
        Self { session_id: session_id.to_owned(), side, key, signer }
    }

    /// The line that answers `challenge` for the `number`th connection of the session, with its newline.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn answer(&self, challenge: &Challenge, number: Option<u32>, iv: Iv) -> Result<String, CryptoError> {
        let proof = Proof { sid: &self.session_id, c: challenge.as_str(), side: self.side.letter() };
        let proof = serde_json::value::to_raw_value(&proof).map_err(|_| CryptoError)?;
        let signature = (self.signer.sign)(proof.get().as_bytes())?;
        let name = self.signer.name.to_string();
        let envelope =
            Envelope { p: &proof, s: &signature, ha: "sha256", sa: "rsa2048", sk: &name, kid: None, n: number };
        let envelope = serde_json::to_vec(&envelope).map_err(|_| CryptoError)?;
        let sealed = self.key.encrypt_text(iv, &Base64::encode_string(&envelope))?;
        let sealed = serde_json::to_vec(&Sealed { iv: &iv.to_base64(), e: &sealed }).map_err(|_| CryptoError)?;
        Ok(format!("{}:{}\n", self.session_id, Base64::encode_string(&sealed)))
    }
}

impl fmt::Debug for EscrProver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EscrProver").field("side", &self.side).field("signer", &self.signer).finish_non_exhaustive()
    }
}

/// An answer as it came, on the relay's side: it names a session, the rest is still sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EscrLine<'a> {
    session_id: &'a str,
    sealed: &'a str,
}

/// Whose key proves what in a session, on the relay's side.
#[derive(Debug, Clone)]
pub struct EscrParties {
    /// The session.
    pub session_id: String,
    /// Whose keys prove sockets of side A.
    pub client: AtSign,
    /// Whose keys prove sockets of side B.
    pub device: AtSign,
}

/// An answer in which everything is right but the signature, which nobody has looked at.
#[derive(Debug, Clone)]
pub struct Claim {
    side: Side,
    number: Option<u32>,
    name: SigningKeyName,
    text: String,
    signature: Vec<u8>,
    hash: HashAlgo,
}

/// A socket that has proved itself: only [`Claim::verify`] makes one.
#[derive(Debug, Clone)]
pub struct Proven {
    side: Side,
    number: Option<u32>,
    name: SigningKeyName,
}

impl<'a> EscrLine<'a> {
    /// Takes a line apart, with or without its newline.
    ///
    /// # Errors
    /// It is longer than [`AUTH_LINE_BYTES`], not printable ASCII, or not of two parts.
    pub fn parse(line: &'a [u8]) -> Result<Self, AuthFailure> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.len() > AUTH_LINE_BYTES {
            return Err(AuthFailure::TooLong);
        }
        if !line.iter().all(u8::is_ascii_graphic) {
            return Err(AuthFailure::Malformed);
        }
        let text = std::str::from_utf8(line).map_err(|_| AuthFailure::Malformed)?;
        let (session_id, sealed) = text.split_once(':').ok_or(AuthFailure::Malformed)?;
        if session_id.is_empty() || sealed.is_empty() || sealed.contains(':') {
            return Err(AuthFailure::Malformed);
        }
        Ok(Self { session_id, sealed })
    }

    /// The session it speaks of.
    #[must_use]
    pub fn session_id(&self) -> &'a str {
        self.session_id
    }

    /// Opens it with the session's key and compares everything that can be compared. `side`: the port that the socket
    /// came to; none on a port for all.
    ///
    /// # Errors
    /// See [`AuthFailure`].
    pub fn open(
        &self,
        key: &AesKey,
        challenge: &Challenge,
        parties: &EscrParties,
        side: Option<Side>,
    ) -> Result<Claim, AuthFailure> {
        if self.session_id != parties.session_id {
            return Err(AuthFailure::OtherSession);
        }
        let sealed = Base64::decode_vec(self.sealed).map_err(|_| AuthFailure::Malformed)?;
        let sealed: Sealed<'_> = serde_json::from_slice(&sealed).map_err(|_| AuthFailure::Malformed)?;
        let iv = Iv::from_base64(sealed.iv).map_err(|_| AuthFailure::Malformed)?;
        let inner = key.decrypt_text(iv, sealed.e).map_err(|_| AuthFailure::Sealed)?;
        let inner = Base64::decode_vec(&inner).map_err(|_| AuthFailure::Sealed)?;
        let envelope: Envelope<'_> = serde_json::from_slice(&inner).map_err(|_| AuthFailure::Malformed)?;
        let text = envelope.p.get();
        let proof: Proof<'_> = serde_json::from_str(text).map_err(|_| AuthFailure::Malformed)?;
        if proof.sid != parties.session_id || proof.c != challenge.as_str() {
            return Err(AuthFailure::OtherSession);
        }
        let said = Side::of_letter(proof.side).ok_or(AuthFailure::Malformed)?;
        if side.is_some_and(|side| side != said) {
            return Err(AuthFailure::OtherSide);
        }
        let hash = match (envelope.sa, envelope.ha) {
            ("rsa2048", "sha256") => HashAlgo::Sha256,
            _ => return Err(AuthFailure::Algorithm),
        };
        let name = SigningKeyName::parse(envelope.sk).ok_or(AuthFailure::Key)?;
        let owner = match said {
            Side::A => &parties.client,
            Side::B => &parties.device,
        };
        if name.owner() != owner {
            return Err(AuthFailure::Key);
        }
        let signature = Base64::decode_vec(envelope.s).map_err(|_| AuthFailure::Malformed)?;
        Ok(Claim { side: said, number: envelope.n, name, text: text.to_owned(), signature, hash })
    }
}

impl Claim {
    /// The record to fetch.
    #[must_use]
    pub fn name(&self) -> &SigningKeyName {
        &self.name
    }

    /// Checks the signature with the key that the record shows.
    ///
    /// # Errors
    /// The signature is of another key, or the record shows a stronger key than the one that signed.
    pub fn verify(self, keys: &AdvertisedKeys) -> Result<Proven, AuthFailure> {
        let key = keys.strongest_is_rsa().ok_or(AuthFailure::Algorithm)?;
        let hash = match self.hash {
            HashAlgo::Sha256 => SignatureHash::Sha256,
            HashAlgo::Sha512 => SignatureHash::Sha512,
        };
        key.verify_bytes(hash, self.text.as_bytes(), &self.signature).map_err(|_| AuthFailure::Signature)?;
        Ok(Proven { side: self.side, number: self.number, name: self.name })
    }
}

impl Proven {
    /// Which end of the session it is.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// The connection it says it belongs to.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.number
    }

    /// The key that proved it.
    #[must_use]
    pub fn key(&self) -> &SigningKeyName {
        &self.name
    }
}

#[cfg(test)]
mod tests;
