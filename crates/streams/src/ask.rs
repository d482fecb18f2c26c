//! What an OPEN asks for, in its target text. Source: docs/protocol/sealed.md, Frames and "The reverse direction".

use std::fmt;

use crate::event::StreamId;

/// What the text of an OPEN asks for. Words that begin with `+` are no host's: an end that does not know them refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// The device's ssh server: an empty text.
    Ssh,
    /// A target, `host:port`; not looked at here.
    Target(&'a str),
    /// Of the client: listen on this port of the device's loopback for as long as the stream is open.
    Listen(u16),
    /// Of the device: somebody has connected to the port that this stream of the client's listens on.
    Back(StreamId),
}

const LISTEN: &str = "+listen:";
const BACK: &str = "+back:";

impl<'a> Ask<'a> {
    /// Reads the text of an OPEN. `None`: a word of a later version, or no word of ours.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::Ssh);
        }
        if !text.starts_with('+') {
            return Some(Self::Target(text));
        }
        if let Some(port) = text.strip_prefix(LISTEN) {
            return number(port).and_then(|port| u16::try_from(port).ok()).map(Self::Listen);
        }
        number(text.strip_prefix(BACK)?).map(|id| Self::Back(StreamId(id)))
    }
}

/// Decimal, above zero, without sign or leading zeros: there is one way to write it.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

impl fmt::Display for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ssh => Ok(()),
            Self::Target(text) => f.write_str(text),
            Self::Listen(port) => write!(f, "{LISTEN}{port}"),
            Self::Back(stream) => write!(f, "{BACK}{stream}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_documented() {
        for (text, ask) in [
            ("", Ask::Ssh),
            ("db.lan:80", Ask::Target("db.lan:80")),
            ("+listen:8080", Ask::Listen(8080)),
            ("+back:3", Ask::Back(StreamId(3))),
        ] {
            assert_eq!(Ask::parse(text), Some(ask));
            assert_eq!(ask.to_string(), text);
        }
        for bad in
            ["+", "+listen:", "+listen:0", "+listen:65536", "+listen:+1", "+listen:080", "+back:-1", "+back:a", "+x:1"]
        {
            assert_eq!(Ask::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn there_is_one_way_to_write_each(text in "(\\+(listen|back):)?[+0-9a-z:\\[\\]]{0,8}") {
            if let Some(ask) = Ask::parse(&text) {
                prop_assert_eq!(ask.to_string(), text);
            }
        }
    }
}
