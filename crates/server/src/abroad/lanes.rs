//! Which notifications may go out now: one lane for each sender and recipient, in order within it.
//!
//! Pure: told what waits and how attempts ended, it says what to try next and when. What waits is in the store; here
//! is only who waits for whom.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use postern_net::backoff::Backoff;
use postern_proto::{AtSign, Millis};

/// Sender and recipient.
pub(super) type Pair = (AtSign, AtSign);

/// Bounds of the lanes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Lanes in memory; what waits beyond is found by the next look at the store.
    pub(super) lanes: usize,
    /// Lanes under way.
    pub(super) running: usize,
    /// Of one sender.
    pub(super) running_of_one: usize,
    /// First wait after a failure.
    pub(super) quarantine: Duration,
    /// Longest wait after a failure.
    pub(super) quarantine_max: Duration,
    /// Failures in a row after which what waited before the first is given up.
    pub(super) tries: u32,
}

#[derive(Debug)]
pub(super) struct Lanes {
    bounds: Bounds,
    lanes: HashMap<Pair, Lane>,
    ready: VecDeque<Pair>,
    waiting: BTreeSet<(Instant, Pair)>,
    /// Recipients that nobody reaches, and until when nobody tries.
    dead: BTreeMap<AtSign, Instant>,
    running_of: HashMap<AtSign, usize>,
    running: usize,
    overflowed: bool,
}

#[derive(Debug)]
struct Lane {
    state: State,
    failures: Backoff,
    /// Since when every attempt has failed.
    failing_since: Option<Millis>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Waiting(Instant),
    /// `again`: more came meanwhile.
    Running {
        again: bool,
    },
}

/// How an attempt to empty a lane ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing waits any more.
    Empty,
    /// Others have their turn.
    More,
    /// The recipient's server was not reached.
    Dead,
    /// It was reached and did not take it.
    Refused,
}

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Try again later.
    Keep,
    /// Give up what has waited since before this time.
    GiveUp(Millis),
}

impl Lanes {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            dead: BTreeMap::new(),
            running_of: HashMap::new(),
            running: 0,
            overflowed: false,
        }
    }

    /// Something waits for this pair.
    pub(super) fn note(&mut self, pair: Pair) {
        if let Some(lane) = self.lanes.get_mut(&pair) {
            if let State::Running { again } = &mut lane.state {
                *again = true;
            }
            return;
        }
        if self.lanes.len() >= self.bounds.lanes {
            self.overflowed = true;
            return;
        }
        let failures = Backoff::new(self.bounds.quarantine, self.bounds.quarantine_max);
        self.lanes.insert(pair.clone(), Lane { state: State::Ready, failures, failing_since: None });
        self.ready.push_back(pair);
    }

    /// True once after lanes had no room: then the store is to be looked at again.
    pub(super) fn take_overflowed(&mut self) -> bool {
        self.lanes.len() < self.bounds.lanes && std::mem::take(&mut self.overflowed)
    }

    /// A lane to run now; [`Self::ended`] has to follow.
    pub(super) fn next(&mut self, now: Instant) -> Option<Pair> {
        self.wake(now);
        if self.running >= self.bounds.running {
            return None;
        }
        // Once around: lanes of busy senders stay in the queue.
        for _ in 0..self.ready.len() {
            let pair = self.ready.pop_front()?;
            if let Some(until) = self.dead.get(&pair.1).copied() {
                self.wait(pair, until);
                continue;
            }
            let of_one = self.running_of.entry(pair.0.clone()).or_default();
            if *of_one >= self.bounds.running_of_one {
                self.ready.push_back(pair);
                continue;
            }
            *of_one += 1;
            self.running += 1;
            if let Some(lane) = self.lanes.get_mut(&pair) {
                lane.state = State::Running { again: false };
            }
            return Some(pair);
        }
        None
    }

    /// When [`Self::next`] may have something new, if nothing happens before.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// One notification of the pair arrived.
    pub(super) fn delivered(&mut self, pair: &Pair) {
        self.dead.remove(&pair.1);
        if let Some(lane) = self.lanes.get_mut(pair) {
            lane.failures.reset();
            lane.failing_since = None;
        }
    }

    /// A run of the pair is over. `wall`: the time of notifications.
    pub(super) fn ended(&mut self, pair: Pair, how: Ended, now: Instant, wall: Millis, random: u32) -> After {
        self.running = self.running.saturating_sub(1);
        if let Some(count) = self.running_of.get_mut(&pair.0) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.running_of.remove(&pair.0);
            }
        }
        let Some(lane) = self.lanes.get_mut(&pair) else { return After::Keep };
        let again = lane.state == State::Running { again: true };
        match how {
            Ended::Empty if !again => {
                self.lanes.remove(&pair);
                After::Keep
            }
            Ended::Empty | Ended::More => {
                lane.state = State::Ready;
                self.ready.push_back(pair);
                After::Keep
            }
            Ended::Dead | Ended::Refused => {
                let since = *lane.failing_since.get_or_insert(wall);
                let until = now + lane.failures.next(random);
                let after = if lane.failures.tries() >= self.bounds.tries {
                    lane.failures.reset();
                    lane.failing_since = None;
                    After::GiveUp(since)
                } else {
                    After::Keep
                };
                if how == Ended::Dead {
                    self.dead.insert(pair.1.clone(), until);
                }
                self.wait(pair, until);
                after
            }
        }
    }

    fn wait(&mut self, pair: Pair, until: Instant) {
        if let Some(lane) = self.lanes.get_mut(&pair) {
            lane.state = State::Waiting(until);
            self.waiting.insert((until, pair));
        }
    }

    fn wake(&mut self, now: Instant) {
        self.dead.retain(|_, until| *until > now);
        while let Some((at, _)) = self.waiting.first()
            && *at <= now
        {
            let Some((_, pair)) = self.waiting.pop_first() else { return };
            if let Some(lane) = self.lanes.get_mut(&pair) {
                lane.state = State::Ready;
                self.ready.push_back(pair);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn bounds() -> Bounds {
        Bounds { lanes: 5, running: 3, running_of_one: 2, quarantine: 10 * S, quarantine_max: 60 * S, tries: 3 }
    }

    fn pair(from: &str, to: &str) -> Pair {
        (AtSign::parse(from).unwrap(), AtSign::parse(to).unwrap())
    }

    #[test]
    fn a_pair_runs_once_at_a_time_and_again_when_more_came() {
        let (mut lanes, now) = (Lanes::new(bounds()), Instant::now());
        let ab = pair("a", "b");
        lanes.note(ab.clone());
        lanes.note(ab.clone());
        assert_eq!(lanes.next(now), Some(ab.clone()));
        assert_eq!(lanes.next(now), None);
        lanes.note(ab.clone());
        assert_eq!(lanes.next(now), None);
        lanes.ended(ab.clone(), Ended::Empty, now, 0, 0);
        assert_eq!(lanes.next(now), Some(ab.clone()));
        lanes.ended(ab, Ended::Empty, now, 0, 0);
        assert_eq!(lanes.next(now), None);
        assert!(lanes.lanes.is_empty() && lanes.running_of.is_empty() && lanes.poll_timeout().is_none());
    }

    #[test]
    fn a_dead_recipient_waits_for_all_senders_and_holds_up_nobody_else() {
        let (mut lanes, now) = (Lanes::new(bounds()), Instant::now());
        let (ad, bd, ac) = (pair("a", "dead"), pair("b", "dead"), pair("a", "c"));
        lanes.note(ad.clone());
        assert_eq!(lanes.next(now), Some(ad.clone()));
        assert_eq!(lanes.ended(ad.clone(), Ended::Dead, now, 7, 0), After::Keep);
        lanes.note(bd.clone());
        lanes.note(ac.clone());
        assert_eq!(lanes.next(now), Some(ac));
        assert_eq!(lanes.next(now), None);
        assert_eq!(lanes.poll_timeout(), Some(now + 10 * S));
        assert_eq!(lanes.next(now + 9 * S), None);
        let mut both = [lanes.next(now + 10 * S).unwrap(), lanes.next(now + 10 * S).unwrap()];
        both.sort();
        assert_eq!(both, [ad, bd]);
    }

    #[test]
    fn after_many_failures_what_waited_is_given_up() {
        let (mut lanes, mut now) = (Lanes::new(bounds()), Instant::now());
        let ab = pair("a", "b");
        lanes.note(ab.clone());
        let mut outcomes = Vec::new();
        for wall in [100, 200, 300, 400] {
            now += 61 * S;
            assert_eq!(lanes.next(now), Some(ab.clone()));
            outcomes.push(lanes.ended(ab.clone(), Ended::Refused, now, wall, u32::MAX));
        }
        assert_eq!(outcomes, [After::Keep, After::Keep, After::GiveUp(100), After::Keep]);
        // One success and counting begins anew.
        lanes.delivered(&ab);
        now += 61 * S;
        assert_eq!(lanes.next(now), Some(ab.clone()));
        assert_eq!(lanes.ended(ab, Ended::Refused, now, 500, 0), After::Keep);
    }

    #[test]
    fn everything_is_bounded_and_one_sender_does_not_take_all() {
        let (mut lanes, now) = (Lanes::new(bounds()), Instant::now());
        for to in ["b", "c", "d", "e"] {
            lanes.note(pair("a", to));
        }
        lanes.note(pair("z", "y"));
        lanes.note(pair("z", "x"));
        assert!(!lanes.take_overflowed(), "no room yet");
        let running: Vec<Pair> = std::iter::from_fn(|| lanes.next(now)).collect();
        assert_eq!(running, [pair("a", "b"), pair("a", "c"), pair("z", "y")]);
        for pair in running {
            lanes.ended(pair, Ended::Empty, now, 0, 0);
        }
        assert!(lanes.take_overflowed() && !lanes.take_overflowed());
        assert_eq!(lanes.next(now), Some(pair("a", "d")));
    }
}
