//! The standard conversation as every real client reads it: nobody stumbles over what the server sends.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::time::{Duration, Instant};

use common::readers::{AtC, AtServer, Dart, DartMonitor, Heard, Java, Listener, Python, Reader};
use common::{KEY, World};
use postern_crypto::SignatureHash;
use postern_proto::{Notification, Uuid};

/// Buffers of the C library, in bytes.
mod room {
    pub(crate) const PKAM: usize = 1024;
    pub(crate) const UPDATE: usize = 256;
    pub(crate) const NOTIFY: usize = 64;
    pub(crate) const PUBLIC_KEY: usize = 1024;
    pub(crate) const SHARED_KEY: usize = 1024;
    pub(crate) const GET: usize = 4096;
    pub(crate) const SCAN: usize = 8192;
}

fn world() -> World {
    let world = World::start();
    world.add_activated("alice");
    world.add_activated("bob");
    let public = KEY.public_key().unwrap().to_base64();
    world.login("bob").ask(&format!("update:isEncrypted:false:public:publickey@bob {public}"), "data:0\n@bob@");
    world
}

fn error(code: &str, reader: &Heard) {
    match reader {
        Heard::Error { code: got, .. } => assert_eq!(got, code),
        other => panic!("wanted {code}, heard {other:?}"),
    }
}

fn login<R: Reader>(reader: &mut R, name: &str) {
    let challenge = reader.ask(&R::claim(name), room::PKAM).data().to_owned();
    let signature = KEY.sign(SignatureHash::Sha256, challenge.as_bytes()).unwrap();
    assert_eq!(reader.ask(&R::proof(&signature), room::PKAM), Heard::Data("success".into()), "{}", R::NAME);
}

fn conversation<R: Reader>() {
    let world = world();
    let mut alice = R::open(world.unread());
    error("AT0401", &alice.ask("llookup:x@alice", room::GET));
    login(&mut alice, "alice");
    let public = KEY.public_key().unwrap().to_base64();
    assert_eq!(alice.ask("noop:0", 64).data(), "ok");
    let commit =
        alice.ask(&format!("update:isEncrypted:false:public:publickey@alice {public}"), room::UPDATE).data().to_owned();
    assert!(commit.parse::<u64>().is_ok(), "commit ids are integers: {commit}");
    assert_eq!(alice.ask("plookup:publickey@bob", room::PUBLIC_KEY).data(), public);
    let all = alice.ask("plookup:bypassCache:true:all:publickey@bob", room::PUBLIC_KEY).data().to_owned();
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    assert_eq!((&all["key"], &all["data"]), (&"public:publickey@bob".into(), &public.into()));
    let missing = alice.ask("llookup:shared_key.bob@alice", room::SHARED_KEY);
    error("AT0015", &missing);
    let Heard::Error { text, .. } = missing else { unreachable!() };
    assert!(text.contains("shared_key.bob@alice does not exist in keystore"), "{text}");
    let sealed = "Qx/".repeat(114) + "==";
    alice.ask(&format!("update:shared_key.bob@alice {sealed}"), room::UPDATE).data();
    alice.ask(&format!("update:@bob:shared_key@alice {sealed}"), room::UPDATE).data();
    assert_eq!(alice.ask("llookup:shared_key.bob@alice", room::SHARED_KEY).data(), sealed);
    // Values with words of the protocol, prompts, and letters of many bytes.
    for value in ["@alice@", "a@b:c", "x@", "error", "grüße 🦄 日本", "a b  c", "{\"a\":1}"] {
        alice.ask(&format!("update:odd.ns@alice {value}"), room::UPDATE).data();
        assert_eq!(alice.ask("llookup:odd.ns@alice", room::GET).data(), value, "{}", R::NAME);
    }
    let long = "y".repeat(3000);
    alice.ask(&format!("update:ttl:600000:isEncrypted:true:ivNonce:AA==:long.ns@alice {long}"), room::UPDATE).data();
    let all = alice.ask("llookup:all:long.ns@alice", room::GET).data().to_owned();
    let all: serde_json::Value = serde_json::from_str(&all).unwrap();
    assert_eq!((&all["data"], &all["metaData"]["ivNonce"]), (&long.into(), &"AA==".into()));
    assert_eq!(alice.ask("llookup:meta:long.ns@alice", room::GET).data().chars().next(), Some('{'));
    let id = alice
        .ask("notify:update:ttl:10000:isEncrypted:true:ivNonce:AA==:@bob:ping.dev1.sshnp@alice:Vt==", room::NOTIFY)
        .data()
        .to_owned();
    assert!(Uuid::parse(&id).is_some(), "the id fits 64 bytes with its prompt: {id}");
    alice.ask("update:ttb:600000:later.ns@alice v", room::UPDATE).data();
    assert_eq!(alice.ask("llookup:later.ns@alice", room::GET).data(), "null");
    let names = alice.ask("scan \\.ns", room::SCAN).data().to_owned();
    assert_eq!(names, r#"["long.ns@alice","odd.ns@alice"]"#);
    alice.ask("delete:odd.ns@alice", room::UPDATE).data();
    error("AT0015", &alice.ask("llookup:odd.ns@alice", room::GET));
    error("AT0003", &alice.ask("nonsense", room::GET));
    error("AT0016", &alice.ask("update:k@carol v", room::GET));
    error("AT0009", &alice.ask("delete:publickey@alice", room::GET));
    error("AT0022", &alice.ask("noop:9999", 256));
    error("AT0015", &alice.ask("pkam:AAAA", room::PKAM));
    alice.ask(&R::claim("alice"), room::PKAM).data();
    error("AT0401", &alice.ask("pkam:AAAA", room::PKAM));
    error("AT0401", &alice.ask("llookup:x@alice", room::GET));
    // Re-authentication on the same connection.
    login(&mut alice, "alice");
    assert_eq!(alice.ask("noop:0", 64).data(), "ok");
}

#[test]
fn dart() {
    conversation::<Dart>();
}

#[test]
fn c() {
    conversation::<AtC>();
}

#[test]
fn python() {
    conversation::<Python>();
}

#[test]
fn java() {
    conversation::<Java>();
}

#[test]
fn another_at_server() {
    conversation::<AtServer>();
}

/// Replies longer than a record, for those who have the room.
fn long_replies<R: Reader>() {
    let world = world();
    let mut alice = R::open(world.unread());
    login(&mut alice, "alice");
    for len in [1017, 1018, 1019, 16_370, 16_371, 16_372, 16_378, 16_379, 32_760, 100_000] {
        let value = "z".repeat(len);
        alice.ask(&format!("update:long@alice {value}"), room::UPDATE).data();
        assert_eq!(alice.ask("llookup:long@alice", 0).data(), value, "{}", R::NAME);
        assert_eq!(alice.ask("noop:0", 64).data(), "ok", "{}: out of step after {len}", R::NAME);
    }
}

#[test]
fn long_replies_keep_everybody_in_step() {
    long_replies::<Dart>();
    long_replies::<Python>();
    long_replies::<Java>();
    long_replies::<AtServer>();
}

fn ping(world: &World, n: u32) {
    let mut bob = world.login("bob");
    bob.ask(
        &format!("notify:id:n{n}:update:isEncrypted:true:ivNonce:AA==:@alice:ping.dev1.sshnp@bob:Vt=="),
        &format!("data:n{n}\n@bob@"),
    );
}

/// With statistics between, which clients have to tell from notifications.
fn noisy() -> World {
    let limits = postern_server::Limits { stats_every: Duration::from_millis(50), ..Default::default() };
    let world = World::with(limits);
    world.add_activated("alice");
    world.add_activated("bob");
    world
}

/// Hears two pings with heartbeats around them, whatever statistics come between.
fn two_pings(name: &str, world: &World, monitor: &mut impl Listener) {
    let (mut asked, mut acknowledged, mut statistics, mut heard) = (0, 0, 0, Vec::new());
    // Answered behind `monitor` on the same connection: from here on nothing is missed.
    while acknowledged == 0 || heard.len() < 2 || acknowledged < 3 || statistics < 2 {
        if asked == acknowledged && asked < 3 {
            asked += 1;
            monitor.send("noop:0");
        }
        let (word, rest) = monitor.line();
        if word != "notification:" {
            assert_eq!(format!("{word}{rest}"), "data:ok", "{name}");
            acknowledged += 1;
            if acknowledged == 1 {
                ping(world, 1);
            }
            continue;
        }
        let json: serde_json::Value = serde_json::from_str(rest.trim()).unwrap();
        assert!(json["id"].is_string() && json["isEncrypted"].is_boolean() && json["epochMillis"].is_i64(), "{rest}");
        if json["id"] == "-1" {
            assert!(json["metadata"].is_null() && json["key"] == "statsNotification.@alice", "{rest}");
            statistics += 1;
            continue;
        }
        assert!(json["metadata"].is_object() && json["metadata"]["ivNonce"] == "AA==", "{rest}");
        heard.push(Notification::from_push(rest.trim()).unwrap().id.to_string());
        if heard.len() == 1 {
            ping(world, 2);
        }
    }
    assert_eq!(heard, ["n1", "n2"], "{name}");
}

#[test]
fn the_monitors_of_all_clients() {
    let world = noisy();
    let mut c = AtC::open(world.unread());
    login(&mut c, "alice");
    c.send("monitor dev1.sshnp@");
    two_pings("C", &world, &mut c);

    let world = noisy();
    let mut python = Python::open(world.unread());
    login(&mut python, "alice");
    python.send("monitor:0 .dev1.sshnp");
    two_pings("Python", &world, &mut python);

    let world = noisy();
    let mut java = Java::open(world.unread());
    login(&mut java, "alice");
    java.send("monitor:0");
    two_pings("Java", &world, &mut java);

    let world = noisy();
    let mut dart = DartMonitor::open(world.unread());
    dart.send("from:@alice");
    let (word, challenge) = dart.line();
    assert_eq!(word, "data:");
    dart.send(&format!("pkam:{}", KEY.sign(SignatureHash::Sha256, challenge.as_bytes()).unwrap()));
    assert_eq!(dart.line().1, "success");
    dart.send("monitor:selfNotifications");
    two_pings("Dart", &world, &mut dart);
}

/// The directory as each client asks it; `host`: what it answers with.
fn directory(host: &str) {
    let world = World::at(host);
    world.add("alice");
    let found = format!("{host}:{}", world.address.port());

    // Dart: waits for an event that ends in `@`; needs one that holds a colon or begins with null.
    for (name, want) in [("alice", found.as_str()), ("nobody", "null")] {
        let mut dart = world.unread();
        assert!(dart.text().ends_with('@'));
        let event = dart.reply(name);
        assert!(event.contains(':') || event.starts_with("null"), "{event}");
        assert_eq!(event.trim_end_matches('@').trim_end(), want);
        dart.send(b"@exit\n");
        dart.expect_end();
    }

    // C: an empty line first, and a reply to it wanted; cuts at the last line end of what was read, within three seconds.
    for (name, want) in [("alice", Some(found.as_str())), ("nobody", None)] {
        let start = Instant::now();
        let mut c = world.unread();
        c.expect("@");
        c.send(b"\r\n");
        assert!(!c.text().is_empty());
        c.send(format!("{name}\r\n").as_bytes());
        let piece = c.text();
        let line = piece[..piece.rfind('\n').unwrap()].trim_end_matches('\r');
        assert_eq!(line.contains(':').then_some(line), want);
        assert!(start.elapsed() < Duration::from_secs(3));
    }

    // Python: one connection for all questions; a piece that is `@` or holds a line end is the answer.
    let mut python = world.unread();
    python.expect("@");
    for (name, want) in [("alice", found.as_str()), ("nobody", "null"), ("nobody2", "null"), ("alice", &found)] {
        let piece = python.reply(name);
        assert!(piece.contains('\n'));
        assert_eq!(piece.trim_end_matches('@').trim(), want);
    }

    // Java: by lines, an `@` in front stripped.
    let mut java = world.unread();
    java.send(b"alice\n");
    let mut text = String::new();
    while !text.contains('\n') {
        text += &java.text();
    }
    assert_eq!(text.lines().next().unwrap().trim_start_matches('@'), found);
}

#[test]
fn the_directory_answers_names_of_hosts() {
    directory("localhost");
}

#[test]
fn the_directory_answers_ipv4_literals() {
    directory("127.0.0.1");
}

#[test]
fn no_record_that_nobody_asked_for() {
    let world = world();
    let mut alice = world.unread();
    alice.expect("@");
    alice.pkam("alice");
    for n in 0..20 {
        alice.ask("noop:0", "data:ok\n@alice@");
        assert_eq!(alice.records_without_text(), 0, "a session ticket, which C takes for the end: after {n}");
    }
    alice.send(b"monitor:strict\n");
    alice.expect_silence();
    assert_eq!(alice.records_without_text(), 0);
}
