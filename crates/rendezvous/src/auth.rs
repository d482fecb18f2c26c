//! The signed line by which a socket proves whose it is ("legacy payload" authentication).

use std::borrow::Cow;
use std::fmt;

use base64ct::{Base64, Encoding};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::limits::AUTH_LINE_BYTES;

/// The one payload, in the one order: the relay writes it anew and checks the signature over its own text.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    #[serde(borrow)]
    session_id: Cow<'a, str>,
    #[serde(borrow)]
    client_nonce: Cow<'a, str>,
    #[serde(borrow)]
    rvd_nonce: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow)]
    signature: Cow<'a, str>,
    #[serde(borrow)]
    hashing_algo: Cow<'a, str>,
    #[serde(borrow)]
    signing_algo: Cow<'a, str>,
    /// Which connection of the session this socket belongs to. Beside the payload, so that relays that do not know it
    /// verify the line all the same.
    n: Option<u32>,
}

/// The hash under an RSA signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlgo {
    /// What every program sends.
    Sha256,
    /// Accepted by Dart programs as well.
    Sha512,
}

/// The line that one end of a session writes first on each of its relay sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthLine {
    signed_text: String,
}

impl AuthLine {
    /// The line for these three values; still without its signature.
    #[must_use]
    pub fn new(session_id: &str, client_nonce: &str, rvd_nonce: &str) -> Self {
        let payload =
            Payload { session_id: session_id.into(), client_nonce: client_nonce.into(), rvd_nonce: rvd_nonce.into() };
        Self { signed_text: serde_json::to_string(&payload).expect("three strings are always JSON") }
    }

    /// The text to sign: compact JSON, these three fields in this order.
    #[must_use]
    pub fn signed_text(&self) -> &str {
        &self.signed_text
    }

    /// The whole line with its newline, for an RSA-2048 / SHA-256 signature in base64. It is a bearer token for this
    /// session: do not log it.
    #[must_use]
    pub fn print(&self, signature_base64: &str) -> String {
        self.print_with(signature_base64, "")
    }

    /// The same line for the `number`th connection of the session, counted from 0 by both ends in the order in which
    /// the client announces connections. A relay that knows the field joins equal numbers, whatever arrives first.
    #[must_use]
    pub fn print_numbered(&self, signature_base64: &str, number: u32) -> String {
        self.print_with(signature_base64, &format!(r#","n":{number}"#))
    }

    fn print_with(&self, signature_base64: &str, more: &str) -> String {
        let payload = &self.signed_text;
        let signature = serde_json::Value::from(signature_base64);
        format!(
            r#"{{"payload":{payload},"signature":{signature},"hashingAlgo":"sha256","signingAlgo":"rsa2048"{more}}}"#
        ) + "\n"
    }
}

/// A line with its signature: what one end of a session holds to open its sockets with.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedLine {
    line: AuthLine,
    signature: String,
}

impl SignedLine {
    /// `signature`: base64, over [`AuthLine::signed_text`].
    #[must_use]
    pub fn new(line: AuthLine, signature: String) -> Self {
        Self { line, signature }
    }

    /// The bytes without a number, as programs write them that do not know numbers.
    #[must_use]
    pub fn plain(&self) -> String {
        self.line.print(&self.signature)
    }

    /// The bytes for the `number`th connection, with the newline.
    #[must_use]
    pub fn numbered(&self, number: u32) -> String {
        self.line.print_numbered(&self.signature, number)
    }
}

/// What the line of a socket must say, on the relay's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// From the request.
    pub session_id: String,
    /// From the request.
    pub client_nonce: String,
    /// The relay's own.
    pub rvd_nonce: String,
}

/// Why a socket was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthFailure {
    /// More than [`AUTH_LINE_BYTES`] without a newline.
    TooLong,
    /// Not the JSON of a signed line.
    Malformed,
    /// Signed by an algorithm we do not accept.
    Algorithm,
    /// A line of another session, or of an earlier one.
    OtherSession,
    /// The signature is not of the expected atSign.
    Signature,
    /// Proves the other side of the session.
    OtherSide,
    /// Names a key that is not of an active enrolment of the expected atSign.
    Key,
    /// That key is not to be had.
    NoKey,
    /// Not sealed with the session's key.
    Sealed,
}

impl fmt::Display for AuthFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "read a line that does not end",
            Self::Malformed => "read the line",
            Self::Algorithm => "use the line's algorithm",
            Self::OtherSession => "accept a line of another session",
            Self::Signature => "verify the line's signature",
            Self::OtherSide => "accept a proof of the other side",
            Self::Key => "accept the key that the proof names",
            Self::NoKey => "fetch the key that the proof names",
            Self::Sealed => "open the proof with the session's key",
        })
    }
}

impl std::error::Error for AuthFailure {}

impl Expected {
    /// Checks a line, with or without its newline, and gives the number of its connection, if it has one. `verify(signed_text, signature, hash)` tells whether the signature is of
    /// the atSign that this side belongs to; it is asked only when all else is right.
    ///
    /// # Errors
    /// See [`AuthFailure`].
    pub fn check(
        &self,
        line: &[u8],
        verify: impl FnOnce(&str, &[u8], HashAlgo) -> bool,
    ) -> Result<Option<u32>, AuthFailure> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.len() > AUTH_LINE_BYTES {
            return Err(AuthFailure::TooLong);
        }
        let text = std::str::from_utf8(line).map_err(|_| AuthFailure::Malformed)?;
        let envelope: Envelope<'_> = object(text).ok_or(AuthFailure::Malformed)?;
        let said: Payload<'_> = object(envelope.payload.get()).ok_or(AuthFailure::Malformed)?;
        let hash = match (&*envelope.signing_algo, &*envelope.hashing_algo) {
            ("rsa2048", "sha256") => HashAlgo::Sha256,
            ("rsa2048", "sha512") => HashAlgo::Sha512,
            _ => return Err(AuthFailure::Algorithm),
        };
        if said.session_id != self.session_id
            || said.client_nonce != self.client_nonce
            || said.rvd_nonce != self.rvd_nonce
        {
            return Err(AuthFailure::OtherSession);
        }
        let signature = Base64::decode_vec(&envelope.signature).map_err(|_| AuthFailure::Malformed)?;
        let expected = AuthLine::new(&self.session_id, &self.client_nonce, &self.rvd_nonce);
        if verify(expected.signed_text(), &signature, hash) { Ok(envelope.n) } else { Err(AuthFailure::Signature) }
    }
}

/// Reads a JSON object; an array would be taken for the fields in their order.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    if text.trim_start().starts_with('{') { serde_json::from_str(text).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expected() -> Expected {
        Expected { session_id: "6f".into(), client_nonce: "then".into(), rvd_nonce: "now".into() }
    }

    fn line() -> String {
        AuthLine::new("6f", "then", "now").print("c2ln")
    }

    fn check(line: &str) -> Result<Option<u32>, AuthFailure> {
        expected().check(line.as_bytes(), |_, signature, _| signature == b"sig")
    }

    #[test]
    fn a_numbered_line_is_the_same_line_with_a_number_beside_it() {
        let line = AuthLine::new("6f", "then", "now");
        let numbered = SignedLine::new(line.clone(), "c2ln".into()).numbered(7);
        assert_eq!(numbered, line.print("c2ln").replace("}\n", ",\"n\":7}\n"));
        assert_eq!(check(&numbered), Ok(Some(7)));
    }

    #[test]
    fn the_line_is_pinned() {
        let auth = AuthLine::new("6f", "then", "n/\"w");
        assert_eq!(auth.signed_text(), r#"{"sessionId":"6f","clientNonce":"then","rvdNonce":"n/\"w"}"#);
        assert_eq!(
            auth.print("c2ln"),
            concat!(
                r#"{"payload":{"sessionId":"6f","clientNonce":"then","rvdNonce":"n/\"w"},"#,
                r#""signature":"c2ln","hashingAlgo":"sha256","signingAlgo":"rsa2048"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn the_signature_is_checked_over_our_own_text() {
        let mut asked = None;
        let outcome = expected().check(line().as_bytes(), |text, signature, hash| {
            asked = Some((text.to_owned(), signature.to_owned(), hash));
            true
        });
        assert_eq!(outcome, Ok(None));
        let text = r#"{"sessionId":"6f","clientNonce":"then","rvdNonce":"now"}"#;
        assert_eq!(asked, Some((text.to_owned(), b"sig".to_vec(), HashAlgo::Sha256)));
    }

    #[test]
    fn unknown_fields_and_sha512_are_accepted() {
        assert_eq!(check(&line().replace("sha256", "sha512")), Ok(None));
        assert_eq!(check(&line().replace("rsa2048\"", "rsa2048\",\"later\":[1]")), Ok(None));
        assert_eq!(check(line().trim_end()), Ok(None), "without its newline");
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(check("garbage"), Err(AuthFailure::Malformed));
        assert_eq!(check(""), Err(AuthFailure::Malformed));
        assert_eq!(check(&line().replace("c2ln", "c2l")), Err(AuthFailure::Malformed));
        assert_eq!(check(&line().replace("now", "new")), Err(AuthFailure::OtherSession));
        assert_eq!(check(&line().replace("then", "that")), Err(AuthFailure::OtherSession));
        assert_eq!(check(&line().replace("6f", "7f")), Err(AuthFailure::OtherSession));
        assert_eq!(check(&line().replace("sha256", "md5")), Err(AuthFailure::Algorithm));
        assert_eq!(check(&line().replace("rsa2048", "none")), Err(AuthFailure::Algorithm));
        assert_eq!(check(&line().replace("c2ln", "bm8=")), Err(AuthFailure::Signature));
        assert_eq!(check(&"x".repeat(AUTH_LINE_BYTES + 1)), Err(AuthFailure::TooLong));
        let twice = line().replace("{\"payload", "{\"signature\":\"c2ln\",\"payload");
        assert_eq!(check(&twice), Err(AuthFailure::Malformed), "a field twice");
    }

    proptest! {
        #[test]
        fn print_then_check(session_id in "\\PC{0,40}", client_nonce in any::<String>(), rvd_nonce in "\\PC{0,40}") {
            prop_assume!(client_nonce.len() < 400);
            let line = AuthLine::new(&session_id, &client_nonce, &rvd_nonce).print("c2ln");
            let expected = Expected { session_id, client_nonce, rvd_nonce };
            prop_assert_eq!(expected.check(line.as_bytes(), |_, _, _| true), Ok(None));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(expected().check(&line, |_, _, _| true).is_err());
        }

        #[test]
        fn a_line_with_a_changed_byte_never_reaches_another_text(at in 0_usize..120, byte: u8) {
            let mut line = line().into_bytes();
            if let Some(place) = line.get_mut(at) { *place = byte; }
            let text = AuthLine::new("6f", "then", "now");
            // Whatever was sent, only our own text is ever verified.
            let _any = expected().check(&line, |signed, _, _| { assert_eq!(signed, text.signed_text()); true });
        }
    }
}
