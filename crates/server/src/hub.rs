//! Who listens: monitors of each household, and what is pushed to them.

mod subscription;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portable_atomic::AtomicI64;
use postern_proto::{AtSign, Millis, Notification, Operation, stats_line};
use postern_store::{Batch, Committed, Op, Pending, Store, StoreError};

use tokio::sync::{Semaphore, watch};

use crate::limits::REPLAY_PAGE;

pub(crate) use subscription::{Item, Push, Subscription};

/// Households that somebody has connected to or notified.
///
/// Pushes reach a monitor in the order of their time stamps, which no two notifications of one household share: a
/// client that resumes behind the last one it saw misses nothing.
#[derive(Default)]
pub(crate) struct Hub {
    houses: Mutex<HashMap<AtSign, Arc<House>>>,
    /// Held while a batch is stamped and handed to the store, so that stamps rise in commit order.
    order: Mutex<()>,
}

/// What one household has in memory.
pub(crate) struct House {
    inner: Mutex<Inner>,
    /// One place: writers that met each other on the same record take turns.
    pub(crate) turn: Arc<Semaphore>,
    /// Bytes of long unfinished lines, all connections together.
    pub(crate) large_lines: AtomicUsize,
    /// Told when connections may have lost their rights; each then looks at its own.
    pub(crate) rights: watch::Sender<()>,
    connections: AtomicUsize,
    /// 0: never.
    last_login: AtomicI64,
}

#[derive(Default)]
struct Inner {
    /// The latest time stamp given; `None` before the first since the server started.
    latest: Option<Millis>,
    next_monitor: u64,
    monitors: BTreeMap<u64, Arc<Subscription>>,
    /// Notifications handed to the store, in the order of their stamps. A later one waits for the earlier.
    submitted: VecDeque<(Millis, Fate)>,
}

enum Fate {
    /// Not committed yet.
    Open,
    /// Committed, and not known before.
    Deliver(Arc<Push>),
    /// Failed, or known before.
    Skip,
}

/// A batch on its way to the disk. Dropping it undelivered gives up its place in the order of pushes.
pub(crate) struct Submitted {
    pub(crate) pending: Pending<Result<Committed, StoreError>>,
    pub(crate) tickets: Tickets,
}

/// Places of a batch's notifications in the order of pushes, and the households whose log it moves.
pub(crate) struct Tickets {
    tickets: Vec<Ticket>,
    logged: Vec<Logged>,
    at: Millis,
}

/// A step that enters a household's commit log.
struct Logged {
    owner: AtSign,
    step: usize,
    operation: Operation,
}

struct Ticket {
    house: Arc<House>,
    /// Which step of the batch.
    step: usize,
    push: Option<Arc<Push>>,
    at: Millis,
}

/// Of a household, since the server started.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Authenticated connections at this moment.
    pub(crate) connections: usize,
    /// Connections to servers of others, counted when they are asked for.
    pub(crate) outbound: usize,
    /// When somebody proved to be its owner; `None`: nobody yet.
    pub(crate) last_login: Option<Millis>,
}

/// A place among the connections of a household.
pub(crate) struct HouseSeat(pub(crate) Arc<House>);

/// A subscription that ends when this is dropped.
pub(crate) struct Subscribed {
    house: Arc<House>,
    number: u64,
    pub(crate) subscription: Arc<Subscription>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing below panics half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    pub(crate) fn house(&self, at_sign: &AtSign) -> Arc<House> {
        Arc::clone(lock(&self.houses).entry(at_sign.clone()).or_default())
    }

    fn houses(&self) -> Vec<(AtSign, Arc<House>)> {
        lock(&self.houses).iter().map(|(name, house)| (name.clone(), Arc::clone(house))).collect()
    }

    /// Hands a batch to the store. Its notifications get a time stamp of their own: `batch.at`, or the millisecond
    /// behind the household's latest.
    pub(crate) fn submit(&self, store: &dyn Store, mut batch: Batch) -> Submitted {
        let _order = lock(&self.order);
        let mut tickets = Vec::new();
        let mut logged = Vec::new();
        for (step, op) in batch.ops.iter_mut().enumerate() {
            let mut log = |owner: &AtSign, operation| logged.push(Logged { owner: owner.clone(), step, operation });
            let notification = match op {
                Op::Receive(notification) => notification,
                Op::Put { owner, log: kind, .. } => {
                    if kind.kind().is_some() {
                        log(owner, Operation::Update);
                    }
                    continue;
                }
                Op::Remove { owner, log: true, .. } => {
                    log(owner, Operation::Delete);
                    continue;
                }
                _ => continue,
            };
            let house = self.house(&notification.to);
            let at = house.stamp(store, &notification.to, batch.at);
            let life = notification.expires_at.saturating_sub(notification.at);
            notification.at = at;
            notification.expires_at = at.saturating_add(life);
            let push = Some(Arc::new(Push::new(notification)));
            tickets.push(Ticket { house, step, push, at });
        }
        let at = batch.at;
        let pending = store.commit(batch);
        Submitted { pending, tickets: Tickets { tickets, logged, at } }
    }

    /// A place for one more authenticated connection.
    pub(crate) fn sit(&self, at_sign: &AtSign, limit: u32) -> Option<HouseSeat> {
        Self::sit_in(&self.house(at_sign), limit)
    }

    /// The same in a house that is none of an owner's.
    pub(crate) fn sit_in(house: &Arc<House>, limit: u32) -> Option<HouseSeat> {
        let seat = HouseSeat(Arc::clone(house));
        let before = seat.0.connections.fetch_add(1, Ordering::Relaxed);
        (before < usize::try_from(limit).unwrap_or(usize::MAX)).then_some(seat)
    }

    /// Closes every monitor of a household that is no more.
    pub(crate) fn evict(&self, at_sign: &AtSign) {
        let house = lock(&self.houses).remove(at_sign);
        if let Some(house) = house {
            for monitor in lock(&house.inner).monitors.values() {
                monitor.close();
            }
        }
    }

    /// Statistics to every monitor that wants them.
    pub(crate) fn tick(&self, store: &dyn Store, now: Millis) {
        for (owner, house) in self.houses() {
            if house.wants_stats() {
                match store.last_commit(&owner) {
                    Ok(commit) => house.push_stats(&owner, commit, Operation::Update, now),
                    Err(error) => tracing::debug!(%error, "statistics not read"),
                }
            }
        }
    }
}

impl Tickets {
    /// Tells how the batch ended; delivers what is due, then tells each household how long its log is.
    pub(crate) fn settle(mut self, hub: &Hub, committed: Option<&Committed>) {
        for ticket in self.tickets.drain(..) {
            let fresh = committed.is_some_and(|c| c.fresh.get(ticket.step) == Some(&true));
            ticket.end(fresh);
        }
        let mut latest: BTreeMap<&AtSign, (i64, Operation)> = BTreeMap::new();
        for Logged { owner, step, operation } in &self.logged {
            if let Some(commit) = committed.and_then(|c| c.commits.get(*step).copied().flatten()) {
                latest.insert(owner, (commit, *operation)); // ids rise within a batch
            }
        }
        for (owner, (commit, operation)) in latest {
            hub.house(owner).push_stats(owner, commit, operation, self.at);
        }
    }
}

impl Ticket {
    fn end(mut self, fresh: bool) {
        let fate = match self.push.take() {
            Some(push) if fresh => Fate::Deliver(push),
            _ => Fate::Skip,
        };
        self.house.resolve(self.at, fate);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.push.is_some() {
            self.house.resolve(self.at, Fate::Skip);
        }
    }
}

impl Default for House {
    fn default() -> Self {
        Self {
            inner: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            large_lines: AtomicUsize::new(0),
            rights: watch::Sender::new(()),
            connections: AtomicUsize::new(0),
            last_login: AtomicI64::new(0),
        }
    }
}

impl House {
    /// A stamp that no notification of this household has, and a place in the order of pushes.
    fn stamp(&self, store: &dyn Store, owner: &AtSign, now: Millis) -> Millis {
        let mut inner = lock(&self.inner);
        let latest = *inner.latest.get_or_insert_with(|| latest_stored(store, owner, now));
        let at = now.max(latest.saturating_add(1));
        inner.latest = Some(at);
        inner.submitted.push_back((at, Fate::Open));
        at
    }

    fn resolve(&self, at: Millis, fate: Fate) {
        let mut inner = lock(&self.inner);
        let Some(slot) = inner.submitted.iter_mut().find(|(slot, _)| *slot == at) else { return };
        slot.1 = fate;
        while inner.submitted.front().is_some_and(|(_, fate)| !matches!(fate, Fate::Open)) {
            if let Some((_, Fate::Deliver(push))) = inner.submitted.pop_front() {
                for monitor in inner.monitors.values() {
                    monitor.offer(&push);
                }
            }
        }
    }

    /// From now on `subscription` hears what is committed.
    pub(crate) fn subscribe(self: &Arc<Self>, subscription: Subscription) -> Subscribed {
        let subscription = Arc::new(subscription);
        let mut inner = lock(&self.inner);
        let number = inner.next_monitor;
        inner.next_monitor += 1;
        inner.monitors.insert(number, Arc::clone(&subscription));
        Subscribed { house: Arc::clone(self), number, subscription }
    }

    /// Somebody has proved to be the owner.
    pub(crate) fn logged_in(&self, now: Millis) {
        self.last_login.store(now, Ordering::Relaxed);
    }

    pub(crate) fn figures(&self) -> Figures {
        let last_login = Some(self.last_login.load(Ordering::Relaxed)).filter(|at| *at > 0);
        Figures { connections: self.connections.load(Ordering::Relaxed), outbound: 0, last_login }
    }

    fn wants_stats(&self) -> bool {
        lock(&self.inner).monitors.values().any(|monitor| monitor.wants_stats())
    }

    /// The last commit id, to monitors that want statistics.
    pub(crate) fn push_stats(&self, owner: &AtSign, commit: i64, operation: Operation, now: Millis) {
        let inner = lock(&self.inner);
        let mut wanting = inner.monitors.values().filter(|monitor| monitor.wants_stats()).peekable();
        if wanting.peek().is_none() {
            return;
        }
        let line: Arc<str> = (stats_line(owner, commit, operation, now) + "\n").into();
        for monitor in wanting {
            monitor.offer_stats(&line);
        }
    }
}

/// Stamps may lie in the future: after more than a thousand notifications a second, or when the clock was set back.
fn latest_stored(store: &dyn Store, owner: &AtSign, now: Millis) -> Millis {
    let mut latest = now.saturating_sub(1);
    loop {
        match store.received_since(owner, latest, now, REPLAY_PAGE) {
            Ok(page) => match page.last() {
                Some(last) => latest = last.at,
                None => return latest,
            },
            Err(error) => {
                tracing::debug!(%error, "latest time stamp not read");
                return latest;
            }
        }
    }
}

impl Drop for HouseSeat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        lock(&self.house.inner).monitors.remove(&self.number);
    }
}

impl Push {
    fn new(notification: &Notification) -> Self {
        Self {
            at: notification.at,
            from: notification.from.clone(),
            id: notification.id.clone(),
            key: notification.key.clone(),
            name: notification.bare_key(),
            is_self: notification.is_self,
            line: notification.push_line() + "\n",
        }
    }

    /// The same of a stored notification.
    pub(crate) fn replayed(notification: &Notification) -> Self {
        Self::new(notification)
    }
}

#[cfg(test)]
mod tests;
