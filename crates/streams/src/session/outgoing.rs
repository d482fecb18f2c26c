//! What goes out: frames, and what the other end is told of what came.

use super::{Streams, Way};
use crate::frame::Kind;
use crate::limits::{ACK_BYTES, ACK_FRAMES};

impl Streams {
    /// Writes the next frame that is to go out, in two parts, the second of which may be empty. False: there is none now.
    pub fn transmit(&mut self, write: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        let counted = matches!(self.way, Way::Open | Way::Over { flush: true });
        if self.tell_by.is_some() && counted && (self.told_too_little() || self.outbox.waits(true)) {
            self.tell();
        }
        self.way_is_there() && self.outbox.transmit(counted, write)
    }

    pub(super) fn way_is_there(&self) -> bool {
        !matches!(self.way, Way::Lost { .. })
    }

    pub(super) fn told_too_little(&self) -> bool {
        self.received - self.told >= ACK_FRAMES || self.untold >= ACK_BYTES
    }

    pub(super) fn tell(&mut self) {
        self.outbox.urgent(Kind::Ack, &[&self.received.to_be_bytes()]);
        self.told = self.received;
        self.untold = 0;
        self.tell_by = None;
    }
}
