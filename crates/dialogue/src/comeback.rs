//! When to try again after a link was lost: soon for one device, not all at once for a fleet, and not for ever on a SIM.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A link that held this long was no flapping one.
const HELD: Duration = Duration::from_secs(600);
/// What "an hour" is for [`Pace::per_hour`].
const HOUR: Duration = Duration::from_secs(3600);

/// How eagerly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The first try comes within this time.
    pub first: Duration,
    /// Tries begin at least so far apart.
    pub apart: Duration,
    /// And up to this much more, drawn evenly.
    pub spread: Duration,
    /// Once the outage is long they are up to its n-th part apart: it then ends that much later for us.
    pub share: u32,
    /// But never more than this.
    pub longest: Duration,
    /// At most so many connections an hour; a link that flaps costs a login each time.
    pub per_hour: Option<usize>,
}

impl Pace {
    /// Of a device whose bytes cost little. Within a minute of its server's return for outages up to an hour; never more
    /// than two tries in ten seconds. A day without server costs some 600 tries.
    pub const PATIENT: Self = Self {
        first: Duration::from_millis(2000),
        apart: Duration::from_millis(5000),
        spread: Duration::from_millis(1500),
        share: 60,
        longest: Duration::from_secs(900),
        per_hour: None,
    };

    /// Of a device on a metered link: within a minute for outages up to twelve minutes. A day without server costs some 280
    /// tries.
    pub const SPARING: Self = Self { share: 12, per_hour: Some(6), ..Self::PATIENT };
}

/// Decides when to try. Pure: time and randomness are parameters.
#[derive(Clone, Debug)]
pub struct Comeback {
    pace: Pace,
    /// When this series of losses began.
    since: Option<Instant>,
    tried: Option<Instant>,
    /// The latest connections, as many as count.
    ups: VecDeque<Instant>,
}

impl Comeback {
    /// Nothing is lost yet.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { pace, since: None, tried: None, ups: VecDeque::new() }
    }

    /// From now on with this pace: the device is in another network.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// The link was lost.
    pub fn lost(&mut self, now: Instant) {
        let held = self.ups.back().is_none_or(|up| now.saturating_duration_since(*up) >= HELD);
        if held || self.since.is_none() {
            self.since = Some(now);
        }
    }

    /// How long to wait before the next try. `random` is any evenly distributed number.
    #[must_use]
    pub fn pause(&self, now: Instant, random: u32) -> Duration {
        let share = f64::from(random) / f64::from(u32::MAX);
        let since = self.since.unwrap_or(now);
        let outage = now.saturating_duration_since(since);
        let first = self.tried.is_none_or(|tried| tried < since);
        let spread = if first { self.pace.first } else { (outage / self.pace.share.max(1)).max(self.pace.spread) };
        let earliest = self.tried.map_or(now, |tried| (tried + self.pace.apart).max(now));
        let mut at = earliest + spread.min(self.pace.longest).mul_f64(share);
        if let Some(bound) = self.pace.per_hour
            && let Some(oldest) = self.ups.len().checked_sub(bound).and_then(|at| self.ups.get(at))
        {
            at = at.max(*oldest + HOUR + self.pace.first.mul_f64(share));
        }
        at.saturating_duration_since(now)
    }

    /// A try begins.
    pub fn trying(&mut self, now: Instant) {
        self.tried = Some(now);
    }

    /// It worked.
    pub fn up(&mut self, now: Instant) {
        self.ups.push_back(now);
        // One is kept in any case: it tells how long the link held.
        while self.ups.len() > self.pace.per_hour.unwrap_or(1).max(1) {
            self.ups.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn draw(seed: u32, i: u32) -> u32 {
        seed.wrapping_add(i).wrapping_mul(2_654_435_761).rotate_left(11).wrapping_mul(0x9E37_79B1)
    }

    /// Tries of one device from the loss to its return; the server is away for `outage`. Each failed try takes `fails`.
    fn tries(pace: Pace, outage: Duration, fails: Duration, seed: u32) -> Vec<Duration> {
        let start = Instant::now();
        let mut mind = Comeback::new(pace);
        mind.lost(start);
        let (mut now, mut tries) = (start, Vec::new());
        for i in 0.. {
            now += mind.pause(now, draw(seed, i));
            mind.trying(now);
            tries.push(now - start);
            if now - start >= outage {
                return tries;
            }
            now += fails;
        }
        tries
    }

    #[test]
    fn two_hundred_devices_are_back_within_a_minute_and_never_storm() {
        for outage in [secs(1), secs(20), secs(300), secs(3000)] {
            for seed in 0..200 {
                let tries = tries(Pace::PATIENT, outage, Duration::from_millis(1), seed);
                let back = tries.last().copied().unwrap_or_default();
                assert!(back <= outage + secs(60), "{seed}: back after {back:?} of {outage:?}");
                assert!(tries.windows(3).all(|three| three[2] - three[0] >= secs(10)), "{seed}: {tries:?}");
            }
        }
    }

    #[test]
    fn the_first_tries_of_a_fleet_are_spread() {
        let firsts: Vec<u128> =
            (0..200).map(|seed| tries(Pace::PATIENT, secs(0), secs(0), seed * 7919)[0].as_millis() / 200).collect();
        for slot in 0..10 {
            let here = firsts.iter().filter(|at| **at == slot).count();
            assert!((5..=40).contains(&here), "{here} in a fifth of a second");
        }
    }

    #[test]
    fn a_day_without_server_costs_few_tries() {
        let day = secs(86_400);
        let [patient, sparing] = [Pace::PATIENT, Pace::SPARING].map(|pace| tries(pace, day, secs(1), 5).len());
        assert!(patient < 800 && sparing < 350, "{patient} {sparing}");
    }

    #[test]
    fn a_flapping_link_gets_six_connections_an_hour() {
        let start = Instant::now();
        let mut mind = Comeback::new(Pace::SPARING);
        let (mut now, mut ups) = (start, Vec::new());
        for i in 0..100 {
            mind.lost(now);
            now += mind.pause(now, draw(3, i));
            mind.trying(now);
            mind.up(now);
            ups.push(now);
            now += secs(20); // it holds for 20 s each time
        }
        for seven in ups.windows(7) {
            assert!(seven[6] - seven[0] >= HOUR, "{:?}", seven[6] - seven[0]);
        }
        // Without a bound it goes on.
        let mut eager = Comeback::new(Pace::PATIENT);
        eager.up(start);
        eager.lost(start + secs(5));
        assert!(eager.pause(start + secs(5), u32::MAX) <= secs(7));
    }

    proptest! {
        #[test]
        fn pauses_have_an_end(outage in 0_u64..1_000_000, seed: u32) {
            let start = Instant::now();
            let mut mind = Comeback::new(Pace::SPARING);
            mind.lost(start);
            mind.trying(start);
            prop_assert!(mind.pause(start + secs(outage), seed) <= secs(905));
        }
    }
}
