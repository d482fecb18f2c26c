//! One schedule: a time with the attacker, then a fair network in which she is a guest of the relay.

use std::collections::VecDeque;
use std::ops::AddAssign;
use std::time::Duration;

use postern_proto::Uuid;

use super::Lost;
use super::limits::{FAIR_ROUNDS, HOSTILE_STEPS, PAUSE, SESSIONS};
use super::parties::{ClientSide, ClientState, Device, DeviceSide, Request};
use super::people::{BOB, LAPTOP, PHONE, START_MS};
use super::relay::{Relay, Socket};
use crate::dice::Dice;
use crate::limits::TRACE;
use crate::{Broke, Violation};

/// What a schedule came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Requests that honest clients made.
    pub requests: usize,
    /// Requests that devices let in.
    pub admitted: usize,
    /// Handshakes after which both honest ends had heard each other.
    pub completed: usize,
    /// Deeds of the attacker.
    pub deeds: usize,
    /// Those of them that were refused by somebody.
    pub refused: usize,
}

impl AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.admitted += other.admitted;
        self.completed += other.completed;
        self.deeds += other.deeds;
        self.refused += other.refused;
    }
}

pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) now: Duration,
    pub(super) lost: Option<Lost>,
    /// The relay is hers.
    pub(super) relay_is_hers: bool,
    pub(super) requests: Vec<Request>,
    pub(super) clients: Vec<ClientSide>,
    pub(super) devices: Vec<Device>,
    pub(super) sides: Vec<DeviceSide>,
    pub(super) sockets: Vec<Socket>,
    pub(super) relay: Relay,
    pub(super) counted: Counted,
    pub(super) trace: VecDeque<String>,
}

pub(super) type Step<T = ()> = Result<T, (Broke, String)>;

/// Runs the schedule of a seed.
///
/// # Errors
/// A promise was broken.
pub fn run(seed: u64, lost: Option<Lost>) -> Result<Counted, Box<Violation>> {
    let mut world = World::new(seed, lost);
    let outcome = world.hostile().and_then(|()| world.fair());
    let again = "--openings ";
    outcome.map(|()| world.counted).map_err(|(broke, what)| {
        Box::new(Violation { broke, what, seed, again, trace: world.trace.into_iter().collect() })
    })
}

impl World {
    fn new(seed: u64, lost: Option<Lost>) -> Self {
        let mut dice = Dice::new(seed);
        Self {
            now: Duration::ZERO,
            lost,
            relay_is_hers: dice.once_in(2),
            requests: Vec::new(),
            clients: Vec::new(),
            devices: vec![Device::new(), Device::new()],
            sides: Vec::new(),
            sockets: Vec::new(),
            relay: Relay::new(lost),
            counted: Counted::default(),
            trace: VecDeque::new(),
            dice,
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        START_MS + u64::try_from(self.now.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn say(&mut self, line: String) {
        if self.trace.len() == TRACE {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:?} {line}", self.now));
    }

    // ---- with the attacker

    fn hostile(&mut self) -> Step {
        for _ in 0..=self.dice.below(SESSIONS) {
            self.begin_any();
        }
        for _ in 0..self.dice.below(HOSTILE_STEPS) {
            self.now += Duration::from_millis(1);
            match self.dice.below(16) {
                0..=3 => self.deliver_somewhere()?,
                4 | 5 => self.join_somebody(),
                6 => self.change_bytes(),
                7 => self.impersonate_device()?,
                8 => self.forge_request()?,
                9 => self.take_over()?,
                10 => self.steal_hello()?,
                11 => self.splice_reply()?,
                12 => self.knock_at_relay(),
                13 if self.dice.once_in(3) => {
                    let most = self.dice.below(usize::try_from(PAUSE.as_millis()).unwrap_or(0)) as u64;
                    self.now += Duration::from_millis(most);
                    self.relay.tick(&mut self.sockets, self.now);
                }
                13 => self.go_on(),
                14 if self.requests.len() < 2 * SESSIONS => self.begin_any(),
                15 if self.dice.once_in(4) => self.restart_device(),
                _ => {}
            }
            self.pump()?;
        }
        Ok(())
    }

    /// An honest client asks a device that obeys it.
    fn begin_any(&mut self) {
        let client = [LAPTOP, PHONE, BOB][self.dice.below(3)];
        let device = self.dice.below(2);
        let random = self.random_id();
        self.ask(client, device, random, 0);
    }

    /// A daemon begins anew: what it remembered is gone, and with it that a request of the last minutes has acted. Whoever
    /// replays one now is let in once more, and heard no more than before.
    fn restart_device(&mut self) {
        let device = self.dice.below(2);
        self.devices[device] = Device::new();
        for side in 0..self.sides.len() {
            if self.requests[self.sides[side].request].device == device {
                self.sides[side].end = None;
                self.shut(self.sides[side].socket);
            }
        }
        self.say(format!("device {device} begins anew"));
    }

    pub(super) fn random_id(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.dice.key()[..16]);
        Uuid::from_random(bytes)
    }

    /// The next epoch of somebody's session.
    fn go_on(&mut self) {
        let Some(side) = self.pick(self.clients.len()) else { return };
        let request = &self.requests[self.clients[side].request];
        let (client, device, session, epoch) =
            (request.client, request.device, request.session.clone(), request.epoch + 1);
        self.clients[side].state = ClientState::Over;
        let socket = self.clients[side].socket;
        self.shut(socket);
        self.ask(client, device, session, epoch);
    }

    pub(super) fn pick(&mut self, of: usize) -> Option<usize> {
        (of > 0).then(|| self.dice.below(of))
    }

    // ---- in a fair network

    /// The relay is honest, the directory too, requests arrive once; she still knocks at the relay, and reads requests.
    fn fair(&mut self) -> Step {
        self.say("the network is fair from here".into());
        if std::mem::take(&mut self.relay_is_hers) {
            self.relay = Relay::new(self.lost);
        }
        // Everybody has given up what they had.
        for side in 0..self.clients.len() {
            self.clients[side].state = ClientState::Over;
            self.shut(self.clients[side].socket);
        }
        for side in 0..self.sides.len() {
            self.sides[side].end = None;
            self.shut(self.sides[side].socket);
        }
        let mut fresh = Vec::new();
        for client in [LAPTOP, PHONE, BOB] {
            let (device, session) = (self.dice.below(2), self.random_id());
            fresh.push(self.ask(client, device, session, 0));
            self.disturb();
        }
        // Requests are delivered in any order.
        let mut order = fresh.clone();
        while !order.is_empty() {
            let next = self.dice.below(order.len());
            let side = order.swap_remove(next);
            let request = self.clients[side].request;
            let (text, device) = (self.requests[request].text.clone(), self.requests[request].device);
            if self.deliver(&text, device, false)?.is_none() {
                return Err((Broke::NotCompleted, format!("device {device} refuses request {request}")));
            }
            self.disturb();
        }
        for _ in 0..FAIR_ROUNDS {
            self.pump()?;
            self.disturb();
        }
        for side in fresh {
            let request = self.clients[side].request;
            let heard = self.clients[side].heard == self.words(request, "down").as_bytes();
            let there = self.sides.iter().find(|there| there.request == request);
            let answered = there.is_some_and(|there| there.heard == self.words(request, "up").as_bytes());
            if !heard || !answered {
                return Err((Broke::NotCompleted, format!("request {request} does not come to a session")));
            }
            self.counted.completed += 1;
        }
        Ok(())
    }

    fn disturb(&mut self) {
        self.now += Duration::from_millis(1);
        if self.dice.once_in(2) {
            self.knock_at_relay();
        }
    }
}
