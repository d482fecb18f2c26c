//! The claimant's side of `pol`: our server speaks to another operator's for one of our owners.
//!
//! What the other side sends becomes part of a key name and gets signed: only the exact shapes pass.

use postern_proto::verb::{From, Lookup};
use postern_proto::{AtKey, AtSign, ProtocolError, Request, ServerLine, Uuid, WireError};

/// Where a claim stands.
#[derive(Debug)]
pub struct Claimant {
    me: AtSign,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AskedKey,
    Claimed,
    Publishing,
    Proved,
    Over,
}

/// What the other server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAnswer {
    /// `data:…`
    Data(String),
    /// `error:…`
    Error(WireError),
    /// A prompt that names an atSign, without a line: the answer to `pol`.
    Prompt(AtSign),
}

/// What to do next.
#[derive(Debug)]
pub enum Next {
    /// Send this.
    Say(Box<Request>),
    /// Sign this proof, store the signature where the other server can read it, then send [`Claimant::published`].
    Publish(PeerProof),
    /// The other server accepted the claim.
    Done,
}

/// Why the claim failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// The other server refused.
    Refused(WireError),
    /// It said something else than the protocol has at this point; nothing was signed for it.
    OutOfTurn,
}

/// A challenge of the only shape we sign for other servers: `proof:_⟨uuid⟩@me:⟨uuid⟩`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerProof {
    session: Uuid,
    proof: Uuid,
}

impl Claimant {
    /// Begins: the first request to send on a fresh connection to the server of `them`.
    pub fn new(me: &AtSign, them: &AtSign) -> (Self, Request) {
        let question = Request::Lookup(Lookup::all("publickey", them));
        (Self { me: me.clone(), state: State::AskedKey }, question)
    }

    /// Whether the answer wanted next may be a bare prompt.
    pub fn awaits_prompt(&self) -> bool {
        self.state == State::Proved
    }

    /// Takes the answer to what was said last.
    ///
    /// # Errors
    /// See [`ClaimError`]; the connection is of no more use.
    pub fn on_answer(&mut self, answer: PeerAnswer) -> Result<Next, ClaimError> {
        let state = std::mem::replace(&mut self.state, State::Over);
        match (state, answer) {
            // Not activated yet, or a public key of another kind: its owner's business, not ours.
            (State::AskedKey, PeerAnswer::Data(_) | PeerAnswer::Error(_)) => {
                self.state = State::Claimed;
                Ok(Next::Say(Box::new(Request::From(From::plain(self.me.clone())))))
            }
            (State::Claimed, PeerAnswer::Data(text)) => {
                let proof = PeerProof::parse(&text, &self.me).ok_or(ClaimError::OutOfTurn)?;
                self.state = State::Publishing;
                Ok(Next::Publish(proof))
            }
            (State::Proved, PeerAnswer::Prompt(who)) if who == self.me => Ok(Next::Done),
            (_, PeerAnswer::Error(error)) => Err(ClaimError::Refused(error)),
            _ => Err(ClaimError::OutOfTurn),
        }
    }

    /// The signature is where it can be read: the request to send now.
    pub fn published(&mut self) -> Request {
        if self.state == State::Publishing {
            self.state = State::Proved;
        }
        Request::Pol
    }
}

impl PeerProof {
    /// Checks the text behind `data:`.
    pub fn parse(text: &str, me: &AtSign) -> Option<Self> {
        let (session, proof) = text.strip_prefix("proof:_")?.split_once(':')?;
        let session = session.strip_suffix(me.as_str())?;
        Some(Self { session: Uuid::parse(session)?, proof: Uuid::parse(proof.trim())? })
    }

    /// The text to sign.
    pub fn signed_text(&self) -> &str {
        self.proof.as_str()
    }

    /// The name under which the signature is published.
    pub fn key_name(&self) -> String {
        format!("_{}", self.session)
    }

    /// The whole key.
    pub fn key(&self, me: &AtSign) -> AtKey {
        AtKey::public(&self.key_name(), me)
    }
}

impl PeerAnswer {
    /// Reads a complete line; `None` for lines that answer nothing (statistics, prompts).
    pub fn from_line(line: &str) -> Option<Self> {
        match ServerLine::parse(line) {
            ServerLine::Data(text) => Some(Self::Data(text)),
            ServerLine::Error(error) => Some(Self::Error(error)),
            ServerLine::Push(_) | ServerLine::Other => None,
        }
    }

    /// Reads what stands behind the last line end: the answer to `pol` has none of its own. Prompts of earlier answers
    /// may stand in front. `None`: not complete yet.
    pub fn from_unfinished(rest: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(rest).ok()?.trim();
        let name = text.strip_suffix('@')?.rsplit('@').next()?;
        AtSign::parse(name).ok().map(Self::Prompt)
    }
}

/// What a question to a peer failed with, as our own client is told: codes are passed on.
pub fn passed_on(error: &WireError) -> ProtocolError {
    /// Peers may say as much as fits one line on a screen, and no more.
    const SAID_CHARS: usize = 200;
    let code = error.code.unwrap_or(postern_proto::ErrorCode::InternalException);
    let said: String = error.message.chars().filter(|c| !c.is_control()).take(SAID_CHARS).collect();
    let said = said.strip_prefix(code.description()).map_or(said.as_str(), |rest| rest.trim_start_matches([' ', ':']));
    let said = said.strip_prefix("Exception: ").unwrap_or(said);
    ProtocolError::new(code, said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_proto::ErrorCode;
    use proptest::prelude::*;

    fn alice() -> AtSign {
        AtSign::parse("alice").unwrap()
    }

    const SESSION: &str = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed";
    const PROOF: &str = "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d";

    #[test]
    fn only_proofs_are_signed_and_only_sessions_name_keys() {
        let good = format!("proof:_{SESSION}@alice:{PROOF}");
        let proof = PeerProof::parse(&good, &alice()).unwrap();
        assert_eq!(proof.key(&alice()).to_string(), format!("public:_{SESSION}@alice"));
        assert_eq!(proof.signed_text(), PROOF);
        for bad in [
            String::new(),
            good.replace("proof:", ""),
            good.replace("@alice", "@bob"),
            good.replace('_', ""),
            // What a hostile server would like us to overwrite, or to sign.
            format!("proof:publickey@alice:{PROOF}"),
            format!("proof:_publickey@alice:{PROOF}"),
            format!("proof:_{SESSION}@alice:_{SESSION}@alice:{PROOF}"),
            format!("proof:_{SESSION}@alice:{PROOF}x"),
        ] {
            assert_eq!(PeerProof::parse(&bad, &alice()), None, "{bad}");
        }
    }

    #[test]
    fn a_server_out_of_step_is_left() {
        let (mut claimant, _) = Claimant::new(&alice(), &AtSign::parse("bob").unwrap());
        claimant.on_answer(PeerAnswer::Data("{}".into())).unwrap();
        // A challenge as for its own owner: a login would be signed by it.
        let login = format!("_{SESSION}@alice:{PROOF}");
        assert_eq!(claimant.on_answer(PeerAnswer::Data(login)).unwrap_err(), ClaimError::OutOfTurn);
        assert_eq!(claimant.on_answer(PeerAnswer::Prompt(alice())).unwrap_err(), ClaimError::OutOfTurn);
    }

    #[test]
    fn prompts_without_a_line() {
        let read = |text: &str| PeerAnswer::from_unfinished(text.as_bytes());
        assert_eq!(read("@@alice@"), Some(PeerAnswer::Prompt(alice())));
        assert_eq!(read("@alice@"), Some(PeerAnswer::Prompt(alice())));
        for not_yet in ["", "@", "@@", "@ali", "@@alice", "error:AT04"] {
            assert_eq!(read(not_yet), None, "{not_yet}");
        }
    }

    #[test]
    fn errors_pass_with_their_code_and_without_tails() {
        let said = |line: &str| {
            let Some(PeerAnswer::Error(error)) = PeerAnswer::from_line(line) else { panic!("{line}") };
            passed_on(&error)
        };
        let error = said("@error:AT0015-Exception: k@bob does not exist in keystore");
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::KeyNotFound, "k@bob does not exist in keystore"));
        let error = said("error:AT0015-key not found : k@bob does not exist in keystore");
        assert_eq!(error.message, "k@bob does not exist in keystore");
        assert_eq!(said("error:AT9999-x").code, ErrorCode::InternalException);
        assert!(said(&format!("error:AT0003-{}", "x".repeat(5000))).message.len() <= 200);
    }

    proptest! {
        #[test]
        fn whatever_is_said_only_uuids_are_signed_and_named(
            text in "(data:)?(proof:)?_?([0-9a-fA-F-]{0,40}|[a-z_:@]{0,12})@(alice|bob|):?[0-9a-fA-F-]{0,40}[ \n]?|.{0,200}",
            // Right but for one character.
            at in 0usize..90, other in any::<char>(),
        ) {
            let good: Vec<char> = format!("proof:_{SESSION}@alice:{PROOF}").chars().collect();
            let mut bent = good.clone();
            if let Some(c) = bent.get_mut(at) { *c = other }
            for text in [text, bent.iter().collect()] {
                if let Some(proof) = PeerProof::parse(&text, &alice()) {
                    prop_assert!(Uuid::parse(proof.signed_text()).is_some());
                    prop_assert!(proof.key_name().strip_prefix('_').and_then(Uuid::parse).is_some());
                    prop_assert_eq!(AtKey::parse(&proof.key(&alice()).to_string()), Ok(proof.key(&alice())));
                }
                for answer in [PeerAnswer::from_line(&text), PeerAnswer::from_unfinished(text.as_bytes())] {
                    if let Some(PeerAnswer::Error(error)) = answer {
                        let told = passed_on(&error).message;
                        prop_assert!(told.chars().count() <= 200 && !told.contains(char::is_control), "{}", told);
                    }
                }
            }
        }

        #[test]
        fn bytes_without_a_line_end_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(PeerAnswer::Prompt(who)) = PeerAnswer::from_unfinished(&bytes) {
                prop_assert!(bytes.trim_ascii().ends_with(b"@") && !who.body().is_empty());
            }
        }
    }
}
