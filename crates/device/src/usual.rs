//! Relays that admitted guests have named: dialled at once when one is named again, while the request is still looked at.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use postern_rendezvous::RelayAddress;

use crate::limits::USUAL_RELAYS;

/// The latest of them. Who is not let in cannot have others dialled than these.
#[derive(Default)]
pub(crate) struct UsualRelays(Mutex<VecDeque<RelayAddress>>);

impl UsualRelays {
    pub(crate) fn contains(&self, relay: &RelayAddress) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(relay)
    }

    pub(crate) fn remember(&self, relay: &RelayAddress) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known != relay);
        all.push_front(relay.clone());
        all.truncate(USUAL_RELAYS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_known_and_not_without_end() {
        let relay = |port| RelayAddress::new("relay.example", port, false).unwrap();
        let usual = UsualRelays::default();
        assert!(!usual.contains(&relay(1)));
        for port in 1..=20 {
            usual.remember(&relay(1));
            usual.remember(&relay(port));
        }
        assert!(usual.contains(&relay(1)) && usual.contains(&relay(20)));
        assert!(!usual.contains(&relay(2)), "the oldest went");
    }
}
