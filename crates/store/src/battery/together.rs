//! Cases with many writers, and across a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use postern_proto::Record;

use super::samples::{View, account, at, id, key, note, put, record, rich_metadata, settle};
use super::{Harness, commit, wait};
use crate::{Assert, Batch, Delivery, LogAs, Op, Pending, StoreError};

/// Writers race for the next version of one record: none is lost, none counts twice.
pub fn versions_keep_writers_apart(open: &dyn Fn() -> Box<dyn Harness>) {
    const WRITERS: usize = 8;
    const TRIES: usize = 40;
    let home = open();
    let store = home.store();
    settle(&*store, &["alice"]);
    let alice = at("alice");
    let counter = key("counter", &alice);
    let first = Record { version: 0, ..record("0") };
    commit(&*store, Batch::new(0).put(&alice, &counter, first, LogAs::Put)).unwrap();
    let won = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                for _ in 0..TRIES {
                    let old = store.get(&alice, &counter).unwrap().unwrap();
                    let batch = Batch::new(0)
                        .assert(Assert::KeyVersion(alice.clone(), counter.clone(), old.version))
                        .put(&alice, &counter, old.next("v", old.metadata.clone(), 1), LogAs::Put);
                    match commit(&*store, batch) {
                        Ok(done) => {
                            won.fetch_add(1, Ordering::Relaxed);
                            let id = u64::try_from(done.commits[0].unwrap()).unwrap();
                            assert_eq!(id, old.version + 1, "one commit per version");
                        }
                        Err(error) => assert_eq!(error, StoreError::Conflict),
                    }
                }
            });
        }
    });
    let won = won.into_inner();
    assert!(won >= TRIES as u64, "with every lost try somebody wins");
    assert_eq!(store.get(&alice, &counter).unwrap().unwrap().version, won);
    assert_eq!(u64::try_from(store.last_commit(&alice).unwrap()).unwrap(), won);
}

/// Many commits in flight at once; each is visible to everybody when acknowledged.
pub fn an_acknowledged_write_is_seen(open: &dyn Fn() -> Box<dyn Harness>) {
    const IN_FLIGHT: usize = 100;
    let home = open();
    let store = home.store();
    settle(&*store, &["alice"]);
    let alice = at("alice");
    let name = |i: usize| format!("k{i}");
    for round in 0..4 {
        let value = round.to_string();
        let pending: Vec<Pending<_>> =
            (0..IN_FLIGHT).map(|i| store.commit(Batch::new(0).op(put(&alice, &name(i), &value)))).collect();
        for (i, pending) in pending.into_iter().enumerate() {
            wait(pending).unwrap();
            let (store, alice, value) = (Arc::clone(&store), alice.clone(), value.clone());
            let seen = move || store.get(&alice, &key(&name(i), &alice)).unwrap().unwrap().value == value;
            assert!(if i % 10 == 0 { thread::spawn(seen).join().unwrap() } else { seen() }, "{i}");
        }
    }
    assert_eq!(store.last_commit(&alice), Ok(4 * 100 - 1));
}

/// Closing and opening changes nothing that the promise shows.
pub fn reopening_keeps_everything(open: &dyn Fn() -> Box<dyn Harness>) {
    let mut home = open();
    let owners = [at("alice"), at("bob")];
    let ids = [id("s1"), id("s2"), id("r")];
    let [alice, bob] = &owners;
    {
        let store = &*home.store();
        settle(store, &["alice", "bob"]);
        let mut rich = record("v");
        rich.metadata = rich_metadata();
        let batch = Batch::new(7)
            .put(alice, &key("rich", alice), rich, LogAs::Put)
            .put(alice, &key("quiet", alice), record("q"), LogAs::Nothing)
            .op(put(bob, "k", "v"))
            .remove(bob, &key("k", bob))
            .op(Op::SetPort { at_sign: bob.clone(), port: Some(6464) })
            .send(note("s1", "alice", "bob"))
            .send(note("s2", "alice", "bob"))
            .receive(note("s1", "alice", "bob"))
            .receive(note("r", "bob", "alice"))
            .deliver(alice, &id("s1"), Delivery::Delivered);
        commit(store, batch).unwrap();
    }
    let before = View::of(&*home.store(), &owners, &ids);
    if !home.reopen() {
        return;
    }
    let store = &*home.store();
    assert_eq!(View::of(store, &owners, &ids), before);
    let next = Batch::new(8).op(put(bob, "k", "v")).receive(note("r", "bob", "alice"));
    let next = commit(store, next).unwrap();
    assert_eq!((next.commits, next.fresh), (vec![Some(2), None], vec![true, false]));
    assert_eq!(commit(store, Batch::new(8).add_account(account("bob"))), Err(StoreError::Conflict));
}
