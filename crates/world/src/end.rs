//! One end of a session, and the programs on it.

use std::collections::BTreeMap;
use std::time::Duration;

use postern_session::{HostPort, PermitOpen};
use postern_streams::limits::LARGEST_WINDOW;
use postern_streams::{Event, RefusalCode, Side, StreamId, Streams, Timeout};

use crate::channel::Channel;
use crate::tag::Tag;
use crate::{Broke, Traitor};

/// What a device of this world lets in.
pub(crate) const PERMITTED: &str = "meter:502,meter:80";
/// A target that it does not.
pub(crate) const FORBIDDEN: &str = "bank";

pub(crate) type Faults = Vec<(Broke, String)>;

pub(crate) struct End {
    pub(crate) side: Side,
    session: usize,
    pub(crate) streams: Streams,
    pub(crate) channel: Option<Channel>,
    /// Which connection it reads and writes.
    pub(crate) connection: Option<usize>,
    pub(crate) input: Vec<u8>,
    pub(crate) programs: BTreeMap<StreamId, Program>,
    pub(crate) over: bool,
    traitor: Option<Traitor>,
}

/// A program at one end of a stream: it writes so many tagged bytes and checks each that comes.
#[derive(Default)]
pub(crate) struct Program {
    pub(crate) left: usize,
    written: u64,
    pub(crate) ended: bool,
    /// How many bytes are to come.
    pub(crate) expected: u64,
    pub(crate) read: u64,
    pending: usize,
    pub(crate) heard_end: bool,
    /// A device's: opened in a connection and its target; what is allowed is asked once.
    pub(crate) gone: bool,
}

/// A target text: what the stream carries is in it, so that both ends know without another channel.
pub(crate) fn target(host: &str, out: usize, back: usize) -> String {
    format!("{host}-{out}-{back}:502")
}

fn read_target(text: &str) -> Option<(HostPort, usize, usize)> {
    let (host, port) = text.rsplit_once(':')?;
    let mut parts = host.split('-');
    let name = parts.next()?;
    let (out, back) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((HostPort { host: name.to_owned(), port: port.parse().ok()? }, out, back))
}

impl End {
    pub(crate) fn new(side: Side, session: usize, resume: Duration, traitor: Option<Traitor>) -> Self {
        Self {
            side,
            session,
            streams: Streams::new(side, resume, Duration::ZERO),
            channel: None,
            connection: None,
            input: Vec::new(),
            programs: BTreeMap::new(),
            over: false,
            traitor,
        }
    }

    fn other(&self) -> Side {
        if self.side == Side::Client { Side::Device } else { Side::Client }
    }

    /// The client opens a stream.
    pub(crate) fn open(&mut self, host: &str, out: usize, back: usize) {
        if let Some(id) = self.streams.open(&target(host, out, back)) {
            self.programs.insert(id, Program { left: out, expected: back as u64, ..Program::default() });
            self.streams.ready(id);
        }
    }

    /// One turn of one program.
    pub(crate) fn write(&mut self, most: usize) -> bool {
        let Some(turn) = self.streams.turn() else { return false };
        let tag = Tag::new(self.session, stream_number(turn.stream), self.side);
        let Some(program) = self.programs.get_mut(&turn.stream) else {
            self.streams.unready(turn.stream);
            return true;
        };
        let take = program.left.min(turn.room).min(most.max(1));
        if take == 0 {
            self.streams.unready(turn.stream);
            if !std::mem::replace(&mut program.ended, true) {
                self.streams.end(turn.stream);
            }
            return true;
        }
        let mut chunk = self.streams.chunk(turn);
        let room = chunk.room(turn.room);
        let take = take.min(room.len());
        for byte in &mut room[..take] {
            *byte = tag.at(program.written);
            program.written += 1;
        }
        chunk.fill(take);
        program.left -= take;
        self.streams.data(turn.stream, chunk);
        true
    }

    /// Everything that is ready, sealed.
    pub(crate) fn flush(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        if let Some(channel) = &mut self.channel {
            while self.streams.transmit(&mut |head, body| channel.write(head, body, &mut wire)) {}
        }
        wire
    }

    /// Bytes from the wire. True: the connection has a lie in it and is given up.
    pub(crate) fn take(&mut self, bytes: &[u8], permits: &PermitOpen, now: Duration, faults: &mut Faults) -> bool {
        self.input.extend_from_slice(bytes);
        let Some(channel) = &mut self.channel else { return false };
        let Ok(plain) = channel.read(&mut self.input) else { return true };
        if plain.is_empty() {
            return false;
        }
        let mut opened = Vec::new();
        let (session, other, side) = (self.session, self.other(), self.side);
        let programs = &mut self.programs;
        let outcome = self.streams.receive(&plain, now, &mut |event| match event {
            Event::Opened(id, text) => opened.push((id, text.to_owned())),
            Event::Data(id, bytes) => {
                let tag = Tag::new(session, stream_number(id), other);
                let program = programs.entry(id).or_default();
                if let Some(wrong) = bytes.iter().zip(program.read..).position(|(byte, at)| *byte != tag.at(at)) {
                    let at = program.read + wrong as u64;
                    faults.push((Broke::WrongByte, format!("session {session} stream {id} {side:?}: byte {at}")));
                }
                program.read += bytes.len() as u64;
                program.pending += bytes.len();
                if program.pending > LARGEST_WINDOW as usize {
                    faults.push((Broke::Bound, format!("{} bytes wait at {side:?}", program.pending)));
                }
            }
            Event::Ended(id) => {
                let program = programs.entry(id).or_default();
                program.heard_end = true;
                if program.read < program.expected {
                    let (read, expected) = (program.read, program.expected);
                    faults.push((Broke::CutShort, format!("session {session} stream {id}: {read} of {expected}")));
                }
            }
            Event::Refused(id, ..) | Event::Reset(id) => programs.entry(id).or_default().gone = true,
            Event::Accepted(_) | Event::Goodbye(..) | Event::Resumed => {}
        });
        if let Err(broken) = outcome {
            faults.push((Broke::Misunderstanding, format!("session {session}, {side:?} of the other end: {broken}")));
            return true;
        }
        for (id, text) in opened {
            self.answer(id, &text, permits, faults);
        }
        false
    }

    /// The device's answer to an opening.
    fn answer(&mut self, id: StreamId, text: &str, permits: &PermitOpen, faults: &mut Faults) {
        let program = self.programs.entry(id).or_default();
        let Some((target, out, back)) = read_target(text) else {
            faults.push((Broke::Misunderstanding, format!("a target {text:?}")));
            return;
        };
        if !permits.allows(&target) && self.traitor != Some(Traitor::DeviceSkipsPermit) {
            program.gone = true;
            self.streams.refuse(id, RefusalCode::NotPermitted, "not permitted");
            return;
        }
        // Here the device dials.
        if target.host == FORBIDDEN {
            faults.push((Broke::Forbidden, format!("session {}: {text}", self.session)));
        }
        (program.left, program.expected) = (back, out as u64);
        self.streams.accept(id);
        self.streams.ready(id);
    }

    /// The programs read.
    pub(crate) fn hand_out(&mut self, most: usize, now: Duration) -> bool {
        let mut busy = false;
        for (id, program) in &mut self.programs {
            let take = program.pending.min(most);
            program.pending -= take;
            if take > 0 {
                self.streams.consumed(*id, take, now);
                busy = true;
            }
        }
        busy
    }

    /// The clock. True: the way counts as lost now.
    pub(crate) fn tick(&mut self, now: Duration) -> bool {
        if self.over || self.streams.next_timeout().is_none_or(|due| due > now) {
            return false;
        }
        match self.streams.on_timeout(now) {
            Timeout::Nothing => false,
            Timeout::Silent => true,
            Timeout::NotResumed => {
                self.over = true;
                false
            }
        }
    }

    /// Its connection is gone.
    pub(crate) fn lose(&mut self, now: Duration, faults: &mut Faults) {
        self.channel = None;
        self.connection = None;
        self.input.clear();
        if !self.streams.lost(now) {
            self.over = true;
        }
        if self.side == Side::Client && self.traitor == Some(Traitor::ClientTakesLossForEnd) {
            let short = self.programs.values().find(|program| !program.gone && program.read < program.expected);
            if let Some(short) = short {
                faults.push((Broke::CutShort, format!("a loss was taken for an end at {}", short.read)));
            }
        }
    }

    /// A new connection, behind its handshake.
    pub(crate) fn connect(&mut self, channel: Channel, connection: usize, epoch: u32, resume: Duration, now: Duration) {
        self.channel = Some(channel);
        self.connection = Some(connection);
        self.input.clear();
        if epoch == 0 {
            return;
        }
        if self.side == Side::Device && self.traitor == Some(Traitor::DeviceForgetsPosition) {
            self.streams = Streams::new(self.side, resume, now);
        }
        self.streams.resumed(now);
    }

    /// Every program has written and read all of it.
    pub(crate) fn done(&self) -> bool {
        self.programs
            .values()
            .all(|program| program.gone || program.ended && program.heard_end && program.read == program.expected)
    }
}

fn stream_number(id: StreamId) -> u64 {
    id.to_string().parse().unwrap_or_default()
}
