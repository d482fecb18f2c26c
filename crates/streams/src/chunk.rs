//! Buffers for what local programs write.

use crate::limits::{BURST, CHUNK};

/// Bytes to be sent on a stream. Read into [`Chunk::room`], then say how many with [`Chunk::fill`]. It becomes one DATA
/// frame or several; the bytes are not copied for that.
pub struct Chunk {
    bytes: Box<[u8]>,
    used: usize,
}

impl Chunk {
    /// Room for an ordinary turn, or for that of a stream which has all turns and much to send.
    pub(crate) fn new(most: usize) -> Self {
        let size = if most > CHUNK { BURST } else { CHUNK };
        Self { bytes: vec![0; size].into_boxed_slice(), used: 0 }
    }

    /// Where at most `most` bytes can be read into; at least one.
    pub fn room(&mut self, most: usize) -> &mut [u8] {
        let end = most.clamp(1, self.bytes.len());
        self.bytes.get_mut(..end).unwrap_or_default()
    }

    /// Says how many bytes were read. More than there was room for is cut off.
    pub fn fill(&mut self, read: usize) {
        self.used = read.min(self.bytes.len());
    }

    pub(crate) fn len(&self) -> usize {
        self.used
    }

    /// Bytes of memory.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }
}
