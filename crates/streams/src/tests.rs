//! Two ends and a line between them that cuts bytes anywhere and is lost at any moment.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use crate::frame::{Kind, frame};
use crate::limits::*;
use crate::*;

const RESUME: Duration = Duration::from_secs(600);

/// An end with programs that write a pattern and read at their own speed.
struct End {
    streams: Streams,
    /// On its way to the other end.
    wire: VecDeque<u8>,
    programs: BTreeMap<StreamId, Program>,
    resumed: usize,
    goodbye: Option<(u16, String)>,
}

#[derive(Default)]
struct Program {
    /// Bytes it still wants to write, and how many it has.
    left: usize,
    written: u64,
    ended: bool,
    /// What came: checked against the pattern on arrival; not handed out yet.
    read: u64,
    pending: usize,
    most_pending: usize,
    over: bool,
    reset: bool,
    refused: Option<RefusalCode>,
    stalled: bool,
}

fn pattern(id: StreamId, from: Side, at: u64) -> u8 {
    let side = u64::from(from == Side::Client);
    (at.wrapping_mul(31) ^ (at >> 8) ^ u64::from(id.0) ^ (side << 3)).to_le_bytes()[0]
}

fn other(side: Side) -> Side {
    if side == Side::Client { Side::Device } else { Side::Client }
}

impl End {
    fn new(side: Side, resume: Duration) -> Self {
        Self {
            streams: Streams::new(side, resume, Duration::ZERO),
            wire: VecDeque::new(),
            programs: BTreeMap::new(),
            resumed: 0,
            goodbye: None,
        }
    }

    /// One turn of one program, and everything that is ready onto the wire.
    fn write(&mut self, side: Side, most: usize) {
        if let Some(turn) = self.streams.turn() {
            let program = self.programs.get_mut(&turn.stream).unwrap();
            let take = program.left.min(turn.room).min(most.max(1));
            if take == 0 {
                self.streams.unready(turn.stream);
                if !std::mem::replace(&mut program.ended, true) {
                    self.streams.end(turn.stream);
                }
            } else {
                let mut chunk = self.streams.chunk(turn);
                for byte in &mut chunk.room(turn.room)[..take] {
                    *byte = pattern(turn.stream, side, program.written);
                    program.written += 1;
                }
                chunk.fill(take);
                program.left -= take;
                self.streams.data(turn.stream, chunk);
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        let wire = &mut self.wire;
        while self.streams.transmit(&mut |head, body| wire.extend(head.iter().chain(body))) {}
    }

    fn take(&mut self, side: Side, bytes: &[u8], now: Duration) -> Result<(), Broken> {
        let mut opened = Vec::new();
        let programs = &mut self.programs;
        let (resumed, goodbye) = (&mut self.resumed, &mut self.goodbye);
        self.streams.receive(bytes, now, &mut |event| match event {
            Event::Opened(id, target) => {
                assert!(target.starts_with("host:"));
                opened.push((id, target[5..].parse::<usize>().unwrap()));
            }
            Event::Accepted(_) => {}
            Event::Refused(id, code, _) => programs.get_mut(&id).unwrap().refused = Some(code),
            Event::Data(id, bytes) => {
                let program = programs.entry(id).or_default();
                assert!(!program.over && !program.reset);
                for byte in bytes {
                    assert_eq!(*byte, pattern(id, other(side), program.read), "byte {} of {id}", program.read);
                    program.read += 1;
                }
                program.pending += bytes.len();
                program.most_pending = program.most_pending.max(program.pending);
            }
            Event::Ended(id) => assert!(!std::mem::replace(&mut programs.entry(id).or_default().over, true)),
            Event::Reset(id) => programs.get_mut(&id).unwrap().reset = true,
            Event::Goodbye(code, text) => *goodbye = Some((code, text)),
            Event::Resumed => *resumed += 1,
        })?;
        for (id, back) in opened {
            self.programs.entry(id).or_default().left = back;
            assert!(self.streams.accept(id));
            self.streams.ready(id);
        }
        Ok(())
    }

    fn hand_out(&mut self, most: usize, now: Duration) {
        for (id, program) in &mut self.programs {
            let take = if program.stalled { 0 } else { program.pending.min(most) };
            program.pending -= take;
            if take > 0 {
                self.streams.consumed(*id, take, now);
            }
        }
    }
}

struct Pair {
    client: End,
    device: End,
    now: Duration,
}

impl Pair {
    fn new(resume: Duration) -> Self {
        let [client, device] = [Side::Client, Side::Device].map(|side| End::new(side, resume));
        Self { client, device, now: Duration::ZERO }
    }

    fn open(&mut self, out: usize, back: usize) -> StreamId {
        let id = self.client.streams.open(&format!("host:{back}")).unwrap();
        self.client.programs.insert(id, Program { left: out, ..Program::default() });
        self.client.streams.ready(id);
        id
    }

    /// `most` bytes of each wire arrive.
    fn carry(&mut self, most: usize) {
        self.now += Duration::from_millis(1);
        let bytes: Vec<u8> = self.client.wire.drain(..most.min(self.client.wire.len())).collect();
        self.device.take(Side::Device, &bytes, self.now).unwrap();
        let bytes: Vec<u8> = self.device.wire.drain(..most.min(self.device.wire.len())).collect();
        self.client.take(Side::Client, &bytes, self.now).unwrap();
    }

    fn step(&mut self, write: usize, carry: usize, read: usize) {
        self.client.write(Side::Client, write);
        self.device.write(Side::Device, write);
        self.carry(carry);
        self.client.hand_out(read, self.now);
        self.device.hand_out(read, self.now);
        for end in [&mut self.client, &mut self.device] {
            if end.streams.next_timeout().is_some_and(|due| due <= self.now) {
                assert_eq!(end.streams.on_timeout(self.now), Timeout::Nothing);
            }
            assert!(end.streams.held() <= KEPT_BYTES + 2 * BURST);
        }
    }

    fn lose_and_resume(&mut self) {
        for end in [&mut self.client, &mut self.device] {
            end.wire.clear();
            assert!(end.streams.lost(self.now));
            assert!(end.streams.turn().is_none());
            assert!(!end.streams.transmit(&mut |_, _| {}));
            end.streams.resumed(self.now);
        }
    }

    fn finish(&mut self) {
        for _ in 0..40_000 {
            if self.client.streams.is_empty() && self.device.streams.is_empty() {
                return;
            }
            self.step(usize::MAX, 1 << 20, usize::MAX);
        }
        panic!("it does not come to an end");
    }
}

#[derive(Clone, Debug)]
enum Act {
    Open { out: usize, back: usize },
    Step { write: usize, carry: usize, read: usize },
    Lose,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let size = || prop_oneof![0..20_usize, 0..5_000_usize, 0..400_000_usize];
    let step = (1..100_000_usize, prop_oneof![0..40_usize, 0..200_000_usize], size());
    prop::collection::vec(
        prop_oneof![
            1 => (size(), size()).prop_map(|(out, back)| Act::Open { out, back }),
            12 => step.prop_map(|(write, carry, read)| Act::Step { write, carry, read }),
            1 => Just(Act::Lose),
        ],
        1..120,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever is lost and however little goes at once: each byte once, in order, and all of them.
    #[test]
    fn every_byte_arrives_once_and_in_order(acts in acts()) {
        let mut pair = Pair::new(RESUME);
        let mut asked = Vec::new();
        for act in acts {
            match act {
                Act::Open { out, back } => asked.push((pair.open(out, back), out as u64, back as u64)),
                Act::Step { write, carry, read } => pair.step(write, carry, read),
                Act::Lose => pair.lose_and_resume(),
            }
        }
        pair.finish();
        for (id, out, back) in asked {
            let (here, there) = (&pair.client.programs[&id], &pair.device.programs[&id]);
            prop_assert_eq!((there.read, here.read), (out, back));
            prop_assert!(here.over && there.over);
        }
    }

    /// Bytes of an attacker who got through TLS (a peer that is hostile): an error, or nothing.
    #[test]
    fn no_bytes_make_it_panic_or_grow(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        kinds in prop::collection::vec((prop::sample::select(vec![
            Kind::Position, Kind::Ack, Kind::Ping, Kind::Goodbye, Kind::Open, Kind::Accepted, Kind::Refused, Kind::Data,
            Kind::Window, Kind::End, Kind::Reset,
        ]), 0..6_u32, prop::collection::vec(any::<u8>(), 0..20)), 0..40),
        device in any::<bool>(),
        cut in 1..50_usize,
    ) {
        let side = if device { Side::Device } else { Side::Client };
        let mut end = End::new(side, RESUME);
        end.streams.preopen();
        let _ = end.streams.open("host:1");
        let mut input: Vec<u8> = Vec::new();
        for (kind, stream, body) in kinds {
            let stream = if kind.counted() { stream } else { 0 };
            input.extend(frame(kind, stream, &[&body]));
        }
        input.extend(bytes);
        let mut held = 0;
        for part in input.chunks(cut) {
            let mut grow = |event: Event<'_>| if let Event::Data(_, bytes) = event { held += bytes.len() };
            if end.streams.receive(part, Duration::ZERO, &mut grow).is_err() {
                break;
            }
            end.flush();
        }
        prop_assert!(held <= input.len() && end.streams.len() <= 42);
    }
}

#[test]
fn a_stalled_stream_stops_no_other() {
    let mut pair = Pair::new(Duration::ZERO);
    let (stalled, other) = (pair.open(40_000_000, 0), pair.open(3_000_000, 0));
    pair.device.programs.entry(stalled).or_default().stalled = true;
    for _ in 0..400 {
        pair.step(usize::MAX, 1 << 20, usize::MAX);
    }
    assert_eq!(pair.device.programs[&other].read, 3_000_000);
    let held = pair.device.programs[&stalled].pending;
    assert_eq!(held, GENEROUS_WINDOW as usize, "what is held for a stalled program is its window");
}

#[test]
fn streams_take_turns() {
    let mut pair = Pair::new(Duration::ZERO);
    let ids: Vec<_> = (0..20).map(|_| pair.open(10_000_000, 0)).collect();
    for _ in 0..400 {
        pair.step(usize::MAX, 1 << 20, usize::MAX);
    }
    let read: Vec<u64> = ids.iter().map(|id| pair.device.programs[id].read).collect();
    let (least, most) = (read.iter().min().unwrap(), read.iter().max().unwrap());
    assert!(*least > 0 && most - least <= 2 * CHUNK as u64, "{read:?}");
}

#[test]
fn windows_grow_with_rate_and_delay_and_no_further() {
    let mut pair = Pair::new(Duration::ZERO);
    let id = pair.open(400_000_000, 0);
    // Everything takes a round: 1 ms here and, as the shortest round trip that counts is 5 ms, always quick enough.
    for _ in 0..4_000 {
        pair.client.programs.get_mut(&id).unwrap().left = 50_000_000;
        for _ in 0..300 {
            pair.client.write(Side::Client, usize::MAX);
        }
        pair.step(1, usize::MAX, usize::MAX);
        if pair.device.programs[&id].most_pending == LARGEST_WINDOW as usize {
            break;
        }
    }
    assert_eq!(pair.device.programs[&id].most_pending, LARGEST_WINDOW as usize);
}

#[test]
fn with_resumption_off_nothing_is_kept_and_a_loss_is_the_end() {
    let mut pair = Pair::new(Duration::ZERO);
    pair.open(1_000_000, 1_000_000);
    for _ in 0..20 {
        pair.step(usize::MAX, 1 << 20, usize::MAX);
        pair.client.flush();
        pair.device.flush();
        assert_eq!((pair.client.streams.held(), pair.device.streams.held()), (0, 0));
    }
    assert!(!pair.client.streams.lost(pair.now));
}

#[test]
fn what_is_kept_is_bounded_when_nobody_acknowledges() {
    let mut end = End::new(Side::Client, RESUME);
    let id = end.streams.open("host:0").unwrap();
    end.programs.insert(id, Program { left: usize::MAX, ..Program::default() });
    end.streams.ready(id);
    let accepted = frame(Kind::Accepted, 1, &[&u32::MAX.to_be_bytes()]);
    end.take(Side::Client, &accepted, Duration::ZERO).unwrap();
    for _ in 0..20_000 {
        end.write(Side::Client, 1);
        end.write(Side::Client, usize::MAX);
    }
    assert!(end.streams.turn().is_none());
    assert!(end.streams.held() <= KEPT_BYTES + 2 * BURST);
    end.take(Side::Client, &frame(Kind::Ack, 0, &[&100_u64.to_be_bytes()]), Duration::ZERO).unwrap();
    assert!(end.streams.turn().is_some(), "there is room again");
}

#[test]
fn a_way_that_does_not_come_back_in_time_is_over() {
    let mut end = Streams::new(Side::Device, Duration::from_secs(60), Duration::ZERO);
    let now = Duration::from_secs(100);
    assert!(end.lost(now));
    assert_eq!(end.next_timeout(), Some(Duration::from_secs(160)));
    assert!(end.lost(Duration::from_secs(150)), "told twice, the time does not begin anew");
    assert_eq!(end.on_timeout(Duration::from_secs(159)), Timeout::Nothing);
    assert_eq!(end.on_timeout(Duration::from_secs(160)), Timeout::NotResumed);
}

#[test]
fn a_silent_end_is_lost() {
    let mut end = Streams::new(Side::Client, RESUME, Duration::ZERO);
    let asked = end.next_timeout().unwrap();
    assert_eq!(end.on_timeout(asked), Timeout::Nothing);
    let mut sent: Vec<u8> = Vec::new();
    assert!(end.transmit(&mut |head, body| sent.extend(head.iter().chain(body))));
    assert_eq!(sent[0], 0x04, "PING");
    assert_eq!(end.on_timeout(end.next_timeout().unwrap()), Timeout::Silent);
}

#[test]
fn half_close_and_refusals_and_resets() {
    let mut pair = Pair::new(Duration::ZERO);
    let id = pair.open(10, 100_000);
    pair.finish();
    assert_eq!((pair.device.programs[&id].read, pair.client.programs[&id].read), (10, 100_000));

    let mut device = Streams::new(Side::Device, Duration::ZERO, Duration::ZERO);
    let mut client = Streams::new(Side::Client, Duration::ZERO, Duration::ZERO);
    let wire = |from: &mut Streams, to: &mut Streams| {
        let (mut bytes, mut events) = (Vec::<u8>::new(), Vec::new());
        while from.transmit(&mut |head, body| bytes.extend(head.iter().chain(body))) {}
        to.receive(&bytes, Duration::ZERO, &mut |event| events.push(format!("{event:?}"))).unwrap();
        events
    };
    let ssh = client.preopen();
    assert_eq!(device.preopen(), ssh);
    device.refuse(ssh, RefusalCode::TargetRefused, "no sshd\nhere");
    assert_eq!(wire(&mut device, &mut client), [r#"Refused(StreamId(1), TargetRefused, "no sshd?here")"#]);
    let id = client.open("a:1").unwrap();
    assert_eq!(wire(&mut client, &mut device), [r#"Opened(StreamId(3), "a:1")"#]);
    assert!(device.accept(id) && !device.accept(id));
    client.reset(id);
    assert_eq!(wire(&mut client, &mut device), ["Reset(StreamId(3))"]);
    assert_eq!(wire(&mut device, &mut client), [] as [&str; 0], "ACCEPTED crossed with RESET");
    client.goodbye(0, "done");
    assert_eq!(wire(&mut client, &mut device), [r#"Goodbye(0, "done")"#]);
}

#[test]
fn goodbye_stands_behind_what_was_sent_before() {
    let mut pair = Pair::new(RESUME);
    let id = pair.open(50_000, 0);
    pair.step(usize::MAX, usize::MAX, usize::MAX);
    pair.client.streams.goodbye(7, "bye");
    pair.client.flush();
    pair.carry(usize::MAX);
    assert_eq!(pair.device.programs[&id].read, 50_000);
    assert_eq!(pair.device.goodbye, Some((7, "bye".into())));
}

#[test]
fn rules_that_are_broken_are_named() {
    let open = |id: u32| frame(Kind::Open, id, &[&[0, 1, 0, 0], b"host:0"]);
    let cases: [(Vec<Vec<u8>>, Broken); 11] = [
        (vec![open(3), open(1)], Broken::Number),
        (vec![open(2)], Broken::Number),
        (vec![frame(Kind::Data, 1, &[b"x"])], Broken::OutOfPlace),
        (vec![frame(Kind::Accepted, 1, &[&[0, 1, 0, 0]])], Broken::OutOfPlace),
        (vec![open(1), frame(Kind::End, 1, &[]), frame(Kind::Data, 1, &[b"x"])], Broken::OutOfPlace),
        (vec![open(1), frame(Kind::Window, 1, &[&[255; 4]])], Broken::Window),
        (vec![frame(Kind::Position, 0, &[&[0; 8]])], Broken::OutOfPlace),
        (vec![frame(Kind::Ack, 0, &[&[0, 0, 0, 0, 0, 0, 0, 9]])], Broken::Position),
        (vec![vec![0xff; 8]], Broken::NoFrame),
        (vec![frame(Kind::Goodbye, 0, &[&[0, 0]]), open(1)], Broken::AfterGoodbye),
        (vec![open(1), frame(Kind::Data, 1, &[&[0; 60_000]]), frame(Kind::Data, 1, &[&[0; 60_000]])], Broken::Window),
    ];
    for (frames, broken) in cases {
        let mut device = Streams::new(Side::Device, RESUME, Duration::ZERO);
        let outcome = device.receive(&frames.concat(), Duration::ZERO, &mut |_| {});
        assert_eq!(outcome, Err(broken), "{frames:?}");
    }
}

#[test]
fn more_streams_than_a_session_has_are_refused_and_who_does_not_read_is_hostile() {
    let mut device = Streams::new(Side::Device, RESUME, Duration::ZERO);
    let open = |n: usize| frame(Kind::Open, u32::try_from(2 * n + 1).unwrap(), &[&[0, 1, 0, 0], b"host:0"]);
    let mut opened = 0;
    for n in 0..STREAMS + 1 {
        device.receive(&open(n), Duration::ZERO, &mut |_| opened += 1).unwrap();
    }
    assert_eq!((opened, device.len()), (STREAMS, STREAMS));
    let mut sent: Vec<u8> = Vec::new();
    while device.transmit(&mut |head, body| sent.extend(head.iter().chain(body))) {}
    assert!(sent.ends_with(&[0x12, 0, 0, 2, 0, 0, 8, 1, 0, 5]), "REFUSED, too many streams");
    let flood = (STREAMS + 1..).map(open).find_map(|open| device.receive(&open, Duration::ZERO, &mut |_| {}).err());
    assert_eq!(flood, Some(Broken::Flood));
}

#[test]
fn a_resumption_asks_for_what_was_never_sent_or_is_forgotten() {
    let mut device = Streams::new(Side::Device, RESUME, Duration::ZERO);
    device.resumed(Duration::ZERO);
    let position = frame(Kind::Position, 0, &[&[0, 0, 0, 0, 0, 0, 0, 1]]);
    assert_eq!(device.receive(&position, Duration::ZERO, &mut |_| {}), Err(Broken::Position));
    let mut device = Streams::new(Side::Device, RESUME, Duration::ZERO);
    device.resumed(Duration::ZERO);
    let ping = frame(Kind::Ping, 0, &[&[0; 8]]);
    assert_eq!(device.receive(&ping, Duration::ZERO, &mut |_| {}), Err(Broken::OutOfPlace));
}
