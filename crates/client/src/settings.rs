//! Who we are and whom we ask.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use postern_crypto::AtKeys;
use postern_net::tls::Trust;
use postern_proto::{AtSign, ServerAddress};

/// An atSign and its keys.
#[derive(Clone)]
pub struct Identity {
    /// Who.
    pub at_sign: AtSign,
    /// The proof.
    pub keys: Arc<AtKeys>,
}

/// Where and how to connect.
#[derive(Clone)]
pub struct Settings {
    /// The atDirectory.
    pub root: ServerAddress,
    /// Whose certificates count.
    pub trust: Trust,
    /// Silence after which the link is tested.
    pub heartbeat: Duration,
    /// Receive notifications whose text matches this regex; `None`: no monitor.
    pub monitor: Option<String>,
}

/// Port of the atDirectory when none is written.
const ROOT_PORT: u16 = 64;

/// A text that names no directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRoot(String);

/// Reads `host` or `host:port`.
pub fn parse_root(text: &str) -> Result<ServerAddress, BadRoot> {
    let text = text.trim();
    let bare_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    let with_port = if text.contains(':') && !bare_v6 {
        text.to_owned()
    } else if bare_v6 {
        format!("[{text}]:{ROOT_PORT}")
    } else {
        format!("{text}:{ROOT_PORT}")
    };
    with_port.parse().map_err(|()| BadRoot(text.to_owned()))
}

impl fmt::Display for BadRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} names no atDirectory: write host or host:port", self.0)
    }
}

impl std::error::Error for BadRoot {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots() {
        assert_eq!(parse_root("root.example").unwrap().to_string(), "root.example:64");
        assert_eq!(parse_root("127.0.0.1:6464").unwrap().port, 6464);
        assert_eq!(parse_root("::1").unwrap(), ServerAddress { host: "::1".into(), port: 64 });
        for bad in ["", "a b", "host:", "host:99999"] {
            assert!(parse_root(bad).is_err(), "{bad}");
        }
    }
}
