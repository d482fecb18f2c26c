use super::*;
use crate::pattern::Pattern;
use postern_proto::{MessageType, Metadata, NotificationId, Operation, Routing};
use postern_store::{Account, MemoryStore};

fn at_sign(name: &str) -> AtSign {
    AtSign::parse(name).unwrap()
}

fn note(id: &str, at: Millis) -> Notification {
    Notification {
        id: NotificationId::parse(id).unwrap(),
        from: at_sign("bob"),
        to: at_sign("alice"),
        key: "@alice:ping.dev1.sshnp@bob".into(),
        value: None,
        operation: Operation::Update,
        message_type: MessageType::Key,
        at,
        expires_at: at + 10_000,
        is_encrypted: false,
        is_self: false,
        metadata: Metadata::default(),
        routing: Routing::default(),
    }
}

fn world() -> (Hub, MemoryStore, Subscribed) {
    let (hub, store) = (Hub::default(), MemoryStore::new());
    let account = Account { at_sign: at_sign("alice"), port: None, created_at: 0 };
    drop(store.commit(Batch::new(0).add_account(account)));
    let monitor = hub.house(&at_sign("alice")).subscribe(monitor("sshnp"));
    (hub, store, monitor)
}

fn monitor(pattern: &str) -> Subscription {
    Subscription::new(Pattern::parse(Some(pattern)).unwrap(), false, None, false)
}

fn heard(monitor: &Subscribed) -> Option<Vec<(String, Millis)>> {
    let name = |item| match item {
        Item::Push(push) => (push.id.to_string(), push.at),
        Item::Stats(_) => ("stats".into(), 0),
    };
    monitor.subscription.take().map(|items| items.into_iter().map(name).collect())
}

fn fresh() -> Committed {
    Committed { commits: vec![None], fresh: vec![true] }
}

#[test]
fn pushes_keep_the_order_of_their_stamps_whoever_finishes_first() {
    let (hub, store, monitor) = world();
    let one = hub.submit(&store, Batch::new(10).receive(note("1", 10)));
    let two = hub.submit(&store, Batch::new(10).receive(note("2", 10)));
    let three = hub.submit(&store, Batch::new(10).receive(note("3", 10)));
    two.tickets.settle(&hub, Some(&fresh()));
    assert_eq!(heard(&monitor).unwrap(), []);
    one.tickets.settle(&hub, Some(&fresh()));
    assert_eq!(heard(&monitor).unwrap(), [("1".to_owned(), 10), ("2".to_owned(), 11)]);
    drop(three); // its connection died: nobody waits for it for ever
    let four = hub.submit(&store, Batch::new(9).receive(note("4", 9)));
    four.tickets.settle(&hub, Some(&fresh()));
    assert_eq!(heard(&monitor).unwrap(), [("4".to_owned(), 13)]);
}

#[test]
fn stamps_rise_even_when_the_clock_was_set_back_over_a_restart() {
    let (hub, store, _monitor) = world();
    for n in 0..100 {
        hub.submit(&store, Batch::new(1000).receive(note(&n.to_string(), 1000))).tickets.settle(&hub, Some(&fresh()));
    }
    let restarted = Hub::default();
    let monitor = restarted.house(&at_sign("alice")).subscribe(monitor("sshnp"));
    restarted.submit(&store, Batch::new(500).receive(note("new", 500))).tickets.settle(&restarted, Some(&fresh()));
    assert_eq!(heard(&monitor).unwrap(), [("new".to_owned(), 1100)]);
}

#[test]
fn failures_and_repetitions_are_not_pushed() {
    let (hub, store, monitor) = world();
    hub.submit(&store, Batch::new(1).receive(note("1", 1))).tickets.settle(&hub, None);
    let known = Committed { commits: vec![None], fresh: vec![false] };
    hub.submit(&store, Batch::new(1).receive(note("2", 1))).tickets.settle(&hub, Some(&known));
    assert_eq!(heard(&monitor).unwrap(), []);
}

#[test]
fn a_reader_who_never_reads_is_closed() {
    let (hub, store, slow) = world();
    let other = hub.house(&at_sign("alice")).subscribe(monitor("nothing_like_it"));
    for n in 0..=crate::limits::QUEUED_PUSHES {
        let batch = Batch::new(1).receive(note(&n.to_string(), 1));
        hub.submit(&store, batch).tickets.settle(&hub, Some(&fresh()));
    }
    assert!(heard(&slow).is_none());
    assert_eq!(heard(&other).unwrap(), []);
}

#[test]
fn statistics_do_not_pile_up_and_the_strict_hear_none() {
    let (hub, store, strict) = world();
    let loose = hub.house(&at_sign("alice")).subscribe(Subscription::new(Pattern::Everything, false, None, true));
    hub.tick(&store, 5);
    hub.tick(&store, 6);
    assert_eq!(heard(&loose).unwrap().len(), 1);
    assert_eq!(heard(&strict).unwrap(), []);
}

#[test]
fn seats_of_a_household_end() {
    let hub = Hub::default();
    let seats: Vec<_> = (0..3).map(|_| hub.sit(&at_sign("alice"), 2)).collect();
    assert!(seats[1].is_some() && seats[2].is_none());
    drop(seats);
    assert!(hub.sit(&at_sign("alice"), 1).is_some());
}
