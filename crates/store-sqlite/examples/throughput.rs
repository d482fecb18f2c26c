//! Durable commits per second with 1 and with 64 committers, each waiting for its answer.
//!
//! `cargo run --release -p postern-store-sqlite --example throughput -- FOLDER`

#![allow(clippy::print_stdout, reason = "its purpose is to print")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postern_proto::{AtKey, AtSign, Metadata, Record};
use postern_store::battery::commit;
use postern_store::{Account, Batch, LogAs, Store};
use postern_store_sqlite::SqliteStore;

/// Long enough to see checkpoints.
const RUN: Duration = Duration::from_secs(5);
/// A ciphertext of about the size that devices publish.
const VALUE_BYTES: usize = 600;

fn main() {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).expect("give a folder on the disk to measure");
    let alice = AtSign::parse("alice").expect("a name");
    for committers in [1, 64] {
        let dir = tempfile::tempdir_in(&folder).expect("a folder that can be written");
        let store = SqliteStore::open(&dir.path().join("store.db")).expect("a new store");
        let account = Account { at_sign: alice.clone(), port: None, created_at: 0 };
        commit(&store, Batch::new(0).add_account(account)).expect("a new account");
        let done = AtomicU64::new(0);
        let start = Instant::now();
        thread::scope(|scope| {
            for committer in 0..committers {
                let (store, alice, done) = (&store, &alice, &done);
                scope.spawn(move || {
                    let mut n = 0;
                    while start.elapsed() < RUN {
                        let key = AtKey::own(&format!("k{}.{committer}", n % 1000), alice);
                        let record = Record::new("x".repeat(VALUE_BYTES), Metadata::default(), n);
                        commit(store, Batch::new(n).put(alice, &key, record, LogAs::Put)).expect("a commit");
                        done.fetch_add(1, Ordering::Relaxed);
                        n += 1;
                    }
                });
            }
        });
        let commits = done.into_inner();
        let each = commits / start.elapsed().as_secs().max(1);
        let key = AtKey::own("k0.0", &alice);
        let reading = Instant::now();
        let reads = 100_000u32;
        for _ in 0..reads {
            assert!(store.get(&alice, &key).expect("a read").is_some());
        }
        println!("{committers:>3} committers: {each} commits/s; one read: {:?}", reading.elapsed() / reads);
    }
}
