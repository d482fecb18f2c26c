//! Local ports as users write them: `-L [local:]port:host:port`, `--socks [host:]port`.

use postern_session::HostPort;

/// A local port to listen on, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    /// The first that can be listened on counts.
    pub(crate) local_hosts: Vec<String>,
    /// 0: any that is free.
    pub(crate) local_port: u16,
    pub(crate) leads: Leads,
}

/// Where a local port leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leads {
    /// There.
    To(HostPort),
    /// Where each connection says, in SOCKS 5.
    Socks,
}

/// ssh and most programs try 127.0.0.1 when they are told localhost.
const LOCALHOST: &str = "127.0.0.1";

impl Forward {
    /// Reads `[local:]port:host:port`; IPv6 addresses in brackets.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("-L {text:?}: write [local:]port:host:port, as for ssh; IPv6 addresses in brackets");
        let words = words(text).ok_or_else(bad)?;
        let (local, port, host, target) = match words.as_slice() {
            [port, host, target] => (LOCALHOST, port, host, target),
            [local, port, host, target] => (listened(local), port, host, target),
            _ => return Err(bad()),
        };
        let target: u16 = target.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?;
        let host = target_host(host).ok_or_else(bad)?;
        Ok(Self {
            local_hosts: vec![local.to_owned()],
            local_port: port.parse().map_err(|_| bad())?,
            leads: Leads::To(HostPort { host, port: target }),
        })
    }

    /// Reads `[host:]port`.
    pub(crate) fn parse_socks(text: &str) -> Result<Self, String> {
        let bad = || format!("--socks {text:?}: write [host:]port; IPv6 addresses in brackets");
        let words = words(text).ok_or_else(bad)?;
        let (local, port) = match words.as_slice() {
            [port] => (LOCALHOST, port),
            [local, port] => (listened(local), port),
            _ => return Err(bad()),
        };
        let local_port = port.parse().map_err(|_| bad())?;
        Ok(Self { local_hosts: vec![local.to_owned()], local_port, leads: Leads::Socks })
    }
}

/// A port that the device is to listen on, and what at this end is joined with its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reverse {
    pub(crate) port: u16,
    pub(crate) target: HostPort,
}

impl Reverse {
    /// Reads `[localhost:]port:host:port`; the device listens on its loopback alone.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("-R {text:?}: write port:host:port, as for ssh; IPv6 addresses in brackets");
        let words = words(text).ok_or_else(bad)?;
        let (port, host, target) = match words.as_slice() {
            [port, host, target] | ["" | "localhost" | "127.0.0.1" | "::1", port, host, target] => (port, host, target),
            [local, _, _, _] => {
                return Err(format!("-R {text:?}: the device listens on its localhost alone, and not on {local:?}"));
            }
            _ => return Err(bad()),
        };
        let number = |word: &str| word.parse::<u16>().ok().filter(|port| *port > 0);
        let target = HostPort { host: target_host(host).ok_or_else(bad)?, port: number(target).ok_or_else(bad)? };
        let port = number(port).ok_or_else(|| format!("{}; the device's port is from 1 to 65535", bad()))?;
        Ok(Self { port, target })
    }
}

fn listened(local: &str) -> &str {
    match local {
        "" | "localhost" => LOCALHOST,
        "0" | "*" => "0.0.0.0",
        local => local,
    }
}

/// A target's host, as it is sent to the device: lower case, no brackets.
pub(crate) fn target_host(text: &str) -> Option<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    let fits = (1..=253).contains(&text.len()) && text.chars().all(good);
    fits.then(|| text.to_ascii_lowercase())
}

/// Splits at colons, but not inside brackets, which are taken off.
fn words(text: &str) -> Option<Vec<&str>> {
    let (mut words, mut rest) = (Vec::new(), text.trim());
    loop {
        let (word, behind) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']')?,
            None => rest.split_at(rest.find(':').unwrap_or(rest.len())),
        };
        words.push(word);
        if behind.is_empty() {
            return Some(words);
        }
        rest = behind.strip_prefix(':')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn to(local: &str, port: u16, host: &str, target: u16) -> Forward {
        let leads = Leads::To(HostPort { host: host.into(), port: target });
        Forward { local_hosts: vec![local.into()], local_port: port, leads }
    }

    #[test]
    fn as_for_ssh() {
        for (text, wanted) in [
            ("8080:localhost:80", to("127.0.0.1", 8080, "localhost", 80)),
            ("0:DB.lan:5432", to("127.0.0.1", 0, "db.lan", 5432)),
            ("localhost:1:a:2", to("127.0.0.1", 1, "a", 2)),
            ("*:1:a:2", to("0.0.0.0", 1, "a", 2)),
            ("[::1]:1:[2001:db8::1]:2", to("::1", 1, "2001:db8::1", 2)),
        ] {
            assert_eq!(Forward::parse(text), Ok(wanted), "{text}");
        }
        for bad in ["", "80", "80:a", "80:a:0", "80::80", "x:a:80", "1:2:3:4:5", "[::1:1:a:2", "1:a b:2", "1:[::1]x:2"]
        {
            assert!(Forward::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Forward::parse_socks("1080").unwrap().local_hosts, ["127.0.0.1"]);
        assert_eq!(Forward::parse_socks("[::1]:1080").unwrap().local_port, 1080);
        assert!(Forward::parse_socks("a:b:1").is_err());
    }

    #[test]
    fn the_device_listens_on_its_loopback_alone() {
        let reverse = |port, host: &str, target| Reverse { port, target: HostPort { host: host.into(), port: target } };
        for (text, wanted) in [
            ("8080:localhost:80", reverse(8080, "localhost", 80)),
            ("localhost:8080:DB.lan:80", reverse(8080, "db.lan", 80)),
            ("[::1]:1:[2001:db8::1]:2", reverse(1, "2001:db8::1", 2)),
        ] {
            assert_eq!(Reverse::parse(text), Ok(wanted), "{text}");
        }
        for bad in ["0:a:80", "*:8080:a:80", "0.0.0.0:8080:a:80", "8080", "8080:a:0", "8080::80", "x:a:80"] {
            assert!(Reverse::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "[\\[\\]:a-z0-9 ]{0,24}") {
            let _ = (Forward::parse(&text), Forward::parse_socks(&text), Reverse::parse(&text));
        }
    }
}
