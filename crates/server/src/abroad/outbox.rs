//! Delivering what waits in the store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use postern_proto::verb::Delivery as Line;
use postern_proto::{AtSign, Notification};
use postern_store::{Batch, Delivery, Op, StoreError};
use tokio::sync::{Notify, Semaphore};

use super::error::PeerError;
use super::lanes::{After, Bounds, Ended, Lanes, Pair};
use super::{Abroad, Purpose};
use crate::hub::Submitted;
use crate::limits::{
    DELIVERIES_OF_ONE, DELIVERIES_UNDER_WAY, DELIVERY_LANES, DELIVERY_TRIES, FREE_LINE_BYTES, LANE_TURN,
    LARGE_LINES_BYTES, LOOK_AT_STORE_EVERY, QUARANTINE_MAX,
};
use crate::serve::{Shared, now_ms};

/// What waits for other servers, and the bell that says so.
pub(super) struct Outbox {
    lanes: Mutex<Lanes>,
    bell: Notify,
    /// Bytes of long notifications on their way.
    memory: Semaphore,
}

impl Outbox {
    pub(super) fn new(quarantine: std::time::Duration) -> Self {
        let bounds = Bounds {
            lanes: DELIVERY_LANES,
            running: DELIVERIES_UNDER_WAY,
            running_of_one: DELIVERIES_OF_ONE,
            quarantine,
            quarantine_max: QUARANTINE_MAX.max(quarantine),
            tries: DELIVERY_TRIES,
        };
        let memory = Semaphore::new(LARGE_LINES_BYTES);
        Self { lanes: Mutex::new(Lanes::new(bounds)), bell: Notify::new(), memory }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, pairs: impl IntoIterator<Item = Pair>) {
        let mut lanes = self.lanes();
        pairs.into_iter().for_each(|pair| lanes.note(pair));
        drop(lanes);
        self.bell.notify_one();
    }
}

/// Sender and recipient of what a batch leaves waiting.
pub(crate) fn left_waiting(batch: &Batch) -> Vec<Pair> {
    let settled = |n: &Notification| {
        batch.ops.iter().any(|op| matches!(op, Op::Deliver { owner, id, .. } if *owner == n.from && *id == n.id))
    };
    let sent = batch.ops.iter().filter_map(|op| match op {
        Op::Send(n) if !settled(n) => Some((n.from.clone(), n.to.clone())),
        _ => None,
    });
    sent.collect()
}

impl Abroad {
    /// Notifications of these pairs were committed.
    pub(crate) fn wake(&self, pairs: Vec<Pair>) {
        if !pairs.is_empty() {
            self.outbox.note(pairs);
        }
    }
}

/// Delivers until the server stops.
pub(crate) async fn keep_delivering(shared: Arc<Shared>) {
    let Some(abroad) = &shared.abroad else { return };
    let outbox = &abroad.outbox;
    let mut looked_at = None;
    loop {
        let now = Instant::now();
        let due = looked_at.is_none_or(|at: Instant| now.saturating_duration_since(at) >= LOOK_AT_STORE_EVERY);
        if due || outbox.lanes().take_overflowed() {
            looked_at = Some(now);
            match shared.store.waiting_pairs(DELIVERY_LANES) {
                Ok(pairs) => outbox.note(pairs),
                Err(error) => shared.store_failed(&error),
            }
        }
        loop {
            let next = outbox.lanes().next(Instant::now());
            let Some(pair) = next else { break };
            let run = Run { shared: Arc::clone(&shared), pair, ended: Some(Ended::Refused) };
            shared.tasks.spawn(run.go());
        }
        let timeout = outbox.lanes().poll_timeout();
        let look = now + LOOK_AT_STORE_EVERY;
        let until = timeout.map_or(look, |at| at.min(look));
        tokio::select! {
            biased; // news first
            () = outbox.bell.notified() => {}
            () = tokio::time::sleep_until(until.into()) => {}
        }
    }
}

/// One lane under way. Dropped in whatever way, its end is told.
struct Run {
    shared: Arc<Shared>,
    pair: Pair,
    ended: Option<Ended>,
}

impl Run {
    async fn go(mut self) {
        let stop = self.shared.tasks.token().clone();
        let work = Box::pin(empty(&self.shared, &self.pair));
        let ended = tokio::select! {
            biased; // stopping wins: what is under way is delivered again, and known there
            () = stop.cancelled() => Ended::More,
            ended = work => ended,
        };
        self.ended = None;
        if let After::GiveUp(since) = self.tell(ended)
            && let Err(error) = give_up(&self.shared, &self.pair, since).await
        {
            self.shared.store_failed(&error);
        }
    }

    fn tell(&self, ended: Ended) -> After {
        let Some(abroad) = &self.shared.abroad else { return After::Keep };
        let random = u32::from_ne_bytes(postern_crypto::random());
        let after = abroad.outbox.lanes().ended(self.pair.clone(), ended, Instant::now(), now_ms(), random);
        abroad.outbox.bell.notify_one();
        after
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            self.tell(ended);
        }
    }
}

/// Delivers what waits for one pair, oldest first.
async fn empty(shared: &Shared, pair: &Pair) -> Ended {
    let Some(abroad) = &shared.abroad else { return Ended::Empty };
    for _ in 0..LANE_TURN {
        let outcome = match deliver_next(shared, abroad, pair).await {
            Ok(true) => {
                abroad.outbox.lanes().delivered(pair);
                continue;
            }
            Ok(false) => return Ended::Empty,
            Err(error) => error,
        };
        if let PeerError::Store(error) = &outcome {
            shared.store_failed(error);
        }
        tracing::debug!(from = %pair.0, to = %pair.1, error = ?outcome, "not delivered");
        return if outcome.is_dead() { Ended::Dead } else { Ended::Refused };
    }
    Ended::More
}

/// `false`: nothing waits.
async fn deliver_next(shared: &Shared, abroad: &Abroad, pair: &Pair) -> Result<bool, PeerError> {
    let (from, to) = pair;
    let Some(mut next) = shared.store.next_waiting(from, to)? else { return Ok(false) };
    let large = next.value.as_ref().map_or(0, String::len);
    let mut _memory = None;
    if large > FREE_LINE_BYTES {
        // Read again when there is room for it.
        drop(next);
        let bytes = u32::try_from(large.min(LARGE_LINES_BYTES)).unwrap_or(u32::MAX);
        _memory = abroad.outbox.memory.acquire_many(bytes).await.ok();
        match shared.store.next_waiting(from, to)? {
            Some(again) => next = again,
            None => return Ok(false),
        }
    }
    let now = now_ms();
    if next.expires_at <= now {
        note(shared, &next, Delivery::Expired).await?;
        return Ok(true);
    }
    if shared.accounts.hosts(to) {
        // It has moved to us meanwhile.
        receive_here(shared, next).await?;
        return Ok(true);
    }
    let line = Line { notification: &next, life_ms: next.expires_at - now }.to_string();
    let answer = abroad.ask(from, to, Purpose::Deliver, &line).await?;
    if answer.trim() != "success" {
        return Err(PeerError::Nonsense);
    }
    note(shared, &next, Delivery::Delivered).await?;
    Ok(true)
}

async fn note(shared: &Shared, n: &Notification, delivery: Delivery) -> Result<(), StoreError> {
    shared.store.commit(Batch::new(now_ms()).deliver(&n.from, &n.id, delivery)).await.map(|_| ())
}

async fn receive_here(shared: &Shared, n: Notification) -> Result<(), StoreError> {
    let batch = Batch::new(now_ms()).deliver(&n.from, &n.id, Delivery::Delivered).receive(n);
    let Submitted { pending, tickets } = shared.hub.submit(shared.store.as_ref(), batch);
    let outcome = pending.await;
    tickets.settle(&shared.hub, outcome.as_ref().ok());
    outcome.map(|_| ())
}

/// What has waited since before `since` goes no more.
async fn give_up(shared: &Shared, pair: &Pair, since: i64) -> Result<(), StoreError> {
    let (from, to): (&AtSign, &AtSign) = (&pair.0, &pair.1);
    while let Some(next) = shared.store.next_waiting(from, to)?.filter(|next| next.at <= since) {
        note(shared, &next, Delivery::Errored).await?;
    }
    Ok(())
}
