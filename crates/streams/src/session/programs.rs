//! What the programs at this end want: streams, turns, windows.

use std::time::Duration;

use super::{Streams, Way};
use crate::chunk::Chunk;
use crate::code::RefusalCode;
use crate::event::{StreamId, Turn};
use crate::frame::{Kind, cut};
use crate::limits::{BURST, CHUNK, FIRST_WINDOW, SHORT_TURN, STREAMS, TARGET_BYTES};
use crate::stream::{Opening, Stream};

impl Streams {
    /// Opens a stream. `None`: there are too many, or `target` is too long. Bytes may follow before it is accepted.
    pub fn open(&mut self, target: &str) -> Option<StreamId> {
        let next = self.next.checked_add(2)?;
        if self.streams.len() >= STREAMS || target.len() > TARGET_BYTES {
            return None;
        }
        let id = std::mem::replace(&mut self.next, next);
        let window = self.first_window();
        self.insert(id, Stream::new(Opening::Asked, FIRST_WINDOW, window));
        self.outbox.push(Kind::Open, id, &[&window.to_be_bytes(), target.as_bytes()]);
        Some(StreamId(id))
    }

    /// Accepts a stream that the other end has opened. False: it is gone meanwhile.
    pub fn accept(&mut self, id: StreamId) -> bool {
        let window = self.first_window();
        let Some(stream) = self.streams.get_mut(&id.0) else { return false };
        if stream.opening != Opening::Knocked {
            return false;
        }
        stream.opening = Opening::Open;
        let before = stream.window.size();
        stream.window.raise(window);
        let window = stream.window.size();
        self.windows += (window - before) as usize;
        self.outbox.push(Kind::Accepted, id.0, &[&window.to_be_bytes()]);
        self.queue(id.0);
        true
    }

    /// Refuses a stream that the other end has opened; `text` is for its user.
    pub fn refuse(&mut self, id: StreamId, code: RefusalCode, text: &str) {
        if self.streams.get(&id.0).is_some_and(|stream| stream.opening == Opening::Knocked) {
            self.remove(id.0);
            self.outbox.push(Kind::Refused, id.0, &[&code.to_u16().to_be_bytes(), cut(text)]);
        }
    }

    /// The program at this end has something to send: it will get a turn.
    pub fn ready(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id.0) {
            stream.wants = true;
            self.queue(id.0);
        }
    }

    /// It has nothing for the moment.
    pub fn unready(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id.0) {
            stream.wants = false;
        }
    }

    /// Whose turn it is to send. Follow with [`Self::data`], [`Self::unready`] or [`Self::end`].
    pub fn turn(&mut self) -> Option<Turn> {
        if self.way != Way::Open {
            return None;
        }
        let kept = self.outbox.room();
        if kept == 0 {
            return None;
        }
        while let Some(id) = self.turns.pop_front() {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.queued = false;
            let sendable = usize::try_from(stream.sendable()).unwrap_or(usize::MAX);
            if stream.wants && sendable > 0 {
                let room = match self.turns.len() {
                    0 if stream.bursts => BURST,
                    // Among many, turns are short: one round of all of them is over soon.
                    others => (BURST / (others + 1)).clamp(SHORT_TURN, CHUNK),
                };
                let room = room.min(kept);
                return Some(Turn { stream: StreamId(id), room: room.min(sendable) });
            }
        }
        None
    }

    /// A buffer for what is read in a turn.
    pub fn chunk(&mut self, turn: Turn) -> Chunk {
        self.outbox.chunk(turn.room)
    }

    /// Gives a buffer back unused.
    pub fn recycle(&mut self, chunk: Chunk) {
        self.outbox.recycle(chunk);
    }

    /// Sends what was read in a [`Turn`]; not more than its room. The stream goes to the end of the queue.
    pub fn data(&mut self, id: StreamId, chunk: Chunk) {
        let Some(stream) = self.streams.get_mut(&id.0) else { return self.outbox.recycle(chunk) };
        let length = chunk.len() as u64;
        debug_assert!(length > 0 && length <= stream.sendable(), "a turn says how much may be sent");
        if length == 0 || stream.ended {
            return self.outbox.recycle(chunk);
        }
        stream.credit = stream.credit.saturating_sub(length);
        stream.bursts = length >= CHUNK as u64;
        self.outbox.push_data(id.0, chunk);
        self.queue(id.0);
    }

    /// The program at this end will send no more; the other direction goes on.
    pub fn end(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id.0) else { return };
        if !std::mem::replace(&mut stream.ended, true) {
            let over = stream.over;
            self.outbox.push(Kind::End, id.0, &[]);
            if over {
                self.remove(id.0);
            }
        }
    }

    /// The program at this end is gone: nothing is sent and nothing is taken any more.
    pub fn reset(&mut self, id: StreamId) {
        if self.remove(id.0) {
            self.outbox.push(Kind::Reset, id.0, &[&0_u16.to_be_bytes()]);
        }
    }

    /// Bytes of [`Event::Data`] were handed to the program at this end.
    pub fn consumed(&mut self, id: StreamId, bytes: usize, now: Duration) {
        // No stream takes what others may need: all grow to the same share.
        let (spare, share) = (self.limit().saturating_sub(self.windows), self.limit() / self.streams.len().max(1));
        let Some(stream) = self.streams.get_mut(&id.0) else { return };
        if stream.over {
            return;
        }
        let before = stream.window.size();
        let spare = spare.min(share.saturating_sub(before as usize));
        let more = stream.window.hand_out(bytes, spare, self.liveness.round_trip(), now);
        self.windows += (stream.window.size() - before) as usize;
        // Until it is accepted, ACCEPTED says how large the window is.
        if let Some(more) = more {
            self.outbox.push(Kind::Window, id.0, &[&more.to_be_bytes()]);
        }
    }

    /// Leaves, with words for the other end's user.
    pub fn goodbye(&mut self, code: u16, text: &str) {
        if !self.is_over() {
            self.outbox.last(Kind::Goodbye, &[&code.to_be_bytes(), cut(text)]);
            self.way = Way::Over { flush: self.way == Way::Open };
        }
    }
}
