//! Starting a session, and the handle of a live one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postern_net::backoff::Backoff;
use postern_net::tasks::Tasks;
use postern_rendezvous::RelayAddress;
use postern_session::HostPort;
use postern_streams::StreamId;
use tokio::io::{AsyncReadExt as _, DuplexStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use super::driver::{BeginReturn, Connection, Driver, Listen, Order, Part, Start};
use super::end::{End, Facts, Knocking};
use super::ended::{Ended, Progress, State, StreamRefused, Why};
use super::limits::{DIAL_AGAIN, ORDERS, RESUME_PAUSE, RESUME_TRY};
use super::local::Local;
use super::meet::{Ahead, meet, to_first};
use super::plan::{AskAgain, Authorize, Believe, ClientPlan, DevicePlan, DialError, Target, Ticket, Unbelieved};
use crate::pump::Carried;

/// A live session. Clones are handles of the same; when the last is dropped the session goes on until it ends, is closed
/// or its plan's `stop` is cancelled, but for the stream `ClientPlan::first`, which is reset.
#[derive(Clone)]
pub struct Sealed {
    orders: mpsc::Sender<Order>,
    shared: Arc<Shared>,
    first: Arc<Mutex<Option<Outcome>>>,
}

type Outcome = oneshot::Receiver<Result<Carried, StreamRefused>>;

/// What driver and handles both see.
pub(crate) struct Shared {
    facts: Mutex<Facts>,
    progress: Mutex<Progress>,
    /// That of `progress`, for those who wait for it to change.
    state: watch::Sender<State>,
    ended: watch::Sender<Option<Ended>>,
}

impl Shared {
    fn new() -> Arc<Self> {
        let progress = Progress { state: State::Live, carried: Carried::default(), streams: 0, epoch: 0 };
        let (state, ended) = (watch::Sender::new(State::Live), watch::Sender::new(None));
        Arc::new(Self { facts: Mutex::default(), progress: Mutex::new(progress), state, ended })
    }

    pub(crate) fn set_facts(&self, facts: Facts) {
        *lock(&self.facts) = facts;
    }

    pub(crate) fn publish(&self, state: State, carried: Carried, streams: usize, epoch: u32) {
        *lock(&self.progress) = Progress { state, carried, streams, epoch };
        self.state.send_if_modified(|known| std::mem::replace(known, state) != state);
    }

    /// The first word counts.
    pub(crate) fn end(&self, why: Why, carried: Carried) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(Ended { why, carried });
            }
            first
        });
    }

    fn over(&self) -> Why {
        self.ended.borrow().as_ref().map_or(Why::Lost, |ended| ended.why.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Dials a relay, waits for the device's flight (`patience` at most), believes the reply, and starts the session on
/// `tasks`. May be dropped at any time: nothing is left behind. May run while the request is still on its way.
///
/// # Errors
/// See [`DialError`].
pub async fn dial<K: Knocking + 'static, E: End + 'static>(
    plan: ClientPlan<K, E>,
    patience: Duration,
    tasks: &Tasks,
) -> Result<Sealed, DialError> {
    let ClientPlan { relays, ticket, knock, believe, ask_again, resume, first, stop } = plan;
    let (way, end) = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(DialError::Stopped),
        met = meet(&relays, &ticket, 0, knock, &believe, patience) => met?,
    };
    let connection = Connection { way, end: Box::new(end) };
    let resume =
        if ask_again.is_some() { connection.end.resume().unwrap_or(resume).min(resume) } else { Duration::ZERO };
    let again = ask_again.map(|ask_again| begin_return(Again { relays, ticket, believe, ask_again }));
    let part = Part::Client(again.filter(|_| !resume.is_zero()));
    let (first, outcome) = match first {
        Some(local) => {
            let (done, outcome) = oneshot::channel();
            (Some(Some((local.0, done))), Some(outcome))
        }
        None => (None, None),
    };
    let orders = mpsc::channel(ORDERS);
    let sealed = Sealed { orders: orders.0.clone(), shared: Shared::new(), first: Arc::new(Mutex::new(outcome)) };
    let shared = Arc::clone(&sealed.shared);
    let start = Start { part, connection, resume, first, orders, tasks: tasks.clone(), stop, shared };
    drop(tasks.spawn(Driver::new(start).run()));
    Ok(sealed)
}

/// Dials a relay, sends the reply and starts the session on `tasks`. The client has not shown itself yet: no stream is
/// dialled before it has (but for `ssh`, whose bytes flow to the client early).
///
/// # Errors
/// See [`DialError`].
pub async fn serve<E: End + 'static>(plan: DevicePlan<E>, tasks: &Tasks) -> Result<Sealed, DialError> {
    serve_ahead(plan, None, tasks).await
}

/// The same for a device that has begun to dial a relay of the plan's.
///
/// # Errors
/// See [`DialError`].
pub async fn serve_ahead<E: End + 'static>(
    plan: DevicePlan<E>,
    ahead: Option<Ahead>,
    tasks: &Tasks,
) -> Result<Sealed, DialError> {
    let DevicePlan { relays, ticket, end, authorize, ssh, resume, stop } = plan;
    let way = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(DialError::Stopped),
        way = to_first(&relays, &ticket, 0, ahead) => way?,
    };
    let connection = Connection { way, end: Box::new(end) };
    let orders = mpsc::channel(ORDERS);
    let sealed = Sealed { orders: orders.0.clone(), shared: Shared::new(), first: Arc::default() };
    let (part, first, shared) = (Part::Device(authorize), ssh.then_some(None), Arc::clone(&sealed.shared));
    let start = Start { part, connection, resume, first, orders, tasks: tasks.clone(), stop, shared };
    drop(tasks.spawn(Driver::new(start).run()));
    Ok(sealed)
}

/// What a client needs to come back.
struct Again<K: Knocking, E: End> {
    relays: Vec<RelayAddress>,
    ticket: Ticket,
    believe: Believe<K, E>,
    ask_again: AskAgain<K>,
}

fn begin_return<K: Knocking + 'static, E: End + 'static>(again: Again<K, E>) -> BeginReturn {
    let again = Arc::new(again);
    Box::new(move |lost| {
        let again = Arc::clone(&again);
        Box::pin(async move {
            let mut pause = Backoff::new(RESUME_PAUSE[0], RESUME_PAUSE[1]);
            let mut epoch = lost;
            loop {
                epoch = epoch.checked_add(1).ok_or(Why::Lost)?;
                match again.once(epoch).await {
                    Ok(connection) => return Ok((connection, epoch)),
                    Err(Failed::ForGood(why)) => return Err(Why::Refused(why.to_string())),
                    Err(Failed::ForNow) => {}
                }
                sleep(pause.next(u32::from_ne_bytes(postern_crypto::random()))).await;
            }
        })
    })
}

enum Failed {
    ForNow,
    ForGood(Unbelieved),
}

impl<K: Knocking, E: End + 'static> Again<K, E> {
    async fn once(&self, epoch: u32) -> Result<Connection, Failed> {
        let asked = tokio::time::timeout(RESUME_TRY, (self.ask_again)(epoch)).await;
        let Ok(Ok(asked)) = asked else { return Err(Failed::ForNow) };
        tokio::select! {
            met = meet(&self.relays, &self.ticket, epoch, asked.knock, &self.believe, RESUME_TRY) => match met {
                Ok((way, end)) => Ok(Connection { way, end: Box::new(end) }),
                Err(error) => {
                    tracing::debug!(%error, epoch, "not resumed yet");
                    Err(Failed::ForNow)
                }
            },
            why = asked.refused => Err(Failed::ForGood(why)),
        }
    }
}

impl Sealed {
    /// Client: opens a stream to `target` and carries bytes between it and `local` until both directions have ended. Bytes
    /// of `local` go out before the device has answered. Dropping the future resets the stream.
    ///
    /// # Errors
    /// The device refused, or the session is over.
    pub async fn carry(&self, local: Local, target: Target) -> Result<Carried, StreamRefused> {
        let (answer, done) = self.ask(target, Some(local)).await?;
        answer.await.map_err(|_| self.over())??;
        done.await.map_err(|_| self.over())?
    }

    /// Client: like [`Self::carry`], in two steps for who has to tell its local program whether the target was reached
    /// (SOCKS, `SSH_MSG_DISCONNECT`) before it hands over the connection.
    ///
    /// # Errors
    /// The device refused, or the session is over.
    pub async fn open(&self, target: Target) -> Result<Opened, StreamRefused> {
        let (answer, done) = self.ask(target, None).await?;
        let stream = answer.await.map_err(|_| self.over())??;
        Ok(Opened { session: self.clone(), stream, done })
    }

    /// Client: has the device listen on `port` of its loopback. Each connection there is joined with `target`, which `dial`
    /// dials at this end; the device cannot choose another.
    ///
    /// # Errors
    /// The device refused (a device that does not know this says nothing with it), or the session is over.
    pub async fn listen(
        &self,
        port: u16,
        target: HostPort,
        dial: Arc<dyn Authorize>,
    ) -> Result<Listening, StreamRefused> {
        let ((answer, answered), (done, outcome)) = (oneshot::channel(), oneshot::channel());
        let (ours, theirs) = tokio::io::duplex(1);
        let order = Order::Listen { port, listen: Listen { target, dial }, io: Box::new(theirs), answer, done };
        self.orders.send(order).await.map_err(|_| self.over())?;
        answered.await.map_err(|_| self.over())??;
        Ok(Listening { session: self.clone(), control: ours, done: outcome })
    }

    async fn ask(&self, target: Target, local: Option<Local>) -> Result<(Answered, Outcome), StreamRefused> {
        let ((answer, answered), (done, outcome)) = (oneshot::channel(), oneshot::channel());
        let text = match target {
            Target::Ssh => String::new(),
            Target::HostPort(target) => target.to_string(),
        };
        let order = Order::Open { text, io: local.map(|local| local.0), answer, done };
        self.orders.send(order).await.map_err(|_| self.over())?;
        Ok((answered, outcome))
    }

    fn over(&self) -> StreamRefused {
        StreamRefused::Over(self.shared.over())
    }

    /// Client: waits until stream 1 (`ClientPlan::first`) is over. To be called once.
    ///
    /// # Errors
    /// The device could not reach its ssh server, or the session is over.
    pub async fn first(&self) -> Result<Carried, StreamRefused> {
        let first = lock(&self.first).take();
        match first {
            Some(outcome) => outcome.await.map_err(|_| self.over())?,
            None => Err(self.over()),
        }
    }

    /// Device: goes on with an accepted request of a higher epoch. Returns once a relay has been dialled and the reply
    /// is on its way; the old connection is let go. A relay that is not there yet, or a network that is not back, is tried
    /// again while the client waits.
    ///
    /// # Errors
    /// No relay could be reached in that time, a later request was faster, or the session is over; but in the last case it
    /// goes on waiting for another request.
    pub async fn resume<E: End + 'static>(
        &self,
        end: E,
        epoch: u32,
        relays: &[RelayAddress],
        ticket: &Ticket,
    ) -> Result<(), DialError> {
        let (begun, mut pause) = (Instant::now(), Backoff::new(DIAL_AGAIN[0], DIAL_AGAIN[1]));
        let way = loop {
            match to_first(relays, ticket, epoch, None).await {
                Ok(way) => break way,
                Err(error) if begun.elapsed() > RESUME_TRY || !self.is_behind(epoch) => return Err(error),
                Err(DialError::Unreachable(..)) => {
                    sleep(pause.next(u32::from_ne_bytes(postern_crypto::random()))).await;
                }
                Err(error) => return Err(error),
            }
        };
        let connection = Connection { way, end: Box::new(end) };
        self.orders.send(Order::Replace(connection, epoch)).await.map_err(|_| DialError::Stopped)
    }

    /// Nobody has come with this epoch or a later one, and the session is not over.
    fn is_behind(&self, epoch: u32) -> bool {
        let progress = lock(&self.shared.progress);
        progress.epoch < epoch && progress.state != State::Over
    }

    /// What the handshake agreed on (the latest, when the session was resumed).
    #[must_use]
    pub fn facts(&self) -> Facts {
        lock(&self.shared.facts).clone()
    }

    /// How the session stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        lock(&self.shared.progress).clone()
    }

    /// Waits until the session is in this state. For ever, where it ends before.
    pub async fn reaches(&self, state: State) {
        // The sender lives in `self`.
        let _ = self.shared.state.subscribe().wait_for(|now| *now == state).await;
    }

    /// Closes the session at both ends. `why` is told to the other end (256 characters at most). [`Self::ended`] tells when
    /// that is done.
    pub async fn close(&self, why: &str) {
        // Over already: nothing to close.
        let _ = self.orders.send(Order::Close(why.to_owned())).await;
    }

    /// Device: closes the session because the client is no longer permitted what it does. `why` is told to it.
    pub async fn revoke(&self, why: &str) {
        let _ = self.orders.send(Order::Revoke(why.to_owned())).await;
    }

    /// Waits until the session is over. Can be called by many, and late.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.shared.ended.subscribe();
        let found = ended.wait_for(Option::is_some).await.ok().and_then(|ended| (*ended).clone());
        // The sender lives in `self`.
        found.unwrap_or(Ended { why: Why::Lost, carried: Carried::default() })
    }
}

type Answered = oneshot::Receiver<Result<StreamId, StreamRefused>>;

/// A stream that the device has accepted and that waits for its local end. Dropped: reset.
pub struct Opened {
    session: Sealed,
    stream: StreamId,
    done: Outcome,
}

impl Opened {
    /// Carries bytes until both directions have ended. Dropping the future resets the stream.
    ///
    /// # Errors
    /// The stream was reset, or the session ended.
    pub async fn carry(self, local: Local) -> Result<Carried, StreamRefused> {
        let over = || self.session.over();
        let order = Order::Attach { stream: self.stream, io: local.0 };
        self.session.orders.send(order).await.map_err(|_| over())?;
        self.done.await.map_err(|_| over())?
    }
}

/// A port of the device's loopback that is listened on for us. Dropped: it is closed.
pub struct Listening {
    session: Sealed,
    control: DuplexStream,
    done: Outcome,
}

impl Listening {
    /// Waits until the device has closed the port, or the session is over.
    ///
    /// # Errors
    /// The session ended, or the device broke off.
    pub async fn ended(self) -> Result<(), StreamRefused> {
        let Self { session, mut control, done } = self;
        // Nothing is ever said on it.
        let _ = control.read(&mut [0]).await;
        drop(control);
        done.await.map_err(|_| session.over())?.map(drop)
    }
}
