//! A buffer with room for a frame's header before what a program wrote.

use crate::frame::{Header, Kind};
use crate::limits::{CHUNK, HEADER};

/// Bytes to be sent on a stream. Read into [`Chunk::room`], then [`Chunk::fill`]: the frame is made around them in place.
pub struct Chunk {
    bytes: Box<[u8]>,
    /// Header and body.
    used: usize,
}

impl Chunk {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; HEADER + CHUNK].into_boxed_slice(), used: HEADER }
    }

    /// Where at most `most` bytes can be read into; at least one.
    pub fn room(&mut self, most: usize) -> &mut [u8] {
        let end = HEADER + most.clamp(1, CHUNK);
        self.bytes.get_mut(HEADER..end).unwrap_or_default()
    }

    /// Says how many bytes were read. More than there was room for is cut off.
    pub fn fill(&mut self, read: usize) {
        self.used = HEADER + read.min(self.bytes.len().saturating_sub(HEADER));
    }

    /// Bytes of the body.
    pub(crate) fn len(&self) -> usize {
        self.used - HEADER
    }

    /// The frame.
    pub(crate) fn frame(&mut self, stream: u32) -> &[u8] {
        let length = u16::try_from(self.len()).unwrap_or(u16::MAX);
        if let Some(header) = self.bytes.first_chunk_mut() {
            *header = Header::print(Kind::Data, length, stream);
        }
        self.as_bytes()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }
}
