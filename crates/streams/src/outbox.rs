//! Frames on their way out, and those kept until they are acknowledged.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::chunk::Chunk;
use crate::frame::{Header, Kind, frame};
use crate::limits::{CHUNK, HEADER, KEPT_BYTES, KEPT_FRAMES, QUEUED_FRAMES, SPARE_CHUNKS};

/// What is charged for a frame besides its bytes: its place in the queue and the allocator's share.
const OVERHEAD: usize = 64;

#[derive(Default)]
pub(crate) struct Outbox {
    /// Uncounted frames; they go first.
    urgent: VecDeque<Vec<u8>>,
    /// Counted frames from number `first` on: sent and not acknowledged, then not yet sent.
    counted: VecDeque<Counted>,
    first: u64,
    /// How many of `counted` are sent.
    sent: usize,
    /// Memory that `counted` holds.
    held: usize,
    spare: Vec<Chunk>,
    /// The GOODBYE, behind everything else.
    last: Option<Vec<u8>>,
    keep: bool,
}

enum Counted {
    Small(Vec<u8>),
    Part(Part),
}

/// A DATA frame whose body lies in a chunk, perhaps with others.
struct Part {
    head: [u8; HEADER],
    chunk: Arc<Chunk>,
    from: usize,
    to: usize,
    /// Memory charged to it: that of the chunk to the last of its frames.
    memory: usize,
}

impl Counted {
    fn write(&self, write: &mut dyn FnMut(&[u8], &[u8])) {
        match self {
            Self::Small(bytes) => write(bytes, &[]),
            Self::Part(part) => {
                write(&part.head, part.chunk.as_bytes().get(part.from..part.to).unwrap_or_default());
            }
        }
    }

    fn memory(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Small(bytes) => bytes.len(),
                Self::Part(part) => part.memory,
            }
    }
}

impl Outbox {
    pub(crate) fn new(keep: bool) -> Self {
        Self { keep, ..Self::default() }
    }

    pub(crate) fn urgent(&mut self, kind: Kind, parts: &[&[u8]]) {
        self.urgent.push_back(frame(kind, 0, parts));
    }

    pub(crate) fn push(&mut self, kind: Kind, stream: u32, parts: &[&[u8]]) {
        self.hold(Counted::Small(frame(kind, stream, parts)));
    }

    pub(crate) fn push_data(&mut self, stream: u32, chunk: Chunk) {
        // A keystroke is not kept in 64 KiB.
        if self.keep && chunk.len() <= CHUNK / 2 {
            let length = u16::try_from(chunk.len()).unwrap_or(u16::MAX);
            let frame = [&Header::print(Kind::Data, length, stream)[..], chunk.as_bytes()].concat();
            self.hold(Counted::Small(frame));
            return self.recycle(chunk);
        }
        let (length, size, chunk) = (chunk.len(), chunk.size(), Arc::new(chunk));
        for from in (0..length).step_by(CHUNK) {
            let to = length.min(from + CHUNK);
            let head = Header::print(Kind::Data, u16::try_from(to - from).unwrap_or(u16::MAX), stream);
            let memory = if to == length { size } else { 0 };
            self.hold(Counted::Part(Part { head, chunk: Arc::clone(&chunk), from, to, memory }));
        }
    }

    fn hold(&mut self, frame: Counted) {
        self.held += frame.memory();
        self.counted.push_back(frame);
    }

    pub(crate) fn chunk(&mut self, most: usize) -> Chunk {
        let fitting = self.spare.iter().rposition(|chunk| (chunk.size() > CHUNK) == (most > CHUNK));
        fitting.map_or_else(|| Chunk::new(most), |at| self.spare.swap_remove(at))
    }

    pub(crate) fn recycle(&mut self, chunk: Chunk) {
        if self.spare.len() < SPARE_CHUNKS {
            self.spare.push(chunk);
        }
    }

    /// Lets go of the spare chunks.
    pub(crate) fn rest(&mut self) {
        self.spare = Vec::new();
        self.urgent.shrink_to(16);
        self.counted.shrink_to(16);
    }

    /// Writes the next frame; counted ones only if `counted`. False: there is none.
    pub(crate) fn transmit(&mut self, counted: bool, write: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        if let Some(frame) = self.urgent.pop_front() {
            write(&frame, &[]);
            return true;
        }
        if let Some(frame) = self.counted.get(self.sent).filter(|_| counted) {
            frame.write(write);
            self.sent += 1;
            if !self.keep {
                self.forget_first();
            }
            return true;
        }
        if let Some(frame) = self.last.take() {
            write(&frame, &[]);
            return true;
        }
        false
    }

    /// What is said when everything else is.
    pub(crate) fn last(&mut self, kind: Kind, parts: &[&[u8]]) {
        self.last = Some(frame(kind, 0, parts));
    }

    /// True when a call of [`Self::transmit`] would write.
    pub(crate) fn waits(&self, counted: bool) -> bool {
        !self.urgent.is_empty() || counted && self.sent < self.counted.len() || self.last.is_some()
    }

    fn forget_first(&mut self) {
        let Some(frame) = self.counted.pop_front() else { return };
        self.held = self.held.saturating_sub(frame.memory());
        self.first += 1;
        self.sent = self.sent.saturating_sub(1);
        if let Counted::Part(part) = frame
            && let Some(chunk) = Arc::into_inner(part.chunk)
        {
            self.recycle(chunk);
        }
    }

    /// The other end has all counted frames before number `position`. False: it cannot have, or no longer wants what it
    /// has said to have.
    pub(crate) fn acknowledged(&mut self, position: u64) -> bool {
        if !self.keep {
            // Nobody needs to say so, but it may.
            return position <= self.first;
        }
        let Some(new) = position.checked_sub(self.first) else { return false };
        let Ok(new) = usize::try_from(new) else { return false };
        if new > self.sent {
            return false;
        }
        (0..new).for_each(|_| self.forget_first());
        true
    }

    /// A new connection: what was said about the old one is void, what is kept goes again.
    pub(crate) fn rewind(&mut self, position: &[u8]) {
        self.urgent.clear();
        self.urgent(Kind::Position, &[position]);
    }

    /// All kept frames from the first are sent again.
    pub(crate) fn again(&mut self) {
        self.sent = 0;
    }

    /// Something was sent that is not acknowledged.
    pub(crate) fn unacknowledged(&self) -> bool {
        self.sent > 0
    }

    /// Bytes that may be put in before some are acknowledged (or sent, when nothing is kept).
    pub(crate) fn room(&self) -> usize {
        if self.counted.len() >= KEPT_FRAMES { 0 } else { KEPT_BYTES.saturating_sub(self.held) }
    }

    /// More than an honest end could make us put in.
    pub(crate) fn flooded(&self) -> bool {
        self.urgent.len() > KEPT_FRAMES || self.counted.len() > QUEUED_FRAMES
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held
    }
}
