//! How a relay refuses a ticket: one line, `!<code> <text>`, and the end.

use std::fmt;

use crate::limits::REFUSAL_BYTES;

/// Why a relay does not take a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalCode {
    /// The relay has as many sessions as it may have.
    Full,
    /// The atSign has as many as one may have.
    Quota,
    /// The relay does not serve this client.
    NotServed,
    /// The ticket is none, or not good here, or was used before.
    BadTicket,
    /// It is too late for it, or too early.
    Expired,
    /// The key behind it is not to be had, or not what it should be.
    UnknownKey,
    /// The relay is being stopped.
    Stopping,
    /// The other side did not come.
    Alone,
    /// A code that is newer than we are.
    Unknown(String),
}

/// A refusal with its reason, fit for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people.
    pub text: String,
}

impl RefusalCode {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Full => "full",
            Self::Quota => "quota",
            Self::NotServed => "not-served",
            Self::BadTicket => "bad-ticket",
            Self::Expired => "expired",
            Self::UnknownKey => "unknown-key",
            Self::Stopping => "stopping",
            Self::Alone => "alone",
            Self::Unknown(word) => word,
        }
    }

    fn parse(word: &str) -> Self {
        match word {
            "full" => Self::Full,
            "quota" => Self::Quota,
            "not-served" => Self::NotServed,
            "bad-ticket" => Self::BadTicket,
            "expired" => Self::Expired,
            "unknown-key" => Self::UnknownKey,
            "stopping" => Self::Stopping,
            "alone" => Self::Alone,
            word => Self::Unknown(word.to_owned()),
        }
    }

    /// Whether another relay may take what this one refused.
    #[must_use]
    pub fn try_elsewhere(&self) -> bool {
        match self {
            Self::Full | Self::Quota | Self::NotServed | Self::UnknownKey | Self::Stopping | Self::Alone => true,
            Self::BadTicket | Self::Expired | Self::Unknown(_) => false,
        }
    }
}

impl Refusal {
    /// A refusal. The text is for people, in a few words.
    #[must_use]
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The line with its newline, at most [`REFUSAL_BYTES`].
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!("!{} ", self.code.as_str());
        line.extend(self.text.chars().filter(|c| !c.is_control()));
        let end = (0..REFUSAL_BYTES).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(end);
        line.push('\n');
        line
    }

    /// Reads a line, with or without its newline. Control characters of the text are left out.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.len() >= REFUSAL_BYTES {
            return None;
        }
        let (word, text) = match line.strip_prefix(b"!")?.split(|byte| *byte == b' ').next() {
            Some(word) => (word, line.get(word.len() + 2..).unwrap_or_default()),
            None => return None,
        };
        let good = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'-';
        if word.is_empty() || !word.iter().all(good) {
            return None;
        }
        let word = std::str::from_utf8(word).ok()?;
        let mut text: String = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect();
        // What stands for a byte that is no text is longer than the byte: cut as `line` cuts.
        let room = REFUSAL_BYTES.saturating_sub("! \n".len() + word.len());
        text.truncate((0..=room).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
        Some(Self { code: RefusalCode::parse(word), text })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.text.is_empty() {
            write!(f, "the relay refused ({})", self.code.as_str())
        } else {
            write!(f, "the relay refused ({}): {}", self.code.as_str(), self.text)
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_pinned() {
        let refusal = Refusal::new(RefusalCode::NotServed, "not yours");
        assert_eq!(refusal.line(), "!not-served not yours\n");
        assert_eq!(Refusal::parse(b"!not-served not yours\n"), Some(refusal));
        assert_eq!(Refusal::parse(b"!full"), Some(Refusal::new(RefusalCode::Full, "")));
        let later = Refusal::parse(b"!moved to @other").unwrap();
        assert_eq!((later.code.as_str(), later.text.as_str()), ("moved", "to @other"));
        for bad in [&b""[..], b"full x", b"!", b"! x", b"!Full", b"!a\x1b[2J x", &[b'!'; 600]] {
            assert_eq!(Refusal::parse(bad), None);
        }
        let long = Refusal::new(RefusalCode::Full, "é".repeat(1000)).line();
        assert!(long.len() <= REFUSAL_BYTES && Refusal::parse(long.as_bytes()).is_some());
    }

    /// Bytes that are no text become longer when they are read.
    #[test]
    fn regression_a_refusal_that_grew_in_reading_prints_as_it_was_read() {
        let mut line = b"!full ".to_vec();
        line.resize(REFUSAL_BYTES - 1, 0xff);
        let read = Refusal::parse(&line).unwrap();
        assert!(read.line().len() <= REFUSAL_BYTES);
        assert_eq!(Refusal::parse(read.line().as_bytes()), Some(read));
    }

    proptest! {
        #[test]
        fn printed_and_read(text in "[^\\pC]{0,80}") {
            let refusal = Refusal::new(RefusalCode::Quota, text);
            prop_assert_eq!(Refusal::parse(refusal.line().as_bytes()), Some(refusal));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(refusal) = Refusal::parse(&bytes) {
                prop_assert!(!refusal.text.contains(char::is_control));
            }
        }
    }
}
