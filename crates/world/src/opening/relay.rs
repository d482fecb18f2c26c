//! Sockets at a relay, and an honest one that joins them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use postern_rendezvous::{Hall, HallAction, HallRules, SocketId, TicketClaim};

use super::Lost;
use super::deeds::made_again;
use super::limits::RECORDED;
use super::people::PEOPLE;

/// A socket from somebody to the relay.
#[derive(Default)]
pub(crate) struct Socket {
    /// Its first line.
    pub(crate) ticket: String,
    /// On its way to the relay, and to its owner.
    pub(crate) out: Vec<u8>,
    pub(crate) inbox: Vec<u8>,
    /// What its owner has said, for a replay.
    pub(crate) recorded: Vec<u8>,
    pub(crate) peer: Option<usize>,
    pub(crate) shut: bool,
}

impl Socket {
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        if self.shut {
            return;
        }
        self.out.extend_from_slice(bytes);
        let room = RECORDED.saturating_sub(self.recorded.len()).min(bytes.len());
        self.recorded.extend_from_slice(&bytes[..room]);
    }
}

/// The relay as it ships, with one guard less where somebody took it away.
pub(crate) struct Relay {
    hall: Hall,
    start: Instant,
    lost: Option<Lost>,
    /// Those who wait, for a relay that joins by arrival.
    waiting: [Vec<usize>; 2],
    /// Tickets, for one that forgets them.
    seen: BTreeSet<String>,
}

impl Relay {
    pub(crate) fn new(lost: Option<Lost>) -> Self {
        // Virtual time begins anywhere.
        #[allow(clippy::disallowed_methods, reason = "a moment to count from, not a clock")]
        let start = Instant::now();
        Self {
            hall: Hall::new(HallRules::default()),
            start,
            lost,
            waiting: [Vec::new(), Vec::new()],
            seen: BTreeSet::new(),
        }
    }

    /// A socket has shown its ticket.
    pub(crate) fn arrive(&mut self, sockets: &mut [Socket], id: usize, now_ms: u64, now: Duration) {
        if self.lost == Some(Lost::RelayMatchesByArrival) {
            let side = usize::from(
                TicketClaim::parse(sockets[id].ticket.as_bytes())
                    .is_ok_and(|claim| claim.to().side == postern_rendezvous::Side::B),
            );
            self.waiting[side].push(id);
            if let [[a, ..], [b, ..]] = [self.waiting[0].as_slice(), self.waiting[1].as_slice()] {
                let (a, b) = (*a, *b);
                self.waiting.iter_mut().for_each(|side| _ = side.remove(0));
                join(sockets, a, b);
            }
            return;
        }
        let mut line = sockets[id].ticket.clone();
        if self.lost == Some(Lost::RelayTakesTicketsTwice) && !self.seen.insert(line.clone()) {
            let mut nonce = [0; 16];
            nonce[..8].copy_from_slice(&(id as u64).to_be_bytes());
            line = made_again(&line, now_ms, nonce).unwrap_or(line);
        }
        let ticket = self.check(&line, now_ms);
        let Some(ticket) = ticket else {
            sockets[id].shut = true;
            return;
        };
        self.hall.arrive(SocketId(id as u64), &ticket, self.start + now, now_ms);
        self.act(sockets);
    }

    fn check(&self, line: &str, now_ms: u64) -> Option<postern_rendezvous::Ticket> {
        let claim = TicketClaim::parse(line.as_bytes()).ok()?;
        claim.check(&PEOPLE.relay, now_ms).ok()?;
        let signer = claim.to().signer().clone();
        let mut believed = None;
        // The relay asks an honest directory; without its guard it takes any key for anybody's.
        for lies in [false, true] {
            if lies && self.lost != Some(Lost::RelayTakesAnySigner) {
                break;
            }
            let key = PEOPLE.shown(&signer, lies)?;
            believed = believed.or(claim.believe(key, &key.to_base64(), now_ms).ok());
        }
        claim.verify(&believed?, &PEOPLE.relay, now_ms).ok()
    }

    /// Whoever has waited too long goes.
    pub(crate) fn tick(&mut self, sockets: &mut [Socket], now: Duration) {
        self.hall.handle_timeout(self.start + now);
        self.act(sockets);
    }

    pub(crate) fn gone(&mut self, sockets: &mut [Socket], id: usize) {
        let peer = sockets[id].peer;
        for id in [Some(id), peer].into_iter().flatten() {
            self.hall.gone(SocketId(id as u64));
            self.hall.ended(SocketId(id as u64));
        }
        self.act(sockets);
    }

    fn act(&mut self, sockets: &mut [Socket]) {
        let index = |id: SocketId| usize::try_from(id.0).unwrap_or(usize::MAX);
        while let Some(action) = self.hall.next_action() {
            match action {
                HallAction::Join { a, b } => join(sockets, index(a), index(b)),
                HallAction::Refuse { id, .. } => sockets[index(id)].shut = true,
                HallAction::Cut { a } => {
                    let a = index(a);
                    if let Some(b) = sockets[a].peer {
                        sockets[b].shut = true;
                    }
                    sockets[a].shut = true;
                }
            }
        }
    }
}

/// From here on each hears the other.
pub(crate) fn join(sockets: &mut [Socket], a: usize, b: usize) {
    sockets[a].peer = Some(b);
    sockets[b].peer = Some(a);
}
