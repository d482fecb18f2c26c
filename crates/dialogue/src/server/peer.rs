//! The verifier's side of `pol`: another atServer speaks for its owner, and its own directory entry has to agree.

use std::time::Instant;

use postern_crypto::{RsaPublicKey, SignatureHash};
use postern_proto::verb::{From, Lookup};
use postern_proto::{AtSign, Detail, ErrorCode, ProtocolError, Reply, Request, Uuid};

use super::{Connection, PROOF_LIFE, halves};

/// The witness of a passed `pol`: this connection speaks for `at_sign`, whose owner lives elsewhere. Nothing outside
/// this module can make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer(AtSign);

impl Peer {
    /// Whom it speaks for.
    pub fn at_sign(&self) -> &AtSign {
        &self.0
    }
}

/// Open after a `from` of an atSign that lives elsewhere.
pub(super) struct PeerChallenge {
    at_sign: AtSign,
    session: Uuid,
    proof: Uuid,
    deadline: Instant,
}

/// A `pol` to be checked: what to ask of the server that the directory names, and how to judge the answers. Made by
/// spending the challenge, so each counts once.
pub struct Verification {
    at_sign: AtSign,
    session: Uuid,
    proof: Uuid,
}

impl Connection {
    /// Answers the claim of an atSign of another server: `proof:_⟨session⟩@bob:⟨proof⟩`. An authority won before stays.
    ///
    /// `random` must never repeat and never be guessed.
    pub fn on_peer_from(&mut self, from: &From, random: [u8; 32], now: Instant) -> Reply {
        let [session, proof] = halves(random).map(Uuid::from_random);
        let session = self.session.get_or_insert(session).clone();
        let text = format!("proof:_{session}{}:{proof}", from.at_sign);
        self.shape = from.client.error_shape();
        self.claimed = Some(from.at_sign.clone());
        self.challenge = None;
        let deadline = now + PROOF_LIFE;
        self.peer_challenge = Some(PeerChallenge { at_sign: from.at_sign.clone(), session, proof, deadline });
        Reply::Data(text)
    }

    /// Takes the challenge, and with it every authority won before.
    ///
    /// # Errors
    /// `AT0011`: there is no `from` of another server's atSign in the last minute. The connection is to be closed.
    pub fn on_pol(&mut self, now: Instant) -> Result<Verification, ProtocolError> {
        self.authority = None;
        self.peer = None;
        self.failures += 1;
        match self.peer_challenge.take() {
            Some(PeerChallenge { at_sign, session, proof, deadline }) if now < deadline => {
                Ok(Verification { at_sign, session, proof })
            }
            _ => {
                let text = "a from command of another server's atSign must come before pol : nothing to verify";
                Err(ProtocolError::new(ErrorCode::InternalException, text))
            }
        }
    }

    /// The proof was good: from now on this connection speaks for `peer`.
    pub fn admit_peer(&mut self, peer: Peer) {
        self.failures = self.failures.saturating_sub(1); // `on_pol` counted this attempt
        self.peer = Some(peer);
    }

    /// The other server's owner that this connection proved to speak for.
    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }
}

impl Verification {
    /// Who is claimed; whose server is to be asked.
    pub fn at_sign(&self) -> &AtSign {
        &self.at_sign
    }

    /// What to ask the claimed atSign's server, without saying who asks, in this order: its public key (so that a
    /// change is noticed), the signature, the key that made it.
    pub fn questions(&self) -> [Request; 3] {
        let cookie = Lookup { detail: Detail::Value, ..Lookup::all(&format!("_{}", self.session), &self.at_sign) };
        let key = Lookup { detail: Detail::Value, ..Lookup::all("signing_publickey", &self.at_sign) };
        [Request::Lookup(Lookup::all("publickey", &self.at_sign)), Request::Lookup(cookie), Request::Lookup(key)]
    }

    /// Judges the second and the third answer.
    ///
    /// # Errors
    /// `AT0401`: the signature is not one of this proof by that key.
    pub fn check(self, signature: &str, signing_key: &str) -> Result<Peer, ProtocolError> {
        RsaPublicKey::from_base64(signing_key)
            .and_then(|key| key.verify(SignatureHash::Sha256, self.proof.as_str().as_bytes(), signature.trim()))
            .map_err(|_| Self::failed())?;
        Ok(Peer(self.at_sign))
    }

    /// `AT0401 Pol Authentication Failed`, whatever exactly failed.
    pub fn failed() -> ProtocolError {
        ProtocolError::new(ErrorCode::Authentication, "Pol Authentication Failed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{Claimant, Next, PeerAnswer};
    use postern_crypto::RsaPrivateKey;
    use postern_proto::Prompt;

    fn at(name: &str) -> AtSign {
        AtSign::parse(name).unwrap()
    }

    #[test]
    fn claimant_and_verifier_meet() {
        let now = Instant::now();
        let key = RsaPrivateKey::generate().unwrap();
        let (alice, bob) = (at("alice"), at("bob"));
        let (mut claimant, first) = Claimant::new(&alice, &bob);
        assert_eq!(first.to_string(), "lookup:all:publickey@bob");
        let Ok(Next::Say(from)) = claimant.on_answer(PeerAnswer::Data("{}".into())) else { panic!() };
        assert_eq!(from.to_string(), "from:@alice");
        let Request::From(from) = *from else { panic!() };
        let mut connection = Connection::new();
        let Reply::Data(text) = connection.on_peer_from(&from, [7; 32], now) else { panic!() };
        assert!(text.starts_with("proof:_07070707-"), "{text}");
        let Ok(Next::Publish(proof)) = claimant.on_answer(PeerAnswer::Data(text)) else { panic!() };
        let signature = key.sign(SignatureHash::Sha256, proof.signed_text().as_bytes()).unwrap();
        assert_eq!(claimant.published().to_string(), "pol");
        let verification = connection.on_pol(now).unwrap();
        let [_, cookie, signing] = verification.questions().map(|q| q.to_string());
        assert_eq!(cookie, format!("lookup:{}@alice", proof.key_name()));
        assert_eq!(signing, "lookup:signing_publickey@alice");
        let public = key.public_key().unwrap().to_base64();
        connection.admit_peer(verification.check(&signature, &public).unwrap());
        assert_eq!(connection.peer().map(Peer::at_sign), Some(&alice));
        assert_eq!(connection.prompt(), Prompt::Peer(alice.clone()));
        assert!(connection.authority().is_none());
        // Once only; and what was won is gone with the second try.
        assert_eq!(connection.on_pol(now).map(|_| ()).unwrap_err().code, ErrorCode::InternalException);
        assert_eq!(connection.prompt(), Prompt::Anonymous);
        assert!(matches!(claimant.on_answer(PeerAnswer::Prompt(alice)), Ok(Next::Done)));
    }

    #[test]
    fn late_or_wrong_proofs_are_refused() {
        let now = Instant::now();
        let mut connection = Connection::new();
        connection.on_peer_from(&From::plain(at("alice")), [1; 32], now);
        assert!(connection.on_pol(now + PROOF_LIFE).is_err());
        connection.on_peer_from(&From::plain(at("alice")), [2; 32], now);
        let key = RsaPrivateKey::generate().unwrap();
        let public = key.public_key().unwrap().to_base64();
        let other = key.sign(SignatureHash::Sha256, b"another proof").unwrap();
        let error = connection.on_pol(now).unwrap().check(&other, &public).unwrap_err();
        assert_eq!(error.code.code(), "AT0401");
        // A claim of our own owner does not open the way of a peer, nor the other way round.
        connection.on_peer_from(&From::plain(at("alice")), [3; 32], now);
        connection.on_from(&From::plain(at("bob")), [4; 32], now);
        assert!(connection.on_pol(now).is_err());
        connection.on_peer_from(&From::plain(at("alice")), [5; 32], now);
        assert!(connection.claimant().is_none());
    }
}
