//! Waiting before trying again: exponential, with full jitter.

use std::time::Duration;

/// How long to wait before the next try. Pure: randomness is a parameter.
///
/// Each wait is drawn evenly from `min ..= bound`, where `bound` starts at twice `min` and doubles until `max`: a thousand
/// gateways that lost the same server come back spread out, not in step.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    tries: u32,
}

impl Backoff {
    /// Waits between `min` and `max`. A `max` below `min` counts as `min`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), tries: 0 }
    }

    /// The next wait. `random` is any evenly distributed number.
    pub fn next(&mut self, random: u32) -> Duration {
        self.tries = self.tries.saturating_add(1);
        let factor = 1_u32.checked_shl(self.tries.min(31)).unwrap_or(u32::MAX);
        let bound = self.min.saturating_mul(factor).min(self.max);
        let span = bound.saturating_sub(self.min);
        let share = f64::from(random) / f64::from(u32::MAX);
        (self.min + span.mul_f64(share)).min(self.max)
    }

    /// The last try worked: begin at the beginning next time.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// Tries since the beginning or the last [`reset`](Self::reset).
    #[must_use]
    pub fn tries(&self) -> u32 {
        self.tries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bound_doubles_until_max() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let longest: Vec<u64> = (0..5).map(|_| backoff.next(u32::MAX).as_secs()).collect();
        assert_eq!(longest, [2, 4, 8, 10, 10]);
        backoff.reset();
        assert_eq!(backoff.next(u32::MAX).as_secs(), 2);
        assert_eq!(backoff.next(0), Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn never_outside_min_and_max(
            min in 0_u64..100_000, max in 0_u64..10_000_000, randoms in prop::collection::vec(any::<u32>(), 1..80),
        ) {
            let (min, max) = (Duration::from_millis(min), Duration::from_millis(max));
            let mut backoff = Backoff::new(min, max);
            for random in randoms {
                let wait = backoff.next(random);
                prop_assert!(wait >= min && wait <= max.max(min));
            }
        }
    }
}
