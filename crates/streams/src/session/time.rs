//! Time, loss and resumption.

use std::time::Duration;

use super::{Streams, Way};
use crate::event::Timeout;
use crate::frame::Kind;
use crate::limits::ACTIVE_FOR;
use crate::liveness::Time;

impl Streams {
    /// When [`Self::on_timeout`] has something to do.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        match self.way {
            Way::Over { .. } => None,
            Way::Lost { until } => Some(until),
            Way::Open | Way::Resuming => {
                let due = self.liveness.due(self.busy());
                Some(self.tell_by.map_or(due, |tell| tell.min(due)))
            }
        }
    }

    /// Somebody here would notice that the other end is gone: something is on its way, or was coming until just now.
    pub(super) fn busy(&self) -> bool {
        let coming = self.counted.is_some_and(|at| self.liveness.last_heard().saturating_sub(at) <= ACTIVE_FOR);
        coming || self.outbox.unacknowledged()
    }

    /// The time has come; transmit afterwards.
    pub fn on_timeout(&mut self, now: Duration) -> Timeout {
        match self.way {
            Way::Over { .. } => return Timeout::Nothing,
            Way::Lost { until } if now >= until => return Timeout::NotResumed,
            Way::Lost { .. } => return Timeout::Nothing,
            Way::Open | Way::Resuming => {}
        }
        if self.tell_by.is_some_and(|by| now >= by) && self.way == Way::Open {
            self.tell();
        }
        match self.liveness.on_timeout(self.busy(), now) {
            Time::Calm => Timeout::Nothing,
            Time::Ask(number) => {
                self.outbox.urgent(Kind::Ping, &[&number.to_be_bytes()]);
                Timeout::Nothing
            }
            Time::Lost => Timeout::Silent,
        }
    }

    /// The connection is gone. True: the session waits for another one; false: it is over.
    pub fn lost(&mut self, now: Duration) -> bool {
        if self.is_over() || self.resume.is_zero() {
            return false;
        }
        if !matches!(self.way, Way::Lost { .. }) {
            self.way = Way::Lost { until: now + self.resume };
            self.inbox.restart();
        }
        true
    }

    /// There is a new connection, behind its STATEMENTs. What did not arrive goes again once the other end has said where
    /// it stands ([`Event::Resumed`]). The old connection need not have been [`Self::lost`].
    pub fn resumed(&mut self, now: Duration) {
        if self.is_over() {
            return;
        }
        self.inbox.restart();
        self.outbox.rewind(&self.received.to_be_bytes());
        self.told = self.received;
        self.untold = 0;
        self.tell_by = None;
        self.liveness.restart(now);
        self.way = Way::Resuming;
    }
}
