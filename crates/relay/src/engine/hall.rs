//! The driver of the hall where ticket holders meet: tells it what happens, does what it says, decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use postern_client::trust::now_ms;
use postern_net::pump::Carried;
use postern_observe::journal::{Entry, Event};
use postern_rendezvous::{Hall, HallAction, SocketId, TicketTo};
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
    /// The guests that are not joined yet.
    waiting: BTreeMap<SocketId, Waiting>,
    /// By their socket of side A.
    live: BTreeMap<SocketId, Live>,
    news: mpsc::Sender<News>,
    /// Never holds more than there are sessions: each pair tells once, when it is dropped.
    pairs: mpsc::UnboundedSender<(SocketId, Carried)>,
}

struct Waiting {
    /// How to reach it.
    fate: oneshot::Sender<Fate>,
    to: TicketTo,
}

struct Live {
    to: TicketTo,
    cut: CancellationToken,
    since: Instant,
}

/// Runs until the relay stops.
pub(super) async fn run(shared: Arc<Shared>, mut arrivals: mpsc::Receiver<Arrival>) {
    let (news, mut heard_news) = mpsc::channel(EVENTS);
    let (pairs, mut heard_pairs) = mpsc::unbounded_channel();
    let stop = shared.tasks.token().clone();
    let hall = Hall::new(shared.limits.tickets);
    let (waiting, live) = (BTreeMap::new(), BTreeMap::new());
    let mut running = Running { shared, stop: stop.clone(), hall, next_id: 0, waiting, live, news, pairs };
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
    // The last of its kind is in the pairs.
    drop(std::mem::replace(&mut running.pairs, mpsc::unbounded_channel().0));
    while let Some((a, carried)) = heard_pairs.recv().await {
        running.pair_ended(a, carried);
    }
}

impl Running {
    fn arrive(&mut self, Arrival { guest, ticket }: Arrival) {
        let id = SocketId(self.next_id);
        self.next_id += 1;
        let (fate, heard_fate) = oneshot::channel();
        self.waiting.insert(id, Waiting { fate, to: ticket.to().clone() });
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
                if let Some(guest) = self.waiting.remove(&id) {
                    self.shared.record(|| Entry {
                        why: Some(format!("{}: {}", refusal.code.as_str(), refusal.text)),
                        ..entry(Event::Refused, &guest.to)
                    });
                    drop(guest.fate.send(Fate::Refuse(refusal)));
                }
            }
            HallAction::Cut { a } => {
                debug!(a = a.0, "pair cut: its session goes on elsewhere");
                if let Some(live) = self.live.get(&a) {
                    live.cut.cancel();
                }
            }
        }
    }

    /// Lets `b` hand its socket to `a`. If one of them has died this very moment, the pair is dropped, which is its end.
    fn join(&mut self, a: SocketId, b: SocketId) {
        // One that has died is reported twice, as the end of the pair too.
        let pair = |pace| Pair::new(a, pace, self.pairs.clone());
        let (Some(guest_a), Some(guest_b)) = (self.waiting.remove(&a), self.waiting.remove(&b)) else {
            return drop(pair(None));
        };
        let pair = pair(self.shared.paces.of(guest_a.to.client.as_str()));
        let cut = self.stop.child_token();
        self.shared.record(|| entry(Event::Began, &guest_a.to));
        self.live.insert(a, Live { to: guest_a.to, cut: cut.clone(), since: Instant::now() });
        debug!(a = a.0, b = b.0, "guests with tickets joined");
        let (give, take) = oneshot::channel();
        if guest_a.fate.send(Fate::Receive { partner: take, pair, stop: cut }).is_ok() {
            drop(guest_b.fate.send(Fate::Give(give)));
        }
    }

    fn pair_ended(&mut self, a: SocketId, carried: Carried) {
        self.shared.count_pair(carried);
        if let Some(live) = self.live.remove(&a) {
            self.shared.record(|| Entry {
                sent: Some(carried.b_to_a),
                received: Some(carried.a_to_b),
                seconds: Some(live.since.elapsed().as_secs()),
                ..entry(Event::Ended, &live.to)
            });
        }
        debug!(a = a.0, ?carried, "pair ended");
        self.hall.ended(a);
    }

    fn hear(&mut self, news: &News) {
        match news {
            News::Gone { id, .. } => {
                self.waiting.remove(id);
                self.hall.gone(*id);
            }
            // Guests in the hall have nothing to prove any more.
            News::Authenticated { .. } | News::Failed { .. } => {}
        }
    }
}

/// What the journal says of a session.
fn entry(event: Event, to: &TicketTo) -> Entry {
    Entry {
        session: Some(to.session.to_string()),
        who: Some(to.client.to_string()),
        device: Some(to.device.to_string()),
        sealed: Some(true),
        epoch: Some(to.epoch),
        ..Entry::of(event)
    }
}
