//! Tickets that were used: none is good twice.

use std::collections::{BTreeMap, BTreeSet};

use crate::ticket::Mark;

/// Marks of used tickets, in buckets by when nobody believes the ticket any more.
#[derive(Debug)]
pub(super) struct Used {
    most: usize,
    count: usize,
    buckets: BTreeMap<u64, BTreeSet<[u8; 16]>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    New,
    Used,
    NoRoom,
}

/// A bucket is forgotten as a whole.
const BUCKET_MS: u64 = 10_000;

impl Used {
    pub(super) fn new(most: usize) -> Self {
        Self { most, count: 0, buckets: BTreeMap::new() }
    }

    /// Remembers a ticket that is believed at `now_ms`. The moment is part of what the hash is over, so a ticket is looked
    /// for in its own bucket alone.
    pub(super) fn remember(&mut self, mark: Mark, now_ms: u64) -> Known {
        while let Some(oldest) = self.buckets.first_entry()
            && (oldest.key() + 1) * BUCKET_MS <= now_ms
        {
            self.count -= oldest.remove().len();
        }
        let bucket = mark.over_ms / BUCKET_MS;
        if self.buckets.get(&bucket).is_some_and(|marks| marks.contains(&mark.hash)) {
            return Known::Used;
        }
        if self.count >= self.most {
            return Known::NoRoom;
        }
        self.buckets.entry(bucket).or_default().insert(mark.hash);
        self.count += 1;
        Known::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembered_for_as_long_as_the_ticket_is_believed() {
        let mut used = Used::new(2);
        let mark = |hash, over_ms| Mark { over_ms, hash: [hash; 16] };
        assert_eq!(used.remember(mark(1, 60_000), 0), Known::New);
        assert_eq!(used.remember(mark(1, 60_000), 59_999), Known::Used);
        assert_eq!(used.remember(mark(2, 70_001), 59_999), Known::New);
        assert_eq!(used.remember(mark(3, 70_002), 59_999), Known::NoRoom);
        assert_eq!(used.remember(mark(2, 70_001), 59_999), Known::Used, "also when there is no room");
        assert_eq!(used.remember(mark(3, 130_000), 70_000), Known::New, "the first one is forgotten");
        assert_eq!(used.count, 2);
    }
}
