//! The control channel of sessions with many connections.

use std::fmt;

use postern_crypto::{AesKey, Iv};

use crate::keys::{DirectionKey, StreamKeys};
use crate::limits::CONTROL_LINE_BYTES;

/// What a client writes on the control channel.
pub enum ControlLine {
    /// Open one more pair of sockets, encrypted with these keys.
    Connect(StreamKeys),
    /// Open one more pair of sockets, not encrypted.
    ConnectPlain,
    /// Keeps middle boxes awake; or something newer than we are.
    Other,
}

/// Cuts the decrypted control channel into lines.
///
/// Clients before 5.6.1 end no line: until a `\n` was seen, a buffer whose length
/// is a multiple of 77 (`connect:`, 44 characters, `:`, 24 characters) is whole requests.
#[derive(Default)]
pub struct ControlReader {
    buffer: Vec<u8>,
    ends_lines: bool,
}

/// More than a control line can have arrived without an end: the stream makes no sense, end the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlTooLong;

/// Length of a request that ends without a newline.
const BARE_REQUEST: usize = 77;

impl ControlReader {
    /// For a session with twin keys: such clients end their lines. The first 77 bytes of their longer line are
    /// a whole request to somebody who does not know that.
    pub fn of_twin_session() -> Self {
        Self { buffer: Vec::new(), ends_lines: true }
    }

    /// Adds decrypted bytes and calls `each` for every complete line.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(ControlLine)) -> Result<(), ControlTooLong> {
        self.buffer.extend_from_slice(bytes);
        while let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
            self.ends_lines = true;
            let line: Vec<u8> = self.buffer.drain(..=at).collect();
            each(ControlLine::parse(line.get(..at).unwrap_or_default()));
        }
        if !self.ends_lines && self.buffer.len().is_multiple_of(BARE_REQUEST) && self.buffer.starts_with(b"connect:") {
            for request in std::mem::take(&mut self.buffer).chunks(BARE_REQUEST) {
                each(ControlLine::parse(request));
            }
        }
        if self.buffer.len() > CONTROL_LINE_BYTES { Err(ControlTooLong) } else { Ok(()) }
    }
}

impl ControlLine {
    fn parse(line: &[u8]) -> Self {
        let text = std::str::from_utf8(line).unwrap_or_default().trim_end_matches('\r');
        let Some(args) = text.strip_prefix("connect:") else { return Self::Other };
        if args == "no:encrypt" {
            return Self::ConnectPlain;
        }
        let fields: Vec<&str> = args.split(':').collect();
        let key = |key: &str, iv: &str| {
            Some(DirectionKey { key: AesKey::from_base64(key).ok()?, iv: Iv::from_base64(iv).ok()? })
        };
        let keys = match fields[..] {
            [k, iv] => key(k, iv).map(StreamKeys::of_single),
            [k1, iv1, k2, iv2] => key(k1, iv1).zip(key(k2, iv2)).map(|(c2d, d2c)| StreamKeys { c2d, d2c }),
            _ => None,
        };
        keys.map_or(Self::Other, Self::Connect)
    }

    /// The line for a connection that is not encrypted, with its end.
    pub fn connect_plain() -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new("connect:no:encrypt\n".to_owned())
    }

    /// The line for new keys, with its end. `twin`: five fields instead of three.
    pub fn connect(keys: &StreamKeys, twin: bool) -> zeroize::Zeroizing<String> {
        let (c2d, d2c) = (&keys.c2d, &keys.d2c);
        let mut line = zeroize::Zeroizing::new(format!("connect:{}:{}", *c2d.key.to_base64(), c2d.iv.to_base64()));
        if twin {
            line.push_str(&zeroize::Zeroizing::new(format!(":{}:{}", *d2c.key.to_base64(), d2c.iv.to_base64())));
        }
        line.push('\n');
        line
    }
}

/// Never the keys.
impl fmt::Debug for ControlLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect(_) => "connect",
            Self::ConnectPlain => "connect without encryption",
            Self::Other => "other",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let mut reader = ControlReader::default();
        let mut got = Vec::new();
        for piece in pieces {
            reader.feed(piece, |line| got.push(format!("{line:?}"))).unwrap();
        }
        got
    }

    #[test]
    fn two_requests_in_one_segment_and_one_in_two() {
        let line = ControlLine::connect(&StreamKeys::single(), false);
        assert_eq!(line.len(), BARE_REQUEST + 1);
        let both = format!("{}{}", *line, *ControlLine::connect(&StreamKeys::twin(), true));
        assert_eq!(read(&[both.as_bytes()]), ["connect", "connect"]);
        let (a, b) = line.as_bytes().split_at(30);
        assert_eq!(read(&[a, b]), ["connect"]);
        assert_eq!(read(&[b"connect:no:encrypt\nheartbeat:7\n"]), ["connect without encryption", "other"]);
    }

    #[test]
    fn clients_that_end_no_line() {
        let line = ControlLine::connect(&StreamKeys::single(), false);
        let bare = line.trim_end();
        assert_eq!(read(&[bare.as_bytes(), bare.as_bytes()]), ["connect", "connect"]);
        let two = format!("{bare}{bare}");
        let (a, b) = two.as_bytes().split_at(100);
        assert_eq!(read(&[a, b]), ["connect", "connect"]);
    }

    #[test]
    fn keys_survive_the_line() {
        let keys = StreamKeys::twin();
        let line = ControlLine::connect(&keys, true);
        let ControlLine::Connect(got) = ControlLine::parse(line.trim_end().as_bytes()) else { panic!() };
        assert_eq!(*got.d2c.key.to_base64(), *keys.d2c.key.to_base64());
        assert_eq!(got.c2d.iv, keys.c2d.iv);
    }

    proptest! {
        #[test]
        fn garbage_is_bounded_and_never_panics(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..10)) {
            let mut reader = ControlReader::default();
            for piece in pieces {
                if reader.feed(&piece, |_| {}).is_err() { break }
                prop_assert!(reader.buffer.len() <= CONTROL_LINE_BYTES);
            }
        }
    }
}
