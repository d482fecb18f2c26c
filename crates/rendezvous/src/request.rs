//! What a client asks of a relay: `request_ports`.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::limits::{ATSIGN_BYTES, MESSAGE_BYTES, NONCE_BYTES, PRE_FETCH, SESSION_ID_BYTES};

/// "Please open two ports for this session." Sent as JSON in a notification; unsigned, so who asks is what the
/// notification says and not [`RelayRequest::at_sign_a`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayRequest {
    /// Names the session; also part of the reply's key.
    pub session_id: String,
    /// The client's atSign: whose key signs the lines of side A.
    pub at_sign_a: String,
    /// The device's atSign: whose key signs the lines of side B.
    pub at_sign_b: String,
    /// The client's sockets must authenticate.
    pub authenticate_a: bool,
    /// The device's sockets must authenticate.
    pub authenticate_b: bool,
    /// The client's share of the text that is signed.
    pub client_nonce: String,
    /// How sockets authenticate. Absent: [`AuthMode::Payload`].
    pub auth_mode: Option<AuthMode>,
    /// For [`AuthMode::Escr`]: the key that hides the signed answers.
    pub auth_key: Option<RelayAuthKey>,
    /// The client can reach nothing but port 443.
    pub only_443: bool,
    /// Several instances of the relay may answer; the client takes the first.
    pub multiple_acks_ok: bool,
    /// Where the signing keys of both sides lie, so that the relay can fetch them early.
    pub pre_fetch: Vec<String>,
    /// The client reads a reply in JSON; else it wants the comma-separated form.
    pub json_reply: bool,
    /// How the client's sockets will authenticate if the relay finds out by itself. Ours; others do not read it, and
    /// `auth_mode` would bind relays of 2025 for both sides.
    pub side_a: Option<AuthMode>,
}

/// How a socket proves whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthMode {
    /// One signed line, see [`AuthLine`](crate::AuthLine).
    Payload,
    /// Encrypted signed challenge and response (NoPorts of 2025 and later).
    Escr,
    /// A mode we do not know.
    Unknown(String),
}

impl AuthMode {
    pub(crate) fn parse(text: String) -> Self {
        match text.as_str() {
            "payload" => Self::Payload,
            "escr" => Self::Escr,
            _ => Self::Unknown(text),
        }
    }

    /// The word on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Payload => "payload",
            Self::Escr => "escr",
            Self::Unknown(text) => text,
        }
    }
}

/// A key of 32 bytes in base64, as it travels. Zeroed on drop; its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct RelayAuthKey(Zeroizing<String>);

impl From<String> for RelayAuthKey {
    fn from(base64: String) -> Self {
        Self::new(base64)
    }
}

impl From<RelayAuthKey> for String {
    fn from(key: RelayAuthKey) -> Self {
        key.0.as_str().to_owned()
    }
}

impl RelayAuthKey {
    /// Takes the base64 text unread.
    #[must_use]
    pub fn new(base64: String) -> Self {
        Self(Zeroizing::new(base64))
    }

    /// The secret in base64.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RelayAuthKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayAuthKey(..)")
    }
}

/// Why a text is no request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// Longer than [`MESSAGE_BYTES`].
    TooLong,
    /// Not the JSON of a request.
    Malformed(String),
    /// This field is empty, too long, or has characters it must not have.
    Field(&'static str),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "read a request longer than {MESSAGE_BYTES} bytes"),
            Self::Malformed(reason) => write!(f, "read the request: {reason}"),
            Self::Field(name) => write!(f, "use the request's {name}"),
        }
    }
}

impl std::error::Error for RequestError {}

/// The wire form. Unknown fields are ignored; fields after `clientNonce` are of newer programs.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    session_id: String,
    at_sign_a: String,
    at_sign_b: String,
    authenticate_socket_a: bool,
    authenticate_socket_b: bool,
    client_nonce: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    relay_auth_mode: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    relay_auth_aes_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    only443: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    multiple_acks_ok: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pre_fetch: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    send_json_response: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    side_a: Option<String>,
}

impl RelayRequest {
    /// Reads the decrypted value of a `request_ports` notification.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn parse(text: &str) -> Result<Self, RequestError> {
        if text.len() > MESSAGE_BYTES {
            return Err(RequestError::TooLong);
        }
        if !text.trim_start().starts_with('{') {
            return Err(RequestError::Malformed("no JSON object".to_owned()));
        }
        let wire: Wire = serde_json::from_str(text).map_err(|error| RequestError::Malformed(error.to_string()))?;
        let check = |good: bool, name| {
            if good { Ok(()) } else { Err(RequestError::Field(name)) }
        };
        check(is_session_id(&wire.session_id), "sessionId")?;
        check(is_text(&wire.at_sign_a, ATSIGN_BYTES), "atSignA")?;
        check(is_text(&wire.at_sign_b, ATSIGN_BYTES), "atSignB")?;
        check(is_nonce(&wire.client_nonce), "clientNonce")?;
        let pre_fetch = wire.pre_fetch.unwrap_or_default();
        check(pre_fetch.len() <= PRE_FETCH, "preFetch")?;
        Ok(Self {
            session_id: wire.session_id,
            at_sign_a: wire.at_sign_a,
            at_sign_b: wire.at_sign_b,
            authenticate_a: wire.authenticate_socket_a,
            authenticate_b: wire.authenticate_socket_b,
            client_nonce: wire.client_nonce,
            auth_mode: wire.relay_auth_mode.map(AuthMode::parse),
            auth_key: wire.relay_auth_aes_key.map(RelayAuthKey::new),
            only_443: wire.only443.unwrap_or(false),
            multiple_acks_ok: wire.multiple_acks_ok.unwrap_or(false),
            pre_fetch,
            json_reply: wire.send_json_response.unwrap_or(false),
            side_a: wire.side_a.map(AuthMode::parse),
        })
    }

    /// The JSON to send. Fields of newer programs appear only when they say something.
    #[must_use]
    pub fn print(&self) -> Zeroizing<String> {
        let some = |flag: bool| flag.then_some(true);
        let wire = Wire {
            session_id: self.session_id.clone(),
            at_sign_a: self.at_sign_a.clone(),
            at_sign_b: self.at_sign_b.clone(),
            authenticate_socket_a: self.authenticate_a,
            authenticate_socket_b: self.authenticate_b,
            client_nonce: self.client_nonce.clone(),
            relay_auth_mode: self.auth_mode.as_ref().map(|mode| mode.as_str().to_owned()),
            relay_auth_aes_key: self.auth_key.as_ref().map(|key| key.reveal().to_owned()),
            only443: some(self.only_443),
            multiple_acks_ok: some(self.multiple_acks_ok),
            pre_fetch: (!self.pre_fetch.is_empty()).then(|| self.pre_fetch.clone()),
            send_json_response: some(self.json_reply),
            side_a: self.side_a.as_ref().map(|mode| mode.as_str().to_owned()),
        };
        let text = serde_json::to_string(&wire).expect("strings and booleans are always JSON");
        drop(wire.relay_auth_aes_key.map(Zeroizing::new));
        Zeroizing::new(text)
    }
}

/// Letters, digits and `-`: it becomes part of key names.
pub(crate) fn is_session_id(text: &str) -> bool {
    (1..=SESSION_ID_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// No comma (it would break the comma-separated reply), no control characters.
pub(crate) fn is_nonce(text: &str) -> bool {
    is_text(text, NONCE_BYTES) && !text.contains(',')
}

fn is_text(text: &str, limit: usize) -> bool {
    (1..=limit).contains(&text.len()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: &str = r#"{"sessionId":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","atSignA":"@c","atSignB":"@d","authenticateSocketA":true,"authenticateSocketB":true,"clientNonce":"2024-10-24T10:00:00.123456"}"#;

    #[test]
    fn the_wire_form_of_2024_is_pinned() {
        let request = RelayRequest::parse(OLD).unwrap();
        assert_eq!(request.at_sign_b, "@d");
        assert!(request.authenticate_a && request.auth_mode.is_none() && !request.json_reply);
        assert_eq!(request.print().as_str(), OLD);
    }

    #[test]
    fn newer_and_unknown_fields_are_read() {
        let text = OLD.replace(
            "}",
            r#","relayAuthMode":"escr","relayAuthAesKey":"c2VjcmV0","only443":true,"multipleAcksOk":true,"preFetch":["public:_apsk.primary.a.__e@c"],"sendJsonResponse":true,"later":{"x":[1]}}"#,
        );
        let request = RelayRequest::parse(&text).unwrap();
        assert_eq!(request.auth_mode, Some(AuthMode::Escr));
        assert!(request.only_443 && request.multiple_acks_ok && request.json_reply);
        assert_eq!(request.pre_fetch.len(), 1);
        assert!(!format!("{request:?}").contains("c2VjcmV0"), "a secret has no Debug");
        assert_eq!(RelayRequest::parse(&request.print()).unwrap(), request);
    }

    #[test]
    fn faults_are_named() {
        let field = |from: &str, to: &str| RelayRequest::parse(&OLD.replace(from, to)).unwrap_err();
        assert_eq!(field("6f9619ff-8b86-4d01-b42d-00cf4fc964ff", "a.b"), RequestError::Field("sessionId"));
        assert_eq!(field("6f9619ff-8b86-4d01-b42d-00cf4fc964ff", ""), RequestError::Field("sessionId"));
        assert_eq!(field("@c", ""), RequestError::Field("atSignA"));
        assert_eq!(field("@d", &"d".repeat(300)), RequestError::Field("atSignB"));
        assert_eq!(field("2024-", "20,24-"), RequestError::Field("clientNonce"));
        assert!(matches!(field("true", "1"), RequestError::Malformed(_)));
        assert!(matches!(field("clientNonce", "sessionId"), RequestError::Malformed(_)), "a field twice");
        assert!(matches!(RelayRequest::parse("6f9619ff"), Err(RequestError::Malformed(_))));
        assert_eq!(RelayRequest::parse(&" ".repeat(MESSAGE_BYTES + 1)), Err(RequestError::TooLong));
        let many = format!(r#","preFetch":[{}]}}"#, [r#""x""#; PRE_FETCH + 1].join(","));
        assert_eq!(field("}", &many), RequestError::Field("preFetch"));
    }

    proptest! {
        #[test]
        fn print_then_parse(
            session_id in "[0-9a-zA-Z-]{1,64}", at_sign_a in "@[^\\p{Cc}]{1,50}", at_sign_b in "@[a-z]{1,50}",
            authenticate_a: bool, authenticate_b: bool, client_nonce in "[^,\\p{Cc}]{1,60}",
            mode in prop::option::of("[a-z]{0,8}"), side_a in prop::option::of("[a-z]{0,8}"), key in prop::option::of("[A-Za-z0-9+/=]{44}"),
            flags in any::<[bool; 3]>(), pre_fetch in prop::collection::vec("[a-z:.@]{1,40}", 0..=PRE_FETCH),
        ) {
            let request = RelayRequest {
                session_id, at_sign_a, at_sign_b, authenticate_a, authenticate_b, client_nonce,
                auth_mode: mode.map(AuthMode::parse), auth_key: key.map(RelayAuthKey::new),
                only_443: flags[0], multiple_acks_ok: flags[1], pre_fetch, json_reply: flags[2],
                side_a: side_a.map(AuthMode::parse),
            };
            prop_assert_eq!(RelayRequest::parse(&request.print()).unwrap(), request);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,200}") {
            if let Ok(request) = RelayRequest::parse(&text) {
                prop_assert_eq!(RelayRequest::parse(&request.print()).unwrap(), request);
            }
        }
    }
}
