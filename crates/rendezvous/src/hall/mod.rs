//! The relay's mind for guests with tickets: who waits, who is joined with whom, what is not let in.
//!
//! The driver shows each believed [`Ticket`] ([`Hall::arrive`]), tells what happens to sockets ([`Hall::gone`],
//! [`Hall::ended`]), does what [`Hall::next_action`] says until it says nothing more, and calls [`Hall::handle_timeout`] at
//! [`Hall::poll_timeout`].

#[cfg(test)]
mod tests;
mod used;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use postern_crypto::Ed25519PublicKey;
use postern_proto::{AtSign, Uuid};

use self::used::{Known, Used};
use crate::limits::{
    DEVICES_WAITING_PER_ATSIGN, GRACE, REMEMBERED_TICKETS, TICKET_SESSIONS, TICKET_SESSIONS_PER_ATSIGN,
};
use crate::meeting::{Side, SocketId};
use crate::refusal::{Refusal, RefusalCode};
use crate::ticket::{Ticket, TicketTo};

/// What a hall allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HallRules {
    /// Sessions, those included of which one side waits.
    pub sessions: usize,
    /// The same of one client's atSign.
    pub sessions_per_atsign: usize,
    /// Devices of one atSign that wait for their clients.
    pub devices_waiting: usize,
    /// How long one waits for the other side.
    pub wait: Duration,
    /// Tickets that are remembered so that none is good twice.
    pub remembered: usize,
}

impl Default for HallRules {
    fn default() -> Self {
        Self {
            sessions: TICKET_SESSIONS,
            sessions_per_atsign: TICKET_SESSIONS_PER_ATSIGN,
            devices_waiting: DEVICES_WAITING_PER_ATSIGN,
            wait: GRACE,
            remembered: REMEMBERED_TICKETS,
        }
    }
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HallAction {
    /// Join these two and report [`Hall::ended`] when they have ended.
    Join {
        /// Of side A.
        a: SocketId,
        /// Of side B.
        b: SocketId,
    },
    /// Tell this socket why it is closed, and close it; nothing more is to be reported of it.
    Refuse {
        /// Which one.
        id: SocketId,
        /// The reason.
        refusal: Refusal,
    },
    /// Cut the pair of this socket of side A: its session goes on elsewhere. Nothing more is to be reported of it.
    Cut {
        /// Of side A.
        a: SocketId,
    },
}

/// All guests with tickets. Authority is in the [`Ticket`], which only a check can make: nobody is joined here with anybody
/// whom the other's ticket does not name, under another session or epoch, or under an identity key that this session
/// did not have before.
#[derive(Debug)]
pub struct Hall {
    rules: HallRules,
    meetings: BTreeMap<Key, Meeting>,
    /// Where to look for a socket: those who wait, and side A of those who are joined.
    guests: BTreeMap<SocketId, Key>,
    waits: BTreeSet<(Instant, SocketId)>,
    /// Sessions of each client: side A waits, or is joined.
    clients: BTreeMap<AtSign, usize>,
    /// Devices that wait, of each atSign.
    devices: BTreeMap<AtSign, usize>,
    used: Used,
    stopping: bool,
    actions: VecDeque<HallAction>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    session: Uuid,
    client: AtSign,
    device: AtSign,
}

#[derive(Debug)]
struct Meeting {
    epoch: u32,
    /// Who has been here in this session: A, B.
    keys: [Option<Ed25519PublicKey>; 2],
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Waiting { side: Side, id: SocketId, until: Instant },
    Joined { a: SocketId },
}

impl Hall {
    /// An empty one.
    #[must_use]
    pub fn new(rules: HallRules) -> Self {
        Self {
            rules,
            meetings: BTreeMap::new(),
            guests: BTreeMap::new(),
            waits: BTreeSet::new(),
            clients: BTreeMap::new(),
            devices: BTreeMap::new(),
            used: Used::new(rules.remembered),
            stopping: false,
            actions: VecDeque::new(),
        }
    }

    /// A guest has shown this ticket. `id` was never used before. `now_ms`: since 1970.
    pub fn arrive(&mut self, id: SocketId, ticket: &Ticket, now: Instant, now_ms: u64) {
        if let Err(refusal) = self.admit(id, ticket, now, now_ms) {
            self.refuse(id, refusal);
        }
    }

    fn admit(&mut self, id: SocketId, ticket: &Ticket, now: Instant, now_ms: u64) -> Result<(), Refusal> {
        if self.stopping {
            return Err(stopping());
        }
        match self.used.remember(ticket.mark(), now_ms) {
            Known::New => {}
            Known::Used => return Err(bad("the ticket was used before")),
            Known::NoRoom => return Err(full()),
        }
        let to = ticket.to();
        let key = Key { session: to.session.clone(), client: to.client.clone(), device: to.device.clone() };
        let keys = match self.meetings.get(&key) {
            None => [None, None],
            Some(meeting) => {
                if to.epoch < meeting.epoch {
                    return Err(bad("a later epoch of this session is here already"));
                }
                if meeting.keys[index(to.side)].as_ref().is_some_and(|known| known != ticket.key()) {
                    return Err(bad("this session began under another identity key"));
                }
                match meeting.state {
                    State::Waiting { side, id: other, .. } if to.epoch == meeting.epoch && side != to.side => {
                        return self.join(key, ticket, (side, other), id);
                    }
                    State::Joined { .. } if to.epoch == meeting.epoch => {
                        return Err(bad("this session is live already"));
                    }
                    State::Waiting { .. } | State::Joined { .. } => meeting.keys,
                }
            }
        };
        // Whom this guest replaces gives its place back first.
        let replaced = self.meetings.get(&key).map(|meeting| meeting.state);
        self.forget(&key);
        match replaced {
            Some(State::Waiting { id, .. }) => {
                self.refuse(id, Refusal::new(RefusalCode::Expired, "this side of the session came again"));
            }
            Some(State::Joined { a }) => self.actions.push_back(HallAction::Cut { a }),
            None => {}
        }
        self.has_room_for(to)?;
        let until = now + self.rules.wait;
        let mut meeting = Meeting { epoch: to.epoch, keys, state: State::Waiting { side: to.side, id, until } };
        meeting.keys[index(to.side)] = Some(*ticket.key());
        self.enter(key, meeting);
        Ok(())
    }

    fn join(
        &mut self,
        key: Key,
        ticket: &Ticket,
        (side, waiting): (Side, SocketId),
        newcomer: SocketId,
    ) -> Result<(), Refusal> {
        if side == Side::B {
            self.client_has_room(ticket.to())?;
        }
        let Some(mut meeting) = self.forget(&key) else { return Ok(()) };
        let (a, b) = if side == Side::A { (waiting, newcomer) } else { (newcomer, waiting) };
        meeting.keys[index(side.other())] = Some(*ticket.key());
        meeting.state = State::Joined { a };
        self.enter(key, meeting);
        self.actions.push_back(HallAction::Join { a, b });
        Ok(())
    }

    fn has_room_for(&self, to: &TicketTo) -> Result<(), Refusal> {
        if self.meetings.len() >= self.rules.sessions {
            return Err(full());
        }
        match to.side {
            Side::A => self.client_has_room(to),
            Side::B if count(&self.devices, &to.device) >= self.rules.devices_waiting => {
                Err(Refusal::new(RefusalCode::Quota, "too many devices of this atSign wait here"))
            }
            Side::B => Ok(()),
        }
    }

    fn client_has_room(&self, to: &TicketTo) -> Result<(), Refusal> {
        if count(&self.clients, &to.client) < self.rules.sessions_per_atsign {
            return Ok(());
        }
        Err(Refusal::new(RefusalCode::Quota, "this atSign has as many sessions here as one may have"))
    }

    /// A socket that waited has died, and the driver has dropped it.
    pub fn gone(&mut self, id: SocketId) {
        let Some(key) = self.guests.get(&id) else { return };
        if matches!(self.meetings.get(key), Some(Meeting { state: State::Waiting { .. }, .. })) {
            let key = key.clone();
            self.forget(&key);
        }
    }

    /// A pair has ended, for whatever reason. Named by its socket of side A.
    pub fn ended(&mut self, a: SocketId) {
        let Some(key) = self.guests.get(&a) else { return };
        if matches!(self.meetings.get(key), Some(Meeting { state: State::Joined { .. }, .. })) {
            let key = key.clone();
            self.forget(&key);
        }
    }

    /// The relay stops: nobody is let in any more, and who waits is told. Pairs go on.
    pub fn stop(&mut self) {
        self.stopping = true;
        let waiting: Vec<_> = self.waits.iter().map(|(_, id)| *id).collect();
        for id in waiting {
            self.send_away(id, stopping());
        }
    }

    /// When [`Hall::handle_timeout`] has something to do. None: not before something else happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.waits.first().map(|(until, _)| *until)
    }

    /// It is `now`: sends away who has waited long enough.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((until, id)) = self.waits.first().copied() {
            if now < until {
                break;
            }
            self.send_away(id, Refusal::new(RefusalCode::Alone, "the other side did not come"));
        }
    }

    /// The next thing to do; ask until there is none.
    pub fn next_action(&mut self) -> Option<HallAction> {
        self.actions.pop_front()
    }

    /// Sessions: with both sides here, and with one.
    #[must_use]
    pub fn sessions(&self) -> (usize, usize) {
        (self.meetings.len() - self.waits.len(), self.waits.len())
    }

    fn send_away(&mut self, id: SocketId, refusal: Refusal) {
        if let Some(key) = self.guests.get(&id).cloned() {
            self.forget(&key);
            self.refuse(id, refusal);
        }
    }

    fn refuse(&mut self, id: SocketId, refusal: Refusal) {
        self.actions.push_back(HallAction::Refuse { id, refusal });
    }

    /// Puts a meeting in, and counts it.
    fn enter(&mut self, key: Key, meeting: Meeting) {
        let id = match meeting.state {
            State::Waiting { id, until, .. } => {
                self.waits.insert((until, id));
                id
            }
            State::Joined { a } => a,
        };
        let (counts, name) = self.count_of(&key, &meeting);
        *counts.entry(name).or_default() += 1;
        self.guests.insert(id, key.clone());
        self.meetings.insert(key, meeting);
    }

    /// Takes a meeting out, and every trace of it.
    fn forget(&mut self, key: &Key) -> Option<Meeting> {
        let meeting = self.meetings.remove(key)?;
        let id = match meeting.state {
            State::Waiting { id, until, .. } => {
                self.waits.remove(&(until, id));
                id
            }
            State::Joined { a } => a,
        };
        self.guests.remove(&id);
        let (counts, name) = self.count_of(key, &meeting);
        if let Some(theirs) = counts.get_mut(&name) {
            *theirs -= 1;
            if *theirs == 0 {
                counts.remove(&name);
            }
        }
        Some(meeting)
    }

    /// Which count a meeting is in: a device alone is its own atSign's, for its ticket can name any client.
    fn count_of(&mut self, key: &Key, meeting: &Meeting) -> (&mut BTreeMap<AtSign, usize>, AtSign) {
        match meeting.state {
            State::Waiting { side: Side::B, .. } => (&mut self.devices, key.device.clone()),
            State::Waiting { side: Side::A, .. } | State::Joined { .. } => (&mut self.clients, key.client.clone()),
        }
    }
}

fn index(side: Side) -> usize {
    match side {
        Side::A => 0,
        Side::B => 1,
    }
}

fn count(counts: &BTreeMap<AtSign, usize>, name: &AtSign) -> usize {
    counts.get(name).copied().unwrap_or(0)
}

fn bad(text: &str) -> Refusal {
    Refusal::new(RefusalCode::BadTicket, text)
}

fn full() -> Refusal {
    Refusal::new(RefusalCode::Full, "this relay is full; try again later or use another relay")
}

fn stopping() -> Refusal {
    Refusal::new(RefusalCode::Stopping, "this relay is being stopped")
}
