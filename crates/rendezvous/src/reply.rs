//! What a relay answers: two ports, or a refusal.

use std::fmt;
use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::limits::{HOST_BYTES, MESSAGE_BYTES, NACK_CHARS};
use crate::request::is_nonce;

/// "Here are your ports." Comma-separated `host,portA,portB,nonce`, or JSON for clients that asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayReply {
    /// Name or address of the relay, handed on word for word.
    pub host: String,
    /// The client's port.
    pub port_a: NonZeroU16,
    /// The device's port.
    pub port_b: NonZeroU16,
    /// The relay's share of the text that is signed. None in the reply to a request of the oldest kind, printed `null`.
    pub nonce: Option<String>,
    /// JSON form only: the relay takes part in session event logging.
    pub supports_event_logging: bool,
    /// JSON form only: the relay finds out by itself how each socket authenticates.
    pub auto_detects_auth: bool,
}

/// Why a text is no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyError {
    /// Longer than [`MESSAGE_BYTES`].
    TooLong,
    /// Fewer than four fields, or not the JSON of a reply.
    Malformed(String),
    /// This field is empty, too long, or not what it should be.
    Field(&'static str),
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "read a relay's reply longer than {MESSAGE_BYTES} bytes"),
            Self::Malformed(reason) => write!(f, "read the relay's reply: {reason}"),
            Self::Field(name) => write!(f, "use the relay's {name}"),
        }
    }
}

impl std::error::Error for ReplyError {}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    address: String,
    port_a: NonZeroU16,
    port_b: NonZeroU16,
    rvd_nonce: Option<String>,
    #[serde(default)]
    supports_event_logging: bool,
    #[serde(default)]
    auto_detects_relay_auth: bool,
}

impl RelayReply {
    /// Reads either form.
    ///
    /// # Errors
    /// See [`ReplyError`].
    pub fn parse(text: &str) -> Result<Self, ReplyError> {
        if text.len() > MESSAGE_BYTES {
            return Err(ReplyError::TooLong);
        }
        let text = text.trim();
        let reply = if text.starts_with('{') { Self::parse_json(text)? } else { Self::parse_csv(text)? };
        let host_is_good = (1..=HOST_BYTES).contains(&reply.host.len())
            && reply.host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]%".contains(&b));
        if !host_is_good {
            return Err(ReplyError::Field("address"));
        }
        if !reply.nonce.as_deref().is_none_or(is_nonce) {
            return Err(ReplyError::Field("nonce"));
        }
        Ok(reply)
    }

    /// Four fields or more; what follows the fourth is ignored.
    fn parse_csv(text: &str) -> Result<Self, ReplyError> {
        let mut fields = text.split(',').map(str::trim);
        let mut next = || fields.next().ok_or_else(|| ReplyError::Malformed("fewer than four fields".to_owned()));
        let (host, port_a, port_b, nonce) = (next()?, next()?, next()?, next()?);
        Ok(Self {
            host: host.to_owned(),
            port_a: port(port_a).ok_or(ReplyError::Field("portA"))?,
            port_b: port(port_b).ok_or(ReplyError::Field("portB"))?,
            nonce: (nonce != "null").then(|| nonce.to_owned()),
            supports_event_logging: false,
            auto_detects_auth: false,
        })
    }

    fn parse_json(text: &str) -> Result<Self, ReplyError> {
        let wire: Wire = serde_json::from_str(text).map_err(|error| ReplyError::Malformed(error.to_string()))?;
        Ok(Self {
            host: wire.address,
            port_a: wire.port_a,
            port_b: wire.port_b,
            nonce: wire.rvd_nonce.filter(|nonce| nonce != "null"),
            supports_event_logging: wire.supports_event_logging,
            auto_detects_auth: wire.auto_detects_relay_auth,
        })
    }

    /// `host,portA,portB,nonce`: the form that every client reads.
    #[must_use]
    pub fn print_csv(&self) -> String {
        let nonce = self.nonce.as_deref().unwrap_or("null");
        format!("{},{},{},{nonce}", self.host, self.port_a, self.port_b)
    }

    /// The JSON form, for clients that asked for it.
    #[must_use]
    pub fn print_json(&self) -> String {
        let wire = Wire {
            address: self.host.clone(),
            port_a: self.port_a,
            port_b: self.port_b,
            rvd_nonce: self.nonce.clone(),
            supports_event_logging: self.supports_event_logging,
            auto_detects_relay_auth: self.auto_detects_auth,
        };
        serde_json::to_string(&wire).expect("strings, numbers and booleans are always JSON")
    }
}

/// Digits only: `parse` would take a sign.
fn port(text: &str) -> Option<NonZeroU16> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

/// The relay's refusal, fit to be shown: one line, bounded, no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack(String);

impl Nack {
    /// Takes any text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let clean = |c: char| if c.is_control() { ' ' } else { c };
        Self(text.trim().chars().take(NACK_CHARS).map(clean).collect())
    }

    /// The reason, which is also the wire form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Nack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_comma_form_is_pinned() {
        let text = "203.0.113.7,41001,41002,2024-10-24T10:00:00.987654";
        let reply = RelayReply::parse(text).unwrap();
        assert_eq!((reply.port_a.get(), reply.port_b.get()), (41001, 41002));
        assert_eq!(reply.nonce.as_deref(), Some("2024-10-24T10:00:00.987654"));
        assert_eq!(reply.print_csv(), text);
        assert_eq!(RelayReply::parse(&format!("{text},more,and more")).unwrap(), reply);
    }

    #[test]
    fn the_literal_null_is_no_nonce() {
        let reply = RelayReply::parse("relay.example,443,443,null").unwrap();
        assert_eq!(reply.nonce, None);
        assert_eq!(reply.print_csv(), "relay.example,443,443,null");
    }

    #[test]
    fn the_json_form_is_pinned() {
        let text = r#"{"address":"relay.example","portA":1,"portB":65535,"rvdNonce":"n","supportsEventLogging":true,"autoDetectsRelayAuth":true}"#;
        let reply = RelayReply::parse(text).unwrap();
        assert!(reply.supports_event_logging && reply.auto_detects_auth);
        assert_eq!(reply.print_json(), text);
        let short = r#"{"address":"relay.example","portA":1,"portB":2,"rvdNonce":"n","later":null}"#;
        assert!(!RelayReply::parse(short).unwrap().auto_detects_auth);
    }

    #[test]
    fn faults_are_named() {
        let error = |text: &str| RelayReply::parse(text).unwrap_err();
        assert!(matches!(error(""), ReplyError::Malformed(_)));
        assert!(matches!(error("host,1,2"), ReplyError::Malformed(_)));
        assert!(matches!(error("{}"), ReplyError::Malformed(_)));
        assert_eq!(error(",1,2,n"), ReplyError::Field("address"));
        assert_eq!(error("ho st,1,2,n"), ReplyError::Field("address"));
        assert_eq!(error("host,0,2,n"), ReplyError::Field("portA"));
        assert_eq!(error("host,1,65536,n"), ReplyError::Field("portB"));
        assert_eq!(error("host,1,2,"), ReplyError::Field("nonce"));
        assert_eq!(error(&"x".repeat(MESSAGE_BYTES + 1)), ReplyError::TooLong);
    }

    #[test]
    fn a_refusal_is_made_fit_to_be_shown() {
        assert_eq!(Nack::new(" 443 is\u{1b}[2J\nnot bound ").as_str(), "443 is [2J not bound");
        assert_eq!(Nack::new(&"é".repeat(10_000)).as_str().chars().count(), NACK_CHARS);
    }

    proptest! {
        #[test]
        fn print_then_parse(
            host in "[a-zA-Z0-9._:-]{1,60}", port_a: NonZeroU16, port_b: NonZeroU16,
            nonce in prop::option::of("[!-+\\--~]{1,40}"), supports_event_logging: bool, auto_detects_auth: bool,
        ) {
            let nonce = nonce.filter(|nonce| nonce != "null");
            let reply = RelayReply { host, port_a, port_b, nonce, supports_event_logging, auto_detects_auth };
            prop_assert_eq!(&RelayReply::parse(&reply.print_json()).unwrap(), &reply);
            let plain = RelayReply { supports_event_logging: false, auto_detects_auth: false, ..reply };
            prop_assert_eq!(&RelayReply::parse(&plain.print_csv()).unwrap(), &plain);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "[a-z0-9,.{}\":]{0,60}") {
            if let Ok(reply) = RelayReply::parse(&text) {
                prop_assert_eq!(RelayReply::parse(&reply.print_json()).unwrap(), reply);
            }
        }
    }
}
