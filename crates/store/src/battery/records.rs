//! Cases on households, records and the commit log.

use postern_proto::{AtKey, Metadata, Record};

use super::samples::{account, at, id, key, note, put, record, rich_metadata, settle};
use super::{Harness, commit};
use crate::{Account, Assert, Batch, LogAs, LogEntry, Logged, Op, StoreError};

/// Households are listed in order, change their port, and end.
pub fn accounts_come_and_go(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    assert_eq!(store.accounts(), Ok(vec![]));
    let bob = Account { at_sign: at("bob"), port: Some(u16::MAX), created_at: -7 };
    commit(store, Batch::new(0).add_account(bob.clone()).add_account(account("alice"))).unwrap();
    assert_eq!(store.accounts(), Ok(vec![account("alice"), bob.clone()]));

    assert_eq!(commit(store, Batch::new(0).add_account(bob.clone())), Err(StoreError::Conflict));
    let port = |name: &str, port| Batch::new(0).op(Op::SetPort { at_sign: at(name), port });
    commit(store, port("alice", Some(6464))).unwrap();
    commit(store, port("bob", None)).unwrap();
    assert_eq!(commit(store, port("carol", None)), Err(StoreError::Conflict));
    let ports: Vec<_> = store.accounts().unwrap().into_iter().map(|a| a.port).collect();
    assert_eq!(ports, [Some(6464), None]);

    let gone = Batch::new(0).op(Op::RemoveAccount(at("alice")));
    commit(store, gone.clone()).unwrap();
    assert_eq!(commit(store, gone), Err(StoreError::Conflict));
    assert_eq!(store.accounts().unwrap().len(), 1);
}

/// Every field survives, extremes too, and a later write replaces all of it.
pub fn a_record_comes_back_as_it_went_in(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice"]);
    let alice = at("alice");
    let plain = record("");
    let rich = Record {
        value: "ä\0🗝 \"'\\".into(),
        metadata: rich_metadata(),
        created_at: i64::MIN,
        updated_at: i64::MAX,
        version: u64::MAX,
        available_at: Some(0),
        expires_at: Some(-1),
        refresh_at: Some(i64::MAX),
    };
    for (name, record) in [("plain", &plain), ("rich", &rich), ("plain", &rich), ("rich", &plain)] {
        let key = AtKey::shared(&at("bob"), name, &alice);
        commit(store, Batch::new(0).put(&alice, &key, record.clone(), LogAs::Put)).unwrap();
        assert_eq!(store.get(&alice, &key).unwrap().as_ref(), Some(record), "{name}");
    }
    let long = record(&"x".repeat(1 << 20));
    commit(store, Batch::new(0).put(&alice, &key("long", &alice), long.clone(), LogAs::Nothing)).unwrap();
    assert_eq!(store.get(&alice, &key("long", &alice)), Ok(Some(long)));
}

/// The same key at two owners is two records; a household that is none is empty.
pub fn households_are_apart(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice", "bob"]);
    let (alice, bob, nobody) = (at("alice"), at("bob"), at("nobody"));
    let key = AtKey::private_key("at_secret");
    commit(store, Batch::new(0).put(&alice, &key, record("a"), LogAs::Put)).unwrap();
    assert_eq!(store.get(&bob, &key), Ok(None));
    commit(store, Batch::new(0).put(&bob, &key, record("b"), LogAs::Put).remove(&alice, &key)).unwrap();
    assert_eq!(store.get(&alice, &key), Ok(None));
    assert_eq!(store.get(&bob, &key), Ok(Some(record("b"))));

    assert_eq!(store.get(&nobody, &key), Ok(None));
    assert_eq!(store.last_commit(&nobody), Ok(-1));
    assert_eq!(store.log_since(&nobody, -1, 9), Ok(vec![]));
    store.scan(&nobody, &mut |key, _, _| panic!("{key} of nobody")).unwrap();
    for batch in [
        Batch::new(0).put(&nobody, &key, record("x"), LogAs::Nothing),
        Batch::new(0).remove(&nobody, &key),
        Batch::new(0).remove_unlogged(&nobody, &key),
        Batch::new(0).receive(note("n", "alice", "nobody")),
        Batch::new(0).send(note("n", "nobody", "alice")),
        Batch::new(0).op(Op::RemoveNotification { owner: nobody.clone(), id: id("n") }),
    ] {
        assert_eq!(commit(store, batch.clone()), Err(StoreError::Conflict), "{batch:?}");
    }
}

/// Order is by bytes of the key text; unborn and expired are shown with their dates.
pub fn scan_shows_everything_in_key_order(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice", "bob"]);
    let alice = at("alice");
    let unborn = Record::new("v", Metadata { ttb: Some(50), ttl: Some(7), ..Metadata::default() }, 10);
    let names = ["z", "public:z", "@bob:z", "é", "zz", "a_b", "aZ", "a-b", "privatekey:z", "cached:public:z"];
    let keys: Vec<_> = names.iter().map(|n| AtKey::parse(n).unwrap().or_owned_by(&alice)).collect();
    let mut batch = Batch::new(0);
    for key in &keys {
        let record = if key.name() == "zz" { unborn.clone() } else { record("v") };
        batch = batch.put(&alice, key, record, LogAs::Nothing);
    }
    commit(store, batch).unwrap();
    let mut wanted: Vec<_> = keys.iter().map(ToString::to_string).collect();
    wanted.sort();
    let mut seen = Vec::new();
    store
        .scan(&alice, &mut |key, born, end| {
            let dates = if key == "zz@alice" { (Some(60), Some(67)) } else { (None, None) };
            assert_eq!((born, end), dates, "{key}");
            seen.push(key.to_owned());
        })
        .unwrap();
    assert_eq!(seen, wanted);
    store.scan(&at("bob"), &mut |key, _, _| panic!("{key} is not Bob's")).unwrap();
}

/// From 0, one after the other, logged steps only.
pub fn commit_ids_count_per_household(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice", "bob"]);
    let (alice, bob) = (at("alice"), at("bob"));
    assert_eq!(store.last_commit(&alice), Ok(-1));
    let hidden = AtKey::private("p", &alice);
    let batch = Batch::new(5)
        .op(put(&alice, "a", "1"))
        .op(put(&bob, "b", "1"))
        .put(&alice, &hidden, record("1"), LogAs::Nothing)
        .remove(&alice, &key("never.was", &alice))
        .remove_unlogged(&alice, &hidden)
        .receive(note("n", "bob", "alice"));
    let done = commit(store, batch).unwrap();
    assert_eq!(done.commits, [Some(0), Some(0), None, Some(1), None, None]);
    assert_eq!(done.fresh, [true; 6]);
    assert_eq!((store.last_commit(&alice), store.last_commit(&bob)), (Ok(1), Ok(0)));
    let done = commit(store, Batch::new(6).op(put(&alice, "a", "2"))).unwrap();
    assert_eq!(done.commits, [Some(2)]);
    assert_eq!(commit(store, Batch::new(7)).unwrap().commits, []);
    assert_eq!(store.last_commit(&alice), Ok(2));
}

/// One entry per key, ascending, from `after` on, at most `limit`.
pub fn the_log_keeps_the_latest_of_each_key(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice"]);
    let alice = at("alice");
    for name in ["a", "b", "a", "c"] {
        commit(store, Batch::new(5).op(put(&alice, name, "v"))).unwrap();
    }
    let meta = Batch::new(6).put(&alice, &key("c", &alice), record("v"), LogAs::Meta).remove(&alice, &key("b", &alice));
    commit(store, meta).unwrap();
    let entry = |commit, key: &str, kind, at| LogEntry { commit, key: key.into(), kind, at };
    let all = [
        entry(2, "a@alice", Logged::Put, 5),
        entry(4, "c@alice", Logged::Meta, 6),
        entry(5, "b@alice", Logged::Remove, 6),
    ];
    assert_eq!(store.log_since(&alice, -1, 100).unwrap(), all);
    assert_eq!(store.log_since(&alice, 2, 100).unwrap(), all[1..]);
    assert_eq!(store.log_since(&alice, 1, 2).unwrap(), all[..2]);
    assert_eq!(store.log_since(&alice, 5, 100).unwrap(), []);
}

/// Each assert, when it holds and when it does not.
pub fn asserts_decide(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice"]);
    let alice = at("alice");
    let (here, gone) = (key("here", &alice), key("gone", &alice));
    let third = Record { version: 3, expires_at: Some(0), ..record("v") };
    commit(store, Batch::new(9).put(&alice, &here, third, LogAs::Put)).unwrap();
    let tried = |assert: Assert| commit(store, Batch::new(9).assert(assert)).map(|_| ());
    let (yes, no) = (Ok(()), Err(StoreError::Conflict));
    assert_eq!(tried(Assert::KeyAbsent(alice.clone(), gone.clone())), yes);
    assert_eq!(tried(Assert::KeyAbsent(alice.clone(), here.clone())), no);
    assert_eq!(tried(Assert::KeyPresent(alice.clone(), here.clone())), yes);
    assert_eq!(tried(Assert::KeyPresent(alice.clone(), gone.clone())), no);
    assert_eq!(tried(Assert::KeyVersion(alice.clone(), here.clone(), 3)), yes);
    assert_eq!(tried(Assert::KeyVersion(alice.clone(), here.clone(), 2)), no);
    assert_eq!(tried(Assert::KeyVersion(alice.clone(), gone.clone(), 0)), no);
    assert_eq!(tried(Assert::AccountAbsent(at("bob"))), yes);
    assert_eq!(tried(Assert::AccountAbsent(alice.clone())), no);
    assert_eq!(tried(Assert::KeyAbsent(at("bob"), here.clone())), yes);

    // Before the batch, not in the middle of it; and all of them must hold.
    let both = Batch::new(9)
        .assert(Assert::KeyAbsent(alice.clone(), gone.clone()))
        .put(&alice, &gone, record("v"), LogAs::Put)
        .assert(Assert::KeyPresent(alice.clone(), gone.clone()));
    assert_eq!(commit(store, both), Err(StoreError::Conflict));
    assert_eq!(store.get(&alice, &gone), Ok(None));
}

/// A step that cannot be done undoes all before it, commit ids and arrivals too.
pub fn a_failing_batch_leaves_nothing(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice", "bob"]);
    let alice = at("alice");
    commit(store, Batch::new(1).op(put(&alice, "old", "v")).send(note("s", "alice", "bob"))).unwrap();
    let bad = Batch::new(2)
        .op(put(&alice, "new", "v"))
        .remove(&alice, &key("old", &alice))
        .add_account(account("carol"))
        .op(Op::SetPort { at_sign: at("bob"), port: Some(1) })
        .receive(note("n", "bob", "alice"))
        .send(note("n", "alice", "bob"))
        .op(Op::RemoveNotification { owner: alice.clone(), id: id("s") })
        .op(Op::RemoveAccount(at("bob")))
        .receive(note("n", "alice", "bob"));
    assert_eq!(commit(store, bad), Err(StoreError::Conflict));
    assert_eq!(store.accounts(), Ok(vec![account("alice"), account("bob")]));
    assert_eq!(store.get(&alice, &key("new", &alice)), Ok(None));
    assert_eq!(store.get(&alice, &key("old", &alice)), Ok(Some(record("v"))));
    assert_eq!(store.last_commit(&alice), Ok(0));
    assert_eq!(store.received_since(&alice, 0, 0, 9), Ok(vec![]));
    assert_eq!(store.queued(0, 9).unwrap().len(), 1);
    let again = Batch::new(3).op(put(&alice, "new", "v")).receive(note("n", "bob", "alice"));
    let again = commit(store, again).unwrap();
    assert_eq!((again.commits, again.fresh), (vec![Some(1), None], vec![true, true]));
}

/// Steps run in order: what one adds the next one finds.
pub fn steps_see_the_steps_before(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    let alice = at("alice");
    let batch = Batch::new(1)
        .assert(Assert::AccountAbsent(alice.clone()))
        .add_account(account("alice"))
        .op(put(&alice, "a", "1"))
        .op(put(&alice, "a", "2"))
        .op(put(&alice, "b", "1"))
        .remove(&alice, &key("b", &alice));
    assert_eq!(commit(store, batch).unwrap().commits, [None, Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!(store.get(&alice, &key("a", &alice)), Ok(Some(record("2"))));
    assert_eq!(store.get(&alice, &key("b", &alice)), Ok(None));
    let early = Batch::new(1).op(put(&at("bob"), "a", "1")).add_account(account("bob"));
    assert_eq!(commit(store, early), Err(StoreError::Conflict));

    let anew =
        Batch::new(2).op(Op::RemoveAccount(alice.clone())).add_account(account("alice")).op(put(&alice, "c", "1"));
    assert_eq!(commit(store, anew).unwrap().commits, [None, None, Some(0)]);
    assert_eq!(store.get(&alice, &key("a", &alice)), Ok(None));
    assert_eq!(store.log_since(&alice, -1, 9).unwrap().len(), 1);
}

/// Records, log, both kinds of notifications; the neighbour keeps his.
pub fn removing_an_account_removes_everything(open: &dyn Fn() -> Box<dyn Harness>) {
    let home = open();
    let store = &*home.store();
    settle(store, &["alice", "bob"]);
    let (alice, bob) = (at("alice"), at("bob"));
    for (owner, from, to) in [(&alice, "alice", "bob"), (&bob, "bob", "alice")] {
        let batch = Batch::new(1).op(put(owner, "k", "v")).send(note("n", from, to)).receive(note("n", from, to));
        commit(store, batch).unwrap();
    }
    commit(store, Batch::new(2).op(Op::RemoveAccount(alice.clone()))).unwrap();
    for round in 0..2 {
        assert_eq!(store.get(&alice, &key("k", &alice)), Ok(None), "{round}");
        assert_eq!(store.last_commit(&alice), Ok(-1));
        assert_eq!(store.log_since(&alice, -1, 9), Ok(vec![]));
        assert_eq!(store.received_since(&alice, 0, 0, 9), Ok(vec![]));
        assert_eq!(store.outgoing_status(&alice, &id("n")), Ok(None));
        assert_eq!(store.queued(0, 9).unwrap(), [note("n", "bob", "alice")]);
        assert_eq!(store.received_since(&bob, 0, 0, 9).unwrap(), [note("n", "alice", "bob")]);
        if round == 0 {
            settle(store, &["alice"]);
        }
    }
}
