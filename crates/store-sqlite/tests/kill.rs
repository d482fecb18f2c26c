//! A process that writes is killed, again and again: what it was told is kept is kept,
//! whole, and of what it was not told there is all or nothing.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use postern_proto::{AtKey, AtSign, MessageType, Metadata, Notification, NotificationId, Operation, Record, Routing};
use postern_store::battery::commit;
use postern_store::{Account, Batch, LogAs, Store};
use postern_store_sqlite::SqliteStore;
use rusqlite::Connection;

const KILLS: usize = 30;
const WRITERS: usize = 6;
/// Names the store to the child.
const STORE: &str = "POSTERN_KILL_TEST_STORE";
/// Goes into the child's batch names, so that those of all children differ.
const ROUND: &str = "POSTERN_KILL_TEST_ROUND";
/// A child that nobody killed ends by itself.
const CHILD_LIFE: Duration = Duration::from_secs(60);

#[test]
fn an_acknowledged_batch_survives_a_kill_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    {
        let store = SqliteStore::open(&path).unwrap();
        let account = |name| Account { at_sign: at(name), port: None, created_at: 0 };
        commit(&store, Batch::new(0).add_account(account("alice")).add_account(account("bob"))).unwrap();
    }
    let mut acknowledged = BTreeSet::new();
    for round in 0..KILLS {
        acknowledged.extend(write_until_killed(&path, round));
        let kept = whole_batches(&path);
        let lost: Vec<_> = acknowledged.difference(&kept).collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
    }
    assert!(acknowledged.len() >= KILLS, "the children wrote");
    let db = Connection::open(&path).unwrap();
    let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

/// Not a test of its own: what the other one runs in a process to kill.
#[test]
fn child() {
    let (Ok(path), Ok(round)) = (env::var(STORE), env::var(ROUND)) else { return };
    let store = SqliteStore::open(Path::new(&path)).unwrap();
    let end = Instant::now() + CHILD_LIFE;
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, round) = (&store, &round);
            scope.spawn(move || {
                for n in 0.. {
                    if Instant::now() > end {
                        return;
                    }
                    let name = format!("r{round}-w{writer}-n{n}");
                    commit(store, batch(&name)).unwrap();
                    // One write per line: a kill cuts between lines.
                    std::io::stderr().write_all(format!("kept {name}\n").as_bytes()).unwrap();
                }
            });
        }
    });
}

/// Five steps in two households.
fn batch(name: &str) -> Batch {
    let (alice, bob) = (at("alice"), at("bob"));
    let record = Record::new("v".repeat(700), Metadata::default(), 0);
    let note = Notification {
        id: NotificationId::parse(name).unwrap(),
        from: alice.clone(),
        to: bob.clone(),
        key: name.to_owned(),
        value: Some("v".repeat(300)),
        operation: Operation::Update,
        message_type: MessageType::Key,
        at: 1,
        expires_at: i64::MAX,
        is_encrypted: false,
        is_self: false,
        metadata: Metadata::default(),
        routing: Routing::default(),
    };
    Batch::new(0)
        .put(&alice, &AtKey::own(name, &alice), record.clone(), LogAs::Put)
        .put(&alice, &AtKey::public(name, &alice), record.clone(), LogAs::Put)
        .put(&bob, &AtKey::own(name, &bob), record, LogAs::Put)
        .send(note.clone())
        .receive(note)
}

/// Starts a child, kills it at a moment of chance, returns what it was told is kept.
fn write_until_killed(path: &Path, round: usize) -> Vec<String> {
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(STORE, path)
        .env(ROUND, round.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let chance = RandomState::new().hash_one(round);
    let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut told: Vec<String> = lines.by_ref().take(1 + usize::try_from(chance % 80).unwrap()).collect();
    // Not a wait for something: the moment of the kill within a transaction is to vary.
    thread::sleep(Duration::from_micros((chance >> 8) % 4000));
    child.0.kill().unwrap();
    told.extend(lines);
    told.into_iter()
        .map(|line| line.strip_prefix("kept ").unwrap_or_else(|| panic!("the child said {line}")).to_owned())
        .collect()
}

/// Reads the store as the killed child left it and checks that no batch is there in part.
fn whole_batches(path: &Path) -> BTreeSet<String> {
    let store = SqliteStore::open(path).unwrap();
    let (alice, bob) = (at("alice"), at("bob"));
    let keys = |owner: &AtSign, public: bool| {
        let mut names = BTreeSet::new();
        let mut logged = 0;
        store
            .scan(owner, &mut |key, _, _| {
                logged += 1;
                let name = key.strip_prefix("public:");
                if name.is_some() == public {
                    names.insert(name.unwrap_or(key).split('@').next().unwrap().to_owned());
                }
            })
            .unwrap();
        assert_eq!(store.last_commit(owner), Ok(logged - 1));
        assert_eq!(i64::try_from(store.log_since(owner, -1, usize::MAX).unwrap().len()), Ok(logged));
        names
    };
    let ids = |list: Vec<Notification>| list.into_iter().map(|n| n.id.to_string()).collect::<BTreeSet<_>>();
    let whole = keys(&alice, false);
    assert_eq!(keys(&alice, true), whole);
    assert_eq!(keys(&bob, false), whole);
    assert_eq!(ids(store.queued(0, usize::MAX).unwrap()), whole);
    assert_eq!(ids(store.received_since(&bob, 0, 0, usize::MAX).unwrap()), whole);
    whole
}

fn at(name: &str) -> AtSign {
    AtSign::parse(name).unwrap()
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Fails when it has ended, which is what we want.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
