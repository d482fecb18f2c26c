//! Bytes that say where they belong.

use postern_streams::Side;

use crate::dice::mix;

/// The payload of one direction of one stream of one session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    base: u64,
}

impl Tag {
    pub(crate) fn new(session: usize, stream: u64, from: Side) -> Self {
        let side = u64::from(from == Side::Client);
        Self { base: mix(mix(mix(session as u64 + 1) ^ stream) ^ side) }
    }

    /// The byte at this place. Eight in a row hang on one number: a byte by chance in the right place is one in 256, a row
    /// of them is not.
    pub(crate) fn at(self, place: u64) -> u8 {
        let word = mix(self.base ^ (place / 8)).to_le_bytes();
        word[usize::try_from(place % 8).unwrap_or_default()]
    }
}
