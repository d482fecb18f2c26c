use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[expect(clippy::disallowed_methods, reason = "a base for virtual time; only differences matter")]
fn start() -> Instant {
    Instant::now()
}

const SECOND: Duration = Duration::from_secs(1);

struct Scene {
    meeting: Meeting,
    now: Instant,
}

impl Scene {
    fn new(rules: MeetingRules) -> Self {
        let now = start();
        Self { meeting: Meeting::new(rules, now), now }
    }

    fn arrive(&mut self, side: Side, id: u64) {
        self.meeting.arrived(side, SocketId(id), self.now);
    }

    fn admit(&mut self, side: Side, id: u64) {
        self.arrive(side, id);
        self.meeting.authenticated(side, SocketId(id), None, self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.meeting.handle_timeout(self.now);
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.meeting.next_action()).collect()
    }
}

#[test]
fn numbers_decide_and_not_arrival() {
    let mut scene = Scene::new(MeetingRules::default());
    for (side, id, number) in [(Side::A, 1, 1), (Side::A, 2, 2), (Side::B, 12, 2), (Side::B, 13, 3), (Side::B, 11, 1)] {
        scene.arrive(side, id);
        scene.meeting.authenticated(side, SocketId(id), Some(number), scene.now);
    }
    assert_eq!(scene.actions(), [join(2, 12), join(1, 11)]);
    // A numbered socket that died takes its own partner with it, not the next one.
    scene.meeting.gone(Side::B, SocketId(13));
    for (id, number) in [(4, 4), (3, 3)] {
        scene.arrive(Side::A, id);
        scene.meeting.authenticated(Side::A, SocketId(id), Some(number), scene.now);
    }
    assert_eq!(scene.actions(), [close(3, Why::PartnerGone)]);
    // The other side does not number its sockets: arrival decides.
    scene.admit(Side::B, 20);
    assert_eq!(scene.actions(), [join(4, 20)]);
}

fn join(a: u64, b: u64) -> Action {
    Action::Join { a: SocketId(a), b: SocketId(b) }
}

fn close(id: u64, why: Why) -> Action {
    Action::Close { id: SocketId(id), why }
}

#[test]
fn heads_are_joined_in_order_of_authentication() {
    let mut scene = Scene::new(MeetingRules::default());
    scene.arrive(Side::A, 1);
    scene.admit(Side::A, 2); // overtakes 1
    scene.meeting.authenticated(Side::A, SocketId(1), None, scene.now);
    assert_eq!(scene.actions(), []);
    scene.admit(Side::B, 3);
    scene.admit(Side::B, 4);
    assert_eq!(scene.actions(), [join(2, 3), join(1, 4)]);
}

#[test]
fn a_side_that_need_not_authenticate_waits_at_once() {
    let rules = MeetingRules { authenticate_a: false, authenticate_b: false, ..MeetingRules::default() };
    let mut scene = Scene::new(rules);
    scene.arrive(Side::B, 1);
    scene.arrive(Side::A, 2);
    assert_eq!(scene.actions(), [join(2, 1)]);
}

#[test]
fn who_does_not_authenticate_in_time_is_closed() {
    let mut scene = Scene::new(MeetingRules::default());
    scene.arrive(Side::A, 1);
    scene.pass(SECOND);
    scene.arrive(Side::B, 2);
    assert_eq!(scene.meeting.poll_timeout(), Some(scene.now + 4 * SECOND));
    scene.pass(4 * SECOND);
    assert_eq!(scene.actions(), [close(1, Why::TooSlow)]);
    scene.now += SECOND; // exactly the deadline, before the timer was handled
    scene.meeting.authenticated(Side::B, SocketId(2), None, scene.now);
    assert_eq!(scene.actions(), [close(2, Why::TooSlow)]);
}

#[test]
fn a_bad_line_closes_its_socket_only() {
    let mut scene = Scene::new(MeetingRules::default());
    scene.arrive(Side::A, 1);
    scene.admit(Side::A, 2);
    scene.meeting.failed(Side::A, SocketId(1));
    scene.meeting.failed(Side::A, SocketId(1)); // once is enough
    scene.admit(Side::B, 3);
    assert_eq!(scene.actions(), [close(1, Why::NotAuthenticated), join(2, 3)]);
}

#[test]
fn a_waiting_socket_that_died_takes_its_partner_and_no_other() {
    let mut scene = Scene::new(MeetingRules::default());
    scene.admit(Side::A, 1);
    scene.admit(Side::A, 2);
    scene.meeting.gone(Side::A, SocketId(1));
    scene.admit(Side::B, 11); // the device opened it for 1, with the keys of 1
    scene.admit(Side::B, 12);
    assert_eq!(scene.actions(), [close(11, Why::PartnerGone), join(2, 12)]);
    scene.admit(Side::B, 13);
    scene.meeting.gone(Side::B, SocketId(13));
    scene.admit(Side::A, 3);
    scene.admit(Side::A, 4);
    scene.admit(Side::B, 14);
    assert_eq!(scene.actions(), [close(3, Why::PartnerGone), join(4, 14)]);
}

#[test]
fn without_authentication_the_dead_just_leave() {
    let mut scene = Scene::new(MeetingRules { authenticate_a: false, ..MeetingRules::default() });
    scene.arrive(Side::A, 1); // a port scan
    scene.meeting.gone(Side::A, SocketId(1));
    scene.arrive(Side::A, 2);
    scene.admit(Side::B, 11);
    assert_eq!(scene.actions(), [join(2, 11)]);
}

#[test]
fn a_socket_that_dies_before_it_authenticated_has_no_place() {
    let mut scene = Scene::new(MeetingRules::default());
    scene.arrive(Side::A, 1);
    scene.meeting.gone(Side::A, SocketId(1));
    scene.admit(Side::A, 2);
    scene.admit(Side::B, 11);
    assert_eq!(scene.actions(), [join(2, 11)]);
}

#[test]
fn a_session_nobody_comes_to_ends_after_its_grace() {
    let mut scene = Scene::new(MeetingRules::default());
    scene.admit(Side::A, 1);
    scene.pass(GRACE - SECOND);
    assert_eq!(scene.actions(), []);
    scene.pass(SECOND);
    assert_eq!(scene.actions(), [Action::Finish]);
    assert_eq!(scene.meeting.poll_timeout(), None);
    scene.arrive(Side::A, 2);
    assert_eq!(scene.actions(), [close(2, Why::Over)]);
}

#[test]
fn pairs_may_come_and_go_within_the_grace_and_keep_the_session_after_it() {
    let mut scene = Scene::new(MeetingRules::default());
    scene.admit(Side::A, 1);
    scene.admit(Side::B, 2);
    scene.meeting.pair_ended(SocketId(1));
    assert_eq!(scene.actions(), [join(1, 2)], "no end within the grace");
    scene.admit(Side::A, 3);
    scene.admit(Side::B, 4);
    scene.pass(1000 * SECOND);
    scene.admit(Side::A, 5);
    scene.admit(Side::B, 6);
    scene.meeting.pair_ended(SocketId(3));
    assert_eq!(scene.actions(), [join(3, 4), join(5, 6)]);
    scene.meeting.pair_ended(SocketId(5));
    assert_eq!(scene.actions(), [Action::Finish]);
}

#[test]
fn strangers_crowd_out_strangers_and_never_who_waits() {
    let rules = MeetingRules { unauthenticated_per_side: 2, waiting_per_side: 1, ..MeetingRules::default() };
    let mut scene = Scene::new(rules);
    scene.admit(Side::A, 1);
    for id in 2..=5 {
        scene.arrive(Side::A, id);
    }
    assert_eq!(scene.actions(), [close(2, Why::Crowded), close(3, Why::Crowded)]);
    scene.meeting.authenticated(Side::A, SocketId(4), None, scene.now);
    assert_eq!(scene.actions(), [close(4, Why::QueueFull)]);
    scene.admit(Side::B, 6);
    assert_eq!(scene.actions(), [join(1, 6)]);
}

#[test]
fn more_pairs_than_allowed_wait_for_a_place() {
    let mut scene = Scene::new(MeetingRules { live_pairs: 1, ..MeetingRules::default() });
    for id in [1, 3] {
        scene.admit(Side::A, id);
        scene.admit(Side::B, id + 1);
    }
    assert_eq!(scene.actions(), [join(1, 2)]);
    scene.pass(GRACE);
    scene.meeting.pair_ended(SocketId(1));
    assert_eq!(scene.actions(), [join(3, 4)], "and the session goes on");
}

#[derive(Debug, Clone)]
enum Event {
    Arrive(Side),
    Authenticate(usize),
    Fail(usize),
    Gone(usize),
    PairEnds(usize),
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let side = prop_oneof![Just(Side::A), Just(Side::B)];
    prop_oneof![
        6 => side.prop_map(Event::Arrive),
        5 => (0_usize..30).prop_map(Event::Authenticate),
        1 => (0_usize..30).prop_map(Event::Fail),
        1 => (0_usize..30).prop_map(Event::Gone),
        2 => (0_usize..10).prop_map(Event::PairEnds),
        2 => (0_u64..4_000).prop_map(Event::Pass),
    ]
}

/// What a plain observer knows: where each socket is.
#[derive(Default)]
struct Observer {
    proving: Vec<(Side, SocketId, Instant)>,
    /// With what is known of their life.
    waiting: Vec<(Side, SocketId, bool)>,
    pairs: Vec<SocketId>,
    ended: BTreeSet<SocketId>,
    /// Alive, and its partner is not.
    widowed: BTreeSet<SocketId>,
    finished: bool,
}

impl Observer {
    fn head(&self, side: Side) -> Option<usize> {
        self.waiting.iter().position(|(s, ..)| *s == side)
    }
}

proptest! {
    #[test]
    fn whatever_happens(
        rules in (any::<bool>(), any::<bool>(), 0_usize..4, 0_usize..4, 0_usize..4),
        events in prop::collection::vec(event(), 0..150),
    ) {
        let rules = MeetingRules {
            authenticate_a: rules.0, authenticate_b: rules.1, unauthenticated_per_side: rules.2,
            waiting_per_side: rules.3, live_pairs: rules.4, ..MeetingRules::default()
        };
        let mut scene = Scene::new(rules);
        let opened = scene.now;
        let mut seen = Observer::default();
        for (id, event) in (0_u64..).zip(events) {
            let at = |n: usize, len: usize| if len == 0 { None } else { Some(n % len) };
            match event {
                Event::Arrive(side) => {
                    scene.arrive(side, id);
                    if seen.finished {
                    } else if scene.meeting.must_authenticate(side) {
                        seen.proving.push((side, SocketId(id), scene.now + AUTH_WITHIN));
                    } else {
                        seen.waiting.push((side, SocketId(id), true));
                    }
                }
                Event::Authenticate(n) => if let Some(n) = at(n, seen.proving.len()) {
                    let (side, id, deadline) = seen.proving.remove(n);
                    prop_assert!(scene.now < deadline, "the slow were closed before");
                    seen.waiting.push((side, id, true));
                    scene.meeting.authenticated(side, id, None, scene.now);
                },
                Event::Fail(n) => if let Some(n) = at(n, seen.proving.len()) {
                    let (side, id, _) = seen.proving[n];
                    scene.meeting.failed(side, id);
                    let last = scene.meeting.actions.back().copied();
                    prop_assert_eq!(last, Some(Action::Close { id, why: Why::NotAuthenticated }));
                },
                Event::Gone(n) => if let Some(n) = at(n, seen.waiting.len()) {
                    let (side, id, alive) = seen.waiting[n];
                    if scene.meeting.must_authenticate(side) {
                        seen.waiting[n].2 = false;
                    } else {
                        seen.waiting.remove(n);
                    }
                    if alive {
                        scene.meeting.gone(side, id);
                    }
                },
                Event::PairEnds(n) => if let Some(n) = at(n, seen.pairs.len()) {
                    scene.meeting.pair_ended(seen.pairs.remove(n));
                },
                Event::Pass(ms) => scene.pass(Duration::from_millis(ms)),
            }
            for action in scene.actions() {
                // Where a head died, both heads leave without being joined.
                while let (Some(a), Some(b)) = (seen.head(Side::A), seen.head(Side::B)) {
                    let (a, b) = (seen.waiting[a], seen.waiting[b]);
                    if a.2 && b.2 || seen.pairs.len() >= rules.live_pairs {
                        break;
                    }
                    seen.waiting.retain(|other| other.1 != a.1 && other.1 != b.1);
                    seen.widowed.extend([a, b].iter().filter(|w| w.2).map(|w| w.1));
                }
                match action {
                    Action::Join { a, b } => {
                        prop_assert!(!seen.finished);
                        for (side, id) in [(Side::A, a), (Side::B, b)] {
                            let head = seen.head(side).expect("somebody waits");
                            prop_assert_eq!(seen.waiting.remove(head).1, id, "first come, first joined");
                            prop_assert!(seen.ended.insert(id), "joined or closed once");
                        }
                        seen.pairs.push(a);
                    }
                    Action::Close { id, why } => {
                        prop_assert!(seen.ended.insert(id), "joined or closed once");
                        prop_assert_eq!(why == Why::Over, seen.finished);
                        seen.proving.retain(|(_, other, _)| *other != id);
                        seen.waiting.retain(|(_, other, _)| *other != id);
                        prop_assert_eq!(why == Why::PartnerGone, seen.widowed.remove(&id));
                    }
                    Action::Finish => {
                        prop_assert!(!seen.finished && seen.pairs.is_empty());
                        prop_assert!(scene.now >= opened + GRACE);
                        seen.finished = true;
                        seen.proving.clear();
                        seen.waiting.clear();
                    }
                }
            }
            while let (Some(a), Some(b)) = (seen.head(Side::A), seen.head(Side::B)) {
                if seen.pairs.len() >= rules.live_pairs {
                    break;
                }
                let (a, b) = (seen.waiting[a], seen.waiting[b]);
                prop_assert!(!a.2 && !b.2, "only two dead heads leave without a word");
                seen.waiting.retain(|other| other.1 != a.1 && other.1 != b.1);
            }
            let of = |side: Side| seen.waiting.iter().filter(|(s, ..)| *s == side).count();
            let proving = |side: Side| seen.proving.iter().filter(|(s, ..)| *s == side).count();
            for side in [Side::A, Side::B] {
                prop_assert!(of(side) <= rules.waiting_per_side);
                prop_assert!(proving(side) <= rules.unauthenticated_per_side);
            }
            prop_assert!(seen.pairs.len() <= rules.live_pairs);
            prop_assert!(of(Side::A) == 0 || of(Side::B) == 0 || seen.pairs.len() == rules.live_pairs);
            prop_assert_eq!(scene.meeting.is_over(), seen.finished);
            if !matches!(scene.meeting.state, State::Grace { .. }) {
                prop_assert_eq!(seen.finished, seen.pairs.is_empty());
            }
            if let Some(next) = scene.meeting.poll_timeout() {
                prop_assert!(next > scene.now);
            }
        }
    }
}
