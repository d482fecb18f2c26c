//! The client's side: which reply answers which request, and what may be signed.

use std::collections::VecDeque;

use postern_crypto::{AtKeys, CryptoError, RsaPrivateKey, SignatureHash, sha512_hex};
use postern_proto::verb::{Cram, Pkam};
use postern_proto::{AtSign, Notification, ServerLine, Uuid, WireError};

/// Matches replies to requests. An atServer answers in order, so a queue is all it takes.
#[derive(Debug)]
pub struct Conversation<T> {
    waiting: VecDeque<T>,
}

/// What a line from the server means.
#[derive(Debug)]
pub enum Heard<T> {
    /// The answer to the oldest open request.
    Reply(T, Result<String, WireError>),
    /// A notification.
    Push(Box<Notification>),
    /// Statistics and things newer than we are.
    Nothing,
    /// A reply that nobody asked for: the stream is out of step and cannot be used further.
    OutOfStep,
}

impl<T> Default for Conversation<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<T> Conversation<T> {
    /// A request was sent; its reply will carry `tag`.
    pub fn asked(&mut self, tag: T) {
        self.waiting.push_back(tag);
    }

    /// Requests without an answer yet.
    pub fn open_requests(&self) -> usize {
        self.waiting.len()
    }

    /// Understands one line, without its end.
    pub fn on_line(&mut self, line: &str) -> Heard<T> {
        let answer = match ServerLine::parse(line) {
            ServerLine::Push(push) => return Heard::Push(push),
            ServerLine::Other => return Heard::Nothing,
            ServerLine::Data(text) => Ok(text),
            ServerLine::Error(error) => Err(error),
        };
        match self.waiting.pop_front() {
            Some(tag) => Heard::Reply(tag, answer),
            None => Heard::OutOfStep,
        }
    }
}

/// A challenge of the only shape we sign: `_⟨uuid⟩@me:⟨uuid⟩`. A server that
/// hands us anything else wants our signature for another purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge(String);

impl Challenge {
    /// Checks the text behind `data:`.
    pub fn parse(text: &str, me: &AtSign) -> Option<Self> {
        let (session, proof) = text.strip_prefix('_')?.split_once(':')?;
        let session = session.strip_suffix(me.as_str())?;
        (Uuid::parse(session).is_some() && Uuid::parse(proof).is_some()).then(|| Self(text.to_owned()))
    }

    /// The answer of a key file.
    pub fn answer(&self, keys: &AtKeys) -> Result<Pkam, CryptoError> {
        Ok(Pkam {
            hashing: Default::default(),
            enrollment_id: keys.enrollment_id.as_deref().and_then(Uuid::parse),
            signature: keys.pkam.sign(SignatureHash::Sha256, self.0.as_bytes())?,
            long_form: keys.enrollment_id.is_some(),
        })
    }

    /// The answer of a key that is no file yet, of the enrolment `id`.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn answer_with_key(&self, key: &RsaPrivateKey, id: Option<&Uuid>) -> Result<Pkam, CryptoError> {
        Ok(Pkam {
            hashing: Default::default(),
            enrollment_id: id.cloned(),
            signature: key.sign(SignatureHash::Sha256, self.0.as_bytes())?,
            long_form: id.is_some(),
        })
    }

    /// The answer of the activation secret.
    pub fn answer_with_secret(&self, secret: &str) -> Cram {
        Cram { digest: sha512_hex(&[secret.as_bytes(), self.0.as_bytes()]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> AtSign {
        AtSign::parse("alice").unwrap()
    }

    #[test]
    fn replies_are_matched_in_order_and_pushes_go_between() {
        let mut talk = Conversation::default();
        talk.asked(1);
        talk.asked(2);
        assert!(matches!(talk.on_line("@alice@data:5"), Heard::Reply(1, Ok(text)) if text == "5"));
        assert!(matches!(talk.on_line(r#"notification: {"id":"-1"}"#), Heard::Nothing));
        assert!(matches!(talk.on_line("error:AT0015-key not found : k"), Heard::Reply(2, Err(_))));
        assert!(matches!(talk.on_line("data:ok"), Heard::OutOfStep));
    }

    #[test]
    fn only_challenges_are_signed() {
        let good = "_1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed@alice:9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d";
        assert!(Challenge::parse(good, &alice()).is_some());
        for bad in [
            "",
            "_x@alice:y",
            &good.replace("@alice", "@bob"),
            &good.replace(":9b1", ":update:privatekey9b1"),
            good.trim_start_matches('_'),
        ] {
            assert_eq!(Challenge::parse(bad, &alice()), None, "{bad}");
        }
    }

    #[test]
    fn the_cram_answer_is_the_hash_of_secret_and_challenge() {
        let text = "_1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed@alice:9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d";
        let challenge = Challenge::parse(text, &alice()).unwrap();
        let digest = challenge.answer_with_secret("secret").digest;
        assert_eq!(digest, sha512_hex(&[format!("secret{text}").as_bytes()]));
        assert_eq!(digest.len(), 128);
    }
}
