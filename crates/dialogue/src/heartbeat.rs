//! When to look whether a link still lives: seldom enough for a SIM that counts bytes, often enough for the network that
//! forgets it.

use std::time::Duration;

/// Rounds that went well before the next silence is longer.
const ROUNDS: u32 = 6;
/// Of [`DEATHS_BELIEVED`] deaths at a silence that used to be survived, the first is forgotten after this many rounds.
const FORGIVEN_AFTER: u32 = 100;
/// One death at a silence that used to be survived is a tunnel or a modem that restarts; two are the network's doing.
const DEATHS_BELIEVED: u32 = 2;
/// A silence that was too long once is tried again after this many good rounds: networks change, and a try costs a
/// reconnect. At 15 minutes a round it is five days.
const TRY_AGAIN_AFTER: u32 = 500;

/// How often, at most and at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Silence before the first beat of a network that is not known.
    pub first: Duration,
    /// The longest silence that is tried.
    pub longest: Duration,
    /// The shortest to which deaths lead.
    pub least: Duration,
    /// One beat in so many asks for an answer; the others are only acknowledged by the peer's kernel, or by a carrier's
    /// proxy in its name.
    pub asks_every: u32,
    /// Spread of each silence around its length, in per cent: thousands of devices must not ring together.
    pub jitter: u32,
}

impl Plan {
    /// Always this silence, and always a question.
    #[must_use]
    pub const fn fixed(silence: Duration) -> Self {
        Self { first: silence, longest: silence, least: silence, asks_every: 1, jitter: 0 }
    }

    /// A silence that begins with `first` and finds out how long it may be.
    #[must_use]
    pub const fn adaptive(first: Duration, longest: Duration, least: Duration) -> Self {
        Self { first, longest, least, asks_every: 3, jitter: 10 }
    }

    /// The same in a time that runs `factor` times as fast, for measurements.
    #[must_use]
    pub fn hastened(self, factor: u32) -> Self {
        let factor = factor.max(1);
        Self { first: self.first / factor, longest: self.longest / factor, least: self.least / factor, ..self }
    }
}

/// What was learnt of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learnt {
    /// The silence that is kept now.
    pub interval: Duration,
    /// The longest that was survived; zero: none.
    pub good: Duration,
    /// The shortest that was not.
    pub bad: Option<Duration>,
}

/// A sign of life to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Something that the peer's kernel acknowledges.
    Touch,
    /// Something that the peer itself answers.
    Ask,
}

/// Decides when to send the next sign of life. Pure: randomness is a parameter, and time is told as silences.
///
/// Longer after six good rounds, by a quarter; after a death half-way back to what was survived before.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    plan: Plan,
    learnt: Learnt,
    rounds: u32,
    strikes: u32,
    since_strike: u32,
    since_bad: u32,
    touches: u32,
    under_way: Option<Duration>,
}

impl Heartbeat {
    /// Begins with what was learnt of this network before, if anything.
    #[must_use]
    pub fn new(plan: Plan, learnt: Option<Learnt>) -> Self {
        let fresh = Learnt { interval: plan.first, good: Duration::ZERO, bad: None };
        let mut learnt = learnt.unwrap_or(fresh);
        learnt.interval = learnt.interval.clamp(plan.least, plan.longest.max(plan.least));
        Self { plan, learnt, rounds: 0, strikes: 0, since_strike: 0, since_bad: 0, touches: 0, under_way: None }
    }

    /// How long the line may be silent before the next beat. `random` is any evenly distributed number.
    #[must_use]
    pub fn silence(&self, random: u32) -> Duration {
        let share = f64::from(random) / f64::from(u32::MAX);
        let jitter = f64::from(self.plan.jitter) / 100.0;
        self.learnt.interval.mul_f64(1.0 - jitter + 2.0 * jitter * share)
    }

    /// The silence is over: what to send. `may_touch`: the peer bears what asks for no answer.
    pub fn beat(&mut self, may_touch: bool) -> Beat {
        // Nobody told that the last one failed.
        self.heard();
        self.under_way = Some(self.learnt.interval);
        self.touches += 1;
        if may_touch && self.touches < self.plan.asks_every {
            return Beat::Touch;
        }
        self.touches = 0;
        Beat::Ask
    }

    /// The peer said something, or a later beat is due: the last one arrived.
    pub fn heard(&mut self) {
        let Some(survived) = self.under_way.take() else { return };
        let Self { plan, learnt, .. } = self;
        learnt.good = learnt.good.max(survived);
        self.since_strike = self.since_strike.saturating_add(1);
        if self.since_strike >= FORGIVEN_AFTER {
            self.strikes = 0;
        }
        self.since_bad = self.since_bad.saturating_add(1);
        if self.since_bad >= TRY_AGAIN_AFTER {
            learnt.bad = None;
        }
        self.rounds += 1;
        if self.rounds < ROUNDS {
            return;
        }
        self.rounds = 0;
        let mut longer = (learnt.interval + learnt.interval / 4).min(plan.longest);
        if let Some(bad) = learnt.bad {
            // The spread around it must survive as well.
            longer = longer.min(bad * 4 / 5);
        }
        learnt.interval = learnt.interval.max(longer);
    }

    /// The link died with a beat under way: after this silence nobody knew us any more.
    pub fn died(&mut self) {
        let Some(tried) = self.under_way.take() else { return };
        let Self { plan, learnt, .. } = self;
        (self.rounds, self.touches) = (0, 0);
        if tried > learnt.good {
            learnt.interval = if learnt.good.is_zero() { tried / 2 } else { learnt.good + (tried - learnt.good) / 2 };
        } else {
            self.strikes += 1;
            self.since_strike = 0;
            if self.strikes < DEATHS_BELIEVED {
                return;
            }
            self.strikes = 0;
            learnt.interval = tried / 2;
            learnt.good = Duration::ZERO;
        }
        learnt.bad = Some(learnt.bad.map_or(tried, |bad| bad.min(tried)));
        self.since_bad = 0;
        learnt.interval = learnt.interval.clamp(plan.least, plan.longest.max(plan.least));
    }

    /// The link ended for another reason: nothing is learnt.
    pub fn closed(&mut self) {
        (self.under_way, self.touches) = (None, 0);
    }

    /// What is worth remembering of this network.
    #[must_use]
    pub fn learnt(&self) -> Learnt {
        self.learnt
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AUTO: Plan = Plan::adaptive(Duration::from_secs(300), Duration::from_secs(1500), Duration::from_secs(60));

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// A network that forgets a connection after `survives` of silence. Returns the mind, its deaths and the time that passed.
    fn live(plan: Plan, survives: Duration, beats: u32, randoms: impl Fn(u32) -> u32) -> (Heartbeat, usize, Duration) {
        let mut mind = Heartbeat::new(plan, None);
        let (mut deaths, mut passed) = (0, Duration::ZERO);
        for i in 0..beats {
            let silence = mind.silence(randoms(i));
            passed += silence;
            mind.beat(true);
            if silence > survives {
                mind.died();
                deaths += 1;
            } else {
                mind.heard();
            }
        }
        (mind, deaths, passed)
    }

    #[test]
    fn silence_grows_by_a_quarter_after_six_good_rounds() {
        let mut mind = Heartbeat::new(AUTO, None);
        let mut seen = Vec::new();
        for _ in 0..60 {
            seen.push(mind.learnt().interval.as_secs());
            mind.beat(true);
            mind.heard();
        }
        assert_eq!(seen.get(..7), Some(&[300, 300, 300, 300, 300, 300, 375][..]));
        assert_eq!((seen.get(12), seen.last()), (Some(&468), Some(&1500)));
    }

    #[test]
    fn a_death_halves_the_way_back() {
        let mut mind = Heartbeat::new(AUTO, None);
        for _ in 0..6 {
            mind.beat(true);
            mind.heard();
        }
        mind.beat(true);
        mind.died();
        assert_eq!(
            mind.learnt(),
            Learnt { interval: Duration::from_millis(337_500), good: secs(300), bad: Some(secs(375)) }
        );
        let mut first = Heartbeat::new(AUTO, None);
        first.beat(true);
        first.died();
        assert_eq!(first.learnt().interval, secs(150));
    }

    #[test]
    fn a_link_that_was_lost_once_proves_nothing_and_a_closed_one_less() {
        let mut mind = Heartbeat::new(AUTO, None);
        mind.beat(true);
        mind.heard();
        mind.beat(true);
        mind.died();
        assert_eq!(mind.learnt().interval, secs(300));
        for _ in 0..5 {
            mind.beat(true);
            mind.closed();
            mind.died();
        }
        assert_eq!(mind.learnt().interval, secs(300));
    }

    #[test]
    fn every_third_asks_and_a_peer_that_bears_no_less_is_always_asked() {
        let mut mind = Heartbeat::new(AUTO, None);
        let beats: Vec<Beat> = (0..6).map(|_| mind.beat(true)).collect();
        assert_eq!(beats, [Beat::Touch, Beat::Touch, Beat::Ask, Beat::Touch, Beat::Touch, Beat::Ask]);
        assert!((0..5).all(|_| mind.beat(false) == Beat::Ask));
        let mut fixed = Heartbeat::new(Plan::fixed(secs(2)), None);
        assert!((0..5).all(|_| fixed.beat(true) == Beat::Ask && fixed.silence(7) == secs(2)));
    }

    #[test]
    fn a_month_fits_into_its_promise() {
        // Bytes on the wire from the IP header on, as `cargo xtask idle` counts them: a touch and its acknowledgement, a
        // question with answer and acknowledgement.
        let bytes = |beats: u32| u64::from(beats) * (2 * 127 + 215) / 3;
        let month = secs(30 * 86_400);
        for (plan, survives, promise) in [
            (AUTO, secs(3600), 700_000),
            (AUTO, secs(330), 2_000_000),
            (Plan::adaptive(secs(900), secs(1500), secs(300)), secs(3600), 500_000),
        ] {
            let mut beats = 1000;
            while live(plan, survives, beats, |i: u32| i.wrapping_mul(2_654_435_761)).2 < month {
                beats += 100;
            }
            assert!(bytes(beats) < promise, "{beats} beats are {} bytes", bytes(beats));
        }
    }

    proptest! {
        /// Whatever the network does, the silence finds its place below what it bears, and deaths become rare.
        #[test]
        fn a_network_is_learnt(survives in 80_u64..4000, seed: u32) {
            let random = |i: u32| seed.wrapping_add(i).wrapping_mul(2_654_435_761).rotate_left(9);
            let (mind, deaths, _) = live(AUTO, secs(survives), 4000, random);
            prop_assert!(deaths <= 60, "{deaths} deaths");
            let (kept, borne) = (mind.learnt().interval.as_secs_f64(), survives as f64);
            prop_assert!(kept >= (borne * 0.4).clamp(60.0, 1500.0) - 1.0, "kept {kept} of {borne}");
        }

        #[test]
        fn silences_stay_in_bounds(steps in prop::collection::vec((0_u8..4, any::<u32>()), 0..400)) {
            let mut mind = Heartbeat::new(AUTO, None);
            for (step, random) in steps {
                match step {
                    0 => drop(mind.beat(random % 2 == 0)),
                    1 => mind.heard(),
                    2 => mind.died(),
                    _ => mind.closed(),
                }
                let silence = mind.silence(random);
                prop_assert!(silence >= secs(54) && silence <= secs(1650), "{silence:?}");
                let again = Heartbeat::new(AUTO, Some(mind.learnt()));
                prop_assert_eq!(again.learnt(), mind.learnt());
            }
        }
    }
}
