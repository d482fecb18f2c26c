//! `kill -9` in the middle of writes: what was acknowledged is there, and nothing is there by half.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use common::process::Process;
use common::{Client, KEY, client_config};
use postern_proto::{AtKey, AtSign, Metadata, Record};
use postern_server::{Home, Wanted};
use postern_store::{Batch, Delivery, LogAs};

/// Kills in a usual run; `POSTERN_KILLS=100` for a long one.
const KILLS: u32 = 10;

fn name(text: &str) -> AtSign {
    AtSign::parse(text).unwrap()
}

/// A home with two activated atSigns.
fn home(dir: &Path) -> Home {
    let listen = "127.0.0.1:0".parse().unwrap();
    let home = Home::init(dir, &Wanted { host: "localhost".into(), listen, tls: None }).unwrap();
    let store = home.store().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for at_sign in ["alice", "bob"].map(name) {
            home.add(store.as_ref(), &at_sign, None).await.unwrap();
            let record = Record::new(KEY.public_key().unwrap().to_base64(), Metadata::default(), 0);
            let key = AtKey::private_key("at_pkam_publickey");
            store.commit(Batch::new(0).put(&at_sign, &key, record, LogAs::Nothing)).await.unwrap();
        }
    });
    home
}

/// Writes shared keys and notifications in turn until the server dies; reports each acknowledgement.
fn stream(mut client: Client, label: String, acknowledged: &Sender<(String, i64)>) {
    for n in 0.. {
        let key = format!("{label}n{n}");
        let request =
            format!("update:@bob:{key}@alice value-of-{key}\nnotify:id:{key}:@bob:{key}@alice:value-of-{key}\n");
        if client.try_send(request.as_bytes()).is_err() {
            return;
        }
        for _ in 0..2 {
            let Ok(reply) = client.try_record() else { return };
            let reply = String::from_utf8(reply).unwrap();
            let Some(text) = reply.strip_prefix("data:").and_then(|rest| rest.strip_suffix("\n@alice@")) else {
                assert_eq!(reply, "", "not an acknowledgement");
                return;
            };
            // An update is answered with its commit id, a notification with its own.
            let commit = text.parse().unwrap_or(-1);
            acknowledged.send((key.clone(), commit)).unwrap();
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_there() {
    let kills = std::env::var("POSTERN_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("srv");
    let home = home(&dir);
    let tls = client_config(&std::fs::read(home.ca().unwrap()).unwrap());
    let (alice, bob) = (name("alice"), name("bob"));
    let mut acknowledged: HashMap<String, Vec<i64>> = HashMap::new();
    let mut seed = u64::from(std::process::id());
    for round in 0..kills {
        let mut server = Process::start(&dir);
        let (report, reports) = channel();
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let mut client = Client::connect(server.address, Arc::clone(&tls));
                client.expect("@");
                client.pkam("alice");
                let report = report.clone();
                std::thread::spawn(move || stream(client, format!("r{round}w{writer}"), &report))
            })
            .collect();
        drop(report);
        // Killed at some moment after the first acknowledgement.
        let (key, commit) = reports.recv_timeout(common::PATIENCE).unwrap();
        acknowledged.entry(key).or_default().push(commit);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_micros(seed >> 46)); // up to 262 ms
        server.kill();
        for writer in writers {
            writer.join().unwrap();
        }
        for (key, commit) in reports {
            acknowledged.entry(key).or_default().push(commit);
        }

        // As the disk has it, without any server.
        let store = home.store().unwrap();
        let log: HashMap<String, i64> =
            store.log_since(&alice, -1, usize::MAX >> 1).unwrap().into_iter().map(|e| (e.key, e.commit)).collect();
        let received = store.received_since(&bob, 0, 0, usize::MAX >> 1).unwrap();
        let by_id: HashMap<&str, usize> = received.iter().enumerate().map(|(i, n)| (n.id.as_str(), i)).collect();
        let mut told: HashMap<String, usize> = HashMap::new();
        for note in received.iter().filter(|note| note.id.as_str().len() == 36) {
            *told.entry(note.key.clone()).or_default() += 1; // made by an update
        }
        for (key, commits) in &acknowledged {
            let full = format!("@bob:{key}@alice");
            let value = format!("value-of-{key}");
            let record = store.get(&alice, &AtKey::parse(&full).unwrap()).unwrap();
            assert_eq!(record.map(|record| record.value), Some(value.clone()), "{key} was acknowledged");
            assert_eq!(log.get(&full), commits.first(), "{key}: logged under the acknowledged commit");
            assert_eq!(told.get(&full), Some(&1), "{key}: told its recipient");
            if commits.len() == 2 {
                let note = &received[by_id[key.as_str()]];
                assert_eq!(note.value.as_ref(), Some(&value));
                assert_eq!(store.outgoing_status(&alice, &note.id).unwrap(), Some(Delivery::Delivered));
            }
        }
        // Acknowledged or not: key, log entry, what was sent and what was received, all or none.
        let mut keys = 0;
        store.scan(&alice, &mut |key, _, _| keys += usize::from(key.starts_with("@bob:"))).unwrap();
        assert_eq!((keys, keys), (log.len(), told.len()));
        for note in &received {
            assert_eq!(store.outgoing_status(&alice, &note.id).unwrap(), Some(Delivery::Delivered));
        }
        drop(store);
    }
    // And as bob hears it from a restarted server.
    let server = Process::start(&dir);
    let mut client = Client::connect(server.address, tls);
    client.expect("@");
    client.pkam("bob");
    client.send(b"monitor:strict:0\n");
    let mut wanted: Vec<&String> = acknowledged.iter().filter(|(_, c)| c.len() == 2).map(|(key, _)| key).collect();
    let total = wanted.len();
    while !wanted.is_empty() {
        let line = client.text();
        wanted.retain(|key| !line.contains(&format!("\"id\":\"{key}\"")));
    }
    println!(
        "{kills} kills, {} acknowledged updates, {total} acknowledged notifications, none lost",
        acknowledged.len()
    );
}
