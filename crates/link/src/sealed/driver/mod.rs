//! One task per session: sockets on one side, frames and TLS on the other. It moves bytes and asks `Streams` what to do.

mod clock;
mod input;
mod listen;
mod locals;
mod orders;
mod output;
mod way;

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use postern_net::tasks::Tasks;
use postern_streams::{Side, StreamId, Streams};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

pub(crate) use self::listen::Listen;
pub(crate) use self::orders::Order;
use self::way::{Leaving, Link};
use super::end::End;
use super::ended::{State, StreamRefused, Why};
use super::limits::{PROOF_WITHIN, WRITE_WITHIN};
use super::local::Io;
use super::meet::Way;
use super::plan::{Authorize, Future, Target};
use super::ready::ReadyList;
use super::session::Shared;
use super::slot::{Done, Slot};
use crate::pump::Carried;

/// A way to the other end and the TLS over it.
pub(crate) struct Connection {
    pub(crate) way: Way,
    pub(crate) end: Box<dyn End>,
}

/// Tries to come back until it works or nobody wants it any more: the connection and its epoch.
pub(crate) type Return = Future<'static, Result<(Connection, u32), Why>>;

/// Begins to come back; the argument is the epoch that was lost.
pub(crate) type BeginReturn = Box<dyn FnMut(u32) -> Return + Send>;

/// What the sides differ in.
pub(crate) enum Part {
    /// `None`: resumption is off.
    Client(Option<BeginReturn>),
    Device(Arc<dyn Authorize>),
}

pub(crate) struct Driver {
    streams: Streams,
    part: Part,
    slots: BTreeMap<StreamId, Slot>,
    /// The client: what it has asked the device to listen for, by the stream that asks.
    listens: BTreeMap<StreamId, Listen>,
    link: Option<Link>,
    returning: Option<Return>,
    epoch: u32,
    /// The other end has shown who it is, at least once.
    proven: bool,
    ready: Arc<ReadyList>,
    woken: Vec<StreamId>,
    /// Streams for which bytes have come that are not written yet.
    dirty: Vec<StreamId>,
    orders: mpsc::Receiver<Order>,
    /// For dialled targets.
    own_orders: mpsc::Sender<Order>,
    tasks: Tasks,
    stop: CancellationToken,
    stopped: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    shared: Arc<Shared>,
    carried: Carried,
    resume: Duration,
    start: Instant,
    timer: Pin<Box<Sleep>>,
    /// When buffers were last used; `None`: they are let go.
    used: Option<Duration>,
    leaving: Option<Leaving>,
    over: Option<Why>,
}

/// What a session is made of.
pub(crate) struct Start {
    pub(crate) part: Part,
    pub(crate) connection: Connection,
    pub(crate) resume: Duration,
    /// Stream 1 is open from the start; the client's local end of it.
    pub(crate) first: Option<Option<(Box<dyn Io>, Done)>>,
    pub(crate) orders: (mpsc::Sender<Order>, mpsc::Receiver<Order>),
    pub(crate) tasks: Tasks,
    pub(crate) stop: CancellationToken,
    pub(crate) shared: Arc<Shared>,
}

impl Driver {
    pub(crate) fn new(start: Start) -> Self {
        let side = if matches!(start.part, Part::Client(_)) { Side::Client } else { Side::Device };
        let prove_by = (side == Side::Device).then_some(PROOF_WITHIN);
        start.shared.set_facts(start.connection.end.facts());
        let mut driver = Self {
            streams: Streams::new(side, start.resume, Duration::ZERO),
            part: start.part,
            slots: BTreeMap::new(),
            listens: BTreeMap::new(),
            link: Some(Link::new(start.connection, prove_by)),
            returning: None,
            epoch: 0,
            proven: side == Side::Client,
            ready: Arc::default(),
            woken: Vec::new(),
            dirty: Vec::new(),
            orders: start.orders.1,
            own_orders: start.orders.0,
            tasks: start.tasks,
            stopped: Some(Box::pin(start.stop.clone().cancelled_owned())),
            stop: start.stop.child_token(),
            shared: start.shared,
            carried: Carried::default(),
            resume: start.resume,
            start: Instant::now(),
            timer: Box::pin(sleep_until(Instant::now())),
            used: None,
            leaving: None,
            over: None,
        };
        match start.first {
            None => {}
            Some(None) => {
                let stream = driver.streams.preopen();
                driver.dial(stream, Target::Ssh);
            }
            Some(Some((io, done))) => {
                let stream = driver.streams.preopen();
                let slot = driver.slot(stream);
                slot.attach(io);
                slot.done = Some(done);
                driver.streams.ready(stream);
            }
        }
        driver
    }

    /// Runs the session to its end.
    pub(crate) async fn run(mut self) {
        let _last = Last(Arc::clone(&self.shared));
        let why = std::future::poll_fn(|cx| self.poll(cx)).await;
        self.stop.cancel();
        for slot in self.slots.values_mut() {
            slot.tell(Err(StreamRefused::Over(why.clone())));
        }
        self.slots.clear();
        self.orders.close();
        self.shared.end(why, self.carried);
        if let Some(link) = self.link.take() {
            let _ = tokio::time::timeout(WRITE_WITHIN, drain(link.socket)).await;
        }
    }

    fn is_device(&self) -> bool {
        matches!(self.part, Part::Device(_))
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Why> {
        loop {
            self.look_at_stop(cx);
            let mut busy = self.take_orders(cx);
            busy |= self.come_back(cx);
            busy |= self.read_relay(cx);
            busy |= self.look_at_locals(cx);
            busy |= self.write_relay(cx);
            self.finish_leaving();
            if let Some(why) = self.over.take() {
                self.publish(State::Over);
                return Poll::Ready(why);
            }
            if !busy && !self.look_at_clock(cx) {
                break;
            }
        }
        self.publish(if self.link.is_some() { State::Live } else { State::Suspended });
        Poll::Pending
    }

    fn publish(&self, state: State) {
        self.shared.publish(state, self.carried, self.streams.len(), self.epoch);
    }

    fn slot(&mut self, stream: StreamId) -> &mut Slot {
        let ready = &self.ready;
        self.slots.entry(stream).or_insert_with(|| Slot::new(ready.waker(stream)))
    }
}

/// Whatever happens to the task: nobody waits for its end in vain.
struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.end(Why::Broken("its task was stopped".into()), Carried::default());
    }
}

/// Closes our direction and waits for the other to be closed: unread bytes would turn our last words into a reset.
async fn drain(mut socket: Box<dyn Io>) -> io::Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    socket.shutdown().await?;
    let mut sink = [0; 1024];
    while socket.read(&mut sink).await? > 0 {}
    Ok(())
}
