//! The pace of each client's sessions together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use postern_net::pump::Pace;

/// A pace for every client with a live pair; none where no rate is set.
pub(super) struct Paces {
    /// Bytes in a second, both directions.
    rate: Option<u64>,
    live: Mutex<Live>,
}

#[derive(Default)]
struct Live {
    paces: BTreeMap<String, Weak<Pace>>,
    /// So many names are kept before those without a pair are thrown out.
    sweep_at: usize,
}

/// Fewer names than this are not worth a sweep.
const SWEEP_FROM: usize = 64;

impl Paces {
    pub(super) fn new(rate: Option<u64>) -> Self {
        Self { rate, live: Mutex::default() }
    }

    /// The pace that all pairs of this client share.
    pub(super) fn of(&self, client: &str) -> Option<Arc<Pace>> {
        let rate = self.rate?;
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = live.paces.get(client).and_then(Weak::upgrade) {
            return Some(pace);
        }
        if live.paces.len() >= live.sweep_at {
            live.paces.retain(|_, pace| pace.strong_count() > 0);
            live.sweep_at = (live.paces.len() * 2).max(SWEEP_FROM);
        }
        let pace = Arc::new(Pace::new(rate));
        live.paces.insert(client.to_owned(), Arc::downgrade(&pace));
        Some(pace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_while_it_lives_and_forgotten_after() {
        let paces = Paces::new(Some(1000));
        let one = paces.of("@a").unwrap();
        assert!(Arc::ptr_eq(&one, &paces.of("@a").unwrap()) && !Arc::ptr_eq(&one, &paces.of("@b").unwrap()));
        for n in 0..10_000 {
            paces.of(&format!("@{n}")).unwrap();
        }
        assert!(paces.live.lock().unwrap().paces.len() <= SWEEP_FROM);
        assert!(Arc::ptr_eq(&one, &paces.of("@a").unwrap()));
        assert!(Paces::new(None).of("@a").is_none());
    }
}
