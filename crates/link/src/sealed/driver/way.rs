//! The connection to the other end: lost, replaced, left.

use std::task::{Context, Poll};
use std::time::Duration;

use super::{Connection, Driver, Part};
use crate::sealed::end::End;
use crate::sealed::ended::{State, Why};
use crate::sealed::limits::{LINGER, PROOF_WITHIN, WRITE_WITHIN};
use crate::sealed::local::Io;

/// A live connection.
pub(super) struct Link {
    pub(super) socket: Box<dyn Io>,
    pub(super) end: Box<dyn End>,
    /// Bytes of TLS that came; `have` of them.
    pub(super) input: Vec<u8>,
    pub(super) have: usize,
    /// Bytes of TLS to go; `sent` of them are gone.
    pub(super) output: Vec<u8>,
    pub(super) sent: usize,
    /// Small frames that are about to share a record.
    pub(super) small: Vec<u8>,
    /// Nothing has come yet.
    pub(super) fresh: bool,
    /// Something came with the handshake that was not looked at.
    pub(super) unseen: bool,
    pub(super) prove_by: Option<Duration>,
}

impl Link {
    pub(super) fn new(connection: Connection, prove_by: Option<Duration>) -> Self {
        let Connection { way, end } = connection;
        let have = way.read.len();
        Self {
            socket: way.socket,
            end,
            input: way.read,
            have,
            output: Vec::new(),
            sent: 0,
            small: Vec::new(),
            fresh: have == 0,
            unseen: have > 0,
            prove_by,
        }
    }
}

/// The last moments of a session.
pub(super) struct Leaving {
    pub(super) why: Why,
    pub(super) until: Duration,
    /// We have said GOODBYE; else the other end has.
    pub(super) ours: bool,
    pub(super) said: bool,
}

/// Codes of GOODBYE.
pub(super) const DONE: u16 = 0;
pub(super) const BROKEN: u16 = 1;
pub(super) const STOPPING: u16 = 2;
pub(super) const REVOKED: u16 = 3;

impl Driver {
    pub(super) fn replace(&mut self, connection: Connection, epoch: u32) {
        if self.leaving.is_some() || epoch <= self.epoch {
            return;
        }
        let now = self.now();
        self.shared.set_facts(connection.end.facts());
        self.epoch = epoch;
        let prove_by = matches!(self.part, Part::Device(_)).then(|| now + PROOF_WITHIN);
        self.link = Some(Link::new(connection, prove_by));
        self.streams.resumed(now);
        self.returning = None;
        // Before the first byte of the new way is seen anywhere.
        self.publish(State::Live);
    }

    pub(super) fn come_back(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(returning) = self.returning.as_mut() else { return false };
        let Poll::Ready(outcome) = returning.as_mut().poll(cx) else { return false };
        self.returning = None;
        match outcome {
            Ok((connection, epoch)) => self.replace(connection, epoch),
            Err(why) => self.over = Some(why),
        }
        true
    }

    pub(super) fn lost(&mut self, why: Why) {
        let now = self.now();
        self.link = None;
        if let Some(leaving) = self.leaving.take() {
            self.over = Some(leaving.why);
            return;
        }
        // Who has never shown itself has nothing to come back to.
        if !self.proven || !self.streams.lost(now) {
            self.over = Some(why);
            return;
        }
        if let Part::Client(Some(begin)) = &mut self.part {
            self.returning = Some(begin(self.epoch));
        }
    }

    /// Says goodbye, as far as there is somebody to say it to.
    pub(super) fn leave(&mut self, why: Why, code: u16) {
        if self.leaving.is_some() || self.over.is_some() {
            return;
        }
        self.returning = None;
        if self.link.is_none() {
            self.over = Some(why);
            return;
        }
        self.streams.goodbye(code, &why.to_string());
        self.leaving = Some(Leaving { why, until: self.now() + WRITE_WITHIN, ours: true, said: false });
    }

    /// The other end said goodbye: what it said before still goes where it should.
    pub(super) fn left(&mut self, why: Why) {
        if self.leaving.is_none() {
            self.leaving = Some(Leaving { why, until: self.now() + LINGER, ours: false, said: false });
        }
    }

    pub(super) fn finish_leaving(&mut self) {
        let now = self.now();
        let Some(leaving) = &self.leaving else { return };
        let flushed = self.link.as_ref().is_none_or(|link| link.output.is_empty());
        let served = leaving.ours || self.slots.values().all(|slot| !slot.waits());
        if leaving.said && flushed && served || now >= leaving.until {
            self.over = Some(leaving.why.clone());
        }
    }
}
