//! Where a relay is reached: its public record, and the relays that a request names.

use std::fmt;

use postern_proto::AtSign;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{ADDRESSES, HOST_BYTES, RECORD_BYTES};

/// One way to reach a relay. JSON: `{"host":"…","port":443,"tls":false}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayAddress {
    host: String,
    port: u16,
    tls: bool,
}

/// What a relay publishes as `relay.sshrvd@r`: its addresses, the best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayRecord {
    addresses: Vec<RelayAddress>,
}

/// A relay by its name and one of its addresses, as requests name it. JSON:
/// `{"relay":"@r","host":"…","port":443,"tls":false}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayPlace {
    /// Whose relay it is; a ticket must name it.
    pub relay: AtSign,
    /// Where it is dialled.
    pub address: RelayAddress,
}

/// A host or port that nothing can be at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAddress;

impl RelayAddress {
    /// Name of the record, with its namespace and without its owner.
    pub const RECORD: &str = "relay.sshrvd";

    /// `host`: a name or an address. `tls`: the port speaks TLS first.
    ///
    /// # Errors
    /// The host is empty, longer than [`HOST_BYTES`] or has characters that no host has; the port is 0.
    pub fn new(host: &str, port: u16, tls: bool) -> Result<Self, BadAddress> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        let fits = !host.is_empty() && host.len() <= HOST_BYTES && host.chars().all(good) && port != 0;
        if fits { Ok(Self { host: host.to_owned(), port, tls }) } else { Err(BadAddress) }
    }

    /// A name or an address, IPv6 without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether TLS comes first.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls
    }
}

impl RelayRecord {
    /// At most [`ADDRESSES`] are kept.
    #[must_use]
    pub fn new(mut addresses: Vec<RelayAddress>) -> Self {
        addresses.truncate(ADDRESSES);
        Self { addresses }
    }

    /// Reads a record. Addresses of a shape that we do not know are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > RECORD_BYTES || !text.trim_start().starts_with('{') {
            return None;
        }
        let record: RecordWire<serde_json::Value> = serde_json::from_str(text).ok()?;
        let read = |json| serde_json::from_value(json).ok();
        let addresses = record.addresses.into_iter().filter_map(read).take(ADDRESSES).collect();
        (record.v == 1).then_some(Self { addresses })
    }

    /// The JSON to publish.
    #[must_use]
    pub fn print(&self) -> String {
        let record = RecordWire { v: 1, addresses: self.addresses.iter().collect() };
        serde_json::to_string(&record).expect("strings and numbers are always JSON")
    }

    /// The best first.
    #[must_use]
    pub fn addresses(&self) -> &[RelayAddress] {
        &self.addresses
    }
}

#[derive(Serialize, Deserialize)]
struct RecordWire<A> {
    v: u32,
    addresses: Vec<A>,
}

#[derive(Serialize, Deserialize)]
struct AddressWire {
    host: String,
    port: u16,
    #[serde(default)]
    tls: bool,
}

#[derive(Serialize, Deserialize)]
struct PlaceWire {
    relay: String,
    host: String,
    port: u16,
    #[serde(default)]
    tls: bool,
}

impl Serialize for RelayAddress {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        AddressWire { host: self.host.clone(), port: self.port, tls: self.tls }.serialize(out)
    }
}

impl<'de> Deserialize<'de> for RelayAddress {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let AddressWire { host, port, tls } = AddressWire::deserialize(source)?;
        Self::new(&host, port, tls).map_err(serde::de::Error::custom)
    }
}

impl Serialize for RelayPlace {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let RelayAddress { host, port, tls } = self.address.clone();
        PlaceWire { relay: self.relay.to_string(), host, port, tls }.serialize(out)
    }
}

impl<'de> Deserialize<'de> for RelayPlace {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let PlaceWire { relay, host, port, tls } = PlaceWire::deserialize(source)?;
        let relay = AtSign::parse(&relay).map_err(|_| serde::de::Error::custom(BadAddress))?;
        let address = RelayAddress::new(&host, port, tls).map_err(serde::de::Error::custom)?;
        Ok(Self { relay, address })
    }
}

/// `host:port`, IPv6 in brackets, as people write it.
impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.tls { " (TLS)" } else { "" };
        if self.host.contains(':') {
            write!(f, "[{}]:{}{how}", self.host, self.port)
        } else {
            write!(f, "{}:{}{how}", self.host, self.port)
        }
    }
}

impl fmt::Display for RelayPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.relay, self.address)
    }
}

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no relay can be at this address")
    }
}

impl std::error::Error for BadAddress {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_pinned() {
        let plain = RelayAddress::new("relay.example", 443, false).unwrap();
        let six = RelayAddress::new("2001:db8::1", 8443, true).unwrap();
        let record = RelayRecord::new(vec![plain.clone(), six.clone()]);
        let text = concat!(
            r#"{"v":1,"addresses":[{"host":"relay.example","port":443,"tls":false},"#,
            r#"{"host":"2001:db8::1","port":8443,"tls":true}]}"#
        );
        assert_eq!(record.print(), text);
        assert_eq!(RelayRecord::parse(text), Some(record));
        assert_eq!(six.to_string(), "[2001:db8::1]:8443 (TLS)");
        let later = text.replace("\"tls\":true}", "\"tls\":true,\"quic\":1},{\"host\":1}");
        assert_eq!(RelayRecord::parse(&later).unwrap().addresses(), [plain, six]);
        for bad in ["", "[]", "{}", r#"{"v":2,"addresses":[]}"#, r#"{"v":1}"#] {
            assert_eq!(RelayRecord::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_place_is_pinned_and_checked() {
        let address = RelayAddress::new("10.0.0.1", 4443, false).unwrap();
        let place = RelayPlace { relay: AtSign::parse("r").unwrap(), address };
        let text = r#"{"relay":"@r","host":"10.0.0.1","port":4443,"tls":false}"#;
        assert_eq!(serde_json::to_string(&place).unwrap(), text);
        assert_eq!(serde_json::from_str::<RelayPlace>(text).unwrap(), place);
        for (one, other) in [("10.0.0.1", ""), ("10.0.0.1", "a b"), ("10.0.0.1", "a/b"), ("4443", "0"), ("@r", "@")] {
            assert!(serde_json::from_str::<RelayPlace>(&text.replace(one, other)).is_err(), "{other}");
        }
    }
}
