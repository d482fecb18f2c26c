//! The relay's engine: opens sessions within limits and counts them. One session is one task, see [`session`](self).

mod budget;
mod entrance;
mod guest;
mod hall;
mod paces;
mod proof;
mod session;
mod socket;
mod ticket;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use portable_atomic::AtomicU64;
use postern_crypto::AesKey;
use postern_net::pump::Carried;
use postern_net::seats::Seats;
use postern_net::tasks::Tasks;
use postern_net::tcp;
use postern_net::tls::ServerTls;
use postern_observe::journal::{Entry, Journal};
use postern_proto::SigningKeyName;
use postern_rendezvous::{AuthMode, EscrParties, Expected, HashAlgo, Side};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::ticket::{TicketKeys, TicketSpec};
use crate::limits::{ADMISSIONS, ARRIVALS, RelayLimits};

/// Whether this signature over this text is of the atSign to which the side belongs. Called on the relay's tasks: it
/// must not block for longer than a signature takes.
pub type Verify = Arc<dyn Fn(Side, &str, &[u8], HashAlgo) -> bool + Send + Sync>;

/// Where signing keys come from.
pub trait SigningKeys: Send + Sync {
    /// What the record says now; `Ok(None)`: there is no such record. `Err`: nobody can tell.
    fn record<'a>(&'a self, name: &'a SigningKeyName) -> Pin<Box<dyn Future<Output = KeyRecord> + Send + 'a>>;
}

/// See [`SigningKeys::record`].
pub type KeyRecord = Result<Option<String>, Unknown>;

/// The key's atServer cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown;

/// What a session needs for sockets that answer challenges.
#[derive(Clone)]
pub struct EscrSpec {
    /// The secret that hides the answers.
    pub key: AesKey,
    /// Whose keys prove which side.
    pub parties: EscrParties,
    /// Where those keys are fetched.
    pub keys: Arc<dyn SigningKeys>,
}

/// Which way of authentication a session's sockets take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Modes {
    /// This one, both sides.
    One(AuthMode),
    /// Each socket its own: who speaks first sends a line, who waits is asked for a proof. What is known of side A
    /// already.
    Detect(Option<AuthMode>),
}

/// What a session is to be.
pub struct SessionSpec {
    /// Who asked, as the notification says it; counted against [`RelayLimits::sessions_per_atsign`].
    pub requester: String,
    /// What the lines of its sockets must say.
    pub expected: Expected,
    /// Sockets of side A must authenticate.
    pub authenticate_a: bool,
    /// Sockets of side B must authenticate.
    pub authenticate_b: bool,
    /// Checks the signatures of lines.
    pub verify: Verify,
    /// For proofs; without it there are lines only.
    pub escr: Option<EscrSpec>,
    /// Lines or proofs.
    pub modes: Modes,
    /// No ports of its own: both sides come through the relay's port for all.
    pub single_port: bool,
}

impl fmt::Debug for SessionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSpec").field("expected", &self.expected).finish_non_exhaustive()
    }
}

/// Two ports are open, or the one for all.
#[derive(Debug)]
pub struct Session {
    /// The client's.
    pub port_a: NonZeroU16,
    /// The device's.
    pub port_b: NonZeroU16,
    /// Closes the session, its ports and its pairs at once. Dropping the token does nothing.
    pub stop: CancellationToken,
    /// Ends with the session. Need not be awaited.
    pub ended: JoinHandle<Tally>,
}

/// What a session has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Pairs that were joined.
    pub pairs: u64,
    /// Bytes of all pairs.
    pub carried: Carried,
}

/// Why no session was opened; fit to be told to who asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// The relay has as many sessions as it may have.
    Full,
    /// The requester has as many as one may have.
    TooManyOfYours,
    /// The relay is stopping.
    Stopping,
    /// A session of this name is open.
    Known,
    /// There is no port for all.
    NoSinglePort,
    /// No port could be opened; the reason is for the relay's operator.
    Ports(io::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "this relay is full; try again later or use another relay",
            Self::TooManyOfYours => "your atSign has too many sessions open on this relay",
            Self::Stopping => "this relay is shutting down",
            Self::Known => "a session with this id is open already",
            Self::NoSinglePort => "this relay does not serve sessions on a single port; leave out --443",
            Self::Ports(_) => "this relay could not open ports",
        })
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Ports(error) => Some(error),
            _ => None,
        }
    }
}

/// What the relay has done since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Sessions opened.
    pub sessions: u64,
    /// Sessions refused.
    pub refused: u64,
    /// Pairs joined and ended.
    pub pairs: u64,
    /// Bytes of pairs that have ended, both directions.
    pub bytes: u64,
    /// Sockets closed because they did not prove whose they are, or not in time.
    pub not_authenticated: u64,
    /// Tickets refused.
    pub tickets_refused: u64,
}

/// A port that is ours and not served yet.
#[derive(Debug)]
pub struct Entrance {
    /// Which one.
    pub port: NonZeroU16,
    listener: TcpListener,
}

/// A relay: its limits, its sessions, its counters. Clones share them.
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
}

struct Shared {
    limits: RelayLimits,
    seats: Seats,
    tasks: Tasks,
    open: Mutex<Open>,
    counters: Counters,
    single_port: Option<NonZeroU16>,
    /// What listens at that port, until it is served.
    entrance: Mutex<Option<TcpListener>>,
    desk: OnceLock<Arc<ticket::Desk>>,
    budget: Arc<budget::Budget>,
    tls: Mutex<Option<ServerTls>>,
    paces: paces::Paces,
    journal: OnceLock<Journal>,
    knock_port: OnceLock<Option<NonZeroU16>>,
}

#[derive(Default)]
struct Open {
    sessions: usize,
    live: BTreeMap<String, Arc<Live>>,
    by_requester: BTreeMap<String, usize>,
}

/// What others than its own task may know of a session.
struct Live {
    spec: SessionSpec,
    /// What is known of the sides: A, B.
    known: watch::Sender<[Option<AuthMode>; 2]>,
    admissions: mpsc::Sender<guest::Admitted>,
    /// See [`RelayLimits::detect_window`].
    detect_window: Duration,
}

#[derive(Default)]
struct Counters {
    sessions: AtomicU64,
    refused: AtomicU64,
    pairs: AtomicU64,
    bytes: AtomicU64,
    not_authenticated: AtomicU64,
    tickets_refused: AtomicU64,
}

impl Relay {
    /// A relay without sessions. They run on `tasks` and stop with its token.
    #[must_use]
    pub fn new(limits: RelayLimits, tasks: Tasks) -> Self {
        Self::made(limits, tasks, None)
    }

    /// The same with a port for all sessions that want no ports of their own, and for tickets. Guests are let in when it
    /// is [served](Self::serve_port). To be called within the runtime.
    ///
    /// # Errors
    /// `port` cannot be had.
    pub fn with_single_port(limits: RelayLimits, tasks: Tasks, port: u16) -> io::Result<Self> {
        let listener = tcp::listen(SocketAddr::new(limits.bind, port))?;
        let port = NonZeroU16::new(listener.local_addr()?.port()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self::made(limits, tasks, Some((port, listener))))
    }

    fn made(limits: RelayLimits, tasks: Tasks, port: Option<(NonZeroU16, TcpListener)>) -> Self {
        let (single_port, entrance) = port.unzip();
        let shared = Shared {
            seats: Seats::new(limits.seats),
            paces: paces::Paces::new(limits.max_rate),
            limits,
            tasks,
            open: Mutex::default(),
            counters: Counters::default(),
            single_port,
            entrance: Mutex::new(entrance),
            desk: OnceLock::new(),
            budget: Arc::default(),
            tls: Mutex::default(),
            journal: OnceLock::new(),
            knock_port: OnceLock::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Lets guests in at the port for all: with `tickets` those who have one, too. Who came before has waited in the
    /// system's queue. Does nothing the second time, or where there is no such port. To be called within the runtime.
    pub fn serve_port(&self, tickets: Option<TicketSpec>) {
        let shared = &self.shared;
        let listener = shared.entrance.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(listener) = listener else { return };
        if let Some(spec) = tickets {
            let (hall, arrivals) = mpsc::channel(ARRIVALS);
            drop(shared.desk.set(Arc::new(ticket::Desk::new(spec, Arc::clone(&shared.budget), hall))));
            shared.tasks.spawn(hall::run(Arc::clone(shared), arrivals));
        }
        shared.tasks.spawn(entrance::serve(listener, Arc::clone(shared)));
    }

    /// The port for all.
    #[must_use]
    pub fn single_port(&self) -> Option<NonZeroU16> {
        self.shared.single_port
    }

    /// A port that accepts connections and closes them at once, for peers who measure how far this relay is. The port
    /// for all where there is one; else one of its own, opened when it is first asked for. To be called within the
    /// runtime.
    pub fn knock_port(&self) -> Option<NonZeroU16> {
        let shared = &self.shared;
        shared.single_port.or_else(|| *shared.knock_port.get_or_init(|| self.open_knock_port().ok()))
    }

    fn open_knock_port(&self) -> io::Result<NonZeroU16> {
        let (listener, port) = self.bind()?;
        self.shared.tasks.spawn(entrance::knocks(listener, self.shared.tasks.token().clone()));
        Ok(port)
    }

    /// Opens a session. To be called within the runtime.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn open(&self, spec: SessionSpec) -> Result<Session, Refusal> {
        let outcome = self.try_open(spec);
        let counters = &self.shared.counters;
        let counter = if outcome.is_ok() { &counters.sessions } else { &counters.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    fn try_open(&self, spec: SessionSpec) -> Result<Session, Refusal> {
        let shared = &self.shared;
        if shared.tasks.token().is_cancelled() {
            return Err(Refusal::Stopping);
        }
        let single = if spec.single_port { Some(shared.single_port.ok_or(Refusal::NoSinglePort)?) } else { None };
        let hint = match &spec.modes {
            Modes::Detect(hint) => hint.clone(),
            Modes::One(_) => None,
        };
        let (admissions, admitted) = mpsc::channel(ADMISSIONS);
        let known = watch::Sender::new([hint, None]);
        let (permit, live) =
            Permit::take(shared, Live { spec, known, admissions, detect_window: shared.limits.detect_window })?;
        let (listeners, port_a, port_b) = match single {
            Some(port) => (None, port, port),
            None => {
                let (listener_a, port_a) = self.bind().map_err(Refusal::Ports)?;
                let (listener_b, port_b) = self.bind().map_err(Refusal::Ports)?;
                (Some((listener_a, listener_b)), port_a, port_b)
            }
        };
        let stop = shared.tasks.token().child_token();
        let session = session::Running::new(permit, live, listeners, admitted, stop.clone());
        let ended = shared.tasks.spawn(session.run());
        Ok(Session { port_a, port_b, stop, ended })
    }

    /// The client tells how its sockets and the device's will authenticate. Believed only of who opened the session, with
    /// the session's nonce.
    pub fn hint(
        &self,
        session_id: &str,
        requester: &str,
        nonce: &str,
        a: Option<AuthMode>,
        b: Option<AuthMode>,
    ) -> bool {
        let Some(live) = self.shared.live(session_id) else { return false };
        if live.spec.requester != requester || live.spec.expected.rvd_nonce != nonce {
            return false;
        }
        live.known.send_modify(|known| {
            for (place, hint) in known.iter_mut().zip([a, b]) {
                // What a socket has shown is better known.
                if place.is_none() {
                    *place = hint;
                }
            }
        });
        true
    }

    /// From now on sessions are told to this journal.
    pub fn keep_journal(&self, journal: Journal) {
        drop(self.shared.journal.set(journal));
    }

    /// From now on guests with tickets may speak TLS first, with this certificate.
    pub fn speak_tls(&self, tls: ServerTls) {
        *self.shared.tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(tls);
    }

    /// A further port where guests are let in as at the port for all, for those whose network allows no other. To be called
    /// within the runtime.
    ///
    /// # Errors
    /// `port` cannot be had.
    pub fn bind_beside(&self, port: u16) -> io::Result<Entrance> {
        let listener = tcp::listen(SocketAddr::new(self.shared.limits.bind, port))?;
        let port = NonZeroU16::new(listener.local_addr()?.port()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Entrance { port, listener })
    }

    /// Lets guests in there.
    pub fn serve_beside(&self, entrance: Entrance) {
        self.shared.tasks.spawn(entrance::serve(entrance.listener, Arc::clone(&self.shared)));
    }

    fn bind(&self) -> io::Result<(TcpListener, NonZeroU16)> {
        let listener = tcp::listen(SocketAddr::new(self.shared.limits.bind, 0))?;
        let port = NonZeroU16::new(listener.local_addr()?.port()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok((listener, port))
    }

    /// Sessions that are open now.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.shared.open().sessions
    }

    /// Sockets of guests that have not authenticated, and of those that have.
    #[must_use]
    pub fn sockets(&self) -> (u32, u32) {
        self.shared.seats.occupied()
    }

    /// What was done since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let counters = &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            sessions: read(&counters.sessions),
            refused: read(&counters.refused),
            pairs: read(&counters.pairs),
            bytes: read(&counters.bytes),
            not_authenticated: read(&counters.not_authenticated),
            tickets_refused: read(&counters.tickets_refused),
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("sessions", &self.sessions()).finish_non_exhaustive()
    }
}

impl Shared {
    /// The counts are changed in single steps, so a poisoned lock is still good.
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, entry: impl FnOnce() -> Entry) {
        if let Some(journal) = self.journal.get() {
            journal.record(entry());
        }
    }

    fn tls(&self) -> Option<ServerTls> {
        self.tls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count_pair(&self, carried: Carried) {
        self.counters.pairs.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(carried.a_to_b + carried.b_to_a, Ordering::Relaxed);
    }

    fn live(&self, session_id: &str) -> Option<Arc<Live>> {
        self.open().live.get(session_id).cloned()
    }
}

/// One session's place in the counts; dropping it gives it back.
struct Permit {
    shared: Arc<Shared>,
    live: Arc<Live>,
}

impl Permit {
    fn take(shared: &Arc<Shared>, live: Live) -> Result<(Self, Arc<Live>), Refusal> {
        let mut open = shared.open();
        if open.sessions >= shared.limits.sessions {
            return Err(Refusal::Full);
        }
        let id = &live.spec.expected.session_id;
        if open.live.contains_key(id) {
            return Err(Refusal::Known);
        }
        let requester = &live.spec.requester;
        let theirs = open.by_requester.get(requester).copied().unwrap_or(0);
        if theirs >= shared.limits.sessions_per_atsign {
            return Err(Refusal::TooManyOfYours);
        }
        let live = Arc::new(live);
        open.sessions += 1;
        open.by_requester.insert(live.spec.requester.clone(), theirs + 1);
        open.live.insert(live.spec.expected.session_id.clone(), Arc::clone(&live));
        Ok((Self { shared: Arc::clone(shared), live: Arc::clone(&live) }, live))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.shared.open();
        open.sessions -= 1;
        open.live.remove(&self.live.spec.expected.session_id);
        let requester = &self.live.spec.requester;
        if let Some(theirs) = open.by_requester.get_mut(requester) {
            *theirs -= 1;
            if *theirs == 0 {
                open.by_requester.remove(requester);
            }
        }
    }
}
