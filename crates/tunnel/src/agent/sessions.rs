//! The sealed sessions of an agent: one for each device, with many streams.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postern_link::sealed::{Future, Local, Sealed, State, Target};
use postern_net::tasks::Tasks;
use postern_session::HostPort;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::limits::SPARE_SESSION;
use super::words::{Answer, SessionStatus, Wish};
use crate::trouble::Trouble;

/// Who sets sessions up.
pub(super) trait Dialler: Send + Sync {
    /// What is known of the device's keys: a session stands on that, and what comes after a change does not use it.
    fn ground(&self, wish: &Wish) -> String;

    /// Sets one up. It carries what was given as its first stream, to the device's ssh server.
    fn dial(&self, wish: Wish, first: Option<StdUnixStream>) -> Future<'static, Result<Dialled, Failure>>;
}

/// A session that stands, and what is to be told of how it came about.
#[derive(Clone)]
pub(super) struct Dialled {
    pub(super) session: Sealed,
    pub(super) told: Vec<String>,
}

/// Why there is none, for the user.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) why: String,
    pub(super) refusal: bool,
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self { why: trouble.to_string(), refusal: trouble.is_refusal() }
    }
}

impl From<Failure> for Answer {
    fn from(Failure { why, refusal }: Failure) -> Self {
        Self::Failed { why, refusal }
    }
}

pub(super) struct Sessions {
    held: Arc<Mutex<BTreeMap<Key, Arc<Held>>>>,
    dialler: Box<dyn Dialler>,
    tasks: Tasks,
}

/// Whose session to which device, and everything else by which two wishes may not share one.
type Key = String;

struct Held {
    wish: Wish,
    since: Instant,
    /// When its last stream began or ended.
    used: Mutex<Instant>,
    streams: AtomicUsize,
    outcome: watch::Sender<Option<Result<Dialled, Failure>>>,
}

/// A stream whose session stands.
pub(super) struct Stream {
    pub(super) live: bool,
    pub(super) told: Vec<String>,
    session: Sealed,
    /// `None`: it is the session's first, which has its local end already.
    local: Option<StdUnixStream>,
    target: Target,
    _use: Use,
}

/// One more stream; ends with it.
struct Use(Arc<Held>);

impl Use {
    fn new(held: Arc<Held>) -> Self {
        held.streams.fetch_add(1, Ordering::Relaxed);
        Self(held)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        *lock(&self.0.used) = Instant::now();
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sessions {
    pub(super) fn new(dialler: Box<dyn Dialler>, tasks: Tasks) -> Self {
        Self { held: Arc::default(), dialler, tasks }
    }

    /// Finds the session that a wish may use, or sets one up. Whoever comes meanwhile waits for the same.
    pub(super) async fn begin(&self, wish: Wish, local: StdUnixStream) -> Result<Stream, Failure> {
        let target = match wish.target.clone() {
            None => Target::Ssh,
            Some((host, port)) => Target::HostPort(HostPort { host, port }),
        };
        let mut local = Some(local);
        let (held, live) = self.hold(&wish, &mut local);
        let in_use = Use::new(Arc::clone(&held));
        let mut outcome = held.outcome.subscribe();
        // The task that tells it holds the sender's end as long as we hold `held`.
        let told = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| (*outcome).clone());
        let Dialled { session, told } =
            told.unwrap_or_else(|| Err(Failure { why: "the agent stops".into(), refusal: false }))?;
        let told = if live { Vec::new() } else { told };
        Ok(Stream { live, told, session, local, target, _use: in_use })
    }

    /// `true`: it was there.
    fn hold(&self, wish: &Wish, local: &mut Option<StdUnixStream>) -> (Arc<Held>, bool) {
        let key = key(wish, &self.dialler.ground(wish));
        let mut all = lock(&self.held);
        if let Some(held) = all.get(&key) {
            return (Arc::clone(held), true);
        }
        let held = Arc::new(Held {
            wish: wish.clone(),
            since: Instant::now(),
            used: Mutex::new(Instant::now()),
            streams: AtomicUsize::new(0),
            outcome: watch::Sender::new(None),
        });
        all.insert(key.clone(), Arc::clone(&held));
        drop(all);
        let first = local.take_if(|_| wish.target.is_none());
        let dialling = self.dialler.dial(wish.clone(), first);
        let (all, ours, stop) = (Arc::clone(&self.held), Arc::clone(&held), self.tasks.token().clone());
        // A task of its own: that the first who wanted it has left is nothing to those who wait beside it.
        drop(self.tasks.spawn(async move {
            let outcome = tokio::select! {
                biased; // stopping first
                () = stop.cancelled() => Err(Failure { why: "the agent stops".into(), refusal: false }),
                outcome = dialling => outcome,
            };
            let session = outcome.as_ref().ok().map(|dialled| dialled.session.clone());
            if session.is_none() {
                // Whoever comes now tries again.
                forget(&all, &key, &ours);
            }
            ours.outcome.send_replace(Some(outcome));
            if let Some(session) = session {
                session.ended().await;
                forget(&all, &key, &ours);
            }
        }));
        (held, false)
    }

    /// Closes sessions that nobody has used for long.
    pub(super) fn sweep(&self) {
        let mut spare = Vec::new();
        lock(&self.held).retain(|_, held| {
            let idle = held.streams.load(Ordering::Relaxed) == 0 && lock(&held.used).elapsed() >= SPARE_SESSION;
            if idle {
                spare.extend(held.session());
            }
            !idle
        });
        for session in spare {
            drop(self.tasks.spawn(async move { session.close("not needed any more").await }));
        }
    }

    /// Says goodbye to all devices.
    pub(super) async fn close(&self) {
        let all = std::mem::take(&mut *lock(&self.held));
        let sessions: Vec<Sealed> = all.into_values().filter_map(|held| held.session()).collect();
        for session in &sessions {
            session.close("the agent stops").await;
        }
        for session in sessions {
            session.ended().await;
        }
    }

    pub(super) fn status(&self) -> Vec<SessionStatus> {
        lock(&self.held).values().filter_map(|held| held.status()).collect()
    }
}

impl Held {
    fn session(&self) -> Option<Sealed> {
        self.outcome.borrow().as_ref()?.as_ref().ok().map(|dialled| dialled.session.clone())
    }

    fn status(&self) -> Option<SessionStatus> {
        let session = self.session()?;
        let (facts, progress) = (session.facts(), session.progress());
        let state = match progress.state {
            State::Live => "live",
            State::Suspended => "suspended",
            State::Over => "over",
        };
        Some(SessionStatus {
            from: self.wish.from.clone(),
            to: self.wish.to.clone(),
            device: self.wish.device.clone(),
            state: state.to_owned(),
            seconds: self.since.elapsed().as_secs(),
            streams: progress.streams,
            bytes_out: progress.carried.out,
            bytes_back: progress.carried.back,
            key_exchange: facts.key_exchange,
            cipher: facts.cipher,
        })
    }
}

impl Stream {
    /// Carries the bytes to their end.
    pub(super) async fn run(self) -> Result<(), Failure> {
        let carried = match self.local {
            Some(socket) => {
                let local = local_of(&socket).map_err(|error| Failure { why: error.to_string(), refusal: false })?;
                // Whoever reads it at the other end waits until the last of us has let go.
                drop(socket);
                self.session.carry(local, self.target).await
            }
            None => self.session.first().await,
        };
        let refusal = matches!(carried, Err(postern_link::sealed::StreamRefused::Refused(..)));
        carried.map(drop).map_err(|why| Failure { why: why.to_string(), refusal })
    }
}

fn forget(all: &Mutex<BTreeMap<Key, Arc<Held>>>, key: &Key, ours: &Arc<Held>) {
    let mut all = lock(all);
    // Another may stand in its place by now.
    if all.get(key).is_some_and(|held| Arc::ptr_eq(held, ours)) {
        all.remove(key);
    }
}

/// Two wishes with the same key are the same but for what they want there.
fn key(wish: &Wish, ground: &str) -> Key {
    let one = Wish { target: None, patience: Duration::ZERO, verbose: false, ..wish.clone() };
    format!("{} {ground}", serde_json::to_string(&one).unwrap_or_default())
}

/// One end of a socket pair, as the session takes it.
pub(super) fn local_of(socket: &StdUnixStream) -> io::Result<Local> {
    let socket = socket.try_clone()?;
    socket.set_nonblocking(true)?;
    Ok(Local::from(UnixStream::from_std(socket)?))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
