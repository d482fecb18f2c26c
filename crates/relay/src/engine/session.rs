//! The driver of one session: tells the meeting what happens, does what it says, decides nothing.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use postern_net::pump::Carried;
use postern_net::tcp;
use postern_observe::journal::{Entry, Event};
use postern_proto::SigningKeyName;
use postern_rendezvous::limits::KEYS_PER_SESSION;
use postern_rendezvous::{Action, Meeting, MeetingRules, Side, SocketId, Why};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::guest::{Admitted, Fate, Guest, Keeper, News, Pair};
use super::{Live, Permit, Tally};
use crate::limits::{ACCEPT_PAUSE, EVENTS};

pub(super) struct Running {
    permit: Permit,
    live: Arc<Live>,
    /// Of side A and B; none where both come through the port for all.
    listeners: Option<(TcpListener, TcpListener)>,
    admitted: mpsc::Receiver<Admitted>,
    stop: CancellationToken,
    meeting: Meeting,
    next_id: u64,
    /// How to reach the guests that are not joined yet. Dropping one closes its socket.
    fates: BTreeMap<SocketId, oneshot::Sender<Fate>>,
    /// No `accept` before this moment.
    pause_until: Option<Instant>,
    tally: Tally,
    /// The keys that have proved sockets, and what their records said.
    keys: BTreeMap<SigningKeyName, String>,
    recheck: Interval,
}

/// What guests tell, and what pairs leave behind.
struct Ears {
    news: mpsc::Receiver<News>,
    pairs: mpsc::UnboundedReceiver<(SocketId, Carried)>,
}

/// The other ends of [`Ears`].
struct Mouths {
    news: mpsc::Sender<News>,
    /// Never holds more than [`MeetingRules::live_pairs`]: each live pair tells once, when it is dropped.
    pairs: mpsc::UnboundedSender<(SocketId, Carried)>,
}

impl Running {
    pub(super) fn new(
        permit: Permit,
        live: Arc<Live>,
        listeners: Option<(TcpListener, TcpListener)>,
        admitted: mpsc::Receiver<Admitted>,
        stop: CancellationToken,
    ) -> Self {
        let limits = &permit.shared.limits;
        let rules = MeetingRules {
            authenticate_a: live.spec.authenticate_a,
            authenticate_b: live.spec.authenticate_b,
            auth_within: if live.spec.escr.is_some() { limits.prove_within } else { limits.auth_within },
            grace: limits.grace,
            unauthenticated_per_side: limits.unauthenticated_per_side,
            waiting_per_side: limits.waiting_per_side,
            live_pairs: limits.live_pairs,
        };
        let mut recheck = interval(limits.key_recheck);
        recheck.set_missed_tick_behavior(MissedTickBehavior::Delay);
        recheck.reset();
        Self {
            meeting: Meeting::new(rules, Instant::now()),
            permit,
            live,
            listeners,
            admitted,
            stop,
            next_id: 0,
            fates: BTreeMap::new(),
            pause_until: None,
            tally: Tally::default(),
            keys: BTreeMap::new(),
            recheck,
        }
    }

    pub(super) async fn run(self) -> Tally {
        let started = Instant::now();
        self.permit.shared.record(|| self.entry(Event::Began));
        let shared = Arc::clone(&self.permit.shared);
        let ended = self.entry(Event::Ended);
        let tally = self.drive().await;
        shared.record(|| Entry {
            sent: Some(tally.carried.b_to_a),
            received: Some(tally.carried.a_to_b),
            seconds: Some(started.elapsed().as_secs()),
            ..ended
        });
        tally
    }

    /// What the journal says of this session.
    fn entry(&self, event: Event) -> Entry {
        let spec = &self.live.spec;
        Entry {
            session: Some(spec.expected.session_id.clone()),
            who: Some(spec.requester.clone()),
            device: spec.escr.as_ref().map(|escr| escr.parties.device.to_string()),
            sealed: Some(false),
            ..Entry::of(event)
        }
    }

    async fn drive(mut self) -> Tally {
        let (news, heard_news) = mpsc::channel(EVENTS);
        let (pairs, heard_pairs) = mpsc::unbounded_channel();
        let mouths = Mouths { news, pairs };
        let mut ears = Ears { news: heard_news, pairs: heard_pairs };
        loop {
            while let Some(action) = self.meeting.next_action() {
                self.act(action, &mouths);
            }
            if self.meeting.is_over() {
                break;
            }
            tokio::select! {
                biased; // stop first; then time and news, which are bounded; strangers last
                () = self.stop.cancelled() => break,
                () = until(self.meeting.poll_timeout()) => self.meeting.handle_timeout(Instant::now()),
                Some((a, carried)) = ears.pairs.recv() => self.pair_ended(a, carried),
                Some(news) = ears.news.recv() => self.hear(news),
                _ = self.recheck.tick(), if !self.keys.is_empty() => self.recheck_keys(),
                Some(admitted) = self.admitted.recv() => self.admit(admitted, &mouths),
                (side, accepted) = accept(self.listeners.as_ref(), self.pause_until) => {
                    self.welcome(side, accepted, &mouths);
                }
            }
        }
        self.wind_up(mouths, ears).await
    }

    fn act(&mut self, action: Action, mouths: &Mouths) {
        match action {
            Action::Join { a, b } => self.join(a, b, mouths),
            Action::Close { id, why } => {
                debug!(id = id.0, ?why, "guest closed");
                if matches!(why, Why::NotAuthenticated | Why::TooSlow) {
                    self.permit.shared.counters.not_authenticated.fetch_add(1, Ordering::Relaxed);
                }
                self.fates.remove(&id);
            }
            Action::Finish => debug!("session over"),
        }
    }

    /// Lets `b` hand its socket to `a`. If one of them has died this very moment, the pair is dropped, which is its end.
    fn join(&mut self, a: SocketId, b: SocketId, mouths: &Mouths) {
        let pace = self.permit.shared.paces.of(&self.live.spec.requester);
        let pair = Pair::new(a, pace, mouths.pairs.clone());
        let (Some(fate_a), Some(fate_b)) = (self.fates.remove(&a), self.fates.remove(&b)) else {
            return;
        };
        let (give, take) = oneshot::channel();
        if fate_a.send(Fate::Receive { partner: take, pair, stop: self.stop.clone() }).is_ok() {
            drop(fate_b.send(Fate::Give(give)));
        }
    }

    fn pair_ended(&mut self, a: SocketId, carried: Carried) {
        self.tally.pairs += 1;
        self.tally.carried.a_to_b += carried.a_to_b;
        self.tally.carried.b_to_a += carried.b_to_a;
        self.permit.shared.count_pair(carried);
        debug!(a = a.0, ?carried, "pair ended");
        self.meeting.pair_ended(a);
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Authenticated { side, id, number, key } => {
                debug!(
                    ?side,
                    id = id.0,
                    ?number,
                    by = if key.is_some() { "proof" } else { "line" },
                    "guest authenticated"
                );
                if self.keep_key(key) {
                    self.meeting.authenticated(side, id, number, Instant::now());
                } else {
                    self.meeting.failed(side, id);
                }
            }
            News::Failed { side, id, why } => {
                debug!(id = id.0, error = %why, "guest failed to authenticate");
                self.meeting.failed(side, id);
            }
            News::Gone { side, id } => {
                self.fates.remove(&id);
                self.meeting.gone(side, id);
            }
        }
    }

    /// Remembers what proved a socket. False: too many keys prove sockets of this session.
    fn keep_key(&mut self, key: Option<(SigningKeyName, String)>) -> bool {
        let Some((name, record)) = key else { return true };
        if self.keys.len() >= KEYS_PER_SESSION && !self.keys.contains_key(&name) {
            return false;
        }
        self.keys.insert(name, record);
        true
    }

    /// A guest that has proved itself at the port for all.
    fn admit(&mut self, admitted: Admitted, mouths: &Mouths) {
        let Admitted { guest, side, number, key } = admitted;
        if !self.keep_key(Some(key)) {
            return;
        }
        let (id, fate) = self.new_guest();
        let keeper = Keeper { side, id, prove: None, news: mouths.news.clone() };
        debug!(?side, id = id.0, ?number, by = "proof at the port for all", "guest authenticated");
        self.meeting.admitted(side, id, number);
        self.permit.shared.tasks.spawn(keeper.keep(guest, fate));
    }

    fn new_guest(&mut self) -> (SocketId, oneshot::Receiver<Fate>) {
        let id = SocketId(self.next_id);
        self.next_id += 1;
        let (fate, heard_fate) = oneshot::channel();
        self.fates.insert(id, fate);
        (id, heard_fate)
    }

    /// Looks whether the keys still are what they were, and ends the session when one is not. An atServer that cannot be
    /// asked ends nothing.
    fn recheck_keys(&self) {
        let Some(escr) = &self.live.spec.escr else { return };
        let (keys, used, stop) = (Arc::clone(&escr.keys), self.keys.clone(), self.stop.clone());
        self.permit.shared.tasks.spawn(async move {
            let check = async {
                for (name, record) in &used {
                    if matches!(keys.record(name).await, Ok(now) if now.as_ref() != Some(record)) {
                        debug!(%name, "a key that proved sockets is no longer shown: session cut");
                        return stop.cancel();
                    }
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = check => {}
            }
        });
    }

    fn welcome(&mut self, side: Side, accepted: io::Result<(TcpStream, SocketAddr)>, mouths: &Mouths) {
        self.pause_until = None;
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a peer that left at once: nothing to be done but to try again, paced.
                debug!(%error, "accept failed");
                self.pause_until = Some(Instant::now() + ACCEPT_PAUSE);
                return;
            }
        };
        let Some(seat) = self.permit.shared.seats.take(peer.ip()) else {
            return;
        };
        if tcp::tune(&socket).is_err() {
            return; // already gone
        }
        let (id, heard_fate) = self.new_guest();
        let prove = self.meeting.must_authenticate(side).then(|| Arc::clone(&self.live));
        let keeper = Keeper { side, id, prove, news: mouths.news.clone() };
        debug!(?side, id = id.0, %peer, "guest arrived");
        self.meeting.arrived(side, id, Instant::now());
        self.permit.shared.tasks.spawn(keeper.keep(Guest::new(socket, seat), heard_fate));
    }

    /// Closes what waits, and waits for the pairs that were cut.
    async fn wind_up(mut self, mouths: Mouths, mut ears: Ears) -> Tally {
        self.stop.cancel();
        self.fates.clear();
        drop((mouths, ears.news));
        while let Some((a, carried)) = ears.pairs.recv().await {
            self.pair_ended(a, carried);
        }
        debug!(tally = ?self.tally, "session closed");
        self.tally
    }
}

pub(super) async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => pending().await,
    }
}

/// The next socket of either side; `select!` draws lots, so a flood on one port does not starve the other. Cancel-safe.
async fn accept(
    listeners: Option<&(TcpListener, TcpListener)>,
    pause_until: Option<Instant>,
) -> (Side, io::Result<(TcpStream, SocketAddr)>) {
    let Some((a, b)) = listeners else { return pending().await };
    if let Some(moment) = pause_until {
        sleep_until(moment.into()).await;
    }
    tokio::select! {
        accepted = a.accept() => (Side::A, accepted),
        accepted = b.accept() => (Side::B, accepted),
    }
}
