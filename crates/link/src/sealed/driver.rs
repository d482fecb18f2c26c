//! One task per session: sockets on one side, frames and TLS on the other. It moves bytes and asks `Streams` what to do.

use std::collections::BTreeMap;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use postern_net::tasks::Tasks;
use postern_session::HostPort;
use postern_streams::{Event, RefusalCode, Side, StreamId, Streams, Timeout};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::end::End;
use super::ended::{State, StreamRefused, Why};
use super::limits::{BATCH, FIRST_BATCH, LINGER, PROOF_WITHIN, REST_AFTER, SMALL, WRITE_WITHIN};
use super::local::Io;
use super::meet::{Way, is_refusal, is_whole, refusal};
use super::plan::{Authorize, Future, Refusal, Target};
use super::ready::ReadyList;
use super::session::Shared;
use super::slot::{Answer, Done, Slot};
use crate::pump::Carried;

/// What a handle asks of the driver.
pub(crate) enum Order {
    Open { target: Target, io: Option<Box<dyn Io>>, answer: Answer, done: Done },
    Attach { stream: StreamId, io: Box<dyn Io> },
    Dialled { stream: StreamId, outcome: Result<TcpStream, Refusal> },
    Replace(Connection, u32),
    Close(String),
}

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

/// The last moments of a session.
struct Leaving {
    why: Why,
    until: Duration,
    /// We have said GOODBYE; else the other end has.
    ours: bool,
    said: bool,
}

/// A live connection.
struct Link {
    socket: Box<dyn Io>,
    end: Box<dyn End>,
    /// Bytes of TLS that came; `have` of them.
    input: Vec<u8>,
    have: usize,
    /// Bytes of TLS to go; `sent` of them are gone.
    output: Vec<u8>,
    sent: usize,
    /// Small frames that are about to share a record.
    small: Vec<u8>,
    /// Nothing has come yet.
    fresh: bool,
    /// Something came with the handshake that was not looked at.
    unseen: bool,
    prove_by: Option<Duration>,
}

impl Link {
    fn new(connection: Connection, prove_by: Option<Duration>) -> Self {
        let Connection { way, end } = connection;
        let have = way.read.len();
        Self {
            socket: way.socket,
            end,
            input: way.read,
            have,
            output: Vec::new(),
            sent: 0,
            small: Vec::new(),
            fresh: have == 0,
            unseen: have > 0,
            prove_by,
        }
    }
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

    // ---- orders

    fn look_at_stop(&mut self, cx: &mut Context<'_>) {
        if let Some(stopped) = self.stopped.as_mut()
            && stopped.as_mut().poll(cx).is_ready()
        {
            self.stopped = None;
            self.leave(Why::Closed("stopped".into()), STOPPING);
        }
    }

    fn take_orders(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        while let Poll::Ready(Some(order)) = self.orders.poll_recv(cx) {
            busy = true;
            match order {
                Order::Open { target, io, answer, done } => self.open(&target, io, answer, done),
                Order::Attach { stream, io } => {
                    if let Some(slot) = self.slots.get_mut(&stream) {
                        slot.attach(io);
                        self.streams.ready(stream);
                        self.write_local(stream);
                    }
                }
                Order::Dialled { stream, outcome } => self.dialled(stream, outcome),
                Order::Replace(connection, epoch) => self.replace(connection, epoch),
                Order::Close(why) => self.leave(Why::Closed(why), DONE),
            }
        }
        busy
    }

    fn slot(&mut self, stream: StreamId) -> &mut Slot {
        let ready = &self.ready;
        self.slots.entry(stream).or_insert_with(|| Slot::new(ready.waker(stream)))
    }

    fn open(&mut self, target: &Target, io: Option<Box<dyn Io>>, answer: Answer, done: Done) {
        let text = match target {
            Target::Ssh => String::new(),
            Target::HostPort(target) => target.to_string(),
        };
        let Some(stream) = self.streams.open(&text) else {
            let _ = answer.send(Err(StreamRefused::TooMany));
            return;
        };
        let slot = self.slot(stream);
        slot.answer = Some(answer);
        slot.done = Some(done);
        // Looked at once, so that dropping the handle wakes us.
        slot.is_abandoned();
        if let Some(io) = io {
            slot.attach(io);
            self.streams.ready(stream);
        }
    }

    /// The device: authorises and dials in a task of its own.
    fn dial(&mut self, stream: StreamId, target: Target) {
        let Part::Device(authorize) = &self.part else { return };
        let (authorize, orders, stop) = (Arc::clone(authorize), self.own_orders.clone(), self.stop.clone());
        self.slot(stream);
        drop(self.tasks.spawn(async move {
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                outcome = authorize.dial(&target) => outcome,
            };
            let _ = orders.send(Order::Dialled { stream, outcome }).await;
        }));
    }

    fn dialled(&mut self, stream: StreamId, outcome: Result<TcpStream, Refusal>) {
        match outcome {
            Ok(socket) => {
                if !self.streams.accept(stream) {
                    return;
                }
                let _ = postern_net::tcp::tune(&socket);
                self.slot(stream).attach(Box::new(socket));
                self.streams.ready(stream);
                self.write_local(stream);
            }
            Err(Refusal { code, text }) => {
                self.slots.remove(&stream);
                self.streams.refuse(stream, code, &text);
            }
        }
    }

    // ---- the way to the other end

    fn replace(&mut self, connection: Connection, epoch: u32) {
        if self.leaving.is_some() || epoch <= self.epoch {
            return;
        }
        let now = self.now();
        self.shared.set_facts(connection.end.facts());
        self.epoch = epoch;
        let prove_by = matches!(self.part, Part::Device(_)).then(|| now + PROOF_WITHIN);
        self.link = Some(Link::new(connection, prove_by));
        self.streams.resumed(now);
        self.returning = None;
    }

    fn come_back(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(returning) = self.returning.as_mut() else { return false };
        let Poll::Ready(outcome) = returning.as_mut().poll(cx) else { return false };
        self.returning = None;
        match outcome {
            Ok((connection, epoch)) => self.replace(connection, epoch),
            Err(why) => self.over = Some(why),
        }
        true
    }

    fn lost(&mut self, why: Why) {
        let now = self.now();
        self.link = None;
        if let Some(leaving) = self.leaving.take() {
            self.over = Some(leaving.why);
            return;
        }
        // Who has never shown itself has nothing to come back to.
        if !self.proven || !self.streams.lost(now) {
            self.over = Some(why);
            return;
        }
        if let Part::Client(Some(begin)) = &mut self.part {
            self.returning = Some(begin(self.epoch));
        }
    }

    /// Says goodbye, as far as there is somebody to say it to.
    fn leave(&mut self, why: Why, code: u16) {
        if self.leaving.is_some() || self.over.is_some() {
            return;
        }
        self.returning = None;
        if self.link.is_none() {
            self.over = Some(why);
            return;
        }
        self.streams.goodbye(code, &why.to_string());
        self.leaving = Some(Leaving { why, until: self.now() + WRITE_WITHIN, ours: true, said: false });
    }

    fn finish_leaving(&mut self) {
        let now = self.now();
        let Some(leaving) = &self.leaving else { return };
        let flushed = self.link.as_ref().is_none_or(|link| link.output.is_empty());
        let served = leaving.ours || self.slots.values().all(|slot| !slot.waits());
        if leaving.said && flushed && served || now >= leaving.until {
            self.over = Some(leaving.why.clone());
        }
    }

    fn read_relay(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        // What came with the handshake is looked at before more is read.
        if self.link.as_mut().is_some_and(|link| std::mem::take(&mut link.unseen)) {
            busy = true;
            self.take_input();
        }
        while let Some(link) = self.link.as_mut() {
            if link.have == link.input.len() {
                if link.have >= BATCH {
                    self.over = Some(Why::Broken("it sent a record that does not end".into()));
                    return true;
                }
                link.input.resize((2 * link.have).clamp(FIRST_BATCH, BATCH), 0);
            }
            let mut buffer = ReadBuf::new(link.input.get_mut(link.have..).unwrap_or_default());
            let read = match Pin::new(&mut link.socket).poll_read(cx, &mut buffer) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => buffer.filled().len(),
                Poll::Ready(Err(_)) => 0,
            };
            busy = true;
            if read == 0 {
                self.ended_by_relay();
                break;
            }
            link.have += read;
            let full = link.have == link.input.len();
            if full {
                link.input.resize((2 * link.have).min(BATCH), 0);
            }
            self.used = Some(self.start.elapsed());
            self.take_input();
            if !full {
                // The rest of the kernel's buffer, if any, comes with the next round: others have their turn.
                break;
            }
        }
        busy
    }

    fn ended_by_relay(&mut self) {
        let Some(link) = &self.link else { return };
        let refused = refusal(link.input.get(..link.have).unwrap_or_default()).filter(|_| link.fresh);
        let why = match refused {
            Some(refusal) => Why::Relay(format!("{} ({})", refusal.text, refusal.code)),
            None => Why::Lost,
        };
        self.lost(why);
    }

    fn take_input(&mut self) {
        let now = self.start.elapsed();
        let Some(link) = self.link.as_mut() else { return };
        let come = link.input.get(..link.have).unwrap_or_default();
        if link.fresh && is_refusal(come) {
            if is_whole(come) {
                self.ended_by_relay();
            }
            return;
        }
        link.fresh = false;
        let Some(input) = link.input.get_mut(..link.have) else { return };
        let (streams, slots, dirty, ready) = (&mut self.streams, &mut self.slots, &mut self.dirty, &self.ready);
        let deaf = self.leaving.as_ref().is_some_and(|leaving| leaving.ours);
        let mut broken = None;
        let mut later = Vec::new();
        let outcome = link.end.read(input, &mut |plain| {
            if deaf || broken.is_some() {
                return;
            }
            let received = streams.receive(plain, now, &mut |event| match event {
                Event::Data(stream, bytes) => {
                    if let Some(slot) = slots.get_mut(&stream) {
                        slot.came(bytes);
                        if dirty.last() != Some(&stream) {
                            dirty.push(stream);
                        }
                    }
                }
                Event::Ended(stream) => {
                    if let Some(slot) = slots.get_mut(&stream) {
                        slot.over();
                        dirty.push(stream);
                    }
                }
                Event::Accepted(stream) => {
                    if let Some(slot) = slots.get_mut(&stream)
                        && let Some(answer) = slot.answer.take()
                    {
                        let _ = answer.send(Ok(stream));
                    }
                }
                Event::Refused(stream, code, text) => {
                    if let Some(mut slot) = slots.remove(&stream) {
                        slot.tell(Err(StreamRefused::Refused(code, text)));
                    }
                }
                Event::Reset(stream) => {
                    if let Some(mut slot) = slots.remove(&stream) {
                        slot.tell(Err(StreamRefused::Reset));
                    }
                }
                Event::Opened(stream, target) => {
                    // At once: its first bytes may stand right behind.
                    slots.insert(stream, Slot::new(ready.waker(stream)));
                    later.push(Later::Dial(stream, parse_target(target)));
                }
                Event::Goodbye(_, text) => later.push(Later::Goodbye(text)),
                Event::Resumed => {}
            });
            broken = received.err();
        });
        match outcome {
            Ok(taken) => {
                link.input.copy_within(taken.min(link.have)..link.have, 0);
                link.have = link.have.saturating_sub(taken);
            }
            Err(fault) => {
                self.link = None;
                self.over = Some(Why::Broken(fault.to_string()));
                return;
            }
        }
        if link.prove_by.is_some() && link.end.proven() {
            link.prove_by = None;
            self.proven = true;
        }
        for later in later {
            match later {
                Later::Dial(stream, Some(target)) if matches!(self.part, Part::Device(_)) => self.dial(stream, target),
                Later::Dial(stream, _) => {
                    self.slots.remove(&stream);
                    self.streams.refuse(stream, RefusalCode::NotPermitted, "");
                }
                Later::Goodbye(text) => self.left(Why::ClosedByPeer(text)),
            }
        }
        if let Some(broken) = broken {
            self.leave(Why::Broken(broken.to_string()), BROKEN);
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.drain(..).for_each(|stream| self.write_local(stream));
        self.dirty = dirty;
    }

    /// The other end said goodbye: what it said before still goes where it should.
    fn left(&mut self, why: Why) {
        if self.leaving.is_none() {
            self.leaving = Some(Leaving { why, until: self.now() + LINGER, ours: false, said: false });
        }
    }

    fn write_relay(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        loop {
            self.gather();
            let Some(link) = self.link.as_mut() else { return busy };
            if link.output.is_empty() {
                return busy;
            }
            busy = true;
            let rest = link.output.get(link.sent..).unwrap_or_default();
            match Pin::new(&mut link.socket).poll_write(cx, rest) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    link.sent += n;
                    if link.sent == link.output.len() {
                        link.output.clear();
                        link.sent = 0;
                        if Pin::new(&mut link.socket).poll_flush(cx).is_pending() {
                            return false;
                        }
                    }
                }
                // Nothing more to do until it is woken.
                Poll::Pending => return false,
                Poll::Ready(_) => {
                    self.lost(Why::Lost);
                    return true;
                }
            }
        }
    }

    /// Seals what is to go out, a batch at a time: frames first, then what local programs have written, in turns.
    fn gather(&mut self) {
        let now = self.start.elapsed();
        if self.link.as_ref().is_none_or(|link| link.sent < link.output.len()) {
            return;
        }
        loop {
            let Some(link) = self.link.as_mut() else { return };
            if link.output.len() + link.small.len() >= BATCH {
                break;
            }
            let (end, output, small) = (&mut link.end, &mut link.output, &mut link.small);
            let mut fault = None;
            let written = self.streams.transmit(&mut |head, body| {
                if head.len() + body.len() <= SMALL && small.len() <= 4 * SMALL {
                    small.extend_from_slice(head);
                    small.extend_from_slice(body);
                } else {
                    fault = seal(end.as_mut(), small, output).and_then(|()| end.write(head, body, output)).err();
                }
            });
            if let Some(fault) = fault {
                return self.lost(Why::Broken(fault.to_string()));
            }
            if !written && !self.read_local() {
                break;
            }
            self.used = Some(now);
        }
        let Some(link) = self.link.as_mut() else { return };
        // A key that has sealed as much as it may: the next connection has another.
        if let Err(fault) = seal(link.end.as_mut(), &mut link.small, &mut link.output) {
            return self.lost(Why::Broken(fault.to_string()));
        }
        link.end.flush(&mut link.output);
        if let Some(leaving) = self.leaving.as_mut()
            && !leaving.said
        {
            leaving.said = true;
            link.end.close(&mut link.output);
        }
    }

    // ---- local ends

    fn look_at_locals(&mut self, cx: &Context<'_>) -> bool {
        let mut woken = std::mem::take(&mut self.woken);
        self.ready.look(cx, &mut woken);
        let busy = !woken.is_empty();
        for stream in woken.drain(..) {
            let Some(slot) = self.slots.get_mut(&stream) else { continue };
            if slot.is_abandoned() {
                self.slots.remove(&stream);
                self.streams.reset(stream);
                continue;
            }
            if slot.is_attached() {
                if slot.waits() {
                    self.write_local(stream);
                }
                self.streams.ready(stream);
            }
        }
        self.woken = woken;
        busy
    }

    /// Writes what came for a local program as far as it goes.
    fn write_local(&mut self, stream: StreamId) {
        let now = self.start.elapsed();
        let Some(slot) = self.slots.get_mut(&stream) else { return };
        match slot.write() {
            Ok(went) => {
                self.carried.back += went as u64;
                if went > 0 {
                    self.streams.consumed(stream, went, now);
                }
                self.finish(stream);
            }
            Err(_) => self.fail(stream),
        }
    }

    /// One turn: reads what a local program has written. False: nobody has anything.
    fn read_local(&mut self) -> bool {
        let Some(turn) = self.streams.turn() else { return false };
        let Some(slot) = self.slots.get_mut(&turn.stream) else {
            self.streams.unready(turn.stream);
            return true;
        };
        let mut chunk = self.streams.chunk(turn);
        match slot.read(&mut chunk, turn.room) {
            Poll::Pending => {
                self.streams.recycle(chunk);
                self.streams.unready(turn.stream);
            }
            Poll::Ready(Ok(0)) => {
                slot.ended = true;
                self.streams.recycle(chunk);
                self.streams.unready(turn.stream);
                self.streams.end(turn.stream);
                self.finish(turn.stream);
            }
            Poll::Ready(Ok(n)) => {
                self.carried.out += n as u64;
                self.streams.data(turn.stream, chunk);
            }
            Poll::Ready(Err(_)) => {
                self.streams.recycle(chunk);
                self.fail(turn.stream);
            }
        }
        true
    }

    fn finish(&mut self, stream: StreamId) {
        if self.slots.get(&stream).is_some_and(Slot::is_done)
            && let Some(mut slot) = self.slots.remove(&stream)
        {
            slot.tell(Ok(()));
        }
    }

    fn fail(&mut self, stream: StreamId) {
        if let Some(mut slot) = self.slots.remove(&stream) {
            slot.tell(Err(StreamRefused::Reset));
        }
        self.streams.reset(stream);
    }

    // ---- time

    /// Does what is due and sets the timer. True: something was done.
    fn look_at_clock(&mut self, cx: &mut Context<'_>) -> bool {
        let now = self.now();
        let Some(due) = self.due() else { return false };
        if due <= now {
            self.on_time(now);
            return true;
        }
        // A timer that is early looks again: it is not set anew with each packet.
        let deadline = self.start + due;
        if deadline < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(deadline);
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        true
    }

    fn due(&self) -> Option<Duration> {
        let prove_by = self.link.as_ref().and_then(|link| link.prove_by);
        let rest = self.used.map(|used| used + REST_AFTER);
        let leave = self.leaving.as_ref().map(|leaving| leaving.until);
        [self.streams.next_timeout(), prove_by, rest, leave].into_iter().flatten().min()
    }

    fn on_time(&mut self, now: Duration) {
        if self.used.is_some_and(|used| now >= used + REST_AFTER) {
            self.rest();
        }
        if self.link.as_ref().is_some_and(|link| link.prove_by.is_some_and(|by| now >= by)) {
            return self.lost(Why::Lost);
        }
        match self.streams.on_timeout(now) {
            Timeout::Nothing => {}
            Timeout::Silent => self.lost(Why::Lost),
            Timeout::NotResumed => self.over = Some(Why::NotResumed(self.resume)),
        }
    }

    /// Lets go of what only busy sessions need.
    fn rest(&mut self) {
        self.used = None;
        self.streams.rest();
        self.slots.values_mut().for_each(Slot::rest);
        if let Some(link) = self.link.as_mut() {
            link.input.truncate(link.have);
            link.input.shrink_to_fit();
            if link.output.is_empty() {
                link.output = Vec::new();
            }
            link.small = Vec::new();
        }
    }
}

/// Whatever happens to the task: nobody waits for its end in vain.
struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.end(Why::Broken("its task was stopped".into()), Carried::default());
    }
}

/// Codes of GOODBYE.
const DONE: u16 = 0;
const BROKEN: u16 = 1;
const STOPPING: u16 = 2;

enum Later {
    Dial(StreamId, Option<Target>),
    Goodbye(String),
}

fn parse_target(text: &str) -> Option<Target> {
    if text.is_empty() {
        return Some(Target::Ssh);
    }
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0 && !text.contains("+"))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_lowercase();
    let fine = !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic());
    fine.then_some(Target::HostPort(HostPort { host, port }))
}

fn seal(end: &mut dyn End, small: &mut Vec<u8>, output: &mut Vec<u8>) -> Result<(), super::end::EndFault> {
    if !small.is_empty() {
        end.write(small, &[], output)?;
        small.clear();
    }
    Ok(())
}

/// Closes our direction and waits for the other to be closed: unread bytes would turn our last words into a reset.
async fn drain(mut socket: Box<dyn Io>) -> io::Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    socket.shutdown().await?;
    let mut sink = [0; 1024];
    while socket.read(&mut sink).await? > 0 {}
    Ok(())
}
