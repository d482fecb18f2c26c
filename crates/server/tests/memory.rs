//! What an idle monitor costs. Run by hand, for it takes a minute and wants a release build:
//! `cargo test --release -p postern-server --test memory -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::process::Process;
use common::{Client, KEY, client_config};
use postern_proto::{AtKey, AtSign, Metadata, Record};
use postern_server::{Home, Wanted};
use postern_store::{Batch, LogAs};

const CONNECTIONS: usize = 5_000;

/// The promise: kilobytes of 1,000 bytes for each idle authenticated monitor.
const PROMISED_BYTES: usize = 25_000;

/// A line of `/proc/⟨pid⟩/smaps_rollup`, in bytes.
fn memory(pid: u32, name: &str) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

#[test]
#[ignore = "a measurement of a minute, for release builds"]
fn an_idle_monitor_costs_less_than_promised() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("srv");
    let listen = "127.0.0.1:0".parse().unwrap();
    let home = Home::init(&dir, &Wanted { host: "localhost".into(), listen, tls: None }).unwrap();
    let alice = AtSign::parse("alice").unwrap();
    {
        let store = home.store().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            home.add(store.as_ref(), &alice, None).await.unwrap();
            let record = Record::new(KEY.public_key().unwrap().to_base64(), Metadata::default(), 0);
            let key = AtKey::private_key("at_pkam_publickey");
            store.commit(Batch::new(0).put(&alice, &key, record, LogAs::Nothing)).await.unwrap();
        });
    }
    let tls = client_config(&std::fs::read(home.ca().unwrap()).unwrap());
    let server = Process::start(&dir);
    let pid = server.child.id();
    let login = |n: usize| {
        let mut client = Client::connect(server.address, Arc::clone(&tls));
        client.expect("@");
        client.pkam("alice");
        // Half as the C daemon, half as the Dart one does.
        let line =
            if n.is_multiple_of(2) { format!("monitor dev{n}.sshnp@\n") } else { "monitor:selfNotifications\n".into() };
        client.send(line.as_bytes());
        client.expect_silence();
        client
    };
    drop(login(0));
    let before = (memory(pid, "Rss:"), memory(pid, "Private_Dirty:"));
    let clients: Vec<Client> = (0..CONNECTIONS).map(login).collect();
    for wait in [0, 40] {
        // Two rounds of statistics have gone to everybody after that.
        std::thread::sleep(Duration::from_secs(wait));
        let after = (memory(pid, "Rss:"), memory(pid, "Private_Dirty:"));
        let each = (after.0 - before.0) / CONNECTIONS;
        println!(
            "{CONNECTIONS} idle monitors, {wait} s later: RSS {} -> {} bytes, {each} each; {} each of the whole; private dirty {} each",
            before.0,
            after.0,
            after.0 / CONNECTIONS,
            (after.1 - before.1) / CONNECTIONS,
        );
        assert!(after.0 / CONNECTIONS < PROMISED_BYTES);
    }
    drop(clients);
}
