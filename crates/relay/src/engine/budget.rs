//! How much checking one address may have us do before it has shown who it is.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use postern_net::seats::Origin;

use crate::limits::{BUDGETED_ADDRESSES, CHECKS_AT_ONCE, CHECKS_PER_SECOND};

/// A bucket for each address: [`CHECKS_AT_ONCE`] when it is full, filled by [`CHECKS_PER_SECOND`].
#[derive(Default)]
pub(super) struct Budget {
    /// When the bucket of an address will be full again. Those that are full are not kept for long.
    full_at: Mutex<HashMap<Origin, Instant>>,
}

impl Budget {
    /// Takes `cost` out of the bucket of `origin`. False: there is not so much in it.
    pub(super) fn spend(&self, origin: Origin, cost: u32, now: Instant) -> bool {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let after = full_at.get(&origin).copied().unwrap_or(now).max(now) + time_to_earn(cost);
        if after > now + time_to_earn(CHECKS_AT_ONCE) {
            return false;
        }
        if full_at.len() >= BUDGETED_ADDRESSES && !full_at.contains_key(&origin) {
            full_at.retain(|_, full| *full > now);
            // All of these spend at this moment: one of them gets a full bucket for nothing.
            if full_at.len() >= BUDGETED_ADDRESSES
                && let Some(some) = full_at.keys().next().copied()
            {
                full_at.remove(&some);
            }
        }
        full_at.insert(origin, after);
        true
    }
}

fn time_to_earn(cost: u32) -> Duration {
    Duration::from_secs(1) * cost / CHECKS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spent_and_earned_again() {
        let (budget, start) = (Budget::default(), Instant::now());
        let [one, other] = ["10.0.0.1", "10.0.0.2"].map(|ip| Origin::of(ip.parse().unwrap()));
        for _ in 0..CHECKS_AT_ONCE {
            assert!(budget.spend(one, 1, start));
        }
        assert!(!budget.spend(one, 1, start));
        assert!(budget.spend(other, CHECKS_AT_ONCE, start), "each has its own");
        let later = start + Duration::from_secs(1);
        assert!(budget.spend(one, CHECKS_PER_SECOND, later));
        assert!(!budget.spend(one, 1, later));
    }

    #[test]
    fn a_crowd_of_addresses_is_bounded() {
        let (budget, start) = (Budget::default(), Instant::now());
        for n in 0..u32::try_from(BUDGETED_ADDRESSES + 10).unwrap() {
            assert!(budget.spend(Origin::of(std::net::Ipv4Addr::from_bits(n).into()), CHECKS_AT_ONCE, start));
        }
        assert_eq!(budget.full_at.lock().unwrap().len(), BUDGETED_ADDRESSES);
    }
}
