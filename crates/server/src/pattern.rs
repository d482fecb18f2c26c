//! What a monitor or a scan looks for: a regular expression of the client's, searched unanchored.

use std::fmt;

use postern_proto::{ErrorCode, ProtocolError};
use regex::bytes::{Regex, RegexBuilder};

use crate::limits::{REGEX_BYTES, REGEX_CHARS};

/// A checked expression. Thousands of monitors hold one each, so the forms that
/// nearly all clients send, a plain word with dots in it, cost no compiled automaton.
#[derive(Clone)]
pub(crate) enum Pattern {
    /// Nothing given, or `.*`.
    Everything,
    /// Letters, digits, `_`, `-`, `@`, and `.` for any one byte.
    Word(Box<[u8]>),
    /// Anything else. ASCII classes; time linear in the text.
    Regex(Box<Regex>),
}

impl Pattern {
    /// Reads what a client sent.
    ///
    /// # Errors
    /// `AT0003` when it is no regular expression, or a large one.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, ProtocolError> {
        let Some(text) = text.filter(|text| !matches!(*text, "" | ".*")) else { return Ok(Self::Everything) };
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'@' | b'.');
        if text.len() <= REGEX_CHARS && text.bytes().all(plain) {
            return Ok(Self::Word(text.as_bytes().into()));
        }
        let bad = || ProtocolError::new(ErrorCode::InvalidSyntax, "invalid regular expression");
        if text.len() > REGEX_CHARS {
            return Err(bad());
        }
        let regex = RegexBuilder::new(text)
            .unicode(false)
            .size_limit(REGEX_BYTES)
            .dfa_size_limit(REGEX_BYTES)
            .build()
            .map_err(|_| bad())?;
        Ok(Self::Regex(Box::new(regex)))
    }

    /// Whether it occurs in every text.
    pub(crate) fn is_everything(&self) -> bool {
        matches!(self, Self::Everything)
    }

    /// Whether it occurs in `text`.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Word(word) => {
                let same = |(w, b): (&u8, &u8)| *w == b'.' || w == b;
                text.as_bytes().windows(word.len()).any(|window| word.iter().zip(window).all(same))
            }
            Self::Regex(regex) => regex.is_match(text.as_bytes()),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pattern")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_match_as_the_expression_would() {
        for pattern in ["dev1.sshnp@", ".dev1.sshnp", "sshnp", "...", "@", "a.c"] {
            let regex = Regex::new(pattern).unwrap();
            let word = Pattern::parse(Some(pattern)).unwrap();
            assert!(matches!(word, Pattern::Word(_)));
            for text in ["@alice:request.dev1.sshnp@bob", "dev1_sshnp@", "abc", "", "@", "xxsshn"] {
                assert_eq!(word.is_in(text), regex.is_match(text.as_bytes()), "{pattern} in {text}");
            }
        }
    }

    #[test]
    fn expressions_of_clients_and_monsters() {
        assert!(Pattern::parse(None).unwrap().is_in(""));
        assert!(Pattern::parse(Some(r"^@\w+:.*\.(sshnp|sshrvd)@bob$")).unwrap().is_in("@alice:x.sshnp@bob"));
        for bad in ["(", "(a{100}){100}{100}", "(?!x)", &"(a)".repeat(600)] {
            assert!(Pattern::parse(Some(bad)).is_err(), "{bad}");
        }
    }
}
