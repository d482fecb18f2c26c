//! The frames of one session, at one end.

mod incoming;
mod outgoing;
mod programs;
mod time;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::event::StreamId;
use crate::inbox::Inbox;
use crate::limits::{CLIENT_WINDOWS, DEVICE_WINDOWS, FIRST_WINDOW, GENEROUS_WINDOW};
use crate::liveness::Liveness;
use crate::outbox::Outbox;
use crate::stream::{Opening, Stream};

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Its streams are odd.
    Client,
    /// Its streams are even.
    Device,
}

/// One end of a session: streams over a sequence of frames. Bytes and the time since any fixed moment go in; frames
/// ([`Streams::transmit`]) and [`Event`]s come out. An error ends the session.
pub struct Streams {
    side: Side,
    /// How long a lost way may stay lost; zero: a loss ends the session, and nothing is kept.
    resume: Duration,
    streams: BTreeMap<u32, Stream>,
    /// Streams that have something to send and may, in the order of their turns.
    turns: VecDeque<u32>,
    /// The next number of ours and the last of the other end.
    next: u32,
    theirs: u32,
    /// All windows together.
    windows: usize,
    inbox: Inbox,
    outbox: Outbox,
    /// Counted frames received; how many of them the other end was told; bytes since then.
    received: u64,
    told: u64,
    untold: usize,
    tell_by: Option<Duration>,
    /// When the last of them came.
    counted: Option<Duration>,
    liveness: Liveness,
    way: Way,
}

/// How the way to the other end is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// There is a new connection, but the other end has not said where it stands.
    Resuming,
    Lost {
        until: Duration,
    },
    /// A GOODBYE came, or ours goes: behind the frames that were there, if the way was open.
    Over {
        flush: bool,
    },
}

impl Streams {
    /// A session at its start. `resume` zero: a lost way ends it.
    #[must_use]
    pub fn new(side: Side, resume: Duration, now: Duration) -> Self {
        let keep = !resume.is_zero();
        Self {
            side,
            resume,
            streams: BTreeMap::new(),
            turns: VecDeque::new(),
            next: if side == Side::Client { 1 } else { 2 },
            theirs: 0,
            windows: 0,
            inbox: Inbox::default(),
            outbox: Outbox::new(keep),
            received: 0,
            told: 0,
            untold: 0,
            tell_by: None,
            counted: None,
            liveness: Liveness::new(keep, now),
            way: Way::Open,
        }
    }

    /// Stream 1 of an `ssh_request`, as if the client had opened it and granted 65,536 bytes. Both ends call this before
    /// anything else; the device then accepts or refuses it.
    pub fn preopen(&mut self) -> StreamId {
        let opening = if self.side == Side::Client { Opening::Asked } else { Opening::Knocked };
        match self.side {
            Side::Client => self.next = 3,
            Side::Device => self.theirs = 1,
        }
        self.insert(1, Stream::new(opening, FIRST_WINDOW, FIRST_WINDOW));
        StreamId::SSH
    }

    /// Streams that are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// True when no stream is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Lets go of memory that only bursts need.
    pub fn rest(&mut self) {
        self.outbox.rest();
        self.inbox.rest();
    }

    fn is_over(&self) -> bool {
        matches!(self.way, Way::Over { .. })
    }

    fn is_ours(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.side == Side::Client)
    }

    fn insert(&mut self, id: u32, stream: Stream) {
        self.windows += stream.window.size() as usize;
        self.streams.insert(id, stream);
    }

    fn remove(&mut self, id: u32) -> bool {
        let Some(stream) = self.streams.remove(&id) else { return false };
        self.windows = self.windows.saturating_sub(stream.window.size() as usize);
        true
    }

    fn queue(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.wants
            && !stream.queued
            && stream.sendable() > 0
        {
            stream.queued = true;
            self.turns.push_back(id);
        }
    }

    fn limit(&self) -> usize {
        if self.side == Side::Client { CLIENT_WINDOWS } else { DEVICE_WINDOWS }
    }

    fn first_window(&self) -> u32 {
        let share = self.limit() / 2 / (self.streams.len() + 1);
        u32::try_from(share).unwrap_or(u32::MAX).clamp(FIRST_WINDOW, GENEROUS_WINDOW)
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.outbox.held()
    }
}
