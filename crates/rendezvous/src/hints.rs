//! Small messages around a session: how its ends will authenticate, where a relay is, how far it is.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use postern_proto::AtSign;
use serde::{Deserialize, Serialize};

use crate::limits::{CANDIDATES, HOST_BYTES, MESSAGE_BYTES};
use crate::request::{AuthMode, is_nonce, is_session_id};

/// `auth_modes`: the client tells a relay that detects modes what to expect, so that nobody waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModesHint {
    /// Which session.
    pub session_id: String,
    /// The relay's nonce of that session.
    pub rvd_nonce: String,
    /// The client's sockets.
    pub side_a: Option<AuthMode>,
    /// The device's sockets.
    pub side_b: Option<AuthMode>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModesWire {
    session_id: String,
    rvd_nonce: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    side_a: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    side_b: Option<String>,
}

impl ModesHint {
    /// Reads the value of an `auth_modes` notification. Modes that we do not know count as not told.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let wire: ModesWire = read(text)?;
        let mode = |text: Option<String>| {
            text.map(AuthMode::parse).filter(|mode| matches!(mode, AuthMode::Payload | AuthMode::Escr))
        };
        let good = is_session_id(&wire.session_id) && is_nonce(&wire.rvd_nonce);
        good.then(|| Self {
            session_id: wire.session_id,
            rvd_nonce: wire.rvd_nonce,
            side_a: mode(wire.side_a),
            side_b: mode(wire.side_b),
        })
    }

    /// The JSON to send.
    #[must_use]
    pub fn print(&self) -> String {
        let word = |mode: &Option<AuthMode>| mode.as_ref().map(|mode| mode.as_str().to_owned());
        let wire = ModesWire {
            session_id: self.session_id.clone(),
            rvd_nonce: self.rvd_nonce.clone(),
            side_a: word(&self.side_a),
            side_b: word(&self.side_b),
        };
        serde_json::to_string(&wire).expect("strings are always JSON")
    }
}

/// Name of the question where a relay is.
pub const DISCOVER_REQUEST: &str = "discover_request";
/// Name of a client's question how far relays are from the device.
pub const LATENCY_REQUEST: &str = "relay_latency_request";
/// Name of its answer.
pub const LATENCY_RESPONSE: &str = "relay_latency_response";
/// Name of a relay's answer where it is.
pub const DISCOVER_RESPONSE: &str = "discover_response";

/// "Tell me these of yourself."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoverRequest {
    /// `ipaddr`, `port`; others are ignored.
    pub items: Vec<String>,
}

/// Where a relay can be reached, to measure how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovered {
    /// Name or address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipaddr: Option<String>,
    /// A port that accepts connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<NonZeroU16>,
}

impl DiscoverRequest {
    /// Both items.
    #[must_use]
    pub fn new() -> Self {
        Self { items: vec!["ipaddr".into(), "port".into()] }
    }

    /// Reads one; anything unreadable asks for nothing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        read(text)
    }

    /// The JSON to send.
    #[must_use]
    pub fn print(&self) -> String {
        serde_json::to_string(self).expect("strings are always JSON")
    }

    /// Answers what is asked for and nothing else.
    #[must_use]
    pub fn answer(&self, host: &str, port: Option<NonZeroU16>) -> Discovered {
        let asked = |item: &str| self.items.iter().any(|asked| asked == item);
        Discovered { ipaddr: asked("ipaddr").then(|| host.to_owned()), port: port.filter(|_| asked("port")) }
    }
}

impl Default for DiscoverRequest {
    fn default() -> Self {
        Self::new()
    }
}

impl Discovered {
    /// Reads one with both items; the address is fit to be dialled.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let found: Self = read(text)?;
        let good = found.ipaddr.as_deref().is_some_and(is_host) && found.port.is_some();
        good.then_some(found)
    }

    /// The JSON to send.
    #[must_use]
    pub fn print(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers are always JSON")
    }
}

/// `relay_latency_request`: relays that the device is to measure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RelayMap(pub BTreeMap<AtSign, Discovered>);

impl RelayMap {
    /// Reads at most [`CANDIDATES`] relays; those without an address or a port are left out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let wire: BTreeMap<String, Discovered> = read(text)?;
        let good = |(name, found): (String, Discovered)| {
            let usable = found.ipaddr.as_deref().is_some_and(is_host) && found.port.is_some();
            AtSign::parse(&name).ok().filter(|_| usable).map(|name| (name, found))
        };
        Some(Self(wire.into_iter().filter_map(good).take(CANDIDATES).collect()))
    }

    /// The JSON to send.
    #[must_use]
    pub fn print(&self) -> String {
        let wire: BTreeMap<String, &Discovered> =
            self.0.iter().map(|(name, found)| (name.to_string(), found)).collect();
        serde_json::to_string(&wire).expect("strings and numbers are always JSON")
    }
}

/// `relay_latency_response`: milliseconds to each relay that could be reached.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Latencies(pub BTreeMap<AtSign, f64>);

impl Latencies {
    /// Reads numbers that are times; others are left out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let wire: BTreeMap<String, serde_json::Value> = read(text)?;
        let good = |(name, value): (String, serde_json::Value)| {
            let ms = value.as_f64().filter(|ms| ms.is_finite() && *ms >= 0.0)?;
            Some((AtSign::parse(&name).ok()?, ms))
        };
        Some(Self(wire.into_iter().filter_map(good).take(CANDIDATES).collect()))
    }

    /// The JSON to send: whole milliseconds, rounded up.
    #[must_use]
    pub fn print(&self) -> String {
        let wire: BTreeMap<String, serde_json::Value> =
            self.0.iter().map(|(name, ms)| (name.to_string(), serde_json::Value::from(whole(*ms)))).collect();
        serde_json::to_string(&wire).expect("strings and numbers are always JSON")
    }

    /// The relay with the lowest mean of both ends' times; one that either end could not reach comes after all that both
    /// could, and is taken only when there is no other.
    #[must_use]
    pub fn nearest(&self, theirs: &Self) -> Option<AtSign> {
        let both = self.0.iter().filter_map(|(name, ours)| Some((name, ours + theirs.0.get(name)?)));
        let nearest = both.min_by(|a, b| a.1.total_cmp(&b.1));
        let alone = || self.0.iter().map(|(name, ms)| (name, *ms)).min_by(|a, b| a.1.total_cmp(&b.1));
        nearest.or_else(alone).map(|(name, _)| name.clone())
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time, bounded by its timeout")]
fn whole(ms: f64) -> u64 {
    ms.ceil() as u64
}

fn is_host(text: &str) -> bool {
    (1..=HOST_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b',')
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    if text.len() > MESSAGE_BYTES {
        return None;
    }
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_wire_forms_are_pinned() {
        let text = r#"{"sessionId":"6f","rvdNonce":"now","sideA":"escr","sideB":"payload"}"#;
        let hint = ModesHint::parse(text).unwrap();
        assert_eq!((&hint.side_a, &hint.side_b), (&Some(AuthMode::Escr), &Some(AuthMode::Payload)));
        assert_eq!(hint.print(), text);
        assert_eq!(ModesHint::parse(&text.replace("escr", "later")).unwrap().side_a, None);
        assert_eq!(ModesHint::parse(&text.replace("6f", "6.f")), None);

        assert_eq!(DiscoverRequest::new().print(), r#"{"items":["ipaddr","port"]}"#);
        let found = DiscoverRequest::new().answer("relay.example", NonZeroU16::new(443));
        assert_eq!(found.print(), r#"{"ipaddr":"relay.example","port":443}"#);
        assert_eq!(Discovered::parse(&found.print()), Some(found.clone()));
        let asked = DiscoverRequest::parse(r#"{"items":["port","memory"]}"#).unwrap();
        assert_eq!(asked.answer("relay.example", NonZeroU16::new(443)).print(), r#"{"port":443}"#);

        let map = RelayMap([(AtSign::parse("rv_am").unwrap(), found)].into());
        assert_eq!(map.print(), r#"{"@rv_am":{"ipaddr":"relay.example","port":443}}"#);
        assert_eq!(RelayMap::parse(&map.print()), Some(map));
        assert_eq!(RelayMap::parse(r#"{"@a":{"ipaddr":"x y","port":1},"@b":{"port":1}}"#), Some(RelayMap::default()));
        let ms = Latencies([(AtSign::parse("rv_am").unwrap(), 12.3)].into());
        assert_eq!(ms.print(), r#"{"@rv_am":13}"#);
    }

    #[test]
    fn the_nearest_is_near_to_both() {
        let times = |text: &str| Latencies::parse(text).unwrap();
        let name = |name: &str| Some(AtSign::parse(name).unwrap());
        let ours = times(r#"{"@a":10,"@b":30,"@c":1}"#);
        assert_eq!(ours.nearest(&times(r#"{"@a":90,"@b":20}"#)), name("b"));
        assert_eq!(ours.nearest(&times("{}")), name("c"), "the device did not say");
        assert_eq!(times("{}").nearest(&ours), None, "we reach none");
        assert_eq!(times(r#"{"@a":-1,"@b":"x","@c":1e999}"#.replace("1e999", "null").as_str()), Latencies::default());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,200}") {
            let _ = (ModesHint::parse(&text), Discovered::parse(&text), RelayMap::parse(&text), Latencies::parse(&text));
        }
    }
}
