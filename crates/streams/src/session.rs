//! The frames of one session, at one end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::chunk::Chunk;
use crate::code::RefusalCode;
use crate::event::{Broken, Event, StreamId, Timeout, Turn};
use crate::frame::{Header, Kind, cut, words};
use crate::inbox::{Inbox, Piece};
use crate::limits::{
    ACK_BYTES, ACK_FRAMES, ACK_WITHIN, ACTIVE_FOR, BURST, CHUNK, CLIENT_WINDOWS, DEVICE_WINDOWS, FIRST_WINDOW,
    GENEROUS_WINDOW, SHORT_TURN, STREAMS,
};
use crate::liveness::{Liveness, Time};
use crate::outbox::Outbox;
use crate::stream::{Opening, Stream};

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Its streams are odd.
    Client,
    /// Its streams are even.
    Device,
}

/// One end of a session: streams over a sequence of frames. Bytes and the time since any fixed moment go in; frames
/// ([`Streams::transmit`]) and [`Event`]s come out. An error ends the session.
pub struct Streams {
    side: Side,
    /// How long a lost way may stay lost; zero: a loss ends the session, and nothing is kept.
    resume: Duration,
    streams: BTreeMap<u32, Stream>,
    /// Streams that have something to send and may, in the order of their turns.
    turns: VecDeque<u32>,
    /// The next number of ours and the last of the other end.
    next: u32,
    theirs: u32,
    /// All windows together.
    windows: usize,
    inbox: Inbox,
    outbox: Outbox,
    /// Counted frames received; how many of them the other end was told; bytes since then.
    received: u64,
    told: u64,
    untold: usize,
    tell_by: Option<Duration>,
    /// When the last of them came.
    counted: Option<Duration>,
    liveness: Liveness,
    way: Way,
}

/// How the way to the other end is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// There is a new connection, but the other end has not said where it stands.
    Resuming,
    Lost {
        until: Duration,
    },
    /// A GOODBYE came, or ours goes: behind the frames that were there, if the way was open.
    Over {
        flush: bool,
    },
}

impl Streams {
    /// A session at its start. `resume` zero: a lost way ends it.
    #[must_use]
    pub fn new(side: Side, resume: Duration, now: Duration) -> Self {
        let keep = !resume.is_zero();
        Self {
            side,
            resume,
            streams: BTreeMap::new(),
            turns: VecDeque::new(),
            next: if side == Side::Client { 1 } else { 2 },
            theirs: 0,
            windows: 0,
            inbox: Inbox::default(),
            outbox: Outbox::new(keep),
            received: 0,
            told: 0,
            untold: 0,
            tell_by: None,
            counted: None,
            liveness: Liveness::new(keep, now),
            way: Way::Open,
        }
    }

    /// Stream 1 of an `ssh_request`, as if the client had opened it and granted 65,536 bytes. Both ends call this before
    /// anything else; the device then accepts or refuses it.
    pub fn preopen(&mut self) -> StreamId {
        let opening = if self.side == Side::Client { Opening::Asked } else { Opening::Knocked };
        match self.side {
            Side::Client => self.next = 3,
            Side::Device => self.theirs = 1,
        }
        self.insert(1, Stream::new(opening, FIRST_WINDOW, FIRST_WINDOW));
        StreamId::SSH
    }

    // ---- what the programs at this end want

    /// Opens a stream. `None`: there are too many, or `target` is too long. Bytes may follow before it is accepted.
    pub fn open(&mut self, target: &str) -> Option<StreamId> {
        let next = self.next.checked_add(2)?;
        if self.streams.len() >= STREAMS || target.len() > crate::limits::TARGET_BYTES {
            return None;
        }
        let id = std::mem::replace(&mut self.next, next);
        let window = self.first_window();
        self.insert(id, Stream::new(Opening::Asked, FIRST_WINDOW, window));
        self.outbox.push(Kind::Open, id, &[&window.to_be_bytes(), target.as_bytes()]);
        Some(StreamId(id))
    }

    /// Accepts a stream that the other end has opened. False: it is gone meanwhile.
    pub fn accept(&mut self, id: StreamId) -> bool {
        let window = self.first_window();
        let Some(stream) = self.streams.get_mut(&id.0) else { return false };
        if stream.opening != Opening::Knocked {
            return false;
        }
        stream.opening = Opening::Open;
        let before = stream.window.size();
        stream.window.raise(window);
        let window = stream.window.size();
        self.windows += (window - before) as usize;
        self.outbox.push(Kind::Accepted, id.0, &[&window.to_be_bytes()]);
        self.queue(id.0);
        true
    }

    /// Refuses a stream that the other end has opened; `text` is for its user.
    pub fn refuse(&mut self, id: StreamId, code: RefusalCode, text: &str) {
        if self.streams.get(&id.0).is_some_and(|stream| stream.opening == Opening::Knocked) {
            self.remove(id.0);
            self.outbox.push(Kind::Refused, id.0, &[&code.to_u16().to_be_bytes(), cut(text)]);
        }
    }

    /// The program at this end has something to send: it will get a turn.
    pub fn ready(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id.0) {
            stream.wants = true;
            self.queue(id.0);
        }
    }

    /// It has nothing for the moment.
    pub fn unready(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id.0) {
            stream.wants = false;
        }
    }

    /// Whose turn it is to send. Follow with [`Self::data`], [`Self::unready`] or [`Self::end`].
    pub fn turn(&mut self) -> Option<Turn> {
        if self.way != Way::Open {
            return None;
        }
        let kept = self.outbox.room();
        if kept == 0 {
            return None;
        }
        while let Some(id) = self.turns.pop_front() {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.queued = false;
            let sendable = usize::try_from(stream.sendable()).unwrap_or(usize::MAX);
            if stream.wants && sendable > 0 {
                let room = match self.turns.len() {
                    0 if stream.bursts => BURST,
                    // Among many, turns are short: one round of all of them is over soon.
                    others => (BURST / (others + 1)).clamp(SHORT_TURN, CHUNK),
                };
                let room = room.min(kept);
                return Some(Turn { stream: StreamId(id), room: room.min(sendable) });
            }
        }
        None
    }

    /// A buffer for what is read in a turn.
    pub fn chunk(&mut self, turn: Turn) -> Chunk {
        self.outbox.chunk(turn.room)
    }

    /// Gives a buffer back unused.
    pub fn recycle(&mut self, chunk: Chunk) {
        self.outbox.recycle(chunk);
    }

    /// Sends what was read in a [`Turn`]; not more than its room. The stream goes to the end of the queue.
    pub fn data(&mut self, id: StreamId, chunk: Chunk) {
        let Some(stream) = self.streams.get_mut(&id.0) else { return self.outbox.recycle(chunk) };
        let length = chunk.len() as u64;
        debug_assert!(length > 0 && length <= stream.sendable(), "a turn says how much may be sent");
        if length == 0 || stream.ended {
            return self.outbox.recycle(chunk);
        }
        stream.credit = stream.credit.saturating_sub(length);
        stream.bursts = length >= CHUNK as u64;
        self.outbox.push_data(id.0, chunk);
        self.queue(id.0);
    }

    /// The program at this end will send no more; the other direction goes on.
    pub fn end(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id.0) else { return };
        if !std::mem::replace(&mut stream.ended, true) {
            let over = stream.over;
            self.outbox.push(Kind::End, id.0, &[]);
            if over {
                self.remove(id.0);
            }
        }
    }

    /// The program at this end is gone: nothing is sent and nothing is taken any more.
    pub fn reset(&mut self, id: StreamId) {
        if self.remove(id.0) {
            self.outbox.push(Kind::Reset, id.0, &[&0_u16.to_be_bytes()]);
        }
    }

    /// Bytes of [`Event::Data`] were handed to the program at this end.
    pub fn consumed(&mut self, id: StreamId, bytes: usize, now: Duration) {
        // No stream takes what others may need: all grow to the same share.
        let (spare, share) = (self.limit().saturating_sub(self.windows), self.limit() / self.streams.len().max(1));
        let Some(stream) = self.streams.get_mut(&id.0) else { return };
        if stream.over {
            return;
        }
        let before = stream.window.size();
        let spare = spare.min(share.saturating_sub(before as usize));
        let more = stream.window.hand_out(bytes, spare, self.liveness.round_trip(), now);
        self.windows += (stream.window.size() - before) as usize;
        // Until it is accepted, ACCEPTED says how large the window is.
        if let Some(more) = more {
            self.outbox.push(Kind::Window, id.0, &[&more.to_be_bytes()]);
        }
    }

    /// Leaves, with words for the other end's user.
    pub fn goodbye(&mut self, code: u16, text: &str) {
        if !self.is_over() {
            self.outbox.last(Kind::Goodbye, &[&code.to_be_bytes(), cut(text)]);
            self.way = Way::Over { flush: self.way == Way::Open };
        }
    }

    /// Streams that are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// True when no stream is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    // ---- what goes out

    /// Writes the next frame that is to go out, in two parts, the second of which may be empty. False: there is none now.
    pub fn transmit(&mut self, write: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        let counted = matches!(self.way, Way::Open | Way::Over { flush: true });
        if self.tell_by.is_some() && counted && (self.told_too_little() || self.outbox.waits(true)) {
            self.tell();
        }
        self.way_is_there() && self.outbox.transmit(counted, write)
    }

    fn is_over(&self) -> bool {
        matches!(self.way, Way::Over { .. })
    }

    fn way_is_there(&self) -> bool {
        !matches!(self.way, Way::Lost { .. })
    }

    fn told_too_little(&self) -> bool {
        self.received - self.told >= ACK_FRAMES || self.untold >= ACK_BYTES
    }

    fn tell(&mut self) {
        self.outbox.urgent(Kind::Ack, &[&self.received.to_be_bytes()]);
        self.told = self.received;
        self.untold = 0;
        self.tell_by = None;
    }

    /// Lets go of memory that only bursts need.
    pub fn rest(&mut self) {
        self.outbox.rest();
        self.inbox.rest();
    }

    // ---- what comes in

    /// Takes bytes of the other end. Events come out in order; the rest of `bytes` is not looked at after an error.
    ///
    /// # Errors
    /// The other end broke a rule.
    pub fn receive(&mut self, mut bytes: &[u8], now: Duration, event: &mut dyn FnMut(Event<'_>)) -> Result<(), Broken> {
        self.liveness.heard(now);
        // Moved out, so that a piece may be looked at while the rest of us changes.
        let mut inbox = std::mem::take(&mut self.inbox);
        let outcome = loop {
            match inbox.next(&mut bytes) {
                Ok(Some(piece)) => {
                    if let Err(broken) = self.piece(&piece, now, event) {
                        break Err(broken);
                    }
                }
                Ok(None) => break Ok(()),
                Err(_) => break Err(Broken::NoFrame),
            }
        };
        self.inbox = inbox;
        outcome?;
        if self.outbox.flooded() { Err(Broken::Flood) } else { Ok(()) }
    }

    fn piece(&mut self, piece: &Piece<'_>, now: Duration, event: &mut dyn FnMut(Event<'_>)) -> Result<(), Broken> {
        match (self.way, piece) {
            (Way::Over { flush: false }, _) => return Err(Broken::AfterGoodbye),
            (Way::Resuming, Piece::Frame(Header { kind: Kind::Position, .. }, body)) => {
                if !self.outbox.acknowledged(u64_of(body)) {
                    return Err(Broken::Position);
                }
                self.outbox.again();
                self.way = Way::Open;
                event(Event::Resumed);
                return Ok(());
            }
            (Way::Resuming | Way::Lost { .. }, _) => return Err(Broken::OutOfPlace),
            (Way::Open | Way::Over { flush: true }, _) => {}
        }
        match *piece {
            Piece::Data { stream, bytes, last } => {
                self.came(stream, bytes, now, event)?;
                self.untold += bytes.len();
                if last {
                    self.count(now);
                }
            }
            Piece::Frame(header, body) => {
                self.frame(header, body, event)?;
                match header.kind {
                    Kind::Pong => self.liveness.answered(u64_of(body), now),
                    kind if kind.counted() => self.count(now),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, now: Duration) {
        self.received += 1;
        self.counted = Some(now);
        if !self.resume.is_zero() {
            self.tell_by.get_or_insert(now + ACK_WITHIN);
        }
    }

    fn came(&mut self, id: u32, bytes: &[u8], now: Duration, event: &mut dyn FnMut(Event<'_>)) -> Result<(), Broken> {
        if bytes.is_empty() {
            return Ok(());
        }
        if let Some(number) = self.liveness.measure(now) {
            self.outbox.urgent(Kind::Ping, &[&number.to_be_bytes()]);
        }
        let Some(stream) = self.stream(id)? else { return Ok(()) };
        if stream.over || stream.opening == Opening::Asked {
            return Err(Broken::OutOfPlace);
        }
        if !stream.window.take(bytes.len(), now) {
            return Err(Broken::Window);
        }
        event(Event::Data(StreamId(id), bytes));
        Ok(())
    }

    fn frame(&mut self, header: Header, body: &[u8], event: &mut dyn FnMut(Event<'_>)) -> Result<(), Broken> {
        let (id, number) = (StreamId(header.stream), body.get(..4).map_or(0, u32_of));
        match header.kind {
            // Data is handed on piece by piece; a position is said once, at the start.
            Kind::Data | Kind::Position => return Err(Broken::OutOfPlace),
            Kind::Ack => {
                if !self.outbox.acknowledged(u64_of(body)) {
                    return Err(Broken::Position);
                }
                // There may be room again for those who waited.
            }
            Kind::Ping => self.outbox.urgent(Kind::Pong, &[body]),
            Kind::Pong => {}
            Kind::Goodbye => {
                let (code, text) = code_and_words(body);
                self.way = Way::Over { flush: false };
                event(Event::Goodbye(code, text));
            }
            Kind::Open => {
                let target = std::str::from_utf8(body.get(4..).unwrap_or_default()).map_err(|_| Broken::NoFrame)?;
                self.opened(id, number, target, event)?;
            }
            Kind::Accepted => {
                let Some(stream) = self.stream(id.0)? else { return Ok(()) };
                let more = number.checked_sub(FIRST_WINDOW).ok_or(Broken::Window)?;
                if stream.opening != Opening::Asked {
                    return Err(Broken::OutOfPlace);
                }
                stream.opening = Opening::Open;
                stream.credit += u64::from(more);
                event(Event::Accepted(id));
                self.queue(id.0);
            }
            Kind::Refused => {
                let Some(stream) = self.stream(id.0)? else { return Ok(()) };
                if stream.opening != Opening::Asked {
                    return Err(Broken::OutOfPlace);
                }
                self.remove(id.0);
                let (code, text) = code_and_words(body);
                event(Event::Refused(id, code.into(), text));
            }
            Kind::Window => {
                let Some(stream) = self.stream(id.0)? else { return Ok(()) };
                stream.credit += u64::from(number);
                if stream.credit > u64::from(u32::MAX) {
                    return Err(Broken::Window);
                }
                self.queue(id.0);
            }
            Kind::End => {
                let Some(stream) = self.stream(id.0)? else { return Ok(()) };
                if stream.over || stream.opening == Opening::Asked {
                    return Err(Broken::OutOfPlace);
                }
                stream.over = true;
                let done = stream.ended;
                event(Event::Ended(id));
                if done {
                    self.remove(id.0);
                }
            }
            Kind::Reset => {
                if self.stream(id.0)?.is_some() {
                    self.remove(id.0);
                    event(Event::Reset(id));
                }
            }
        }
        Ok(())
    }

    fn opened(
        &mut self,
        id: StreamId,
        window: u32,
        target: &str,
        event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Broken> {
        if self.is_ours(id.0) || id.0 <= self.theirs {
            return Err(Broken::Number);
        }
        self.theirs = id.0;
        if self.streams.len() >= STREAMS {
            let code = RefusalCode::TooManyStreams.to_u16().to_be_bytes();
            self.outbox.push(Kind::Refused, id.0, &[&code]);
            return Ok(());
        }
        self.insert(id.0, Stream::new(Opening::Knocked, window, FIRST_WINDOW));
        event(Event::Opened(id, target));
        Ok(())
    }

    /// The stream of a frame. `None`: it was and is gone; frames that crossed with our END or RESET mean nothing.
    fn stream(&mut self, id: u32) -> Result<Option<&mut Stream>, Broken> {
        let known = if self.is_ours(id) { id < self.next } else { id <= self.theirs };
        if known { Ok(self.streams.get_mut(&id)) } else { Err(Broken::OutOfPlace) }
    }

    fn is_ours(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.side == Side::Client)
    }

    fn insert(&mut self, id: u32, stream: Stream) {
        self.windows += stream.window.size() as usize;
        self.streams.insert(id, stream);
    }

    fn remove(&mut self, id: u32) -> bool {
        let Some(stream) = self.streams.remove(&id) else { return false };
        self.windows = self.windows.saturating_sub(stream.window.size() as usize);
        true
    }

    fn queue(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.wants
            && !stream.queued
            && stream.sendable() > 0
        {
            stream.queued = true;
            self.turns.push_back(id);
        }
    }

    fn limit(&self) -> usize {
        if self.side == Side::Client { CLIENT_WINDOWS } else { DEVICE_WINDOWS }
    }

    fn first_window(&self) -> u32 {
        let share = self.limit() / 2 / (self.streams.len() + 1);
        u32::try_from(share).unwrap_or(u32::MAX).clamp(FIRST_WINDOW, GENEROUS_WINDOW)
    }

    // ---- time, loss and resumption

    /// When [`Self::on_timeout`] has something to do.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        match self.way {
            Way::Over { .. } => None,
            Way::Lost { until } => Some(until),
            Way::Open | Way::Resuming => {
                let due = self.liveness.due(self.busy());
                Some(self.tell_by.map_or(due, |tell| tell.min(due)))
            }
        }
    }

    /// Somebody here would notice that the other end is gone: something is on its way, or was coming until just now.
    fn busy(&self) -> bool {
        let coming = self.counted.is_some_and(|at| self.liveness.last_heard().saturating_sub(at) <= ACTIVE_FOR);
        coming || self.outbox.unacknowledged()
    }

    /// The time has come; transmit afterwards.
    pub fn on_timeout(&mut self, now: Duration) -> Timeout {
        match self.way {
            Way::Over { .. } => return Timeout::Nothing,
            Way::Lost { until } if now >= until => return Timeout::NotResumed,
            Way::Lost { .. } => return Timeout::Nothing,
            Way::Open | Way::Resuming => {}
        }
        if self.tell_by.is_some_and(|by| now >= by) && self.way == Way::Open {
            self.tell();
        }
        match self.liveness.on_timeout(self.busy(), now) {
            Time::Calm => Timeout::Nothing,
            Time::Ask(number) => {
                self.outbox.urgent(Kind::Ping, &[&number.to_be_bytes()]);
                Timeout::Nothing
            }
            Time::Lost => Timeout::Silent,
        }
    }

    /// The connection is gone. True: the session waits for another one; false: it is over.
    pub fn lost(&mut self, now: Duration) -> bool {
        if self.is_over() || self.resume.is_zero() {
            return false;
        }
        if !matches!(self.way, Way::Lost { .. }) {
            self.way = Way::Lost { until: now + self.resume };
            self.inbox.restart();
        }
        true
    }

    /// There is a new connection, behind its STATEMENTs. What did not arrive goes again once the other end has said where
    /// it stands ([`Event::Resumed`]). The old connection need not have been [`Self::lost`].
    pub fn resumed(&mut self, now: Duration) {
        if self.is_over() {
            return;
        }
        self.inbox.restart();
        self.outbox.rewind(&self.received.to_be_bytes());
        self.told = self.received;
        self.untold = 0;
        self.tell_by = None;
        self.liveness.restart(now);
        self.way = Way::Resuming;
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.outbox.held()
    }
}

fn u64_of(body: &[u8]) -> u64 {
    body.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn u32_of(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn code_and_words(body: &[u8]) -> (u16, String) {
    let code = body.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
    (code, words(body.get(2..).unwrap_or_default()))
}
