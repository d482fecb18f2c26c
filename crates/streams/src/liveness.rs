//! Whether the other end is there, and how far it is.

use std::time::Duration;

use crate::limits::{
    ASK_WHEN_BUSY, ASK_WHEN_IDLE, LONGEST_ROUND_TRIP, LOST_AFTER, LOST_FOR_GOOD_AFTER, MEASURE_EVERY,
    SHORTEST_ROUND_TRIP,
};

/// Silence, PINGs and round trips of one connection.
pub(crate) struct Liveness {
    resumes: bool,
    heard: Duration,
    /// The PING that is not answered: its number and when it was sent.
    asked: Option<(u64, Duration)>,
    number: u64,
    measured: Option<Duration>,
    round_trip: Option<Duration>,
}

/// What time says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// Nothing yet.
    Calm,
    /// Send a PING with this number.
    Ask(u64),
    /// The other end is silent for too long.
    Lost,
}

impl Liveness {
    pub(crate) fn new(resumes: bool, now: Duration) -> Self {
        Self { resumes, heard: now, asked: None, number: 0, measured: None, round_trip: None }
    }

    /// A new connection; what is known of the distance may not hold for it.
    pub(crate) fn restart(&mut self, now: Duration) {
        *self = Self { number: self.number, ..Self::new(self.resumes, now) };
    }

    pub(crate) fn heard(&mut self, now: Duration) {
        self.heard = now;
    }

    pub(crate) fn last_heard(&self) -> Duration {
        self.heard
    }

    pub(crate) fn answered(&mut self, number: u64, now: Duration) {
        if let Some((_, at)) = self.asked.take_if(|(asked, _)| *asked == number) {
            let took = now.saturating_sub(at).clamp(SHORTEST_ROUND_TRIP, LONGEST_ROUND_TRIP);
            self.round_trip = Some(took);
            self.measured = Some(now);
        }
    }

    /// Data comes in: the number of a PING if the round trip should be measured.
    pub(crate) fn measure(&mut self, now: Duration) -> Option<u64> {
        let old = self.measured.is_none_or(|at| now.saturating_sub(at) >= MEASURE_EVERY);
        (old && self.asked.is_none()).then(|| self.ask(now))
    }

    fn ask(&mut self, now: Duration) -> u64 {
        self.number += 1;
        self.asked = Some((self.number, now));
        self.number
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// When [`Self::on_timeout`] has something to say.
    pub(crate) fn due(&self, busy: bool) -> Duration {
        match self.asked {
            Some((_, at)) => at.max(self.heard) + self.patience(),
            None => self.heard + if busy && self.resumes { ASK_WHEN_BUSY } else { ASK_WHEN_IDLE },
        }
    }

    fn patience(&self) -> Duration {
        if self.resumes { LOST_AFTER } else { LOST_FOR_GOOD_AFTER }
    }

    pub(crate) fn on_timeout(&mut self, busy: bool, now: Duration) -> Time {
        if now < self.due(busy) {
            return Time::Calm;
        }
        match self.asked {
            // Whatever came since is an answer too: the PONG may stand behind megabytes.
            Some((_, at)) if self.heard > at => {
                self.asked = None;
                Time::Ask(self.ask(now))
            }
            Some(_) => Time::Lost,
            None => Time::Ask(self.ask(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_silent_end_is_asked_and_then_lost() {
        let mut line = Liveness::new(true, Duration::ZERO);
        assert_eq!(line.on_timeout(false, 19 * SECOND), Time::Calm);
        assert_eq!(line.on_timeout(false, 20 * SECOND), Time::Ask(1));
        assert_eq!(line.on_timeout(false, 27 * SECOND), Time::Calm);
        assert_eq!(line.on_timeout(false, 28 * SECOND), Time::Lost);
    }

    #[test]
    fn who_waits_for_an_answer_asks_sooner_and_only_where_a_loss_can_be_mended() {
        let mut line = Liveness::new(true, Duration::ZERO);
        assert_eq!(line.on_timeout(true, 3 * SECOND), Time::Ask(1));
        let mut line = Liveness::new(false, Duration::ZERO);
        assert_eq!(line.on_timeout(true, 3 * SECOND), Time::Calm);
        assert_eq!(line.on_timeout(true, 20 * SECOND), Time::Ask(1));
        assert_eq!(line.on_timeout(true, 200 * SECOND), Time::Calm, "nobody mends it: patience");
        assert_eq!(line.on_timeout(true, 260 * SECOND), Time::Lost);
    }

    #[test]
    fn an_answer_measures_the_way() {
        let mut line = Liveness::new(true, Duration::ZERO);
        assert_eq!(line.measure(SECOND), Some(1));
        assert_eq!(line.measure(SECOND), None, "one at a time");
        line.answered(7, 2 * SECOND);
        assert_eq!(line.round_trip(), None, "no answer to what was asked");
        line.answered(1, SECOND + Duration::from_millis(100));
        assert_eq!(line.round_trip(), Some(Duration::from_millis(100)));
        assert_eq!(line.measure(SECOND + Duration::from_millis(200)), None);
        assert_eq!(line.measure(3 * SECOND), Some(2));
    }

    #[test]
    fn an_end_that_speaks_is_not_lost_though_its_answer_is_late() {
        let mut line = Liveness::new(true, Duration::ZERO);
        assert_eq!(line.measure(SECOND), Some(1));
        line.heard(8 * SECOND);
        assert_eq!(line.on_timeout(true, 10 * SECOND), Time::Calm);
        assert_eq!(line.on_timeout(true, 16 * SECOND), Time::Ask(2));
        assert_eq!(line.on_timeout(true, 24 * SECOND), Time::Lost);
    }
}
