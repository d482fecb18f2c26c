//! Lines that are handed over: pasted, scanned, put on a memory card. A word that says what it is, and base32 of the content
//! and the first bytes of its SHA-256, so that a slip of the pen is told from a wrong secret.
//! Source: docs/protocol/invitation.md.

use std::fmt;

use postern_crypto::{decode_base32, encode_base32, sha256};
use zeroize::Zeroizing;

use crate::limits::LINE_CHARS;

/// Of SHA-256, behind the content.
const CHECK_BYTES: usize = 4;
/// Before the version: of an invitation, and of an activation.
pub(crate) const INVITATION: &str = "postern";
pub(crate) const ACTIVATION: &str = "posternact";
/// The version that is spoken here, behind the word.
const VERSION: &str = "1:";

/// Why a text is not the line that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadLine {
    /// It does not begin as one does.
    NotOne,
    /// It is one for another command.
    Another,
    /// It begins as those of another version do.
    OtherVersion,
    /// A character is wrong, missing or too much.
    Mistyped,
    /// It is whole, and says something that cannot be.
    Nonsense,
}

/// The content of a line that begins with `word`. White space and `-` in it are passed over, and capitals are as good as
/// small letters.
pub(crate) fn read(word: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, BadLine> {
    if text.len() > LINE_CHARS {
        return Err(BadLine::NotOne);
    }
    let kept = text.chars().filter(|c| !c.is_whitespace() && *c != '-');
    let text: Zeroizing<String> = Zeroizing::new(kept.map(|c| c.to_ascii_lowercase()).collect());
    let is_line_of = |other: &str| text.strip_prefix(other).is_some_and(|rest| rest.starts_with(VERSION));
    if [INVITATION, ACTIVATION].into_iter().any(|other| other != word && is_line_of(other)) {
        return Err(BadLine::Another);
    }
    let Some(rest) = text.strip_prefix(word) else { return Err(BadLine::NotOne) };
    let Some(digits) = rest.strip_prefix(VERSION) else {
        let is_version = |number: &str| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let other = rest.split_once(':').is_some_and(|(number, _)| is_version(number));
        return Err(if other { BadLine::OtherVersion } else { BadLine::NotOne });
    };
    let bytes = decode_base32(digits).map_err(|_| BadLine::Mistyped)?;
    let (content, check) = bytes.split_last_chunk::<CHECK_BYTES>().ok_or(BadLine::Mistyped)?;
    if sha256(content)[..CHECK_BYTES] != *check {
        return Err(BadLine::Mistyped);
    }
    Ok(Zeroizing::new(content.to_vec()))
}

/// The line with that content.
pub(crate) fn print(word: &str, content: &[u8]) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(content.len() + CHECK_BYTES));
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(&sha256(content)[..CHECK_BYTES]);
    let digits = encode_base32(&bytes);
    Zeroizing::new([word, VERSION, &digits].concat())
}

/// A text with its length in front. Hosts and names are shorter than 256 bytes by their own rules; a cut one would not be
/// read again.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(255)];
    out.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(bytes);
}

/// What is left to be read.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(first)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let [length] = *self.take::<1>()?;
        let (text, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotOne => "this is no invitation and no activation: they begin with postern1: and posternact1:",
            Self::Another => {
                "this line is for another command: postern1:... for `postern join`, posternact1:... for `postern activate`"
            }
            Self::OtherVersion => "this line was made by another version of postern; use the same on both sides",
            Self::Mistyped => "the line is mistyped or cut short: copy the whole of it once more",
            Self::Nonsense => "the line is whole, but says what this version does not understand",
        })
    }
}

impl std::error::Error for BadLine {}
