//! A keeper that forgets when the process ends: for tests and first steps.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use postern_proto::{AtKey, AtSign, Millis, Notification, NotificationId, Record};

use crate::limits::SWEEP_ROWS;
use crate::{
    Account, Assert, Batch, Committed, Delivery, Kept, LogEntry, Logged, Op, Pending, Store, StoreError, Swept, Usage,
    Visit,
};

/// The promise kept in memory. Commits are done when `commit` returns.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    households: BTreeMap<AtSign, Household>,
    /// Counts arrivals, to order notifications of the same millisecond.
    arrivals: u64,
}

struct Household {
    account: Account,
    records: BTreeMap<String, Record>,
    last_commit: i64,
    log: BTreeMap<i64, LogEntry>,
    /// Where each key's only log entry is.
    logged: BTreeMap<String, i64>,
    received: BTreeMap<(Millis, u64), Notification>,
    /// Sender and id of everything in `received`.
    arrived: BTreeSet<(AtSign, NotificationId)>,
    sent: BTreeMap<NotificationId, Sent>,
}

struct Sent {
    notification: Notification,
    arrival: u64,
    delivery: Delivery,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Changes are checked before they are applied and applying cannot panic, so a
        // poisoned state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, owner: &AtSign, none: T, read: impl FnOnce(&Household) -> T) -> T {
        self.state().households.get(owner).map_or(none, read)
    }
}

impl Store for MemoryStore {
    fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        Ok(self.state().households.values().map(|h| h.account.clone()).collect())
    }

    fn get(&self, owner: &AtSign, key: &AtKey) -> Result<Option<Record>, StoreError> {
        Ok(self.read(owner, None, |h| h.records.get(&key.to_string()).cloned()))
    }

    fn scan(&self, owner: &AtSign, each: Visit<'_>) -> Result<(), StoreError> {
        self.read(owner, (), |h| {
            for (key, record) in &h.records {
                each(key, record.available_at, record.expires_at);
            }
        });
        Ok(())
    }

    fn last_commit(&self, owner: &AtSign) -> Result<i64, StoreError> {
        Ok(self.read(owner, -1, |h| h.last_commit))
    }

    fn log_since(&self, owner: &AtSign, after: i64, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        let from = after.saturating_add(1);
        Ok(self.read(owner, Vec::new(), |h| h.log.range(from..).take(limit).map(|(_, e)| e.clone()).collect()))
    }

    fn received_since(
        &self,
        owner: &AtSign,
        after: Millis,
        now: Millis,
        limit: usize,
    ) -> Result<Vec<Notification>, StoreError> {
        Ok(self.read(owner, Vec::new(), |h| {
            let later = h.received.range((after, u64::MAX)..).map(|(_, n)| n);
            later.filter(|n| n.expires_at > now).take(limit).cloned().collect()
        }))
    }

    fn queued(&self, now: Millis, limit: usize) -> Result<Vec<Notification>, StoreError> {
        let state = self.state();
        let all = state.households.values().flat_map(|h| h.sent.values());
        let mut waiting: Vec<&Sent> =
            all.filter(|s| s.delivery == Delivery::Queued && s.notification.expires_at > now).collect();
        waiting.sort_by_key(|s| (s.notification.at, s.arrival));
        Ok(waiting.into_iter().take(limit).map(|s| s.notification.clone()).collect())
    }

    fn waiting_pairs(&self, limit: usize) -> Result<Vec<(AtSign, AtSign)>, StoreError> {
        let state = self.state();
        let all = state.households.values().flat_map(|h| h.sent.values()).filter(|s| s.delivery == Delivery::Queued);
        let pairs: BTreeSet<_> = all.map(|s| (s.notification.from.clone(), s.notification.to.clone())).collect();
        Ok(pairs.into_iter().take(limit).collect())
    }

    fn next_waiting(&self, from: &AtSign, to: &AtSign) -> Result<Option<Notification>, StoreError> {
        Ok(self.read(from, None, |h| {
            let waiting = h.sent.values().filter(|s| s.delivery == Delivery::Queued && s.notification.to == *to);
            waiting
                .min_by_key(|s| (Reverse(s.notification.routing.priority), s.notification.at, s.arrival))
                .map(|s| s.notification.clone())
        }))
    }

    fn outgoing_status(&self, owner: &AtSign, id: &NotificationId) -> Result<Option<Delivery>, StoreError> {
        Ok(self.read(owner, None, |h| h.sent.get(id).map(|s| s.delivery)))
    }

    fn notifications(&self, owner: &AtSign, id: &NotificationId) -> Result<Vec<Kept>, StoreError> {
        Ok(self.read(owner, Vec::new(), |h| {
            let kept = |notification: &Notification, delivery| Kept { notification: notification.clone(), delivery };
            let sent = h.sent.get(id).map(|s| kept(&s.notification, Some(s.delivery)));
            sent.into_iter().chain(h.received.values().filter(|n| n.id == *id).map(|n| kept(n, None))).collect()
        }))
    }

    fn usage(&self, owner: &AtSign) -> Result<Usage, StoreError> {
        Ok(self.read(owner, Usage::default(), |h| {
            let mut usage = Usage { records: as_u64(h.records.len()), ..Usage::default() };
            usage.bytes = h.records.iter().map(|(key, record)| as_u64(key.len() + record.value.len())).sum();
            h.received.values().for_each(|n| usage.count(None, n.operation, n.message_type, 1));
            for s in h.sent.values() {
                usage.count(Some(s.delivery), s.notification.operation, s.notification.message_type, 1);
            }
            usage
        }))
    }

    fn commit(&self, batch: Batch) -> Pending<Result<Committed, StoreError>> {
        let mut state = self.state();
        let result = state.check(&batch).map(|()| state.apply(batch));
        Box::pin(std::future::ready(result))
    }

    fn sweep(&self, now: Millis) -> Pending<Result<Swept, StoreError>> {
        let swept = self.state().sweep(now);
        Box::pin(std::future::ready(Ok(swept)))
    }
}

impl State {
    /// Everything that can fail, so that `apply` cannot.
    fn check(&self, batch: &Batch) -> Result<(), StoreError> {
        let record =
            |owner: &AtSign, key: &AtKey| self.households.get(owner).and_then(|h| h.records.get(&key.to_string()));
        let holds = batch.asserts.iter().all(|assert| match assert {
            Assert::KeyAbsent(owner, key) => record(owner, key).is_none(),
            Assert::KeyPresent(owner, key) => record(owner, key).is_some(),
            Assert::KeyVersion(owner, key, version) => record(owner, key).is_some_and(|r| r.version == *version),
            Assert::AccountAbsent(at_sign) => !self.households.contains_key(at_sign),
        });
        let mut exists = BTreeMap::new();
        let mut allowed = |op: &Op| {
            let (at_sign, wanted) = match op {
                Op::AddAccount(account) => (&account.at_sign, false),
                op => (op.household()?, true),
            };
            let known = exists.entry(at_sign.clone()).or_insert_with(|| self.households.contains_key(at_sign));
            let fits = *known == wanted;
            match op {
                Op::AddAccount(_) => *known = true,
                Op::RemoveAccount(_) => *known = false,
                _ => {}
            }
            fits.then_some(())
        };
        if holds && batch.ops.iter().all(|op| allowed(op).is_some()) { Ok(()) } else { Err(StoreError::Conflict) }
    }

    fn apply(&mut self, batch: Batch) -> Committed {
        let mut committed = Committed::default();
        for op in batch.ops {
            let (commit, fresh) = self.step(op, batch.at);
            committed.commits.push(commit);
            committed.fresh.push(fresh);
        }
        committed
    }

    fn step(&mut self, op: Op, at: Millis) -> (Option<i64>, bool) {
        let op = match op {
            Op::AddAccount(account) => {
                self.households.insert(account.at_sign.clone(), Household::new(account));
                return (None, true);
            }
            Op::RemoveAccount(at_sign) => {
                self.households.remove(&at_sign);
                return (None, true);
            }
            op => op,
        };
        self.arrivals += 1;
        let arrival = self.arrivals;
        let Some(home) = op.household().and_then(|at_sign| self.households.get_mut(at_sign)) else {
            return (None, true); // `check` has refused this batch
        };
        match op {
            Op::Put { key, record, log, .. } => {
                let key = key.to_string();
                let commit = log.kind().map(|kind| home.log(&key, kind, at));
                home.records.insert(key, record);
                (commit, true)
            }
            Op::Remove { key, log, .. } => {
                let key = key.to_string();
                home.records.remove(&key);
                (log.then(|| home.log(&key, Logged::Remove, at)), true)
            }
            Op::SetPort { port, .. } => {
                home.account.port = port;
                (None, true)
            }
            Op::Receive(n) => {
                let fresh = home.arrived.insert((n.from.clone(), n.id.clone()));
                if fresh {
                    home.received.insert((n.at, arrival), n);
                }
                (None, fresh)
            }
            Op::Send(notification) => {
                let fresh = !home.sent.contains_key(&notification.id);
                if fresh {
                    let sent = Sent { arrival, delivery: Delivery::Queued, notification };
                    home.sent.insert(sent.notification.id.clone(), sent);
                }
                (None, fresh)
            }
            Op::Deliver { id, delivery, .. } => {
                if let Some(sent) = home.sent.get_mut(&id) {
                    sent.delivery = delivery;
                }
                (None, true)
            }
            Op::Supersede { to, notifier, keep, .. } => {
                home.supersede(&to, notifier.as_deref(), keep);
                (None, true)
            }
            Op::RemoveNotification { id, .. } => {
                home.received.retain(|_, n| n.id != id);
                home.arrived.retain(|(_, arrived)| *arrived != id);
                home.sent.remove(&id);
                (None, true)
            }
            Op::AddAccount(_) | Op::RemoveAccount(_) => (None, true),
        }
    }

    fn sweep(&mut self, now: Millis) -> Swept {
        let (mut records, mut received, mut sent) = (SWEEP_ROWS, SWEEP_ROWS, SWEEP_ROWS);
        let take = |left: &mut usize, ended: bool| {
            let drop = ended && *left > 0;
            *left -= usize::from(drop);
            !drop
        };
        for home in self.households.values_mut() {
            home.records.retain(|_, r| take(&mut records, r.expires_at.is_some_and(|end| end <= now)));
            home.received.retain(|_, n| {
                let keep = take(&mut received, n.expires_at <= now);
                if !keep {
                    home.arrived.remove(&(n.from.clone(), n.id.clone()));
                }
                keep
            });
            home.sent.retain(|_, s| take(&mut sent, s.notification.expires_at <= now));
        }
        Swept {
            records: SWEEP_ROWS - records,
            notifications: 2 * SWEEP_ROWS - received - sent,
            more: records == 0 || received == 0 || sent == 0,
        }
    }
}

impl Household {
    fn new(account: Account) -> Self {
        Self {
            account,
            records: BTreeMap::new(),
            last_commit: -1,
            log: BTreeMap::new(),
            logged: BTreeMap::new(),
            received: BTreeMap::new(),
            arrived: BTreeSet::new(),
            sent: BTreeMap::new(),
        }
    }

    fn supersede(&mut self, to: &AtSign, notifier: Option<&str>, keep: u32) {
        let alike = |s: &&mut Sent| {
            let n = &s.notification;
            let routing = &n.routing;
            s.delivery == Delivery::Queued
                && n.to == *to
                && routing.latest.is_some()
                && routing.notifier.as_deref() == notifier
        };
        let mut waiting: Vec<&mut Sent> = self.sent.values_mut().filter(alike).collect();
        waiting.sort_by_key(|s| Reverse((s.notification.at, s.arrival)));
        for old in waiting.into_iter().skip(usize::try_from(keep).unwrap_or(usize::MAX)) {
            old.delivery = Delivery::Expired;
        }
    }

    /// Adds an entry in place of the key's earlier one.
    fn log(&mut self, key: &str, kind: Logged, at: Millis) -> i64 {
        self.last_commit += 1;
        let commit = self.last_commit;
        if let Some(old) = self.logged.insert(key.to_owned(), commit) {
            self.log.remove(&old);
        }
        self.log.insert(commit, LogEntry { commit, key: key.to_owned(), kind, at });
        commit
    }
}

fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::battery::Harness;

    struct Memory(Arc<MemoryStore>);

    impl Harness for Memory {
        fn store(&self) -> Arc<dyn Store> {
            Arc::clone(&self.0) as Arc<dyn Store>
        }

        fn reopen(&mut self) -> bool {
            false
        }
    }

    fn open() -> Box<dyn Harness> {
        Box::new(Memory(Arc::new(MemoryStore::new())))
    }

    crate::battery!(open);
}
