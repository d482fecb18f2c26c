//! Which targets a device lets anybody reach.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::limits::PERMIT_ENTRIES;

/// A target as the request wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name or address, lower case; never resolved for the comparison.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// A list of `host:port`, `*:port`, `host:*`, `*:*`. The comparison is of text:
/// `localhost` is not `127.0.0.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermitOpen {
    entries: Vec<Entry>,
}

/// Stands for a host where policy speaks of listening.
const LISTEN: &str = "listen";

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// `None`: any host.
    host: Option<String>,
    /// `None`: any port.
    port: Option<u16>,
}

/// An entry that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPermit {
    entry: String,
    wanted: &'static str,
}

const TARGETS: &str = "host:port (a port from 1 to 65535 or *, a host or *)";
const PORTS: &str = "port, range of ports like 9000-9010, or *";

impl BadPermit {
    fn target(entry: impl Into<String>) -> Self {
        Self { entry: entry.into(), wanted: TARGETS }
    }

    pub(crate) fn port(entry: impl Into<String>) -> Self {
        Self { entry: entry.into(), wanted: PORTS }
    }
}

impl PermitOpen {
    /// Reads a comma-separated list. The last colon parts host and port.
    pub fn parse(text: &str) -> Result<Self, BadPermit> {
        let entries: Vec<Entry> =
            text.split(',').map(str::trim).filter(|e| !e.is_empty()).map(Entry::parse).collect::<Result<_, _>>()?;
        if entries.len() > PERMIT_ENTRIES {
            return Err(BadPermit::target(format!("more than {PERMIT_ENTRIES} entries")));
        }
        Ok(Self { entries })
    }

    /// `*:*`
    pub fn anything() -> Self {
        Self { entries: vec![Entry { host: None, port: None }] }
    }

    /// A list that allows nothing.
    pub fn nothing() -> Self {
        Self { entries: Vec::new() }
    }

    /// Whether this target is on the list.
    pub fn allows(&self, target: &HostPort) -> bool {
        self.entries.iter().any(|entry| {
            entry.host.as_ref().is_none_or(|host| *host == target.host)
                && entry.port.is_none_or(|port| port == target.port)
        })
    }

    /// Whether an entry names this very address, with or without brackets: no star, and no name that leads to it.
    pub fn names(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.entries.iter().any(|entry| {
            let host = entry.host.as_deref().map(|host| host.trim_matches(['[', ']']));
            host.and_then(|host| host.parse::<IpAddr>().ok()).is_some_and(|listed| listed.to_canonical() == ip)
                && entry.port.is_none_or(|port| port == address.port())
        })
    }

    /// Whether it says so that a port of the device's own may be listened on: `listen:8080`, `listen:*`, or `*:*`. No other
    /// star means it.
    #[must_use]
    pub fn lets_listen(&self, port: u16) -> bool {
        self.entries.iter().any(|entry| match (entry.host.as_deref(), entry.port) {
            (Some(LISTEN), None) | (None, None) => true,
            (Some(LISTEN), Some(listed)) => listed == port,
            _ => false,
        })
    }

    /// The entries as the heartbeat lists them.
    pub fn to_strings(&self) -> Vec<String> {
        self.entries.iter().map(ToString::to_string).collect()
    }
}

/// `localhost:22,localhost:3389`: ssh and remote desktop of the device itself.
impl Default for PermitOpen {
    fn default() -> Self {
        let local = |port| Entry { host: Some("localhost".into()), port: Some(port) };
        Self { entries: vec![local(22), local(3389)] }
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Self, BadPermit> {
        let bad = || BadPermit::target(text);
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(bad());
        }
        let host = (host != "*").then(|| host.to_lowercase());
        let port = match port {
            "*" => None,
            // `parse` would take a sign.
            number if number.starts_with('+') => return Err(bad()),
            number => Some(number.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(bad)?),
        };
        Ok(Self { host, port })
    }
}

impl HostPort {
    /// `localhost:⟨port⟩`
    pub fn localhost(port: u16) -> Self {
        Self { host: "localhost".into(), port }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.host.as_deref().unwrap_or("*"))?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => f.write_str(":*"),
        }
    }
}

impl fmt::Display for PermitOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_strings().join(","))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for BadPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no {}", self.entry, self.wanted)
    }
}

impl std::error::Error for BadPermit {}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, port: u16) -> HostPort {
        HostPort { host: host.into(), port }
    }

    #[test]
    fn text_is_compared_and_stars_are_wild() {
        let list = PermitOpen::parse("localhost:22, *:80,db.lan:*").unwrap();
        for (host, port, want) in [
            ("localhost", 22, true),
            ("127.0.0.1", 22, false),
            ("anything", 80, true),
            ("db.lan", 5432, true),
            ("db.lan.evil", 5432, false),
            ("localhost", 23, false),
        ] {
            assert_eq!(list.allows(&target(host, port)), want, "{host}:{port}");
        }
        assert!(PermitOpen::parse("*:*").unwrap().allows(&target("x", 1)));
        assert!(!PermitOpen::parse("").unwrap().allows(&target("localhost", 22)));
        assert!(PermitOpen::parse("[fe80::1]:22").unwrap().allows(&target("[fe80::1]", 22)));
    }

    #[test]
    fn policy_lets_listen_by_name_or_not_at_all() {
        for (list, port, want) in [
            ("listen:8080", 8080, true),
            ("listen:8080", 8081, false),
            ("listen:*", 8081, true),
            ("*:*", 8080, true),
            ("*:8080,localhost:*", 8080, false),
            ("", 8080, false),
        ] {
            assert_eq!(PermitOpen::parse(list).unwrap().lets_listen(port), want, "{list} {port}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for bad in ["localhost", "localhost:", ":22", "localhost:0", "localhost:65536", "localhost:2x", "a b:22"] {
            assert!(PermitOpen::parse(bad).is_err(), "{bad}");
        }
    }
}
