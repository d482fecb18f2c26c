//! What is due, and when.

use std::future::Future as _;
use std::task::Context;
use std::time::Duration;

use postern_streams::Timeout;

use super::Driver;
use crate::sealed::ended::Why;
use crate::sealed::limits::REST_AFTER;
use crate::sealed::slot::Slot;

impl Driver {
    /// Does what is due and sets the timer. True: something was done.
    pub(super) fn look_at_clock(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.now();
        let Some(due) = self.due() else { return false };
        if due <= now {
            self.on_time(now);
            return true;
        }
        // A timer that is early looks again: it is not set anew with each packet.
        let deadline = self.start + due;
        if deadline < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(deadline);
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        true
    }

    pub(super) fn due(&self) -> Option<Duration> {
        let prove_by = self.link.as_ref().and_then(|link| link.prove_by);
        let rest = self.used.map(|used| used + REST_AFTER);
        let leave = self.leaving.as_ref().map(|leaving| leaving.until);
        [self.streams.next_timeout(), prove_by, rest, leave].into_iter().flatten().min()
    }

    pub(super) fn on_time(&mut self, now: Duration) {
        if self.used.is_some_and(|used| now >= used + REST_AFTER) {
            self.rest();
        }
        if self.link.as_ref().is_some_and(|link| link.prove_by.is_some_and(|by| now >= by)) {
            return self.lost(Why::Lost);
        }
        match self.streams.on_timeout(now) {
            Timeout::Nothing => {}
            Timeout::Silent => self.lost(Why::Lost),
            Timeout::NotResumed => self.over = Some(Why::NotResumed(self.resume)),
        }
    }

    /// Lets go of what only busy sessions need.
    pub(super) fn rest(&mut self) {
        self.used = None;
        self.streams.rest();
        self.slots.values_mut().for_each(Slot::rest);
        if let Some(link) = self.link.as_mut() {
            link.input.truncate(link.have);
            link.input.shrink_to_fit();
            if link.output.is_empty() {
                link.output = Vec::new();
            }
            link.small = Vec::new();
        }
    }
}
