//! The name of an identity.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest body (the part after `@`) in characters. Source: atProtocol key grammar.
const MAX_BODY_CHARS: usize = 55;

/// Characters the reference refuses in a name.
const REFUSED: &str = "@!*'`();:&=+$,/?#[]{}\"\\<>|%^";

/// An atSign in its normal form: lower case, one leading `@`, no dots. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AtSign(Arc<str>);

/// Why a text is not an atSign.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AtSignError {
    /// Nothing is left after removing `@` and dots.
    Empty,
    /// More than 55 characters.
    TooLong,
    /// A control character, white space or reserved punctuation.
    Character(char),
}

impl AtSign {
    /// Parses `alice`, `@alice`, `@Al.ice` into `@alice`.
    pub fn parse(text: &str) -> Result<Self, AtSignError> {
        let text = text.trim();
        let body = text.strip_prefix('@').unwrap_or(text);
        let mut name = String::with_capacity(body.len() + 1);
        name.push('@');
        let mut chars = 0usize;
        // Some letters become two when folded: what counts is the normal form.
        for c in body.chars().filter(|c| *c != '.').flat_map(char::to_lowercase) {
            if c.is_control() || c.is_whitespace() || REFUSED.contains(c) {
                return Err(AtSignError::Character(c));
            }
            chars += 1;
            if chars > MAX_BODY_CHARS {
                return Err(AtSignError::TooLong);
            }
            name.push(c);
        }
        if chars == 0 {
            return Err(AtSignError::Empty);
        }
        Ok(Self(name.into()))
    }

    /// With the leading `@`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the leading `@`; what the directory is asked for.
    pub fn body(&self) -> &str {
        self.0.strip_prefix('@').unwrap_or(&self.0)
    }
}

impl fmt::Display for AtSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AtSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AtSign {
    type Err = AtSignError;

    fn from_str(text: &str) -> Result<Self, AtSignError> {
        Self::parse(text)
    }
}

impl fmt::Display for AtSignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("an atSign needs a name after the @"),
            Self::TooLong => write!(f, "an atSign has at most {MAX_BODY_CHARS} characters"),
            Self::Character(c) => write!(f, "an atSign cannot contain {c:?}"),
        }
    }
}

impl std::error::Error for AtSignError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_to_one_form() {
        for text in ["alice", "@alice", "@ALICE", " @al.ice ", "Al.Ice"] {
            assert_eq!(AtSign::parse(text).unwrap().as_str(), "@alice");
        }
        assert_eq!(AtSign::parse("@rv_am").unwrap().body(), "rv_am");
        assert!(AtSign::parse("@🦄").is_ok());
    }

    #[test]
    fn refuses_what_could_break_a_line_or_a_key() {
        for text in ["", "@", "...", "a b", "a\nb", "a:b", "a@b", "@@a", "a\0"] {
            assert!(AtSign::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(AtSign::parse(&"x".repeat(56)), Err(AtSignError::TooLong));
    }
}
