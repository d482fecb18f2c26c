//! Notifications between atSigns of one server, live and replayed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use common::World;
use postern_proto::Notification;

fn two() -> World {
    let world = World::start();
    world.add_activated("alice");
    world.add_activated("bob");
    world
}

fn pushed(line: &str) -> Notification {
    let json = line.strip_prefix("notification: ").unwrap_or_else(|| panic!("{line}"));
    assert!(line.ends_with("}\n"), "{line}");
    Notification::from_push(json).unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn a_monitor_hears_what_matches_and_never_a_prompt() {
    let world = two();
    let mut bob = world.login("bob");
    bob.send(b"monitor:strict dev1.sshnp@\n");
    bob.ask("noop:0", "data:ok\n");
    let mut alice = world.login("alice");
    alice.ask(
        "notify:id:n1:update:ttln:60000:isEncrypted:true:ivNonce:8m==:@bob:Ping.dev1.sshnp@alice:Vt==",
        "data:n1\n@alice@",
    );
    bob.expect(&format!(
        "notification: {{\"id\":\"n1\",\"from\":\"@alice\",\"to\":\"@bob\",\"key\":\"@bob:Ping.dev1.sshnp@alice\",\"value\":\"Vt==\",\"operation\":\"update\",\"epochMillis\":{},\"messageType\":\"MessageType.key\",\"isEncrypted\":true,\"metadata\":{{\"encKeyName\":null,\"encAlgo\":null,\"ivNonce\":\"8m==\",\"skeEncKeyName\":null,\"skeEncAlgo\":null,\"sharedKeyEnc\":null,\"pubKeyCS\":null}}}}\n",
        world.store.received_since(&"@bob".parse().unwrap(), 0, 0, 10).unwrap()[0].at
    ));
    // The same id again is the same notification.
    alice.ask("notify:id:n1:update:@bob:ping.dev1.sshnp@alice:other", "data:n1\n@alice@");
    alice.ask("notify:id:n2:update:@bob:ping.dev2.sshnp@alice:v", "data:n2\n@alice@");
    alice.ask("notify:id:n3:update:messageType:text:@bob:to dev1.sshnp@ you", "data:n3\n@alice@");
    assert_eq!(pushed(&bob.text()).id.as_str(), "n3");
    // Other verbs still work on the connection, without a prompt.
    bob.ask("llookup:nothing@bob", "error:AT0015-key not found : nothing@bob does not exist in keystore\n");
    bob.ask("update:@alice:k.sshnp@bob v", "data:0\n");
    alice.ask("lookup:k.sshnp@bob", "data:v\n@alice@");
}

#[test]
fn shared_keys_tell_their_recipient() {
    let world = two();
    let mut bob = world.login("bob");
    bob.send(b"monitor:strict\n");
    bob.expect_silence();
    let mut alice = world.login("alice");
    alice.ask("update:isEncrypted:true:@bob:phone.ns@alice 123", "data:0\n@alice@");
    let update = pushed(&bob.text());
    assert_eq!((update.key.as_str(), update.value.as_deref()), ("@bob:phone.ns@alice", Some("123")));
    alice.ask("delete:@bob:phone.ns@alice", "data:1\n@alice@");
    let delete = pushed(&bob.text());
    assert_eq!((delete.operation.as_str(), delete.value), ("delete", None));
    alice.ask("update:phone.ns@alice mine", "data:2\n@alice@");
    alice.ask("update:public:phone.ns@alice all", "data:3\n@alice@");
    bob.expect_silence();
}

#[test]
fn what_was_missed_is_replayed_in_order_and_once() {
    let world = two();
    let mut alice = world.login("alice");
    for n in 0..100 {
        alice.ask(&format!("notify:id:n{n}:@bob:k.sshnp@alice:v"), &format!("data:n{n}\n@alice@"));
    }
    alice.ask("notify:id:brief:ttln:1:@bob:k.sshnp@alice:v", "data:brief\n@alice@");
    let brief = world.store.received_since(&"@bob".parse().unwrap(), 0, 0, 200).unwrap().pop().unwrap();
    common::until("the brief one to expire", || common::now_ms() > brief.expires_at);
    let mut bob = world.login("bob");
    bob.send(b"monitor:strict:0\n");
    let mut last = 0;
    for n in 0..100 {
        let note = pushed(&bob.text());
        assert_eq!(note.id.as_str(), format!("n{n}"));
        assert!(note.at > last);
        last = note.at;
    }
    bob.expect_silence();
    alice.ask("notify:id:live:@bob:k.sshnp@alice:v", "data:live\n@alice@");
    assert_eq!(pushed(&bob.text()).id.as_str(), "live");
    // Resuming behind the last seen gives the rest.
    let mut again = world.login("bob");
    again.send(format!("monitor:strict:{last}\n").as_bytes());
    assert_eq!(pushed(&again.text()).id.as_str(), "live");
    again.expect_silence();
    // What is removed is not replayed.
    again.ask("notify:remove:live", "data:success\n");
    let mut third = world.login("bob");
    third.send(format!("monitor:strict:{last}\n").as_bytes());
    third.expect_silence();
}

#[test]
fn a_stream_of_notifications_during_replay_arrives_whole_and_once() {
    let world = two();
    let mut alice = world.login("alice");
    let lines: String = (0..500).map(|n| format!("notify:id:n{n}:@bob:k.sshnp@alice:v\n")).collect();
    alice.send(lines.as_bytes());
    let mut bob = world.login("bob");
    bob.send(b"monitor:strict:0\n");
    for n in 0..500 {
        assert_eq!(pushed(&bob.text()).id.as_str(), format!("n{n}"));
    }
    bob.expect_silence();
}

#[test]
fn statistics_come_on_time_unless_strict() {
    let limits = postern_server::Limits {
        stats_every: std::time::Duration::from_millis(200),
        ..postern_server::Limits::default()
    };
    let world = World::with(limits);
    world.add_activated("alice");
    let mut loose = world.login("alice");
    loose.send(b"monitor nothing_matches\n");
    let stats = loose.text();
    assert!(stats.starts_with("notification: {\"id\":\"-1\",\"from\":\"@alice\",\"to\":\"@alice\",\"key\":\"statsNotification.@alice\",\"value\":\"-1\",\"operation\":\"update\""), "{stats}");
    assert!(stats.ends_with("\"metadata\":null}\n"));
    let mut strict = world.login("alice");
    strict.send(b"monitor:strict\n");
    let mut postern = world.login_as_postern("alice");
    postern.send(b"monitor\n");
    for _ in 0..3 {
        loose.text();
    }
    strict.expect_silence();
    postern.expect_silence();
}

#[test]
fn bad_expressions_and_second_logins_are_refused() {
    let world = two();
    let mut bob = world.login("bob");
    bob.ask("monitor (", "error:AT0003-Invalid syntax : invalid regular expression\n@bob@");
    bob.send(b"monitor:strict .*\n");
    bob.ask(
        "from:@bob",
        "error:AT0011-Internal server exception : a monitoring connection cannot authenticate again\n",
    );
    let mut alice = world.login("alice");
    alice.ask("notify:id:x:@bob:k.ns@alice:v", "data:x\n@alice@");
    assert_eq!(pushed(&bob.text()).id.as_str(), "x");
    alice.ask(
        "notify:id:y:@bob:k.ns@bob:v",
        "error:AT0009-UnAuthorized client in request : @alice is not authorized to send notification as @bob\n@alice@",
    );
    // Nobody here: taken, and kept as failed.
    alice.ask("notify:id:z:@carol:k.ns@alice:v", "data:z\n@alice@");
    // To oneself.
    let mut own = world.login("alice");
    own.send(b"monitor:strict\n");
    own.expect_silence();
    alice.ask("notify:id:me:@alice:k.ns@alice:v", "data:me\n@alice@");
    assert_eq!(pushed(&own.text()).id.as_str(), "me");
}

#[test]
fn a_removed_household_loses_its_connections() {
    let world = two();
    let mut bob = world.login("bob");
    bob.send(b"monitor:strict\n");
    bob.expect_silence();
    let name = "@bob".parse().unwrap();
    assert!(world.runtime.block_on(world.home.remove(world.store.as_ref(), &name)).unwrap());
    bob.expect_end();
    world.connect().ask("bob", "null\r\n@");
}
