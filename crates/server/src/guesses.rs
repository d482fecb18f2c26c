//! Guessing passcodes is slow: for each address, and for each household.
//!
//! The reference delays everybody when anybody guesses, so that a stranger can keep the owner out. Here an address
//! pays for its own guesses; a household under attack allows each address one.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use postern_proto::AtSign;

use crate::limits::{GUESS_EVERY, GUESSERS, GUESSES_BURST, HOUSEHOLD_GUESSES};

/// Wrong passcodes lately.
#[derive(Default)]
pub(crate) struct Guesses {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// When all guesses of this address are forgotten.
    addresses: HashMap<IpAddr, Instant>,
    households: HashMap<AtSign, Instant>,
}

impl Guesses {
    /// Counts a guess before it is looked at, so that many at once are no cheaper than one after the other. A right one
    /// is given back with [`Self::was_right`].
    ///
    /// # Errors
    /// Too many were wrong: how long to wait for the next.
    pub(crate) fn count(&self, from: IpAddr, household: &AtSign, now: Instant) -> Result<(), Duration> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let besieged = left(inner.households.get(household), now) >= GUESS_EVERY * HOUSEHOLD_GUESSES;
        let burst = if besieged { 1 } else { GUESSES_BURST };
        let address = origin(from);
        let free_at = GUESS_EVERY * (burst - 1);
        let owed = left(inner.addresses.get(&address), now);
        if owed > free_at {
            return Err(owed - free_at);
        }
        add(&mut inner.addresses, address, now, GUESS_EVERY * GUESSES_BURST);
        add(&mut inner.households, household.clone(), now, GUESS_EVERY * HOUSEHOLD_GUESSES * 2);
        Ok(())
    }

    /// The guess just counted was none.
    pub(crate) fn was_right(&self, from: IpAddr, household: &AtSign) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = inner.addresses.get_mut(&origin(from)) {
            *at = at.checked_sub(GUESS_EVERY).unwrap_or(*at);
        }
        if let Some(at) = inner.households.get_mut(household) {
            *at = at.checked_sub(GUESS_EVERY).unwrap_or(*at);
        }
    }
}

fn left(at: Option<&Instant>, now: Instant) -> Duration {
    at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
}

fn add<K: Hash + Eq>(map: &mut HashMap<K, Instant>, key: K, now: Instant, most: Duration) {
    if map.len() >= GUESSERS && !map.contains_key(&key) {
        map.retain(|_, at| *at > now);
        if map.len() >= GUESSERS {
            // More addresses than one attacker has: forgetting them gives each its few guesses again, no more.
            map.clear();
        }
    }
    let at = map.entry(key).or_insert(now);
    *at = ((*at).max(now) + GUESS_EVERY).min(now + most);
}

/// An IPv6 subscriber has a /64.
fn origin(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> AtSign {
        AtSign::parse("alice").unwrap()
    }

    #[test]
    fn an_address_pays_for_its_own_guesses_alone() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let (one, other): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        for _ in 0..GUESSES_BURST {
            assert_eq!(guesses.count(one, &alice(), now), Ok(()));
        }
        assert_eq!(guesses.count(one, &alice(), now), Err(GUESS_EVERY));
        assert_eq!(guesses.count(other, &alice(), now), Ok(()));
        assert_eq!(guesses.count(one, &alice(), now + GUESS_EVERY), Ok(()));
        assert!(guesses.count(one, &alice(), now + GUESS_EVERY).is_err());
    }

    #[test]
    fn right_ones_cost_nothing() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        let one = IpAddr::from([192, 0, 2, 1]);
        for _ in 0..100 {
            assert_eq!(guesses.count(one, &alice(), now), Ok(()));
            guesses.was_right(one, &alice());
        }
    }

    #[test]
    fn strangers_cannot_lock_the_owner_out() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for n in 0..10_000u32 {
            let _ = guesses.count(IpAddr::V4((n / 3).into()), &alice(), now);
        }
        // Each has one guess left at most, and the owner's new device comes from elsewhere.
        assert!(guesses.count(IpAddr::V4(3_000.into()), &alice(), now).is_err());
        assert_eq!(guesses.count([203, 0, 113, 9].into(), &alice(), now), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_a_64_is_one_address() {
        let (guesses, now) = (Guesses::default(), Instant::now());
        for n in 0..40_000u32 {
            let _ = guesses.count(IpAddr::V4(n.into()), &alice(), now);
        }
        assert!(guesses.inner.lock().unwrap().addresses.len() <= GUESSERS);
        assert_eq!(origin("2001:db8::1".parse().unwrap()), origin("2001:db8::2:1".parse().unwrap()));
        assert_eq!(origin("::ffff:192.0.2.1".parse().unwrap()), IpAddr::from([192, 0, 2, 1]));
    }
}
