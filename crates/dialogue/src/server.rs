//! The server's side of a connection: claim, challenge, proof, authority.
//!
//! A connection is anonymous until a claim (`from`) was answered with a challenge and the
//! challenge with a proof (`cram`, `pkam`). Only the checks here can make an [`Authority`],
//! and every verb that touches an owner's data wants one.

mod authority;
mod peer;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::{Duration, Instant};

use postern_crypto::{RsaPublicKey, SignatureHash, equal_in_constant_time, sha512_hex};
use postern_proto::verb::{Cram, From, HashingAlgo, Pkam};
use postern_proto::{AtSign, ErrorCode, ErrorShape, Prompt, ProtocolError, Reply, Uuid};
use std::sync::Arc;

pub use authority::{Access, Authority, Enrollment, EnrollmentState, Namespaces};
pub use peer::{Peer, Verification};

/// Life of a challenge. Source: the reference.
pub const PROOF_LIFE: Duration = Duration::from_secs(60);

/// Failed proofs after which the connection ends. Real clients fail once, with a wrong key; ten
/// leave room for a person who tries several, and make guessing cost a TLS handshake each ten.
pub const MAX_FAILED_PROOFS: u32 = 10;

/// Who a connection is, and what it may try next.
pub struct Connection {
    /// Made by the first `from` and kept: the text before `@` in every challenge.
    session: Option<Uuid>,
    claimed: Option<AtSign>,
    challenge: Option<Challenge>,
    authority: Option<Authority>,
    /// Open after the claim of an atSign of another server.
    peer_challenge: Option<peer::PeerChallenge>,
    /// Proved by `pol`; never beside an authority.
    peer: Option<Peer>,
    shape: ErrorShape,
    monitoring: bool,
    failures: u32,
}

/// Answered once, whatever the outcome.
struct Challenge {
    at_sign: AtSign,
    /// The exact text behind `data:`, which is hashed or signed.
    text: String,
    deadline: Instant,
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

impl Connection {
    /// Anonymous.
    pub fn new() -> Self {
        Self {
            session: None,
            claimed: None,
            challenge: None,
            authority: None,
            peer_challenge: None,
            peer: None,
            shape: ErrorShape::default(),
            monitoring: false,
            failures: 0,
        }
    }

    /// Answers a claim with a fresh challenge in place of an earlier one:
    /// `_⟨session⟩@alice:⟨proof⟩`. An authority won before stays.
    ///
    /// `random` must never repeat and never be guessed.
    pub fn on_from(&mut self, from: &From, random: [u8; 32], now: Instant) -> Reply {
        let [session, proof] = halves(random).map(Uuid::from_random);
        let session = self.session.get_or_insert(session);
        let text = format!("_{session}{}:{proof}", from.at_sign);
        self.shape = from.client.error_shape();
        self.claimed = Some(from.at_sign.clone());
        self.peer_challenge = None;
        self.challenge =
            Some(Challenge { at_sign: from.at_sign.clone(), text: text.clone(), deadline: now + PROOF_LIFE });
        Reply::Data(text)
    }

    /// Whose secret or key the next proof is checked with; `None` when no challenge is open.
    pub fn claimant(&self) -> Option<&AtSign> {
        self.challenge.as_ref().map(|challenge| &challenge.at_sign)
    }

    /// The atSign of the latest `from`, proved or not.
    pub fn claimed(&self) -> Option<&AtSign> {
        self.claimed.as_ref()
    }

    /// Checks SHA-512 over the secret and the challenge.
    ///
    /// # Errors
    /// No open challenge, no `secret` (activated before), or a wrong digest. The
    /// challenge is spent and an earlier authority is gone in each case.
    pub fn on_cram(&mut self, cram: &Cram, secret: Option<&str>, now: Instant) -> Result<(), ProtocolError> {
        let challenge = self.spend(now)?;
        let secret = secret.ok_or_else(|| ProtocolError::no_such_key("privatekey:at_secret"))?;
        let expected = sha512_hex(&[secret.as_bytes(), challenge.text.as_bytes()]);
        if !equal_in_constant_time(expected.as_bytes(), cram.digest.as_bytes()) {
            return Err(ProtocolError::new(ErrorCode::Authentication, "Authentication Failed"));
        }
        self.admit(Authority::by_cram(challenge.at_sign));
        Ok(())
    }

    /// Checks a signature of the legacy form with `privatekey:at_pkam_publickey`.
    ///
    /// # Errors
    /// No open challenge, no key, or a wrong signature; as with [`Self::on_cram`].
    pub fn on_legacy_pkam(&mut self, pkam: &Pkam, key: Option<&str>, now: Instant) -> Result<(), ProtocolError> {
        let challenge = self.spend(now)?;
        let key = key.ok_or_else(|| ProtocolError::no_such_key("privatekey:at_pkam_publickey"))?;
        verify(pkam, key, &challenge)?;
        self.admit(Authority::by_legacy_key(challenge.at_sign));
        Ok(())
    }

    /// Checks a signature with the key of the enrolment that `pkam` names; `None` when
    /// there is none of that id.
    ///
    /// # Errors
    /// The enrolment's state in the colon shape (`AT0025` to `AT0028`), or as with [`Self::on_cram`].
    pub fn on_enrolled_pkam(
        &mut self,
        pkam: &Pkam,
        enrollment: Option<Enrollment>,
        now: Instant,
    ) -> Result<(), ProtocolError> {
        let challenge = self.spend(now)?;
        let Some(enrollment) = enrollment else {
            let id = pkam.enrollment_id.as_ref().map(Uuid::as_str).unwrap_or_default();
            let text = format!("enrollment_id: {id} is expired or invalid");
            return Err(ProtocolError::enrollment(ErrorCode::EnrollmentExpired, text));
        };
        enrollment.check_state()?;
        verify(pkam, &enrollment.public_key, &challenge)?;
        self.admit(Authority::by_enrollment(challenge.at_sign, enrollment));
        Ok(())
    }

    /// Takes the challenge, and with it every authority won before.
    fn spend(&mut self, now: Instant) -> Result<Challenge, ProtocolError> {
        self.authority = None;
        self.peer = None;
        self.failures += 1;
        match self.challenge.take() {
            Some(challenge) if now < challenge.deadline => Ok(challenge),
            _ => {
                let session = self.session.as_ref().map(Uuid::as_str).unwrap_or_default();
                Err(ProtocolError::no_such_key(format_args!("private:_{session}")))
            }
        }
    }

    fn admit(&mut self, authority: Authority) {
        self.failures -= 1; // `spend` counted this attempt
        self.authority = Some(authority);
    }

    /// What this connection proved.
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// The connection that proved the CRAM secret goes on as the first enrolment, which the
    /// server has just stored.
    pub fn adopt(&mut self, enrollment: Enrollment) {
        if let Some(authority) = &mut self.authority {
            authority.adopt(enrollment);
        }
    }

    /// Looks at the enrolment again, for rights may have changed since the proof. `current`: as it is
    /// stored now. Nothing happens on connections without an enrolment.
    ///
    /// # Errors
    /// It is gone, expired or revoked: then the connection is anonymous again and is to be closed.
    pub fn renew(&mut self, current: Option<Enrollment>) -> Result<(), ProtocolError> {
        let Some(authority) = self.authority.as_mut() else { return Ok(()) };
        let outcome = authority.renew(current);
        if outcome.is_err() {
            self.authority = None;
        }
        outcome
    }

    /// From now on pushes may come between replies, and prompts are left out.
    pub fn start_monitoring(&mut self) {
        self.monitoring = true;
    }

    /// Whether `monitor` was accepted.
    pub fn is_monitoring(&self) -> bool {
        self.monitoring
    }

    /// What stands behind the next reply.
    pub fn prompt(&self) -> Prompt {
        match &self.authority {
            _ if self.monitoring => Prompt::Monitoring,
            Some(authority) => Prompt::Owner(authority.owner().clone()),
            None => self.peer.as_ref().map_or(Prompt::Anonymous, |peer| Prompt::Peer(peer.at_sign().clone())),
        }
    }

    /// How this client reads errors.
    pub fn error_shape(&self) -> ErrorShape {
        self.shape
    }

    /// The client has guessed often enough; reply, then close.
    pub fn has_failed_too_often(&self) -> bool {
        self.failures >= MAX_FAILED_PROOFS
    }
}

fn halves(random: [u8; 32]) -> [[u8; 16]; 2] {
    let mut out = [[0; 16]; 2];
    for (i, byte) in random.into_iter().enumerate() {
        if let Some(slot) = out.get_mut(i / 16).and_then(|half| half.get_mut(i % 16)) {
            *slot = byte;
        }
    }
    out
}

fn verify(pkam: &Pkam, key: &str, challenge: &Challenge) -> Result<(), ProtocolError> {
    let hash = match pkam.hashing {
        HashingAlgo::Sha256 => SignatureHash::Sha256,
        HashingAlgo::Sha512 => SignatureHash::Sha512,
    };
    RsaPublicKey::from_base64(key)
        .and_then(|key| key.verify(hash, challenge.text.as_bytes(), &pkam.signature))
        .map_err(|_| ProtocolError::new(ErrorCode::Authentication, "pkam authentication failed"))
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("prompt", &self.prompt()).finish_non_exhaustive()
    }
}

/// Shared by every holder of the same enrolment's rights.
pub type Rights = Arc<Namespaces>;
