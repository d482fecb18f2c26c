//! Admission before authentication: strangers may crowd each other out, never those who have said who they are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::limits::{ANONYMOUS_PER_ADDRESS, ANONYMOUS_SEATS, TOTAL_SEATS};

/// How many connections may sit at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeatLimits {
    /// Connections in all.
    pub total: u32,
    /// Connections that have not authenticated yet.
    pub anonymous: u32,
    /// The same from one address; IPv6 addresses count by /64, which is what one subscriber gets.
    pub per_address: u32,
}

impl Default for SeatLimits {
    fn default() -> Self {
        Self { total: TOTAL_SEATS, anonymous: ANONYMOUS_SEATS, per_address: ANONYMOUS_PER_ADDRESS }
    }
}

/// The seats of one listener or server. Clones share them.
///
/// A new connection takes an anonymous [`Seat`]. When the anonymous pool is full, the oldest connection of the most
/// crowded address is asked to leave and the newcomer sits down: ten thousand silent connections cannot keep a real
/// device out, because it needs its anonymous seat for one handshake only. After authentication the connection
/// [settles](Seat::settle) and is never asked to leave.
#[derive(Clone)]
pub struct Seats {
    room: Arc<Room>,
}

struct Room {
    limits: SeatLimits,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next_id: u64,
    settled: u32,
    /// Asked to leave, and not gone yet: they still hold a socket.
    leaving: u32,
    anonymous: BTreeMap<(Origin, u64), CancellationToken>,
    /// Anonymous seats per address.
    counts: BTreeMap<Origin, u32>,
    /// Addresses by how crowded they are, then by their oldest seat; the last is the one that has to give.
    crowd: BTreeSet<(u32, Reverse<u64>, Origin)>,
}

/// Where a connection comes from: an IPv4 address or an IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(u64);

impl Origin {
    /// The origin of this address; IPv4 in IPv6 counts as IPv4.
    #[must_use]
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            // The upper half would be a multicast prefix (ff00::/8), which no connection comes from.
            IpAddr::V4(v4) => Self(0xffff_ffff_0000_0000 | u64::from(v4.to_bits())),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self(u64::from(a) << 48 | u64::from(b) << 32 | u64::from(c) << 16 | u64::from(d))
            }
        }
    }
}

impl Seats {
    /// An empty room.
    #[must_use]
    pub fn new(limits: SeatLimits) -> Self {
        Self { room: Arc::new(Room { limits, inner: Mutex::default() }) }
    }

    /// A seat for a connection from `ip`, or none: then close the socket without a word.
    ///
    /// None is given when authenticated connections fill the room, or when as many as [`SeatLimits::anonymous`] were
    /// asked to leave and have not gone yet.
    #[must_use]
    pub fn take(&self, ip: IpAddr) -> Option<Seat> {
        let SeatLimits { total, anonymous, per_address } = self.room.limits;
        let origin = Origin::of(ip);
        let mut inner = self.room.lock();
        if anonymous == 0 || per_address == 0 || inner.settled >= total || inner.leaving >= anonymous {
            return None;
        }
        if inner.count(origin) >= per_address {
            inner.ask_oldest_of(origin);
        } else if inner.strangers() >= anonymous || inner.settled + inner.strangers() >= total {
            let (_, _, crowded) = *inner.crowd.last()?;
            inner.ask_oldest_of(crowded);
        }
        let id = inner.next_id;
        inner.next_id += 1;
        let leave = CancellationToken::new();
        inner.sit(origin, id, leave.clone());
        drop(inner);
        Some(Seat { room: Some(Arc::clone(&self.room)), origin, id, leave })
    }

    /// Connections that have not authenticated, and those that have.
    #[must_use]
    pub fn occupied(&self) -> (u32, u32) {
        let inner = self.room.lock();
        (inner.strangers() + inner.leaving, inner.settled)
    }
}

impl fmt::Debug for Seats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (anonymous, settled) = self.occupied();
        f.debug_struct("Seats").field("anonymous", &anonymous).field("settled", &settled).finish_non_exhaustive()
    }
}

impl Room {
    /// A panic while the lock is held cannot happen half-way through a change, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn strangers(&self) -> u32 {
        u32::try_from(self.anonymous.len()).unwrap_or(u32::MAX)
    }

    fn count(&self, origin: Origin) -> u32 {
        self.counts.get(&origin).copied().unwrap_or(0)
    }

    fn oldest_of(&self, origin: Origin) -> Option<u64> {
        self.anonymous.range((origin, 0)..=(origin, u64::MAX)).next().map(|((_, id), _)| *id)
    }

    fn sit(&mut self, origin: Origin, id: u64, leave: CancellationToken) {
        self.recount(origin, |inner| {
            inner.anonymous.insert((origin, id), leave);
        });
    }

    fn stand_up(&mut self, origin: Origin, id: u64) -> Option<CancellationToken> {
        let mut left = None;
        self.recount(origin, |inner| left = inner.anonymous.remove(&(origin, id)));
        left
    }

    fn ask_oldest_of(&mut self, origin: Origin) {
        let Some(id) = self.oldest_of(origin) else {
            return;
        };
        if let Some(leave) = self.stand_up(origin, id) {
            self.leaving += 1;
            leave.cancel();
        }
    }

    /// Makes a change to the seats of one address and keeps the two indexes in step with it.
    fn recount(&mut self, origin: Origin, change: impl FnOnce(&mut Self)) {
        let (count, before) = (self.count(origin), self.anonymous.len());
        if let Some(oldest) = self.oldest_of(origin) {
            self.crowd.remove(&(count, Reverse(oldest), origin));
        }
        change(self);
        let count = match self.anonymous.len() {
            after if after > before => count + 1,
            after if after < before => count - 1,
            _ => count,
        };
        match self.oldest_of(origin) {
            Some(oldest) => {
                self.crowd.insert((count, Reverse(oldest), origin));
                self.counts.insert(origin, count);
            }
            None => {
                self.counts.remove(&origin);
            }
        }
    }
}

/// The seat of a connection that has not authenticated yet. Dropping it gives it back.
pub struct Seat {
    /// None after [`Seat::settle`].
    room: Option<Arc<Room>>,
    origin: Origin,
    id: u64,
    leave: CancellationToken,
}

impl Seat {
    /// Waits until this connection is asked to leave for a newcomer; then close it. Cancel-safe.
    pub async fn asked_to_leave(&self) {
        self.leave.cancelled().await;
    }

    /// A handle on the same wish, for those who cannot borrow the seat.
    #[must_use]
    pub fn leave_token(&self) -> &CancellationToken {
        &self.leave
    }

    /// The connection has authenticated: it leaves the anonymous pool and is never asked to leave again.
    /// One that was asked in this very moment may stay too. None: the room is full of authenticated connections.
    #[must_use]
    pub fn settle(mut self) -> Option<SettledSeat> {
        let room = self.room.take()?;
        let mut inner = room.lock();
        release(&mut inner, self.origin, self.id);
        if inner.settled >= room.limits.total {
            return None;
        }
        inner.settled += 1;
        drop(inner);
        Some(SettledSeat { room })
    }
}

fn release(inner: &mut Inner, origin: Origin, id: u64) {
    if inner.stand_up(origin, id).is_none() {
        inner.leaving -= 1; // it was asked to leave, and now it has
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(room) = self.room.take() {
            release(&mut room.lock(), self.origin, self.id);
        }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The seat of an authenticated connection: one pointer. Dropping it gives it back.
pub struct SettledSeat {
    room: Arc<Room>,
}

impl Drop for SettledSeat {
    fn drop(&mut self) {
        self.room.lock().settled -= 1;
    }
}

impl fmt::Debug for SettledSeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SettledSeat").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seats(total: u32, anonymous: u32, per_address: u32) -> Seats {
        Seats::new(SeatLimits { total, anonymous, per_address })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn asked(seat: &Seat) -> bool {
        seat.leave_token().is_cancelled()
    }

    #[test]
    fn a_seat_is_small() {
        assert!(size_of::<Seat>() <= 32);
        assert!(size_of::<SettledSeat>() <= 8);
    }

    /// With 256 seats an address, a restart under 5,000 monitors turned 50,000 connections away.
    #[test]
    fn regression_a_fleet_behind_one_address_comes_back_and_nobody_leaves() {
        let seats = Seats::new(SeatLimits::default());
        let fleet: Vec<Seat> = (0..5_000).map(|_| seats.take(ip("192.0.2.1")).unwrap()).collect();
        let stranger = seats.take(ip("192.0.2.2")).unwrap();
        assert!(!fleet.iter().any(asked) && !asked(&stranger));
    }

    #[test]
    fn the_oldest_of_the_most_crowded_address_leaves() {
        let seats = seats(100, 4, 100);
        let lonely = seats.take(ip("10.0.0.1")).unwrap();
        let crowd: Vec<Seat> = (0..3).map(|_| seats.take(ip("10.0.0.2")).unwrap()).collect();
        let device = seats.take(ip("10.0.0.3")).unwrap();
        assert_eq!(crowd.iter().map(asked).collect::<Vec<_>>(), [true, false, false]);
        assert!(!asked(&lonely) && !asked(&device));
    }

    #[test]
    fn among_equally_crowded_addresses_the_oldest_seat_leaves() {
        let seats = seats(100, 3, 100);
        let all: Vec<Seat> = (1..=5).map(|n| seats.take(IpAddr::from([10, 0, 0, n])).unwrap()).collect();
        assert_eq!(all.iter().map(asked).collect::<Vec<_>>(), [true, true, false, false, false]);
    }

    #[test]
    fn one_address_crowds_out_only_itself() {
        let seats = seats(100, 50, 2);
        let other = seats.take(ip("10.0.0.9")).unwrap();
        let mine: Vec<Seat> = (0..3).map(|_| seats.take(ip("10.0.0.1")).unwrap()).collect();
        assert_eq!(mine.iter().map(asked).collect::<Vec<_>>(), [true, false, false]);
        assert!(!asked(&other));
    }

    #[test]
    fn ipv6_counts_by_64_and_mapped_ipv4_is_ipv4() {
        assert_eq!(Origin::of(ip("2001:db8:1:2::1")), Origin::of(ip("2001:db8:1:2:ffff::9")));
        assert_ne!(Origin::of(ip("2001:db8:1:2::1")), Origin::of(ip("2001:db8:1:3::1")));
        assert_eq!(Origin::of(ip("::ffff:10.0.0.1")), Origin::of(ip("10.0.0.1")));
        assert_ne!(Origin::of(ip("::1")), Origin::of(ip("0.0.0.1")));
    }

    #[test]
    fn settled_connections_are_never_asked_and_fill_the_room() {
        let seats = seats(2, 8, 8);
        let one = seats.take(ip("10.0.0.1")).unwrap().settle().unwrap();
        let stranger = seats.take(ip("10.0.0.2")).unwrap();
        let device = seats.take(ip("10.0.0.3")).unwrap();
        assert!(asked(&stranger), "the room of two is full: the stranger makes place");
        let two = device.settle().unwrap();
        assert!(seats.take(ip("10.0.0.4")).is_none());
        drop((one, stranger));
        assert!(seats.take(ip("10.0.0.4")).is_some());
        drop(two);
        assert_eq!(seats.occupied(), (0, 0));
    }

    #[test]
    fn those_who_do_not_leave_are_bounded() {
        let seats = seats(100, 3, 100);
        let deaf: Vec<Seat> = std::iter::from_fn(|| seats.take(ip("10.0.0.1"))).collect();
        assert_eq!(deaf.len(), 6, "three that sit and three that are leaving");
        drop(deaf);
        assert!(seats.take(ip("10.0.0.1")).is_some());
    }

    #[test]
    fn ten_thousand_silent_strangers_do_not_keep_a_device_out() {
        let seats = seats(20_000, 256, 64);
        let mut silent = Vec::new();
        for n in 0..10_000_u32 {
            silent.push(seats.take(IpAddr::V4(n.to_be_bytes().into())).unwrap());
            silent.retain(|seat| !asked(seat)); // as a listener does: it closes whom it is asked to
        }
        assert_eq!(silent.len(), 256);
        let device = seats.take(ip("192.0.2.1")).unwrap();
        assert!(!asked(&device));
        assert!(device.settle().is_some());
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take(u8),
        Drop(usize),
        Settle(usize),
        Leave(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u8..6).prop_map(Step::Take),
            1 => (0_usize..40).prop_map(Step::Drop),
            1 => (0_usize..40).prop_map(Step::Settle),
            1 => (0_usize..40).prop_map(Step::Leave),
        ]
    }

    proptest! {
        #[test]
        fn the_books_balance(
            total in 0_u32..12, anonymous in 0_u32..8, per_address in 0_u32..5,
            steps in prop::collection::vec(step(), 0..120),
        ) {
            let seats = seats(total, anonymous, per_address);
            let (mut strangers, mut settled) = (Vec::<(u8, Seat)>::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Take(n) => {
                        if let Some(seat) = seats.take(IpAddr::from([10, 0, 0, n])) {
                            prop_assert!(!asked(&seat));
                            strangers.push((n, seat));
                        }
                    }
                    Step::Drop(n) if n < strangers.len() => drop(strangers.remove(n)),
                    Step::Leave(n) if n < settled.len() => drop(settled.remove(n)),
                    Step::Settle(n) if n < strangers.len() => settled.extend(strangers.remove(n).1.settle()),
                    Step::Drop(_) | Step::Leave(_) | Step::Settle(_) => {}
                }
                let sitting: Vec<u8> = strangers.iter().filter(|(_, s)| !asked(s)).map(|(n, _)| *n).collect();
                let count = |n: u8| sitting.iter().filter(|m| **m == n).count();
                prop_assert_eq!(seats.occupied(), (
                    u32::try_from(strangers.len()).unwrap(), u32::try_from(settled.len()).unwrap(),
                ));
                prop_assert!(sitting.len() <= anonymous as usize);
                prop_assert!(settled.len() <= total as usize);
                prop_assert!(strangers.len() <= 2 * anonymous as usize);
                prop_assert!((0..6).all(|n| count(n) <= per_address as usize));
                let inner = seats.room.lock();
                prop_assert_eq!(inner.crowd.len(), inner.counts.len());
                prop_assert_eq!(inner.counts.values().sum::<u32>(), inner.strangers());
            }
            drop((strangers, settled));
            prop_assert_eq!(seats.occupied(), (0, 0));
            prop_assert!(seats.room.lock().crowd.is_empty());
        }
    }
}
