//! How fast the streams of one owner may be together.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use crate::limits::{COPY_BYTES, PACE_BURST, PACE_TURNS};

/// A bucket that all streams of one owner take from, in equal pieces and in the order in which they ask: none of them, and
/// no direction, gets more than its share while others want theirs.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// The bucket is empty until then; the next piece is for the moment after it.
    taken_until: Mutex<Option<Instant>>,
}

impl Pace {
    /// At least a byte a second.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), taken_until: Mutex::new(None) }
    }

    /// Bytes to read at once.
    pub(super) fn piece(&self) -> usize {
        let piece = usize::try_from(self.bytes_per_second / PACE_TURNS).unwrap_or(usize::MAX);
        piece.clamp(1024, COPY_BYTES)
    }

    /// Sleeps until `bytes` may pass.
    pub(super) async fn pass(&self, bytes: usize) {
        sleep_until(self.reserve(bytes, Instant::now()).into()).await;
    }

    /// The moment at which `bytes` may pass.
    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        let nanos = u128::try_from(bytes).unwrap_or(u128::MAX) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let lasts = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut taken_until = self.taken_until.lock().unwrap_or_else(PoisonError::into_inner);
        // Who was silent has saved up a little.
        let earliest = now.checked_sub(PACE_BURST).unwrap_or(now);
        let start = taken_until.unwrap_or(earliest).max(earliest);
        let end = start + lasts;
        *taken_until = Some(end);
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lets_through_what_it_may() {
        let (pace, start) = (Pace::new(100_000), Instant::now());
        let piece = pace.piece();
        assert!((1024..=100_000 / 10).contains(&piece), "{piece}");
        let mut passed = 0;
        while pace.reserve(piece, start) <= start + Duration::from_secs(10) {
            passed += piece;
        }
        let most = 1_000_000 + 100_000 / 2;
        assert!((1_000_000..=most).contains(&passed), "{passed}");
        // After a long silence no more than the burst is saved.
        let later = start + Duration::from_secs(1000);
        let mut at_once = 0;
        while pace.reserve(piece, later) <= later {
            at_once += piece;
        }
        assert!(at_once <= 100_000 / 2, "{at_once}");
    }
}
