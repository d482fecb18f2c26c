//! Many at once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::time::Instant;

use common::World;

#[test]
fn writers_of_one_key_take_turns_and_none_is_lost() {
    let world = World::start();
    world.add_activated("alice");
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let mut client = world.login("alice");
            scope.spawn(move || {
                for n in 0..25 {
                    let reply = client.reply(&format!("update:same@alice w{writer}n{n}"));
                    assert!(reply.starts_with("data:"), "{reply}");
                }
            });
        }
    });
    let meta = world.login("alice").reply("llookup:meta:same@alice");
    assert!(meta.contains("\"version\":199,"), "{meta}");
}

#[test]
fn a_reader_who_never_reads_delays_nobody() {
    let world = World::start();
    world.add_activated("alice");
    world.add_activated("bob");
    let monitor = || {
        let mut bob = world.login("bob");
        bob.send(b"monitor:strict\n");
        bob.expect_silence();
        bob
    };
    let (mut slow, mut fast) = (monitor(), monitor());
    let mut alice = world.login("alice");
    let value = "x".repeat(100_000);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut lines = 0;
            while lines < 200 {
                lines += fast.record().iter().filter(|byte| **byte == b'\n').count();
            }
        });
        for n in 0..200 {
            alice.ask(&format!("notify:id:n{n}:@bob:k.sshnp@alice:{value}"), &format!("data:n{n}\n@alice@"));
        }
    });
    assert!(start.elapsed() < common::PATIENCE, "{:?}", start.elapsed());
    // It got what the sockets held, then the end; the rest it finds by replay.
    let mut lines = 0;
    while let Ok(record) = slow.try_record()
        && !record.is_empty()
    {
        lines += record.iter().filter(|byte| **byte == b'\n').count();
    }
    assert!(lines < 200, "{lines}");
}

#[test]
fn a_household_has_so_many_places() {
    let limits = postern_server::Limits { household_connections: 2, ..postern_server::Limits::default() };
    let world = World::with(limits);
    world.add_activated("alice"); // its connection may still be there
    let mut seated = Vec::new();
    common::until("the activating connection to end", || {
        let mut client = world.connect();
        let challenge = client.challenge("alice");
        let signature = common::KEY.sign(postern_crypto::SignatureHash::Sha256, challenge.as_bytes()).unwrap();
        if client.reply(&format!("pkam:{signature}")) == "data:success\n@alice@" {
            seated.push(client);
        }
        seated.len() == 2
    });
    let mut third = world.connect();
    let challenge = third.challenge("alice");
    let signature = common::KEY.sign(postern_crypto::SignatureHash::Sha256, challenge.as_bytes()).unwrap();
    let reply = third.reply(&format!("pkam:{signature}"));
    assert!(reply.contains("AT0012") && reply.contains("Inbound connection limit exceeded : "), "{reply}");
    third.expect_end();
}
