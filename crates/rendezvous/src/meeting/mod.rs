//! The mind of one two-port session on the relay: who may wait, who is joined with whom, when it is over.
//!
//! The driver tells what happens ([`Meeting::arrived`], [`Meeting::authenticated`], …), does what [`Meeting::next_action`]
//! says until it says nothing more, and calls [`Meeting::handle_timeout`] at [`Meeting::poll_timeout`].

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::limits::{AUTH_WITHIN, GRACE, LIVE_PAIRS, UNAUTHENTICATED_PER_SIDE, WAITING_PER_SIDE};

/// The two ports of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The client's port.
    A,
    /// The device's port.
    B,
}

impl Side {
    /// Its letter in proofs.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The side of a letter in a proof.
    #[must_use]
    pub fn of_letter(letter: &str) -> Option<Self> {
        match letter {
            "a" => Some(Self::A),
            "b" => Some(Self::B),
            _ => None,
        }
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// The driver's name for a socket; never used twice in one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketId(pub u64);

/// What a session demands and allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeetingRules {
    /// Sockets of side A must authenticate.
    pub authenticate_a: bool,
    /// Sockets of side B must authenticate.
    pub authenticate_b: bool,
    /// Time for it.
    pub auth_within: Duration,
    /// Time from the opening after which a session without live pairs is over.
    pub grace: Duration,
    /// Sockets of one side that may be busy authenticating; one more and the oldest is closed.
    pub unauthenticated_per_side: usize,
    /// Sockets of one side that may wait for the other; one more and the newcomer is closed.
    pub waiting_per_side: usize,
    /// Pairs at the same time; further sockets wait.
    pub live_pairs: usize,
}

impl Default for MeetingRules {
    fn default() -> Self {
        Self {
            authenticate_a: true,
            authenticate_b: true,
            auth_within: AUTH_WITHIN,
            grace: GRACE,
            unauthenticated_per_side: UNAUTHENTICATED_PER_SIDE,
            waiting_per_side: WAITING_PER_SIDE,
            live_pairs: LIVE_PAIRS,
        }
    }
}

/// What the driver is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Join these two and report [`Meeting::pair_ended`] when they have ended.
    Join {
        /// Of side A.
        a: SocketId,
        /// Of side B.
        b: SocketId,
    },
    /// Close this socket; nothing more is to be reported of it.
    Close {
        /// Which one.
        id: SocketId,
        /// The reason, for the log.
        why: Why,
    },
    /// Close both ports and all sockets that still wait. The last action.
    Finish,
}

/// Why a socket is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It did not prove whose it is.
    NotAuthenticated,
    /// It did not prove it in time.
    TooSlow,
    /// Too many strangers came after it.
    Crowded,
    /// Too many of its side are waiting already.
    QueueFull,
    /// The socket that it would have been joined with died while it waited.
    PartnerGone,
    /// The session is over.
    Over,
}

/// One session of the relay. Sockets that say which connection of the session they belong to are joined with the one of
/// the other side that says the same; others in the order in which they authenticated.
///
/// In programs that do not number them that order is all that tells which sockets belong together: client and device open
/// one each per connection, and encrypt it by a key of its own. So an authenticated socket that dies while it waits leaves its *place* in the queue, and
/// takes the one it was meant for with it; else every later pair of the session would be one off and read noise. A
/// side without authentication has no such order to lose (anybody may knock), and there the dead just leave.
#[derive(Debug)]
pub struct Meeting {
    rules: MeetingRules,
    a: Queue,
    b: Queue,
    /// Live pairs by their socket of side A.
    pairs: BTreeMap<SocketId, SocketId>,
    state: State,
    actions: VecDeque<Action>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Nothing ends the session before this moment.
    Grace {
        until: Instant,
    },
    /// It ends when the last pair does.
    WhilePairsLive,
    Over,
}

#[derive(Debug, Default)]
struct Queue {
    /// Oldest first; so the first deadline is the next one.
    proving: VecDeque<(SocketId, Instant)>,
    /// Longest first.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    id: SocketId,
    /// The connection it says it belongs to.
    number: Option<u32>,
    alive: bool,
}

impl Queue {
    fn take_proving(&mut self, id: SocketId) -> Option<Instant> {
        let at = self.proving.iter().position(|(other, _)| *other == id)?;
        self.proving.remove(at).map(|(_, deadline)| deadline)
    }
}

impl Meeting {
    /// The ports are open as of `now`.
    #[must_use]
    pub fn new(rules: MeetingRules, now: Instant) -> Self {
        Self {
            rules,
            a: Queue::default(),
            b: Queue::default(),
            pairs: BTreeMap::new(),
            state: State::Grace { until: now + rules.grace },
            actions: VecDeque::new(),
        }
    }

    /// Whether sockets of this side must authenticate.
    #[must_use]
    pub fn must_authenticate(&self, side: Side) -> bool {
        match side {
            Side::A => self.rules.authenticate_a,
            Side::B => self.rules.authenticate_b,
        }
    }

    /// A socket was accepted. One that need not authenticate waits at once.
    pub fn arrived(&mut self, side: Side, id: SocketId, now: Instant) {
        if self.is_over() {
            return self.close(id, Why::Over);
        }
        if !self.must_authenticate(side) {
            return self.wait(side, id, None);
        }
        let deadline = now + self.rules.auth_within;
        let limit = self.rules.unauthenticated_per_side;
        let proving = &mut self.queue(side).proving;
        proving.push_back((id, deadline));
        if proving.len() > limit
            && let Some((oldest, _)) = proving.pop_front()
        {
            self.close(oldest, Why::Crowded);
        }
    }

    /// A socket's line was good, and named this connection.
    pub fn authenticated(&mut self, side: Side, id: SocketId, number: Option<u32>, now: Instant) {
        match self.queue(side).take_proving(id) {
            Some(deadline) if now < deadline => self.wait(side, id, number),
            Some(_) => self.close(id, Why::TooSlow),
            None => {} // already closed; the news crossed
        }
    }

    /// A socket has proved itself elsewhere, and waits at once.
    pub fn admitted(&mut self, side: Side, id: SocketId, number: Option<u32>) {
        if self.is_over() { self.close(id, Why::Over) } else { self.wait(side, id, number) }
    }

    /// A socket's line was not good, or never came.
    pub fn failed(&mut self, side: Side, id: SocketId) {
        if self.queue(side).take_proving(id).is_some() {
            self.close(id, Why::NotAuthenticated);
        }
    }

    /// A socket that was not joined yet has died, and the driver has dropped it.
    pub fn gone(&mut self, side: Side, id: SocketId) {
        let keep_its_place = self.must_authenticate(side);
        let queue = self.queue(side);
        if queue.take_proving(id).is_some() {
            return;
        }
        if !keep_its_place {
            queue.waiting.retain(|other| other.id != id);
        } else if let Some(place) = queue.waiting.iter_mut().find(|other| other.id == id) {
            place.alive = false;
        }
    }

    /// A pair has ended, for whatever reason. Named by its socket of side A.
    pub fn pair_ended(&mut self, a: SocketId) {
        if self.pairs.remove(&a).is_none() {
            return;
        }
        self.join_heads();
        self.finish_if_idle();
    }

    /// When [`Meeting::handle_timeout`] has something to do. None: not before something else happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let grace = match self.state {
            State::Grace { until } => Some(until),
            State::WhilePairsLive => None,
            State::Over => return None,
        };
        let deadlines = [&self.a, &self.b].into_iter().filter_map(|queue| Some(queue.proving.front()?.1));
        grace.into_iter().chain(deadlines).min()
    }

    /// It is `now`: closes who was too slow, and the session when its grace is over and nobody is joined.
    pub fn handle_timeout(&mut self, now: Instant) {
        for side in [Side::A, Side::B] {
            while let Some((id, deadline)) = self.queue(side).proving.front().copied() {
                if now < deadline {
                    break;
                }
                self.queue(side).proving.pop_front();
                self.close(id, Why::TooSlow);
            }
        }
        if let State::Grace { until } = self.state
            && now >= until
        {
            self.state = State::WhilePairsLive;
            self.finish_if_idle();
        }
    }

    /// The next thing to do; ask until there is none.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// True from [`Action::Finish`] on.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Pairs that are joined now.
    #[must_use]
    pub fn live_pairs(&self) -> usize {
        self.pairs.len()
    }

    fn queue(&mut self, side: Side) -> &mut Queue {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    fn wait(&mut self, side: Side, id: SocketId, number: Option<u32>) {
        let limit = self.rules.waiting_per_side;
        let waiting = &mut self.queue(side).waiting;
        if waiting.len() >= limit {
            // The newcomer goes, not the oldest: dropping one in the middle would shift who meets whom.
            return self.close(id, Why::QueueFull);
        }
        waiting.push_back(Waiting { id, number, alive: true });
        self.join_heads();
    }

    /// Joins all that belong together, longest waiting first.
    fn join_heads(&mut self) {
        let mut at = 0;
        while self.pairs.len() < self.rules.live_pairs {
            let Some(&a) = self.a.waiting.get(at) else { return };
            let Some(b) = self.b.waiting.iter().position(|b| belong_together(a, *b)) else {
                at += 1;
                continue;
            };
            self.a.waiting.remove(at);
            let Some(b) = self.b.waiting.remove(b) else { return };
            match (a.alive, b.alive) {
                (true, true) => {
                    self.pairs.insert(a.id, b.id);
                    self.actions.push_back(Action::Join { a: a.id, b: b.id });
                }
                (true, false) => self.close(a.id, Why::PartnerGone),
                (false, true) => self.close(b.id, Why::PartnerGone),
                (false, false) => {}
            }
        }
    }

    fn finish_if_idle(&mut self) {
        if matches!(self.state, State::WhilePairsLive) && self.pairs.is_empty() {
            self.state = State::Over;
            self.a = Queue::default();
            self.b = Queue::default();
            self.actions.push_back(Action::Finish);
        }
    }

    fn close(&mut self, id: SocketId, why: Why) {
        self.actions.push_back(Action::Close { id, why });
    }
}

/// Equal numbers; or one side of the session does not number its sockets, and arrival decides.
fn belong_together(a: Waiting, b: Waiting) -> bool {
    match (a.number, b.number) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    }
}
