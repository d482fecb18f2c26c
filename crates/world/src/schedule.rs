//! One schedule: a time with the attacker, then a fair network.

use std::collections::VecDeque;
use std::ops::AddAssign;
use std::time::Duration;

use postern_crypto::AeadAlgorithm;
use postern_session::PermitOpen;
use postern_streams::Side;

use crate::attack::{Connection, attack};
use crate::channel::{Channel, Keys};
use crate::dice::Dice;
use crate::end::{End, FORBIDDEN, Faults, PERMITTED};
use crate::limits::{FAIR_ROUNDS, HOSTILE_STEPS, RESUME, SESSIONS, STREAMS, TRACE};
use crate::{Broke, Traitor, Violation};

/// What a schedule came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Sessions that were begun.
    pub sessions: usize,
    /// Those that came to their end with all their bytes.
    pub completed: usize,
    /// Connections, those that were resumed included.
    pub connections: usize,
    /// Deeds of the attacker.
    pub deeds: usize,
    /// Payload bytes that arrived where they belong.
    pub bytes: u64,
}

impl AddAssign for Told {
    fn add_assign(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.completed += other.completed;
        self.connections += other.connections;
        self.deeds += other.deeds;
        self.bytes += other.bytes;
    }
}

struct Session {
    /// Client and device.
    ends: [End; 2],
    resume: Duration,
    epoch: u32,
    keys: Keys,
    /// It lost its connection and does not resume, or did not in time: it may end without all its bytes. Nothing else that
    /// the attacker does is an excuse.
    may_end: bool,
}

struct World {
    dice: Dice,
    now: Duration,
    sessions: Vec<Session>,
    connections: Vec<Connection>,
    permits: PermitOpen,
    cipher: AeadAlgorithm,
    traitor: Option<Traitor>,
    faults: Faults,
    trace: VecDeque<String>,
    told: Told,
}

/// Runs the schedule of a seed.
///
/// # Errors
/// A promise was broken.
pub fn run(seed: u64, traitor: Option<Traitor>) -> Result<Told, Box<Violation>> {
    let mut world = World::new(seed, traitor);
    let outcome = world.hostile().and_then(|()| world.fair());
    outcome.map(|()| world.told).map_err(|(broke, what)| {
        Box::new(Violation { broke, what, seed, again: "", trace: world.trace.into_iter().collect() })
    })
}

type Step = Result<(), (Broke, String)>;

impl World {
    fn new(seed: u64, traitor: Option<Traitor>) -> Self {
        let mut dice = Dice::new(seed);
        let cipher = if dice.once_in(2) { AeadAlgorithm::Aes256Gcm } else { AeadAlgorithm::ChaCha20Poly1305 };
        let mut world = Self {
            now: Duration::ZERO,
            sessions: Vec::new(),
            connections: Vec::new(),
            permits: PermitOpen::parse(PERMITTED).expect("a list of ours"),
            cipher,
            traitor,
            faults: Vec::new(),
            trace: VecDeque::new(),
            told: Told::default(),
            dice,
        };
        for number in 0..=world.dice.below(SESSIONS) {
            world.begin(number);
        }
        world
    }

    fn begin(&mut self, number: usize) {
        let resume = if self.dice.once_in(3) { Duration::ZERO } else { RESUME };
        let ends = [Side::Client, Side::Device].map(|side| End::new(side, number, resume, self.traitor));
        let keys = [self.dice.key(), self.dice.key()];
        self.sessions.push(Session { ends, resume, epoch: 0, keys, may_end: false });
        for _ in 0..=self.dice.below(STREAMS) {
            self.open(number);
        }
        self.connect(number, 0);
        self.told.sessions += 1;
    }

    fn open(&mut self, number: usize) {
        let host = if self.dice.once_in(8) { FORBIDDEN } else { "meter" };
        let size = |dice: &mut Dice| {
            let most = if dice.once_in(40) { 200_000 } else { 800 };
            dice.below(most)
        };
        let (out, back) = (size(&mut self.dice), size(&mut self.dice));
        self.sessions[number].ends[0].open(host, out, back);
    }

    /// A new connection for a session: keys, both record layers, both ends.
    fn connect(&mut self, number: usize, epoch: u32) {
        let keys = match self.traitor {
            Some(Traitor::SharedKeys) => [[7; 32], [8; 32]],
            Some(Traitor::KeysOfTheFirstEpoch) => self.sessions[number].keys,
            _ if epoch == 0 => self.sessions[number].keys,
            _ => [self.dice.key(), self.dice.key()],
        };
        let connection = self.connections.len();
        self.connections.push(Connection::default());
        let session = &mut self.sessions[number];
        session.epoch = epoch;
        for end in &mut session.ends {
            let channel = Channel::new(end.side, &keys, self.cipher, self.traitor);
            end.connect(channel, connection, epoch, session.resume, self.now);
        }
        self.told.connections += 1;
        self.say(format!("session {number} epoch {epoch} is connection {connection}"));
    }

    fn say(&mut self, line: String) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:?} {line}", self.now));
    }

    // ---- with the attacker

    fn hostile(&mut self) -> Step {
        // Some worlds have no attacker but a bad network: every session that resumes has to come through.
        let gentle = self.dice.once_in(4);
        for _ in 0..self.dice.below(HOSTILE_STEPS) {
            self.now += Duration::from_millis(1);
            let number = self.dice.below(self.sessions.len());
            let side = self.dice.below(2);
            match self.dice.below(12) {
                0..=3 => {
                    let most = 1 + self.dice.below(2000);
                    self.sessions[number].ends[side].write(most);
                    self.flush(number, side);
                }
                4..=7 => {
                    let most = self.dice.below(3000);
                    self.deliver(number, side, most);
                }
                8 => {
                    let most = self.dice.below(4000);
                    self.sessions[number].ends[side].hand_out(most, self.now);
                    self.flush(number, side);
                }
                9 if self.dice.once_in(3) => self.lose(number, side, "is cut"),
                9 => self.come_back(number),
                10 => {
                    let longest = if self.dice.once_in(12) { RESUME * 2 } else { Duration::from_secs(30) };
                    self.pass_time(longest);
                }
                _ if gentle => {}
                _ => self.attack(),
            }
            self.check()?;
        }
        Ok(())
    }

    fn attack(&mut self) {
        if let Some(deed) = attack(&mut self.connections, &mut self.dice) {
            self.told.deeds += 1;
            self.say(format!("the attacker {deed}"));
        }
    }

    /// To the next moment at which somebody's clock has something to say, or by `longest`.
    fn pass_time(&mut self, longest: Duration) {
        let due = self.sessions.iter().flat_map(|session| &session.ends).filter(|end| !end.over);
        if let Some(due) = due.filter_map(|end| end.streams.next_timeout()).min() {
            self.now = self.now.max(due.min(self.now + longest));
        }
        for number in 0..self.sessions.len() {
            for side in 0..2 {
                if self.sessions[number].ends[side].tick(self.now) {
                    self.lose(number, side, "is silent");
                }
                // What waits beyond its time is over.
                self.sessions[number].may_end |= self.sessions[number].ends[side].over;
                self.flush(number, side);
            }
        }
    }

    // ---- in a fair network

    fn fair(&mut self) -> Step {
        self.say("the network is fair from here".into());
        for _ in 0..FAIR_ROUNDS {
            let mut busy = false;
            for number in 0..self.sessions.len() {
                self.come_back(number);
                for side in 0..2 {
                    while self.sessions[number].ends[side].write(usize::MAX) {}
                    self.flush(number, side);
                    busy |= self.deliver(number, 1 - side, usize::MAX);
                    busy |= self.sessions[number].ends[1 - side].hand_out(usize::MAX, self.now);
                    self.flush(number, 1 - side);
                }
            }
            self.now += Duration::from_millis(1);
            self.check()?;
            if self.sessions.iter().all(Session::is_over_or_done) {
                return self.sum_up();
            }
            if !busy {
                self.pass_time(RESUME);
            }
        }
        let stuck: Vec<usize> = (0..self.sessions.len()).filter(|n| !self.sessions[*n].is_over_or_done()).collect();
        Err((Broke::NotCompleted, format!("sessions {stuck:?} do not come to an end")))
    }

    fn sum_up(&mut self) -> Step {
        for (number, session) in self.sessions.iter().enumerate() {
            if session.ends.iter().all(End::done) {
                self.told.completed += 1;
            } else if !session.may_end {
                return Err((Broke::EndedForNothing, format!("session {number}, epoch {}", session.epoch)));
            }
            let programs = session.ends.iter().flat_map(|end| end.programs.values());
            self.told.bytes += programs.map(|program| program.read).sum::<u64>();
        }
        Ok(())
    }

    // ---- wires

    /// What an end has to say goes onto its connection.
    fn flush(&mut self, number: usize, side: usize) {
        let end = &mut self.sessions[number].ends[side];
        let wire = end.flush();
        if let Some(connection) = end.connection {
            self.connections[connection].push(side, &wire);
        }
    }

    /// Bytes arrive at an end. True: there were some.
    fn deliver(&mut self, number: usize, side: usize, most: usize) -> bool {
        let end = &mut self.sessions[number].ends[side];
        let Some(connection) = end.connection else { return false };
        let queue = &mut self.connections[connection].queues[1 - side];
        let bytes: Vec<u8> = queue.drain(..most.min(queue.len())).collect();
        if bytes.is_empty() {
            return false;
        }
        if end.take(&bytes, &self.permits, self.now, &mut self.faults) {
            self.lose(number, side, "has a lie in it");
        } else {
            self.flush(number, side);
        }
        true
    }

    /// One end gives its connection up; the other hears of it.
    fn lose(&mut self, number: usize, side: usize, why: &str) {
        let Some(connection) = self.sessions[number].ends[side].connection else { return };
        self.say(format!("connection {connection} {why}"));
        let session = &mut self.sessions[number];
        // Without resumption a loss is the end: an honest one too.
        session.may_end |= session.resume.is_zero();
        for end in &mut session.ends {
            if end.connection == Some(connection) {
                end.lose(self.now, &mut self.faults);
            }
        }
    }

    /// The client asks again, when its connection is gone.
    fn come_back(&mut self, number: usize) {
        let session = &self.sessions[number];
        let waits = session.ends[0].connection.is_none() && session.ends.iter().all(|end| !end.over);
        if waits {
            let epoch = session.epoch + 1;
            self.connect(number, epoch);
            for side in 0..2 {
                self.flush(number, side);
            }
        }
    }

    fn check(&mut self) -> Step {
        self.faults.pop().map_or(Ok(()), Err)
    }
}

impl Session {
    fn is_over_or_done(&self) -> bool {
        self.ends.iter().any(|end| end.over) || self.ends.iter().all(End::done)
    }
}
