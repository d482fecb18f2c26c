use std::sync::LazyLock;

use postern_crypto::Ed25519PrivateKey;
use proptest::prelude::*;

use super::*;
use crate::ticket::Mark;

static KEYS: LazyLock<[Ed25519PublicKey; 3]> =
    LazyLock::new(|| [(); 3].map(|()| Ed25519PrivateKey::generate().unwrap().public_key()));

fn at(name: &str) -> AtSign {
    AtSign::parse(name).unwrap()
}

fn to(session: u8, epoch: u32, side: Side) -> TicketTo {
    TicketTo {
        relay: at("r"),
        session: Uuid::from_random([session; 16]),
        epoch,
        side,
        client: at("client"),
        device: at("device"),
    }
}

/// A house with a clock, and a new mark for each ticket.
struct House {
    hall: Hall,
    now: Instant,
    next: u64,
}

impl House {
    fn new(rules: HallRules) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "an instant can be had nowhere else; the tests choose its distance"
        )]
        let now = Instant::now();
        Self { hall: Hall::new(rules), now, next: 0 }
    }

    fn mark(&self, number: u64) -> Mark {
        let mut hash = [0; 16];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        Mark { over_ms: 1_000_000, hash }
    }

    fn arrive(&mut self, to: TicketTo, key: &Ed25519PublicKey) -> SocketId {
        self.next += 1;
        let ticket = Ticket::believed(to, *key, self.mark(self.next));
        self.hall.arrive(SocketId(self.next), &ticket, self.now, 0);
        SocketId(self.next)
    }

    fn comes(&mut self, session: u8, epoch: u32, side: Side) -> SocketId {
        self.arrive(to(session, epoch, side), &KEYS[index(side)])
    }

    fn actions(&mut self) -> Vec<HallAction> {
        std::iter::from_fn(|| self.hall.next_action()).collect()
    }

    /// The one refusal that there is to do.
    #[track_caller]
    fn refused(&mut self, id: SocketId) -> RefusalCode {
        match self.actions().as_slice() {
            [HallAction::Refuse { id: refused, refusal }] if *refused == id => refusal.code.clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn sides_meet_whoever_comes_first() {
    let mut house = House::new(HallRules::default());
    let b = house.comes(1, 0, Side::B);
    assert_eq!(house.hall.sessions(), (0, 1));
    let a2 = house.comes(2, 0, Side::A);
    let a = house.comes(1, 0, Side::A);
    assert_eq!(house.actions(), [HallAction::Join { a, b }]);
    let b2 = house.comes(2, 0, Side::B);
    assert_eq!(house.actions(), [HallAction::Join { a: a2, b: b2 }]);
    assert_eq!((house.hall.sessions(), house.hall.poll_timeout()), ((2, 0), None));
    house.hall.ended(a);
    house.hall.ended(a2);
    assert_eq!(house.hall.sessions(), (0, 0));
    assert!(house.hall.clients.is_empty() && house.hall.guests.is_empty());
}

#[test]
fn another_session_epoch_or_name_is_another_meeting() {
    let mut house = House::new(HallRules::default());
    house.comes(1, 0, Side::A);
    house.comes(2, 0, Side::B);
    for (client, device) in [("client2", "device"), ("client", "device2")] {
        let to = TicketTo { client: at(client), device: at(device), ..to(1, 0, Side::B) };
        house.arrive(to, &KEYS[1]);
    }
    assert_eq!(house.actions(), []);
    assert_eq!(house.hall.sessions(), (0, 4));
}

#[test]
fn a_ticket_is_good_once() {
    let mut house = House::new(HallRules::default());
    let ticket = Ticket::believed(to(1, 0, Side::A), KEYS[0], house.mark(77));
    house.hall.arrive(SocketId(500), &ticket, house.now, 0);
    house.hall.arrive(SocketId(501), &ticket, house.now, 0);
    assert_eq!(house.refused(SocketId(501)), RefusalCode::BadTicket);
    house.hall.gone(SocketId(500));
    house.hall.arrive(SocketId(502), &ticket, house.now, 0);
    assert_eq!(house.refused(SocketId(502)), RefusalCode::BadTicket);
}

#[test]
fn a_higher_epoch_ends_the_lower_and_a_lower_one_is_refused() {
    let mut house = House::new(HallRules::default());
    let (a, b) = (house.comes(1, 0, Side::A), house.comes(1, 0, Side::B));
    assert_eq!(house.actions(), [HallAction::Join { a, b }]);
    let again = house.comes(1, 0, Side::A);
    assert_eq!(house.refused(again), RefusalCode::BadTicket);
    let b1 = house.comes(1, 1, Side::B);
    assert_eq!(house.actions(), [HallAction::Cut { a }]);
    house.hall.ended(a); // the news crossed
    let late = house.comes(1, 0, Side::A);
    assert_eq!(house.refused(late), RefusalCode::BadTicket);
    let a1 = house.comes(1, 1, Side::A);
    assert_eq!(house.actions(), [HallAction::Join { a: a1, b: b1 }]);
    // One that waits in a lower epoch is sent away.
    let (a5, a6) = (house.comes(2, 5, Side::A), house.comes(2, 6, Side::A));
    assert_eq!(house.refused(a5), RefusalCode::Expired);
    let b6 = house.comes(2, 6, Side::B);
    assert_eq!(house.actions(), [HallAction::Join { a: a6, b: b6 }]);
}

#[test]
fn a_session_keeps_its_identity_keys() {
    let mut house = House::new(HallRules::default());
    let (a, b) = (house.comes(1, 0, Side::A), house.comes(1, 0, Side::B));
    assert_eq!(house.actions(), [HallAction::Join { a, b }]);
    for side in [Side::A, Side::B] {
        let other = house.arrive(to(1, 1, side), &KEYS[2]);
        assert_eq!(house.refused(other), RefusalCode::BadTicket);
    }
    house.comes(1, 1, Side::A);
    assert_eq!(house.actions(), [HallAction::Cut { a }]);
    // Known from before, though it has not come in this epoch.
    let other = house.arrive(to(1, 1, Side::B), &KEYS[2]);
    assert_eq!(house.refused(other), RefusalCode::BadTicket);
}

#[test]
fn who_waits_too_long_is_told() {
    let mut house = House::new(HallRules::default());
    let a = house.comes(1, 0, Side::A);
    let until = house.hall.poll_timeout().unwrap();
    assert_eq!(until, house.now + GRACE);
    house.hall.handle_timeout(until - Duration::from_millis(1));
    assert_eq!(house.actions(), []);
    house.hall.handle_timeout(until);
    assert_eq!(house.refused(a), RefusalCode::Alone);
    // The same side again takes the place of the one that waits.
    let first = house.comes(2, 0, Side::A);
    let second = house.comes(2, 0, Side::A);
    assert_eq!(house.refused(first), RefusalCode::Expired);
    let b = house.comes(2, 0, Side::B);
    assert_eq!(house.actions(), [HallAction::Join { a: second, b }]);
}

#[test]
fn stopping_tells_who_waits_and_leaves_pairs_alone() {
    let mut house = House::new(HallRules::default());
    let (a, b) = (house.comes(1, 0, Side::A), house.comes(1, 0, Side::B));
    assert_eq!(house.actions(), [HallAction::Join { a, b }]);
    let waiting = house.comes(2, 0, Side::B);
    house.hall.stop();
    assert_eq!(house.refused(waiting), RefusalCode::Stopping);
    let late = house.comes(3, 0, Side::A);
    assert_eq!(house.refused(late), RefusalCode::Stopping);
    assert_eq!(house.hall.sessions(), (1, 0));
}

#[test]
fn each_atsign_has_its_share_and_cannot_use_anothers() {
    let rules = HallRules { sessions: 5, sessions_per_atsign: 2, devices_waiting: 2, ..HallRules::default() };
    let mut house = House::new(rules);
    // A hostile device names the client in as many tickets as it likes: its own share is used.
    house.comes(1, 0, Side::B);
    house.comes(2, 0, Side::B);
    let third = house.comes(3, 0, Side::B);
    assert_eq!(house.refused(third), RefusalCode::Quota);
    for session in [4, 5] {
        house.comes(session, 0, Side::A);
    }
    assert_eq!(house.actions(), []);
    // Joining one that waits counts too.
    let more = house.comes(1, 0, Side::A);
    assert_eq!(house.refused(more), RefusalCode::Quota);
    let other = TicketTo { client: at("client2"), ..to(6, 0, Side::A) };
    house.arrive(other.clone(), &KEYS[0]);
    assert_eq!(house.actions(), []);
    let full = house.arrive(TicketTo { session: Uuid::from_random([7; 16]), ..other }, &KEYS[0]);
    assert_eq!(house.refused(full), RefusalCode::Full);
}

#[derive(Clone, Debug)]
enum Step {
    Arrive { session: u8, epoch: u32, device_side: bool, client: u8, key: usize },
    Gone(u64),
    Ended(u64),
    Time(u64),
    Replay(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..3, 0_u32..3, any::<bool>(), 0_u8..2, 0_usize..5).prop_map(
            |(session, epoch, device_side, client, key)| {
                Step::Arrive { session, epoch, device_side, client, key: key.min(2) }
            }
        ),
        1 => (0_u64..40).prop_map(Step::Gone),
        1 => (0_u64..40).prop_map(Step::Ended),
        1 => (0_u64..40).prop_map(Step::Time),
        1 => (0_u64..40).prop_map(Step::Replay),
    ]
}

proptest! {
    /// Whatever comes in whatever order: only two sides of the same words are joined, nobody twice, nobody under a key
    /// that the live session did not have, no ticket twice, everybody is told in the end, and nothing is left behind.
    #[test]
    fn only_who_belongs_together_is_joined(steps in prop::collection::vec(step(), 1..60)) {
        let rules = HallRules { sessions: 8, sessions_per_atsign: 3, devices_waiting: 3, ..HallRules::default() };
        let mut house = House::new(rules);
        let mut shown: BTreeMap<SocketId, (TicketTo, usize)> = BTreeMap::new();
        let mut done: BTreeSet<SocketId> = BTreeSet::new();
        let mut pairs: BTreeMap<SocketId, SocketId> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Arrive { session, epoch, device_side, client, key } => {
                    let side = if device_side { Side::B } else { Side::A };
                    let to = TicketTo { client: at(&format!("client{client}")), ..to(session, epoch, side) };
                    let id = house.arrive(to.clone(), &KEYS[key]);
                    shown.insert(id, (to, key));
                }
                Step::Replay(number) => {
                    let Some((to, key)) = shown.get(&SocketId(number)).cloned() else { continue };
                    let ticket = Ticket::believed(to.clone(), KEYS[key], house.mark(number));
                    house.next += 1;
                    let id = SocketId(house.next);
                    house.hall.arrive(id, &ticket, house.now, 0);
                    prop_assert_eq!(house.refused(id), RefusalCode::BadTicket);
                    done.insert(id);
                }
                Step::Gone(number) => {
                    let id = SocketId(number);
                    if shown.contains_key(&id) && !done.contains(&id) {
                        done.insert(id);
                        house.hall.gone(id);
                    }
                }
                Step::Ended(number) => {
                    if pairs.remove(&SocketId(number)).is_some() {
                        house.hall.ended(SocketId(number));
                    }
                }
                Step::Time(seconds) => {
                    house.now += Duration::from_secs(seconds);
                    house.hall.handle_timeout(house.now);
                }
            }
            for action in house.actions() {
                match action {
                    HallAction::Join { a, b } => {
                        let ((to_a, key_a), (to_b, key_b)) = (&shown[&a], &shown[&b]);
                        prop_assert_eq!(&TicketTo { side: Side::B, ..to_a.clone() }, to_b);
                        prop_assert!(done.insert(a) && done.insert(b), "joined after its end");
                        pairs.insert(a, b);
                        let _ = (key_a, key_b);
                    }
                    HallAction::Refuse { id, .. } => prop_assert!(done.insert(id), "refused after its end"),
                    HallAction::Cut { a } => prop_assert!(pairs.remove(&a).is_some(), "cut what was not joined"),
                }
            }
            let (joined, waiting) = house.hall.sessions();
            prop_assert_eq!(joined, pairs.len());
            prop_assert_eq!(waiting, shown.len() - shown.keys().filter(|id| done.contains(id)).count());
            prop_assert!(joined + waiting <= rules.sessions);
            prop_assert!(house.hall.clients.values().all(|n| *n <= rules.sessions_per_atsign));
            prop_assert!(house.hall.devices.values().all(|n| *n <= rules.devices_waiting));
        }
        for a in std::mem::take(&mut pairs).into_keys() {
            house.hall.ended(a);
        }
        house.hall.stop();
        for action in house.actions() {
            let HallAction::Refuse { id, .. } = action else { panic!("{action:?}") };
            prop_assert!(done.insert(id));
        }
        prop_assert_eq!(house.hall.sessions(), (0, 0));
        prop_assert!(house.hall.guests.is_empty() && house.hall.waits.is_empty());
        prop_assert!(house.hall.clients.is_empty() && house.hall.devices.is_empty());
        prop_assert!(shown.keys().all(|id| done.contains(id)));
    }
}
