//! Which proxy leads to which host.

use std::fmt;
use std::net::IpAddr;

use zeroize::Zeroizing;

use super::{Kind, Login, Proxy};

/// A proxy, and the hosts that are reached without it.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    proxy: Option<Proxy>,
    direct: Vec<Direct>,
}

/// Why the value of a variable names no proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadProxy {
    variable: &'static str,
    why: &'static str,
}

/// One entry of `no_proxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Direct {
    All,
    /// The name, and every name below it.
    Name(String, Option<u16>),
    /// Addresses whose first bits are these.
    Network(IpAddr, u8),
}

const SCHEMES: &str = "use http://[user:password@]host:port or socks5://[user:password@]host:port";

impl Rules {
    /// `variable` gives the value of an environment variable, if it is set.
    ///
    /// # Errors
    /// The first variable that is set names no proxy that we can use.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, BadProxy> {
        let set = |names: &[&'static str]| {
            names.iter().find_map(|name| Some((*name, variable(name).filter(|value| !value.trim().is_empty())?)))
        };
        let proxy = match set(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]) {
            Some((name, value)) => Some(parse(value.trim()).map_err(|why| BadProxy { variable: name, why })?),
            None => None,
        };
        let direct = set(&["no_proxy", "NO_PROXY"]).map(|(_, value)| value).unwrap_or_default();
        let direct = direct.split([',', ' ']).filter_map(|entry| Direct::parse(entry.trim())).collect();
        Ok(Self { proxy, direct })
    }

    /// The proxy that leads to `host:port`. `None`: it is dialled directly.
    #[must_use]
    pub fn proxy_for(&self, host: &str, port: u16) -> Option<&Proxy> {
        let proxy = self.proxy.as_ref()?;
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        // Nobody else can reach what is on our loopback.
        let ours = host == "localhost" || host.ends_with(".localhost") || ip.is_some_and(|ip| ip.is_loopback());
        (!ours && !self.direct.iter().any(|entry| entry.covers(&host, ip, port))).then_some(proxy)
    }
}

fn parse(text: &str) -> Result<Proxy, &'static str> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let (kind, usual) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (Kind::Http, 80),
        "socks5" | "socks5h" => (Kind::Socks5, 1080),
        _ => return Err(SCHEMES),
    };
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let decoded = |text| percent_decoded(text).ok_or("its user or password has a % that stands for nothing");
            (Some(Login { user: decoded(user)?, password: Zeroizing::new(decoded(password)?) }), place)
        }
        None => (None, rest),
    };
    let (host, port) = match place.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => place.rsplit_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or("its port is no number")?,
        None => usual,
    };
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(good) {
        return Err(SCHEMES);
    }
    // A byte counts the length of each in SOCKS5, and a colon ends the user in HTTP.
    if let Some(login) = &login
        && (login.user.len() > 255 || login.password.len() > 255 || login.user.contains(':'))
    {
        return Err("its user or password cannot be sent to a proxy");
    }
    Ok(Proxy { kind, host: host.to_owned(), port, login })
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(match byte {
            b'%' => u8::try_from(digit(rest.next()?)? * 16 + digit(rest.next()?)?).ok()?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

impl Direct {
    fn parse(entry: &str) -> Option<Self> {
        if entry.is_empty() {
            return None;
        }
        if entry == "*" {
            return Some(Self::All);
        }
        if let Some((ip, bits)) = entry.split_once('/') {
            let (ip, bits) = (ip.parse::<IpAddr>().ok()?, bits.parse().ok()?);
            return Some(Self::Network(ip, bits));
        }
        if let Ok(ip) = entry.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Some(Self::Network(ip, if ip.is_ipv4() { 32 } else { 128 }));
        }
        let (name, port) = match entry.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (entry, None),
        };
        let name = name.trim_start_matches('*').trim_matches('.').to_ascii_lowercase();
        (!name.is_empty()).then_some(Self::Name(name, port))
    }

    fn covers(&self, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Name(name, its_port) => {
                let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
                below && its_port.is_none_or(|its_port| its_port == port)
            }
            Self::Network(network, bits) => ip.is_some_and(|ip| same_network(*network, ip, *bits)),
        }
    }
}

fn same_network(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            let differ = one.to_bits() ^ other.to_bits();
            differ.leading_zeros() >= u32::from(bits.min(32))
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            let differ = one.to_bits() ^ other.to_bits();
            differ.leading_zeros() >= u32::from(bits.min(128))
        }
        _ => false,
    }
}

impl fmt::Display for BadProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the environment variable {} names no proxy that can be used: {}", self.variable, self.why)
    }
}

impl std::error::Error for BadProxy {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(variables: &[(&str, &str)]) -> Result<Rules, BadProxy> {
        Rules::from_variables(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    fn shown(value: &str) -> Option<String> {
        rules(&[("https_proxy", value)]).ok()?.proxy_for("a.example", 443).map(ToString::to_string)
    }

    #[test]
    fn proxies_are_written_as_for_curl() {
        assert_eq!(shown("http://proxy.example:3128/").as_deref(), Some("http://proxy.example:3128"));
        assert_eq!(shown("proxy.example:3128").as_deref(), Some("http://proxy.example:3128"));
        assert_eq!(shown("http://proxy.example").as_deref(), Some("http://proxy.example:80"));
        assert_eq!(shown("socks5h://[2001:db8::1]").as_deref(), Some("socks5://[2001:db8::1]:1080"));
        assert_eq!(shown("").as_deref(), None);
        let proxy = parse("http://me%40corp:p%3Aw%2f@proxy:1").unwrap();
        let login = proxy.login.unwrap();
        assert_eq!((login.user.as_str(), login.password.as_str()), ("me@corp", "p:w/"));
        for bad in ["https://proxy:1", "http://", "http://proxy:x", "http://proxy:0", "http://me:secret%@proxy", "a b"]
        {
            let error = rules(&[("ALL_PROXY", bad)]).unwrap_err().to_string();
            assert!(error.contains("ALL_PROXY") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn some_hosts_need_none() {
        let rules = rules(&[
            ("https_proxy", "http://proxy:1"),
            ("all_proxy", "http://other:1"),
            ("no_proxy", "corp.example, .lan,10.0.0.0/8,192.0.2.7,2001:db8::/32,relay.example:4443"),
        ])
        .unwrap();
        let direct = |host, port| rules.proxy_for(host, port).is_none();
        for host in [
            "localhost",
            "127.0.0.1",
            "::1",
            "corp.example",
            "a.CORP.example.",
            "x.lan",
            "10.1.2.3",
            "192.0.2.7",
            "2001:db8::5",
            "::ffff:10.0.0.1",
        ] {
            assert!(direct(host, 443), "{host}");
        }
        for host in ["notcorp.example", "corp.example.org", "11.0.0.1", "192.0.2.8", "2001:db9::5", "relay.example"] {
            assert_eq!(
                rules.proxy_for(host, 443).map(ToString::to_string).as_deref(),
                Some("http://proxy:1"),
                "{host}"
            );
        }
        assert!(direct("relay.example", 4443));
        let nothing = Rules::from_variables(|name| (name == "no_proxy").then(|| "*".to_owned())).unwrap();
        assert!(nothing.proxy_for("a.example", 1).is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(proxy in "\\PC{0,60}", direct in "\\PC{0,60}", host in "[a-z.:0-9]{0,20}") {
            if let Ok(rules) = rules(&[("https_proxy", &proxy), ("no_proxy", &direct)]) {
                let _either = rules.proxy_for(&host, 1);
            }
        }
    }
}
