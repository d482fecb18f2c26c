//! The relay's engine: opens sessions within limits and counts them. One session is one task, see [`session`](self).

mod guest;
mod session;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postern_net::pump::Carried;
use postern_net::seats::Seats;
use postern_net::tasks::Tasks;
use postern_net::tcp;
use postern_rendezvous::{Expected, HashAlgo, Side};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::limits::RelayLimits;

/// Whether this signature over this text is of the atSign to which the side belongs. Called on the relay's tasks: it
/// must not block for longer than a signature takes.
pub type Verify = Arc<dyn Fn(Side, &str, &[u8], HashAlgo) -> bool + Send + Sync>;

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
    /// Checks their signatures.
    pub verify: Verify,
}

impl fmt::Debug for SessionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSpec").field("expected", &self.expected).finish_non_exhaustive()
    }
}

/// Two ports are open.
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
    /// No port could be opened; the reason is for the relay's operator.
    Ports(io::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "this relay is full; try again later or use another relay",
            Self::TooManyOfYours => "your atSign has too many sessions open on this relay",
            Self::Stopping => "this relay is shutting down",
            Self::Ports(_) => "this relay could not open ports",
        })
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Ports(error) => Some(error),
            Self::Full | Self::TooManyOfYours | Self::Stopping => None,
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
}

#[derive(Default)]
struct Open {
    sessions: usize,
    by_requester: BTreeMap<String, usize>,
}

#[derive(Default)]
struct Counters {
    sessions: AtomicU64,
    refused: AtomicU64,
    pairs: AtomicU64,
    bytes: AtomicU64,
    not_authenticated: AtomicU64,
}

impl Relay {
    /// A relay without sessions. They run on `tasks` and stop with its token.
    #[must_use]
    pub fn new(limits: RelayLimits, tasks: Tasks) -> Self {
        let seats = Seats::new(limits.seats);
        let (open, counters) = (Mutex::default(), Counters::default());
        Self { shared: Arc::new(Shared { limits, seats, tasks, open, counters }) }
    }

    /// Opens two ports for a session. To be called within the runtime.
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
        let permit = Permit::take(shared, &spec.requester)?;
        let (listener_a, port_a) = self.bind().map_err(Refusal::Ports)?;
        let (listener_b, port_b) = self.bind().map_err(Refusal::Ports)?;
        let stop = shared.tasks.token().child_token();
        let session = session::Running::new(permit, spec, listener_a, listener_b, stop.clone());
        let ended = shared.tasks.spawn(session.run());
        Ok(Session { port_a, port_b, stop, ended })
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
}

/// One session's place in the counts; dropping it gives it back.
struct Permit {
    shared: Arc<Shared>,
    requester: String,
}

impl Permit {
    fn take(shared: &Arc<Shared>, requester: &str) -> Result<Self, Refusal> {
        let mut open = shared.open();
        if open.sessions >= shared.limits.sessions {
            return Err(Refusal::Full);
        }
        let theirs = open.by_requester.get(requester).copied().unwrap_or(0);
        if theirs >= shared.limits.sessions_per_atsign {
            return Err(Refusal::TooManyOfYours);
        }
        open.sessions += 1;
        open.by_requester.insert(requester.to_owned(), theirs + 1);
        Ok(Self { shared: Arc::clone(shared), requester: requester.to_owned() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.shared.open();
        open.sessions -= 1;
        if let Some(theirs) = open.by_requester.get_mut(&self.requester) {
            *theirs -= 1;
            if *theirs == 0 {
                open.by_requester.remove(&self.requester);
            }
        }
    }
}
