//! Requests and replies made of notifications. Source: NoPorts policy, the RPC transport.
//!
//! `request.⟨id⟩.⟨domain⟩.__rpcs.⟨base⟩` goes there, `ack|nack|success|error.⟨id⟩.…` come back. The id stands in the key and
//! in the text, and both must be the same.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::limits::{RPC_BYTES, RPC_ID_MAX};

/// Whose requests: a domain within a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    suffix: String,
}

/// What a notification of this protocol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A question.
    Request,
    /// "I have it and am at it": the wait begins anew.
    Ack,
    /// "I do not take it."
    Nack,
    /// The answer.
    Success,
    /// "I took it and failed."
    Error,
}

/// Number of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// The key of a notification, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcKey {
    /// What it is.
    pub kind: Kind,
    /// Which request it belongs to.
    pub id: RequestId,
}

/// A request's text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Its number.
    #[serde(rename = "reqId")]
    id: u64,
    /// What is asked.
    payload: Json,
}

/// A reply's text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request it answers.
    #[serde(rename = "reqId")]
    id: u64,
    #[serde(rename = "respType")]
    kind: Kind,
    /// The answer; `{}` when there is none.
    #[serde(default)]
    pub payload: Json,
    /// Why not.
    #[serde(default)]
    pub message: Option<String>,
}

/// A text that is no request or reply, or belongs to another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RpcError {
    /// Not the JSON it should be.
    Malformed,
    /// The number in the text is not the number in the key.
    OtherId,
}

/// Numbers for requests: they rise with the clock, begin at a place of their own, and do not
/// repeat when the program starts again, for the other side remembers them for a while.
#[derive(Debug)]
pub struct RequestIds {
    offset: u64,
    last: u64,
}

impl Domain {
    /// `⟨domain⟩.__rpcs.⟨base⟩`.
    pub fn new(domain: &str, base: &str) -> Self {
        Self { suffix: format!("{domain}.__rpcs.{base}").to_lowercase() }
    }

    /// Where devices ask their policy service.
    pub fn checks(base: &str) -> Self {
        Self::new("auth_checks", base)
    }

    /// Where managers change rules.
    pub fn manage(domain: &str, base: &str) -> Self {
        Self::new(domain, base)
    }

    /// A regex for monitors; it matches the whole key of requests.
    pub fn requests_regex(&self) -> String {
        format!(r"request\.[0-9]+\.{}@", regex_escape(&self.suffix))
    }

    /// A regex for monitors; it matches the whole key of replies.
    pub fn replies_regex(&self) -> String {
        format!(r"(ack|nack|success|error)\.[0-9]+\.{}@", regex_escape(&self.suffix))
    }

    /// The name of a notification, without recipient and sender.
    pub fn name(&self, kind: Kind, id: RequestId) -> String {
        format!("{kind}.{id}.{}", self.suffix)
    }

    /// Reads such a name; `None` for anything else.
    pub fn read(&self, bare_key: &str) -> Option<RpcKey> {
        let head = bare_key.strip_suffix(&*self.suffix)?.strip_suffix('.')?;
        let (kind, id) = head.split_once('.')?;
        Some(RpcKey { kind: Kind::parse(kind)?, id: RequestId::parse(id)? })
    }
}

/// Namespaces are words and dots; a name that a user chose may hold more.
fn regex_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if !c.is_alphanumeric() && c != '_' {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

impl Kind {
    const ALL: [Self; 5] = [Self::Request, Self::Ack, Self::Nack, Self::Success, Self::Error];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Ack => "ack",
            Self::Nack => "nack",
            Self::Success => "success",
            Self::Error => "error",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("no type of reply"))
    }
}

impl RequestId {
    /// Digits without a sign or a leading zero, at most [`RPC_ID_MAX`].
    fn parse(text: &str) -> Option<Self> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let plain = digits && (text.len() == 1 || !text.starts_with('0'));
        let id = plain.then(|| text.parse::<u64>().ok()).flatten()?;
        (id <= RPC_ID_MAX).then_some(Self(id))
    }
}

impl RequestIds {
    /// `random`: any number; some 1,000 s of the clock are chosen from.
    pub fn new(random: u32) -> Self {
        Self { offset: u64::from(random) % 1_000_000_000, last: 0 }
    }

    /// The next number. `now_micros`: since the epoch.
    pub fn next(&mut self, now_micros: u64) -> RequestId {
        self.last = now_micros.saturating_add(self.offset).max(self.last + 1).min(RPC_ID_MAX);
        RequestId(self.last)
    }
}

impl Request {
    /// The text of a request.
    pub fn print(id: RequestId, payload: Json) -> String {
        serde_json::to_string(&Self { id: id.0, payload }).unwrap_or_default()
    }

    /// Reads the payload of a request whose key had this number.
    pub fn read(id: RequestId, text: &str) -> Result<Json, RpcError> {
        if text.len() > RPC_BYTES {
            return Err(RpcError::Malformed);
        }
        let request: Self = serde_json::from_str(text).map_err(|_| RpcError::Malformed)?;
        if request.id == id.0 { Ok(request.payload) } else { Err(RpcError::OtherId) }
    }
}

impl Reply {
    /// "I have it."
    pub fn ack(id: RequestId) -> Self {
        Self { id: id.0, kind: Kind::Ack, payload: empty(), message: None }
    }

    /// "I do not take it."
    pub fn nack(id: RequestId, why: impl Into<String>) -> Self {
        Self { id: id.0, kind: Kind::Nack, payload: empty(), message: Some(why.into()) }
    }

    /// The answer.
    pub fn success(id: RequestId, payload: Json) -> Self {
        Self { id: id.0, kind: Kind::Success, payload, message: None }
    }

    /// "I failed."
    pub fn error(id: RequestId, why: impl Into<String>) -> Self {
        Self { id: id.0, kind: Kind::Error, payload: empty(), message: Some(why.into()) }
    }

    /// The request it answers.
    pub fn id(&self) -> RequestId {
        RequestId(self.id)
    }

    /// What it is; it stands in its key too.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its text.
    pub fn print(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a reply that came under this key.
    pub fn read(key: RpcKey, text: &str) -> Result<Self, RpcError> {
        if text.len() > RPC_BYTES {
            return Err(RpcError::Malformed);
        }
        let reply: Self = serde_json::from_str(text).map_err(|_| RpcError::Malformed)?;
        if reply.kind != key.kind || reply.kind == Kind::Request {
            return Err(RpcError::Malformed);
        }
        if reply.id == key.id.0 { Ok(reply) } else { Err(RpcError::OtherId) }
    }
}

fn empty() -> Json {
    Json::Object(serde_json::Map::new())
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed request or reply",
            Self::OtherId => "the reqId in the text is not the one in the key",
        })
    }
}

impl std::error::Error for RpcError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn checks() -> Domain {
        Domain::checks("sshnp")
    }

    #[test]
    fn the_wire_form() {
        let id = RequestIds::new(0).next(1_729_760_400_123_456);
        assert_eq!(checks().name(Kind::Request, id), "request.1729760400123456.auth_checks.__rpcs.sshnp");
        assert_eq!(Request::print(id, json!({"a": 1})), r#"{"reqId":1729760400123456,"payload":{"a":1}}"#);
        assert_eq!(
            Reply::ack(id).print(),
            r#"{"reqId":1729760400123456,"respType":"ack","payload":{},"message":null}"#
        );
        assert_eq!(
            Reply::nack(id, "no").print(),
            r#"{"reqId":1729760400123456,"respType":"nack","payload":{},"message":"no"}"#
        );
    }

    #[test]
    fn keys_of_others_are_not_ours() {
        for key in [
            "request.1.npp.__rpcs.sshnp",
            "request.auth_checks.__rpcs.sshnp",
            "request.1x.auth_checks.__rpcs.sshnp",
            "request.01.auth_checks.__rpcs.sshnp",
            "request.-1.auth_checks.__rpcs.sshnp",
            "request.9007199254740992.auth_checks.__rpcs.sshnp",
            "request.1.2.auth_checks.__rpcs.sshnp",
            "xrequest.1.auth_checks.__rpcs.sshnp",
            "request.1.auth_checks.__rpcs.sshnp.other",
            "request.1xauth_checks.__rpcs.sshnp",
        ] {
            assert_eq!(checks().read(key), None, "{key}");
        }
        assert!(checks().read("success.0.auth_checks.__rpcs.sshnp").is_some());
    }

    #[test]
    fn the_number_stands_twice() {
        let id = RequestId(7);
        assert_eq!(Request::read(id, r#"{"reqId":7,"payload":{}}"#), Ok(json!({})));
        assert_eq!(Request::read(id, r#"{"reqId":8,"payload":{}}"#), Err(RpcError::OtherId));
        for bad in [
            r#"{"payload":{}}"#,
            r#"{"reqId":"7","payload":{}}"#,
            r#"{"reqId":7}"#,
            "",
            "[]",
            r#"{"reqId":-7,"payload":1}"#,
        ] {
            assert_eq!(Request::read(id, bad), Err(RpcError::Malformed), "{bad}");
        }
        let key = RpcKey { kind: Kind::Success, id };
        assert!(Reply::read(key, r#"{"reqId":7,"respType":"success","payload":{"authorized":true}}"#).is_ok());
        assert_eq!(Reply::read(key, r#"{"reqId":8,"respType":"success","payload":{}}"#), Err(RpcError::OtherId));
        // A reply that says one thing in its key and another in its text says nothing.
        assert_eq!(Reply::read(key, r#"{"reqId":7,"respType":"error","payload":{}}"#), Err(RpcError::Malformed));
        assert_eq!(Reply::read(key, r#"{"reqId":7,"respType":"odd","payload":{}}"#), Err(RpcError::Malformed));
    }

    #[test]
    fn numbers_rise_though_the_clock_does_not() {
        let mut ids = RequestIds::new(12);
        let all: Vec<u64> = [100, 100, 90, 5000, 4999].map(|now| ids.next(now).0).into();
        assert_eq!(all, [112, 113, 114, 5012, 5013]);
    }

    proptest! {
        #[test]
        fn keys_come_through(id in 0..=RPC_ID_MAX, kind in 0..5usize) {
            let key = RpcKey { kind: Kind::ALL[kind], id: RequestId(id) };
            prop_assert_eq!(checks().read(&checks().name(key.kind, key.id)), Some(key));
        }

        #[test]
        fn replies_come_through(id in 0..=RPC_ID_MAX, why in ".{0,20}") {
            let id = RequestId(id);
            for reply in [Reply::ack(id), Reply::nack(id, why.clone()), Reply::success(id, json!({"x": why})), Reply::error(id, "e")] {
                let key = RpcKey { kind: reply.kind(), id };
                prop_assert_eq!(Reply::read(key, &reply.print()), Ok(reply));
            }
        }

        #[test]
        fn any_text_is_survived(text in ".{0,200}") {
            let _ = checks().read(&text);
            let _ = Request::read(RequestId(1), &text);
            let _ = Reply::read(RpcKey { kind: Kind::Ack, id: RequestId(1) }, &text);
        }
    }
}
