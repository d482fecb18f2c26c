//! The driver of the hall where ticket holders meet: tells it what happens, does what it says, decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use postern_client::trust::now_ms;
use postern_net::pump::Carried;
use postern_rendezvous::{Hall, HallAction, SocketId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Shared;
use super::guest::{Fate, Keeper, News, Pair};
use super::session::until;
use super::ticket::Arrival;
use crate::limits::EVENTS;

/// All guests with tickets of one relay.
struct Running {
    shared: Arc<Shared>,
    stop: CancellationToken,
    hall: Hall,
    next_id: u64,
    /// How to reach the guests that are not joined yet.
    fates: BTreeMap<SocketId, oneshot::Sender<Fate>>,
    /// Cuts the pair of this socket of side A.
    cuts: BTreeMap<SocketId, CancellationToken>,
    news: mpsc::Sender<News>,
    /// Never holds more than there are sessions: each pair tells once, when it is dropped.
    pairs: mpsc::UnboundedSender<(SocketId, Carried)>,
}

/// Runs until the relay stops.
pub(super) async fn run(shared: Arc<Shared>, mut arrivals: mpsc::Receiver<Arrival>) {
    let (news, mut heard_news) = mpsc::channel(EVENTS);
    let (pairs, mut heard_pairs) = mpsc::unbounded_channel();
    let stop = shared.tasks.token().clone();
    let hall = Hall::new(shared.limits.tickets);
    let (fates, cuts) = (BTreeMap::new(), BTreeMap::new());
    let mut running = Running { shared, stop: stop.clone(), hall, next_id: 0, fates, cuts, news, pairs };
    loop {
        while let Some(action) = running.hall.next_action() {
            running.act(action);
        }
        tokio::select! {
            biased; // stop first; then time and news, which are bounded; newcomers last
            () = stop.cancelled() => break,
            () = until(running.hall.poll_timeout()) => running.hall.handle_timeout(Instant::now()),
            Some((a, carried)) = heard_pairs.recv() => running.pair_ended(a, carried),
            Some(news) = heard_news.recv() => running.hear(&news),
            Some(arrival) = arrivals.recv() => running.arrive(arrival),
        }
    }
    // The pairs have heard the same signal. Who waits is told.
    running.hall.stop();
    arrivals.close();
    while let Some(arrival) = arrivals.recv().await {
        running.arrive(arrival);
    }
    while let Some(action) = running.hall.next_action() {
        running.act(action);
    }
    let Running { shared, pairs, .. } = running;
    drop(pairs);
    while let Some((_, carried)) = heard_pairs.recv().await {
        shared.count_pair(carried);
    }
}

impl Running {
    fn arrive(&mut self, Arrival { guest, ticket }: Arrival) {
        let id = SocketId(self.next_id);
        self.next_id += 1;
        let (fate, heard_fate) = oneshot::channel();
        self.fates.insert(id, fate);
        let keeper = Keeper { side: ticket.to().side, id, prove: None, news: self.news.clone() };
        self.shared.tasks.spawn(keeper.keep(guest, heard_fate));
        self.hall.arrive(id, &ticket, Instant::now(), now_ms());
    }

    fn act(&mut self, action: HallAction) {
        match action {
            HallAction::Join { a, b } => self.join(a, b),
            HallAction::Refuse { id, refusal } => {
                debug!(id = id.0, code = refusal.code.as_str(), "guest with a ticket refused");
                self.shared.counters.tickets_refused.fetch_add(1, Ordering::Relaxed);
                if let Some(fate) = self.fates.remove(&id) {
                    drop(fate.send(Fate::Refuse(refusal)));
                }
            }
            HallAction::Cut { a } => {
                debug!(a = a.0, "pair cut: its session goes on elsewhere");
                if let Some(cut) = self.cuts.remove(&a) {
                    cut.cancel();
                }
            }
        }
    }

    /// Lets `b` hand its socket to `a`. If one of them has died this very moment, the pair is dropped, which is its end.
    fn join(&mut self, a: SocketId, b: SocketId) {
        let pair = Pair::new(a, self.pairs.clone());
        let (Some(fate_a), Some(fate_b)) = (self.fates.remove(&a), self.fates.remove(&b)) else {
            return;
        };
        let cut = self.stop.child_token();
        self.cuts.insert(a, cut.clone());
        debug!(a = a.0, b = b.0, "guests with tickets joined");
        let (give, take) = oneshot::channel();
        if fate_a.send(Fate::Receive { partner: take, pair, stop: cut }).is_ok() {
            drop(fate_b.send(Fate::Give(give)));
        }
    }

    fn pair_ended(&mut self, a: SocketId, carried: Carried) {
        self.cuts.remove(&a);
        self.shared.count_pair(carried);
        debug!(a = a.0, ?carried, "pair ended");
        self.hall.ended(a);
    }

    fn hear(&mut self, news: &News) {
        match news {
            News::Gone { id, .. } => {
                self.fates.remove(id);
                self.hall.gone(*id);
            }
            // Guests in the hall have nothing to prove any more.
            News::Authenticated { .. } | News::Failed { .. } => {}
        }
    }
}
