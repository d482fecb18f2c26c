//! The atDirectory's dialogue: a name in, `host:port` out.

use std::fmt;

use crate::AtSign;

/// Longest question in bytes. Source: the reference closes past 255 characters.
const MAX_QUESTION_BYTES: usize = 255;

/// Where an atServer listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    /// Host name or address literal (IPv6 in brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// A question to the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryQuery {
    /// A name, with or without `@`.
    Find(AtSign),
    /// Something that is no name; answered like an unknown one. The C client opens with an empty line.
    Nonsense,
    /// `@exit`: close without an answer.
    Exit,
}

/// The directory's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryAnswer {
    /// `host:port\r\n@`
    Found(ServerAddress),
    /// `null\r\n@`
    Unknown,
}

impl DirectoryQuery {
    /// Reads one line.
    pub fn parse(line: &[u8]) -> Self {
        let text = match std::str::from_utf8(line) {
            Ok(text) if line.len() <= MAX_QUESTION_BYTES => text.trim(),
            _ => return Self::Nonsense,
        };
        if text.eq_ignore_ascii_case("@exit") {
            return Self::Exit;
        }
        AtSign::parse(text).map_or(Self::Nonsense, Self::Find)
    }
}

impl DirectoryAnswer {
    /// Reads the answer as a client sees it: a prompt may stand in front and behind.
    /// `None` when it is neither an address nor `null`.
    pub fn parse(line: &str) -> Option<Self> {
        let text = line.trim().trim_matches('@').trim();
        if text == "null" {
            return Some(Self::Unknown);
        }
        text.parse().ok().map(Self::Found)
    }
}

/// The bytes of the answer with the prompt: one record.
impl fmt::Display for DirectoryAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(address) => write!(f, "{address}\r\n@"),
            Self::Unknown => f.write_str("null\r\n@"),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') && !self.host.starts_with('[') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// `host:port`; a port is wanted.
impl std::str::FromStr for ServerAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (host, port) = text.trim().rsplit_once(':').ok_or(())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let clean = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '@' | '"' | '\'');
        if host.is_empty() || host.len() > 253 || !host.chars().all(clean) {
            return Err(());
        }
        // `parse` would take a sign, and nobody listens on port 0.
        let port = port.parse().ok().filter(|n| *n != 0 && !port.starts_with('+')).ok_or(())?;
        Ok(Self { host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_of_real_clients() {
        let alice = DirectoryQuery::Find(AtSign::parse("alice").unwrap());
        for line in [&b"alice"[..], b"Alice\r", b"@alice", b" alice "] {
            assert_eq!(DirectoryQuery::parse(line), alice);
        }
        for line in [&b""[..], b"\r", b"a b", b"\xff\xfe", &[b'x'; 300]] {
            assert_eq!(DirectoryQuery::parse(line), DirectoryQuery::Nonsense);
        }
        assert_eq!(DirectoryQuery::parse(b"@exit"), DirectoryQuery::Exit);
    }

    #[test]
    fn answers_byte_for_byte_and_back() {
        let address = ServerAddress { host: "host.example".into(), port: 1234 };
        let found = DirectoryAnswer::Found(address);
        assert_eq!(found.to_string(), "host.example:1234\r\n@");
        assert_eq!(DirectoryAnswer::parse("@host.example:1234\r"), Some(found));
        assert_eq!(DirectoryAnswer::parse("null\r"), Some(DirectoryAnswer::Unknown));
        assert_eq!(DirectoryAnswer::parse("the server is closing"), None);
        assert_eq!("[::1]:64".parse(), Ok(ServerAddress { host: "::1".into(), port: 64 }));
    }
}
