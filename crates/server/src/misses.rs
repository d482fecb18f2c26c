//! Guessing names costs time, per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{MISS_ADDRESSES, MISS_DELAY_MAX, MISSES_BURST};

/// How many unknown names each address has asked the directory for.
#[derive(Default)]
pub(crate) struct Misses {
    /// When the next miss of this address would be free again, were it the only one.
    full_at: Mutex<HashMap<IpAddr, Instant>>,
}

/// One miss is forgotten in this time.
const EACH: Duration = Duration::from_secs(1);

impl Misses {
    /// How long an address has to wait for what it has asked already.
    pub(crate) fn delay(&self, from: IpAddr, now: Instant) -> Duration {
        let map = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let at = map.get(&from.to_canonical()).copied().unwrap_or(now);
        at.saturating_duration_since(now + EACH * MISSES_BURST)
    }

    /// Counts a miss; gives how long the answer has to wait.
    pub(crate) fn count(&self, from: IpAddr, now: Instant) -> Duration {
        let mut map = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MISS_ADDRESSES && !map.contains_key(&from) {
            map.retain(|_, at| *at > now);
            if map.len() >= MISS_ADDRESSES {
                // Somebody asks from 16,384 addresses at once: who does is not worth knowing any more.
                map.clear();
            }
        }
        let at = map.entry(from.to_canonical()).or_insert(now);
        let furthest = now + EACH * MISSES_BURST + MISS_DELAY_MAX;
        *at = (*at).max(now).checked_add(EACH).map_or(furthest, |at| at.min(furthest));
        at.saturating_duration_since(now + EACH * MISSES_BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_then_answers_come_late_but_come() {
        let (misses, now) = (Misses::default(), Instant::now());
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for _ in 0..MISSES_BURST {
            assert_eq!(misses.count(one, now), Duration::ZERO);
        }
        assert_eq!(misses.count(one, now), EACH);
        for _ in 0..100 {
            assert!(misses.count(one, now) <= MISS_DELAY_MAX);
        }
        assert_eq!(misses.count(other, now), Duration::ZERO);
        assert_eq!(misses.count(one, now + Duration::from_secs(60)), Duration::ZERO);
    }

    #[test]
    fn memory_is_bounded() {
        let (misses, now) = (Misses::default(), Instant::now());
        for n in 0..40_000u32 {
            misses.count(IpAddr::V4(n.into()), now);
        }
        assert!(misses.full_at.lock().unwrap().len() <= MISS_ADDRESSES);
    }
}
