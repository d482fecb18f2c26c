//! Cases on notifications and on the end of things.

use postern_proto::{MessageType, Notification, Operation, Priority, Routing};

use super::samples::{at, id, key, note, put, record, rich_metadata, settle};
use super::{Harness, commit, wait};
use crate::limits::SWEEP_ROWS;
use crate::{Batch, Committed, Delivery, Kept, LogAs, Op, Swept, Usage};

/// By `at`, then by arrival; after, now and limit are kept.
pub fn received_are_ordered_and_bounded(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice", "bob"]);
    let alice = at("alice");
    for (name, at, expires_at) in [("d", 30, 100), ("b", 20, 100), ("a", 10, 100), ("c", 20, 100), ("short", 20, 50)] {
        commit(store, Batch::new(0).receive(Notification { at, expires_at, ..note(name, "bob", "alice") })).unwrap();
    }
    let ids = |after, now, limit| {
        let found = store.received_since(&alice, after, now, limit).unwrap();
        found.iter().map(|n| n.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(0, 0, 99), ["a", "b", "c", "short", "d"]);
    assert_eq!(ids(0, 50, 99), ["a", "b", "c", "d"]);
    assert_eq!(ids(10, 49, 99), ["b", "c", "short", "d"]);
    assert_eq!(ids(0, 50, 2), ["a", "b"]);
    assert_eq!(ids(30, 0, 99), [""; 0]);
    assert_eq!(ids(0, 100, 99), [""; 0]);
    assert_eq!(store.received_since(&at("bob"), 0, 0, 9), Ok(vec![]));
    assert_eq!(store.queued(0, 9), Ok(vec![]));
}

/// Same sender and id: the first stays and the batch is told. Another sender's is another.
pub fn a_second_arrival_is_ignored(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice", "bob"]);
    let first = note("n", "carol", "alice");
    let again = Notification { value: Some("other".into()), at: 5, ..first.clone() };
    let other = Notification { at: 20, ..note("n", "dave", "alice") };
    let batch = Batch::new(0).receive(first.clone()).receive(again.clone()).receive(other.clone());
    assert_eq!(commit(store, batch).unwrap().fresh, [true, false, true]);
    let elsewhere = Batch::new(0).receive(again).receive(note("n", "carol", "bob"));
    assert_eq!(commit(store, elsewhere).unwrap().fresh, [false, true]);
    assert_eq!(store.received_since(&at("alice"), 0, 0, 9).unwrap(), [first, other]);
}

/// Queued is listed, oldest first, until its time ends or it is delivered or given up.
pub fn outgoing_wait_until_delivered(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice", "bob"]);
    let alice = at("alice");
    let sent = |name: &str, from: &str, at, expires_at| Notification { at, expires_at, ..note(name, from, "carol") };
    let batch = Batch::new(0)
        .send(sent("c", "alice", 20, 100))
        .send(sent("a", "bob", 10, 100))
        .send(sent("d", "alice", 20, 60))
        .send(sent("b", "alice", 15, 100))
        .send(sent("b", "alice", 1, 100));
    assert_eq!(commit(store, batch).unwrap().fresh, [true, true, true, true, false]);
    let ids = |now, limit| store.queued(now, limit).unwrap().iter().map(|n| n.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(0, 99), ["a", "b", "c", "d"]);
    assert_eq!(ids(60, 99), ["a", "b", "c"]);
    assert_eq!(ids(0, 2), ["a", "b"]);
    assert_eq!(ids(100, 99), [""; 0]);

    let status = |owner: &str, name: &str| store.outgoing_status(&at(owner), &id(name)).unwrap();
    assert_eq!(status("alice", "b"), Some(Delivery::Queued));
    assert_eq!(status("alice", "a"), None);
    for (name, delivery) in [("b", Delivery::Delivered), ("c", Delivery::Errored), ("d", Delivery::Expired)] {
        commit(store, Batch::new(0).deliver(&alice, &id(name), delivery)).unwrap();
        assert_eq!(status("alice", name), Some(delivery));
    }
    assert_eq!(ids(0, 99), ["a"]);
    let unknown = commit(store, Batch::new(0).deliver(&alice, &id("a"), Delivery::Delivered)).unwrap();
    assert_eq!(unknown, Committed { commits: vec![None], fresh: vec![true] });
    assert_eq!(status("bob", "a"), Some(Delivery::Queued));
    commit(store, Batch::new(0).deliver(&alice, &id("c"), Delivery::Queued)).unwrap();
    assert_eq!(ids(0, 99), ["a", "c"]);
    assert_eq!(store.received_since(&alice, 0, 0, 9), Ok(vec![]));
}

/// Each pair waits in its own order, the expired in their place; what is delivered or given up waits no longer.
pub fn pairs_wait_apart(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice", "bob"]);
    let sent = |name: &str, from: &str, to: &str, at| Notification { at, expires_at: 50, ..note(name, from, to) };
    let batch = Batch::new(0)
        .send(sent("c", "alice", "carol", 20))
        .send(sent("a", "alice", "carol", 10))
        .send(sent("d", "alice", "carol", 20))
        .send(sent("a", "bob", "carol", 5))
        .send(sent("b", "alice", "dave", 15));
    commit(store, batch).unwrap();
    let pairs = |limit| {
        let found = store.waiting_pairs(limit).unwrap();
        found.iter().map(|(from, to)| format!("{from}{to}")).collect::<Vec<_>>()
    };
    assert_eq!(pairs(9), ["@alice@carol", "@alice@dave", "@bob@carol"]);
    assert_eq!(pairs(2), ["@alice@carol", "@alice@dave"]);
    let next = |from: &str, to: &str| store.next_waiting(&at(from), &at(to)).unwrap();
    for name in ["a", "c", "d"] {
        let found = next("alice", "carol").unwrap();
        assert_eq!(found, Notification { ..sent(name, "alice", "carol", found.at) });
        commit(store, Batch::new(0).deliver(&at("alice"), &id(name), Delivery::Errored)).unwrap();
    }
    let urgent = |name: &str, priority, at| Notification {
        routing: Routing { priority, ..Routing::default() },
        ..sent(name, "alice", "carol", at)
    };
    let (low, high) = (urgent("e", Priority::Low, 1), urgent("f", Priority::High, 9));
    commit(store, Batch::new(0).send(low).send(high).send(urgent("g", Priority::Medium, 5))).unwrap();
    for name in ["f", "g", "e"] {
        assert_eq!(next("alice", "carol").unwrap().id, id(name));
        commit(store, Batch::new(0).deliver(&at("alice"), &id(name), Delivery::Delivered)).unwrap();
    }
    assert_eq!(next("alice", "carol"), None);
    assert_eq!(next("bob", "carol").map(|n| n.from), Some(at("bob")));
    assert_eq!(next("carol", "bob"), None);
    assert_eq!(pairs(9), ["@alice@dave", "@bob@carol"]);
}

/// Every field survives on both sides.
pub fn a_notification_comes_back_as_it_went_in(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice"]);
    let alice = at("alice");
    let rich = Notification {
        value: Some("v\0\"🗝".into()),
        operation: Operation::Delete,
        message_type: MessageType::Text,
        at: 11,
        expires_at: i64::MAX,
        is_encrypted: true,
        is_self: true,
        metadata: rich_metadata(),
        routing: Routing { priority: Priority::High, notifier: Some("an app".into()), latest: Some(u32::MAX) },
        ..note("rich", "alice", "alice")
    };
    let empty =
        Notification { value: Some(String::new()), key: "Any Text: @*!".into(), at: 12, ..note("e", "alice", "alice") };
    let all = [note("plain", "alice", "alice"), rich, empty];
    for n in &all {
        commit(store, Batch::new(0).receive(n.clone()).send(n.clone())).unwrap();
    }
    assert_eq!(store.received_since(&alice, i64::MIN, i64::MIN, 9).unwrap(), all);
    assert_eq!(store.queued(i64::MIN, 9).unwrap(), all);
}

/// Of strategy `latest`, the newest of a notifier to a recipient wait; others are not touched.
pub fn the_latest_supersede(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice", "bob"]);
    let sent = |name: &str, at, to: &str, notifier: &str, latest| {
        let routing = Routing { notifier: Some(notifier.to_owned()), latest, ..Routing::default() };
        Notification { at, routing, ..note(name, "alice", to) }
    };
    let supersede = |keep| Op::Supersede { owner: at("alice"), to: at("bob"), notifier: Some("app".into()), keep };
    let batch = Batch::new(0)
        .send(sent("third", 30, "bob", "app", Some(1)))
        .send(sent("first", 10, "bob", "app", Some(1)))
        .send(sent("second", 20, "bob", "app", Some(2)))
        .send(sent("every", 5, "bob", "app", None))
        .send(sent("other", 5, "bob", "ppa", Some(1)))
        .send(sent("carol", 5, "carol", "app", Some(1)))
        .send(sent("gone", 99, "bob", "app", Some(1)))
        .deliver(&at("alice"), &id("gone"), Delivery::Delivered);
    commit(store, batch.op(supersede(2))).unwrap();
    let waiting = || store.queued(0, 99).unwrap().iter().map(|n| n.id.to_string()).collect::<Vec<_>>();
    assert_eq!(waiting(), ["every", "other", "carol", "second", "third"]);
    assert_eq!(store.outgoing_status(&at("alice"), &id("first")), Ok(Some(Delivery::Expired)));
    commit(store, Batch::new(0).op(supersede(1))).unwrap();
    assert_eq!(waiting(), ["every", "other", "carol", "third"]);
    commit(store, Batch::new(0).op(supersede(0))).unwrap();
    assert_eq!(waiting(), ["every", "other", "carol"]);
    assert_eq!(store.outgoing_status(&at("alice"), &id("gone")), Ok(Some(Delivery::Delivered)));
}

/// One by its id, from either side; and all of them in numbers.
pub fn notifications_are_found_and_counted(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice", "bob"]);
    let alice = at("alice");
    let own = note("n", "alice", "bob");
    let from_bob = Notification { at: 20, operation: Operation::Delete, ..note("n", "bob", "alice") };
    let from_carol = Notification { at: 15, message_type: MessageType::Text, ..note("n", "carol", "alice") };
    let batch = Batch::new(0).receive(from_bob.clone()).receive(from_carol.clone()).send(own.clone());
    commit(store, batch.receive(note("other", "bob", "alice")).op(put(&alice, "k", "1234"))).unwrap();
    let kept = |notification: &Notification, delivery| Kept { notification: notification.clone(), delivery };
    assert_eq!(
        store.notifications(&alice, &id("n")).unwrap(),
        [kept(&own, Some(Delivery::Queued)), kept(&from_carol, None), kept(&from_bob, None)]
    );
    assert_eq!(store.notifications(&alice, &id("unknown")), Ok(vec![]));
    assert_eq!(store.notifications(&at("bob"), &id("n")), Ok(vec![]));
    let usage = Usage {
        records: 1,
        bytes: u64::try_from("k@alice1234".len()).unwrap(),
        received: 3,
        queued: 1,
        deletes: 1,
        texts: 1,
        ..Usage::default()
    };
    assert_eq!(store.usage(&alice), Ok(usage));
    assert_eq!((usage.sent(), store.usage(&at("bob"))), (1, Ok(Usage::default())));
}

/// Received and sent ones alike; the household next door keeps its copy.
pub fn a_notification_is_forgotten_on_request(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice", "bob"]);
    let (to_bob, to_alice) = (note("n", "alice", "bob"), note("n", "bob", "alice"));
    let batch = Batch::new(0).send(to_bob.clone()).receive(to_bob.clone()).receive(to_alice.clone());
    commit(store, batch.receive(note("m", "bob", "alice"))).unwrap();
    let forget = Batch::new(0).op(Op::RemoveNotification { owner: at("alice"), id: id("n") });
    commit(store, forget.clone()).unwrap();
    assert_eq!(store.received_since(&at("alice"), 0, 0, 9).unwrap(), [note("m", "bob", "alice")]);
    assert_eq!(store.outgoing_status(&at("alice"), &id("n")), Ok(None));
    assert_eq!(store.received_since(&at("bob"), 0, 0, 9).unwrap(), [to_bob]);
    commit(store, forget).unwrap();
    assert_eq!(commit(store, Batch::new(0).receive(to_alice)).unwrap().fresh, [true]);
}

/// Sent here, received there, delivered: one batch.
pub fn one_batch_reaches_two_households(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice", "bob"]);
    let n = note("n", "alice", "bob");
    let batch = Batch::new(0).send(n.clone()).receive(n.clone()).deliver(&n.from, &n.id, Delivery::Delivered);
    assert_eq!(commit(store, batch).unwrap().fresh, [true; 3]);
    assert_eq!(store.outgoing_status(&n.from, &n.id), Ok(Some(Delivery::Delivered)));
    assert_eq!(store.queued(0, 9), Ok(vec![]));
    assert_eq!(store.received_since(&n.to, 0, 0, 9).unwrap(), [n]);
}

/// What ends at `now` goes, what ends later stays, the log is left alone.
pub fn sweep_drops_what_ended(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice"]);
    let alice = at("alice");
    let until = |n: &str, expires_at| Notification { expires_at, ..note(n, "alice", "alice") };
    let mut batch = Batch::new(0).op(put(&alice, "for.ever", "v"));
    for (name, end) in [("gone", 50), ("stays", 51)] {
        let mut mortal = record("v");
        mortal.expires_at = Some(end);
        batch = batch.put(&alice, &key(name, &alice), mortal, LogAs::Put);
        batch = batch.receive(until(name, end)).send(until(name, end));
    }
    commit(store, batch).unwrap();
    assert_eq!(wait(store.sweep(49)), Ok(Swept::default()));
    assert_eq!(wait(store.sweep(50)), Ok(Swept { records: 1, notifications: 2, more: false }));
    let mut keys = Vec::new();
    store.scan(&alice, &mut |key, _, _| keys.push(key.to_owned())).unwrap();
    assert_eq!(keys, ["for.ever@alice", "stays@alice"]);
    assert_eq!(store.received_since(&alice, 0, 0, 9).unwrap(), [until("stays", 51)]);
    assert_eq!(store.outgoing_status(&alice, &id("gone")), Ok(None));
    assert_eq!(store.outgoing_status(&alice, &id("stays")), Ok(Some(Delivery::Queued)));
    assert_eq!(store.last_commit(&alice), Ok(2));
    assert_eq!(store.log_since(&alice, -1, 9).unwrap().len(), 3);
    assert_eq!(commit(store, Batch::new(0).receive(until("gone", 99))).unwrap().fresh, [true]);
}

/// A flood of expired things goes in bounded bites.
pub fn sweep_is_bounded(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice"]);
    let alice = at("alice");
    let mut batch = Batch::new(0);
    for i in 0..SWEEP_ROWS + 7 {
        let mut mortal = record("v");
        mortal.expires_at = Some(1);
        batch = batch.put(&alice, &key(&format!("k{i}"), &alice), mortal, LogAs::Nothing);
    }
    commit(store, batch).unwrap();
    assert_eq!(wait(store.sweep(9)), Ok(Swept { records: SWEEP_ROWS, notifications: 0, more: true }));
    assert_eq!(wait(store.sweep(9)), Ok(Swept { records: 7, notifications: 0, more: false }));
}

/// Nothing wraps around at the ends of the number lines.
pub fn absurd_bounds_are_harmless(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice"]);
    let alice = at("alice");
    let edge = Notification { at: i64::MAX, expires_at: i64::MAX, ..note("n", "alice", "alice") };
    let low = Notification { at: i64::MIN, expires_at: i64::MIN, ..note("m", "alice", "alice") };
    commit(store, Batch::new(i64::MAX).op(put(&alice, "k", "v")).receive(edge.clone()).send(edge).receive(low))
        .unwrap();
    for limit in [0, 1, usize::MAX] {
        assert_eq!(store.log_since(&alice, i64::MIN, limit).unwrap().len(), limit.min(1));
        assert_eq!(store.received_since(&alice, i64::MAX - 1, 0, limit).unwrap().len(), limit.min(1));
        assert_eq!(store.queued(i64::MIN, limit).unwrap().len(), limit.min(1));
    }
    assert_eq!(store.log_since(&alice, i64::MAX, 9), Ok(vec![]));
    assert_eq!(store.received_since(&alice, i64::MAX, i64::MIN, 9), Ok(vec![]));
    assert_eq!(store.received_since(&alice, i64::MIN, i64::MAX, 9), Ok(vec![]));
    assert_eq!(store.queued(i64::MAX, 9), Ok(vec![]));
    assert_eq!(wait(store.sweep(i64::MIN)).unwrap().notifications, 1);
    assert_eq!(wait(store.sweep(i64::MAX)).unwrap().notifications, 2);
}
