//! The sealed sessions of an agent: one for each device, with many streams.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postern_link::sealed::{Future, Local, Opened, Sealed, State, StreamRefused, Target};
use postern_net::tasks::Tasks;
use postern_session::HostPort;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

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
    held: Arc<Mutex<All>>,
    dialler: Box<dyn Dialler>,
    tasks: Tasks,
}

#[derive(Default)]
struct All {
    /// Those that the next wish may use.
    usable: BTreeMap<Key, Arc<Held>>,
    /// Those that did not answer when they were wanted. What goes through them may come back to life; nothing is added.
    retired: Vec<Arc<Held>>,
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

/// A stream whose target was reached.
pub(super) struct Stream {
    pub(super) live: bool,
    pub(super) told: Vec<String>,
    way: Way,
    _use: Use,
}

enum Way {
    /// The session's first stream, which has its local end.
    First(Sealed),
    Further(Opened, StdUnixStream),
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

    /// Finds the session that a wish may use, or sets one up. Whoever comes meanwhile waits for the same. One that does not
    /// answer any more is not waited for: the device may be away, and only a new one tells.
    pub(super) async fn begin(&self, wish: Wish, socket: StdUnixStream) -> Result<Stream, Failure> {
        let target = match wish.target.clone() {
            None => Target::Ssh,
            Some((host, port)) => Target::HostPort(HostPort { host, port }),
        };
        let mut socket = Some(socket);
        loop {
            let (held, live) = self.hold(&wish, &mut socket);
            let in_use = Use::new(Arc::clone(&held));
            let Dialled { session, told } = held.outcome().await?;
            let told = if live { Vec::new() } else { told };
            let Some(local) = socket.take() else {
                return Ok(Stream { live, told, way: Way::First(session), _use: in_use });
            };
            match held.open(&session, target.clone(), wish.patience).await {
                Some(Ok(opened)) => return Ok(Stream { live, told, way: Way::Further(opened, local), _use: in_use }),
                None | Some(Err(StreamRefused::Over(_))) if live => lock(&self.held).retire(&held),
                None => return Err(Failure { why: "the device does not answer".into(), refusal: false }),
                Some(Err(refused)) => return Err(refused.into()),
            }
            socket = Some(local);
        }
    }

    /// `true`: it was there.
    fn hold(&self, wish: &Wish, local: &mut Option<StdUnixStream>) -> (Arc<Held>, bool) {
        let key = key(wish, &self.dialler.ground(wish));
        let mut all = lock(&self.held);
        if let Some(held) = all.usable.get(&key).map(Arc::clone) {
            if !held.is_suspended() {
                return (held, true);
            }
            all.retire(&held);
        }
        let held = Arc::new(Held {
            wish: wish.clone(),
            since: Instant::now(),
            used: Mutex::new(Instant::now()),
            streams: AtomicUsize::new(0),
            outcome: watch::Sender::new(None),
        });
        all.usable.insert(key.clone(), Arc::clone(&held));
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
                lock(&all).forget(&ours);
            }
            ours.outcome.send_replace(Some(outcome));
            if let Some(session) = session {
                session.ended().await;
                lock(&all).forget(&ours);
            }
        }));
        (held, false)
    }

    /// Closes sessions that nobody has used for long.
    pub(super) fn sweep(&self) {
        let mut spare = Vec::new();
        let mut keep = |held: &Arc<Held>, limit: Duration| {
            let idle = held.streams.load(Ordering::Relaxed) == 0 && lock(&held.used).elapsed() >= limit;
            if idle {
                spare.extend(held.session());
            }
            !idle
        };
        let mut all = lock(&self.held);
        all.usable.retain(|_, held| keep(held, SPARE_SESSION));
        all.retired.retain(|held| keep(held, Duration::ZERO));
        drop(all);
        for session in spare {
            drop(self.tasks.spawn(async move { session.close("not needed any more").await }));
        }
    }

    /// Says goodbye to all devices.
    pub(super) async fn close(&self) {
        let all = std::mem::take(&mut *lock(&self.held));
        let all = all.usable.into_values().chain(all.retired);
        let sessions: Vec<Sealed> = all.filter_map(|held| held.session()).collect();
        for session in &sessions {
            session.close("the agent stops").await;
        }
        for session in sessions {
            session.ended().await;
        }
    }

    pub(super) fn status(&self) -> Vec<SessionStatus> {
        let all = lock(&self.held);
        all.usable.values().chain(&all.retired).filter_map(|held| held.status()).collect()
    }
}

impl All {
    fn retire(&mut self, held: &Arc<Held>) {
        if self.forget(held) {
            self.retired.push(Arc::clone(held));
        }
    }

    /// `true`: it was usable until now. Another may stand in its place.
    fn forget(&mut self, held: &Arc<Held>) -> bool {
        let before = self.usable.len();
        self.usable.retain(|_, other| !Arc::ptr_eq(other, held));
        self.retired.retain(|other| !Arc::ptr_eq(other, held));
        self.usable.len() < before
    }
}

impl Held {
    /// Waits until it is set up.
    async fn outcome(&self) -> Result<Dialled, Failure> {
        let mut outcome = self.outcome.subscribe();
        let told = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| (*outcome).clone());
        told.unwrap_or_else(|| Err(Failure { why: "the agent stops".into(), refusal: false }))
    }

    /// Opens a stream. `None`: nothing was heard of the device. Its own ssh server it reaches at once; what lies behind it may
    /// take longer, and it says so when that cannot be reached.
    async fn open(
        &self,
        session: &Sealed,
        target: Target,
        patience: Duration,
    ) -> Option<Result<Opened, StreamRefused>> {
        let is_near = target == Target::Ssh;
        let opening = session.open(target);
        tokio::pin!(opening);
        loop {
            match timeout(patience, &mut opening).await {
                Ok(answer) => return Some(answer),
                Err(_) if is_near || self.is_suspended() => return None,
                Err(_) => {}
            }
        }
    }

    /// Its way is lost at the moment.
    fn is_suspended(&self) -> bool {
        self.session().is_some_and(|session| session.progress().state != State::Live)
    }

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
        let carried = match self.way {
            Way::First(session) => session.first().await,
            Way::Further(opened, socket) => {
                let local = local_of(&socket).map_err(|error| Failure { why: error.to_string(), refusal: false })?;
                // Whoever reads it at the other end waits until the last of us has let go.
                drop(socket);
                opened.carry(local).await
            }
        };
        carried.map(drop).map_err(Failure::from)
    }
}

impl From<StreamRefused> for Failure {
    fn from(refused: StreamRefused) -> Self {
        let refusal = matches!(refused, StreamRefused::Refused(..));
        Self { why: refused.to_string(), refusal }
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
