//! Local ends: programs at the client, dialled sockets at the device.

use std::task::{Context, Poll};

use postern_streams::StreamId;

use super::Driver;
use crate::sealed::ended::StreamRefused;
use crate::sealed::slot::Slot;

impl Driver {
    pub(super) fn look_at_locals(&mut self, cx: &Context<'_>) -> bool {
        let mut woken = std::mem::take(&mut self.woken);
        self.ready.look(cx, &mut woken);
        let busy = !woken.is_empty();
        for stream in woken.drain(..) {
            let Some(slot) = self.slots.get_mut(&stream) else { continue };
            if slot.is_abandoned() {
                self.slots.remove(&stream);
                self.streams.reset(stream);
                continue;
            }
            if slot.is_attached() {
                if slot.waits() {
                    self.write_local(stream);
                }
                self.streams.ready(stream);
            }
        }
        self.woken = woken;
        busy
    }

    /// Writes what came for a local program as far as it goes.
    pub(super) fn write_local(&mut self, stream: StreamId) {
        let now = self.start.elapsed();
        let Some(slot) = self.slots.get_mut(&stream) else { return };
        match slot.write() {
            Ok(went) => {
                self.carried.back += went as u64;
                if went > 0 {
                    self.streams.consumed(stream, went, now);
                }
                self.finish(stream);
            }
            Err(_) => self.fail(stream),
        }
    }

    /// One turn: reads what a local program has written. False: nobody has anything.
    pub(super) fn read_local(&mut self) -> bool {
        let Some(turn) = self.streams.turn() else { return false };
        let Some(slot) = self.slots.get_mut(&turn.stream) else {
            self.streams.unready(turn.stream);
            return true;
        };
        let mut chunk = self.streams.chunk(turn);
        match slot.read(&mut chunk, turn.room) {
            Poll::Pending => {
                self.streams.recycle(chunk);
                self.streams.unready(turn.stream);
            }
            Poll::Ready(Ok(0)) => {
                slot.ended = true;
                self.streams.recycle(chunk);
                self.streams.unready(turn.stream);
                self.streams.end(turn.stream);
                self.finish(turn.stream);
            }
            Poll::Ready(Ok(n)) => {
                self.carried.out += n as u64;
                self.streams.data(turn.stream, chunk);
            }
            Poll::Ready(Err(_)) => {
                self.streams.recycle(chunk);
                self.fail(turn.stream);
            }
        }
        true
    }

    pub(super) fn finish(&mut self, stream: StreamId) {
        if self.slots.get(&stream).is_some_and(Slot::is_done)
            && let Some(mut slot) = self.slots.remove(&stream)
        {
            slot.tell(Ok(()));
        }
    }

    pub(super) fn fail(&mut self, stream: StreamId) {
        if let Some(mut slot) = self.slots.remove(&stream) {
            slot.tell(Err(StreamRefused::Reset));
        }
        self.streams.reset(stream);
    }
}
