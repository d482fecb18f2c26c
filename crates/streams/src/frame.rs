//! Frames as they are on the wire. Source: docs/protocol/sealed.md, Frames.

use crate::limits::{HEADER, TARGET_BYTES, WORDS_BYTES};

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Position = 0x02,
    Ack = 0x03,
    Ping = 0x04,
    Pong = 0x05,
    Goodbye = 0x06,
    Open = 0x10,
    Accepted = 0x11,
    Refused = 0x12,
    Data = 0x13,
    Window = 0x14,
    End = 0x15,
    Reset = 0x16,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            0x02 => Self::Position,
            0x03 => Self::Ack,
            0x04 => Self::Ping,
            0x05 => Self::Pong,
            0x06 => Self::Goodbye,
            0x10 => Self::Open,
            0x11 => Self::Accepted,
            0x12 => Self::Refused,
            0x13 => Self::Data,
            0x14 => Self::Window,
            0x15 => Self::End,
            0x16 => Self::Reset,
            _ => return None,
        })
    }

    /// Kept until it is acknowledged, and part of POSITION.
    pub(crate) fn counted(self) -> bool {
        self as u8 >= Self::Open as u8
    }

    /// Least and largest body.
    fn body(self) -> (usize, usize) {
        match self {
            Self::Position | Self::Ack | Self::Ping | Self::Pong => (8, 8),
            Self::Goodbye | Self::Refused => (2, 2 + WORDS_BYTES),
            Self::Open => (4, 4 + TARGET_BYTES),
            Self::Accepted | Self::Window => (4, 4),
            Self::Data => (1, u16::MAX as usize),
            Self::End => (0, 0),
            Self::Reset => (2, 2),
        }
    }
}

/// A header whose kind is known, whose length fits its kind, and whose stream is one where it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) length: usize,
    pub(crate) stream: u32,
}

impl Header {
    pub(crate) fn parse(bytes: [u8; HEADER]) -> Option<Self> {
        let [kind, zero, l1, l0, s3, s2, s1, s0] = bytes;
        let kind = Kind::of(kind)?;
        let (length, stream) = (usize::from(u16::from_be_bytes([l1, l0])), u32::from_be_bytes([s3, s2, s1, s0]));
        let (least, most) = kind.body();
        let fits = zero == 0 && (least..=most).contains(&length) && kind.counted() == (stream != 0);
        fits.then_some(Self { kind, length, stream })
    }

    pub(crate) fn print(kind: Kind, length: u16, stream: u32) -> [u8; HEADER] {
        let [l1, l0] = length.to_be_bytes();
        let [s3, s2, s1, s0] = stream.to_be_bytes();
        [kind as u8, 0, l1, l0, s3, s2, s1, s0]
    }
}

/// A whole frame but DATA. The parts of the body are ours and short.
pub(crate) fn frame(kind: Kind, stream: u32, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = Vec::with_capacity(HEADER + length);
    bytes.extend_from_slice(&Header::print(kind, u16::try_from(length).unwrap_or(u16::MAX), stream));
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// Words for the wire: as much of `text` as fits.
pub(crate) fn cut(text: &str) -> &[u8] {
    let mut end = text.len().min(WORDS_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().as_bytes()
}

/// Words of a stranger: printable, one line, 256 characters.
pub(crate) fn words(bytes: &[u8]) -> String {
    let shown = |c: char| if c.is_control() || c == char::REPLACEMENT_CHARACTER { '?' } else { c };
    String::from_utf8_lossy(bytes).chars().take(WORDS_BYTES / 2).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_look_as_documented() {
        assert_eq!(frame(Kind::End, 5, &[]), [0x15, 0, 0, 0, 0, 0, 0, 5]);
        assert_eq!(frame(Kind::Window, 0x0102_0304, &[&[0, 1, 0, 0]]), [0x14, 0, 0, 4, 1, 2, 3, 4, 0, 1, 0, 0]);
        assert_eq!(frame(Kind::Ack, 0, &[&7_u64.to_be_bytes()]), [3, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(frame(Kind::Open, 1, &[&[0, 1, 0, 0], b"a:1"])[..8], [0x10, 0, 0, 7, 0, 0, 0, 1]);
    }

    #[test]
    fn a_header_that_breaks_a_rule_is_none() {
        let good = [0x13, 0, 0, 1, 0, 0, 0, 1];
        assert!(Header::parse(good).is_some());
        for (at, byte) in [(0, 0x17), (0, 0x01), (0, 0), (1, 1), (3, 0), (7, 0), (0, 0x03)] {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(Header::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Header::parse([0x10, 0, 2, 0, 0, 0, 0, 1]), None, "a target of 508 bytes");
    }

    #[test]
    fn words_of_a_stranger_are_one_printable_line() {
        assert_eq!(words(b"no\x1b[31m\nway\xff"), "no?[31m?way?");
        assert_eq!(words(&[b'x'; 1000]).len(), 256);
        assert_eq!(cut(&"ü".repeat(400)).len(), 512);
        assert_eq!(cut(&format!("x{}", "ü".repeat(400))).len(), 511);
    }
}
