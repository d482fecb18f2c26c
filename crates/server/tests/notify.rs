//! Notifications in all their forms, what they do to copies, and looking at them afterwards.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use common::{Client, World};
use postern_proto::Notification;
use serde_json::Value as Json;

fn world() -> World {
    let world = World::start();
    for name in ["alice", "bob", "carol"] {
        world.add_activated(name);
    }
    world
}

fn pushed(client: &mut Client) -> Notification {
    let line = client.text();
    let json = line.strip_prefix("notification: ").unwrap_or_else(|| panic!("{line}"));
    Notification::from_push(json).unwrap_or_else(|| panic!("{line}"))
}

fn monitor(world: &World, name: &str) -> Client {
    let mut client = world.login(name);
    client.send(b"monitor:strict\n");
    client.expect_silence();
    client
}

/// The JSON behind `data:`.
fn json(reply: &str) -> Json {
    let text = reply.strip_prefix("data:").unwrap_or_else(|| panic!("{reply}"));
    serde_json::from_str(text.split('\n').next().unwrap()).unwrap()
}

#[test]
fn every_form_reaches_its_recipient() {
    let world = world();
    let (mut alice, mut bob) = (world.login("alice"), monitor(&world, "bob"));
    for (id, line, key, value) in [
        ("a", "notify:id:a:@bob:Phone.ns@alice", "@bob:Phone.ns@alice", None),
        (
            "b",
            "notify:id:b:update:messageType:key:priority:high:@bob:phone.ns@alice:1:2",
            "@bob:phone.ns@alice",
            Some("1:2"),
        ),
        ("c", "notify:id:c:messageType:text:isEncrypted:true:@bob:Hello: there", "@bob:Hello: there", None),
        ("d", "notify:id:d:message_type:text:@bob:hi", "@bob:hi", None),
        ("e", "notify:id:e:update:@bob:public:open.ns@alice:v", "public:open.ns@alice", Some("v")),
        (
            "f",
            "notify:id:f:strategy:latest:latestN:2:notifier:app:ttln:60000:@bob:k.ns@alice:v",
            "@bob:k.ns@alice",
            Some("v"),
        ),
        (
            "g",
            "notify:id:g:update:notifier:SYSTEM:ttln:60000:ttl:5:ttr:-1:ccd:True:isEncrypted:true:sharedKeyEnc:S:pubKeyCS:C:ivNonce:I==:new:x:@bob:k.ns@alice:v",
            "@bob:k.ns@alice",
            Some("v"),
        ),
    ] {
        alice.ask(line, &format!("data:{id}\n@alice@"));
        let heard = pushed(&mut bob);
        assert_eq!((heard.id.as_str(), heard.key.as_str(), heard.value.as_deref()), (id, key, value), "{line}");
        let encrypted = matches!(id, "a" | "b" | "c" | "f" | "g");
        assert_eq!(heard.is_encrypted, encrypted, "{line}");
        alice.ask(&format!("notify:status:{id}"), "data:delivered\n@alice@");
    }
    alice.ask("notify:id:x:delete:@bob:phone.ns@alice", "data:x\n@alice@");
    assert_eq!(pushed(&mut bob).operation.as_str(), "delete");
    // News of a public key of one's own, and a notification to oneself.
    let mut own = monitor(&world, "alice");
    alice.ask("notify:id:p:update:public:open.ns@alice:v", "data:p\n@alice@");
    assert_eq!(pushed(&mut own).key, "public:open.ns@alice");
    alice.ask("notify:id:s:@alice:k.ns@alice:v", "data:s\n@alice@");
    assert_eq!(pushed(&mut own).id.as_str(), "s");
    alice.ask("notify:status:s", "data:delivered\n@alice@");
    bob.expect_silence();
    for (line, code) in [
        ("notify:strategy:latest:@bob:k.ns@alice:v", "AT0003"),
        ("notify:priority:urgent:@bob:k.ns@alice:v", "AT0003"),
        ("notify:ttr:-2:@bob:k.ns@alice:v", "AT0003"),
        ("notify:@bob:k.ns@bob:v", "AT0009"),
        (&format!("notify:@bob:{}@alice:v", "k".repeat(250)), "AT0016"),
    ] {
        let reply = alice.reply(line);
        assert!(reply.starts_with(&format!("error:{code}-")), "{line}: {reply}");
    }
}

#[test]
fn copies_follow_their_originals() {
    let world = world();
    let (mut alice, mut bob) = (world.login("alice"), world.login("bob"));
    let copy = "llookup:cached:@bob:phone.ns@alice";
    let missing = "error:AT0015-key not found : cached:@bob:phone.ns@alice does not exist in keystore\n@bob@";
    // Without ttr nobody keeps a copy.
    alice.ask("notify:id:1:@bob:phone.ns@alice:v", "data:1\n@alice@");
    bob.ask(copy, missing);
    alice.ask(
        "notify:id:2:update:ttr:-1:ccd:true:isEncrypted:true:ivNonce:A==:@bob:phone.ns@alice:v2",
        "data:2\n@alice@",
    );
    bob.ask(copy, "data:v2\n@bob@");
    let meta = json(&bob.reply("llookup:meta:cached:@bob:phone.ns@alice"));
    assert_eq!(
        (&meta["ttr"], &meta["ccd"], &meta["ivNonce"]),
        (&Json::from(-1), &Json::from(true), &Json::from("A=="))
    );
    assert_eq!(meta["createdBy"], "@alice");
    // The same id again says nothing new.
    alice.ask("notify:id:2:update:ttr:-1:@bob:phone.ns@alice:forged", "data:2\n@alice@");
    bob.ask(copy, "data:v2\n@bob@");
    // Metadata alone.
    alice.ask("notify:id:3:update:ttr:600:@bob:phone.ns@alice", "data:3\n@alice@");
    let all = json(&bob.reply("llookup:all:cached:@bob:phone.ns@alice"));
    assert_eq!((&all["data"], &all["metaData"]["ttr"]), (&Json::from("v2"), &Json::from(600)));
    assert_eq!(all["metaData"]["ivNonce"], "A==");
    assert!(all["metaData"]["refreshAt"].is_string());
    // Deletion takes the copy along, for it was said so.
    alice.ask("notify:id:4:delete:@bob:phone.ns@alice", "data:4\n@alice@");
    bob.ask(copy, missing);
    alice.ask("notify:id:5:update:ttr:-1:@bob:phone.ns@alice:v5", "data:5\n@alice@");
    alice.ask("notify:id:6:delete:@bob:phone.ns@alice", "data:6\n@alice@");
    bob.ask(copy, "data:v5\n@bob@");
    // Updates and deletions of records do the same by themselves.
    assert!(alice.reply("update:ttr:-1:ccd:true:@bob:mail.ns@alice one").starts_with("data:"));
    bob.ask("llookup:cached:@bob:mail.ns@alice", "data:one\n@bob@");
    assert!(alice.reply("update:@bob:mail.ns@alice two").starts_with("data:"));
    bob.ask("lookup:mail.ns@alice", "data:two\n@bob@");
    assert!(alice.reply("delete:@bob:mail.ns@alice").starts_with("data:"));
    assert!(bob.reply("lookup:mail.ns@alice").starts_with("error:AT0015-key not found"));
    // Public ones under their own name.
    alice.ask("notify:id:7:update:ttr:-1:@bob:public:open.ns@alice:v", "data:7\n@alice@");
    bob.ask("llookup:cached:public:open.ns@alice", "data:v\n@bob@");
    // A text that looks like a key is none.
    alice.ask("notify:id:8:messageType:text:ttr:-1:@bob:phone2.ns@alice", "data:8\n@alice@");
    assert!(bob.reply("llookup:cached:@bob:phone2.ns@alice").starts_with("error:AT0015-"));
}

#[test]
fn one_line_to_many() {
    let world = world();
    let mut alice = world.login("alice");
    let (mut bob, mut carol) = (monitor(&world, "bob"), monitor(&world, "carol"));
    let reply = alice.reply("notify:all:update:ttl:1000:@bob,@carol,@bob:phone.ns@alice:v");
    assert!(reply.starts_with("data: {\"@bob\":\"") && reply.ends_with("\"}\n@alice@"), "{reply}");
    let ids = json(&reply);
    for (name, client) in [("@bob", &mut bob), ("@carol", &mut carol)] {
        let heard = pushed(client);
        assert_eq!((heard.id.as_str(), heard.key), (ids[name].as_str().unwrap(), format!("{name}:phone.ns@alice")));
        client.expect_silence();
    }
    assert_ne!(ids["@bob"], ids["@carol"]);
    let auth = "error:AT0401-Exception: Command cannot be executed without auth\n@";
    for line in ["notify:all:@bob:k.ns@alice:v", "notify:status:x", "notify:fetch:x", "notify:remove:x"] {
        world.connect().ask(line, auth);
    }
    world.connect().ask("notify:list", "data:null\n@");
    assert!(alice.reply("notify:all:@bob:k.ns@bob:v").starts_with("error:AT0009-"));
    let long = format!("notify:all:@bob,@carol:k.ns@alice:{}", "v".repeat(9_000_000));
    assert!(alice.reply(&long).starts_with("error:AT0022-"));
}

#[test]
fn sent_and_received_can_be_looked_at() {
    let world = world();
    let (mut alice, mut bob) = (world.login("alice"), world.login("bob"));
    bob.ask("notify:list", "data:null\n@bob@");
    for n in 0..40 {
        alice.ask(&format!("notify:id:n{n}:@bob:k{n}.ns@alice:v"), &format!("data:n{n}\n@alice@"));
    }
    world.login("carol").ask("notify:id:c:priority:medium:notifier:app:ttl:7:@bob:k.other@carol:v", "data:c\n@carol@");
    let ids = |reply: &str| -> Vec<String> {
        json(reply).as_array().unwrap().iter().map(|n| n["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&bob.reply("notify:list")).len(), 41);
    assert_eq!(ids(&bob.reply("notify:list:k1[0-2].ns")), ["n10", "n11", "n12"]);
    assert_eq!(ids(&bob.reply("notify:list:carol")), ["c"]);
    let today = postern_proto::wire_date(common::now_ms());
    let today = today.split(' ').next().unwrap();
    assert!(ids(&bob.reply(&format!("notify:list:{today}"))).len() <= 41);
    assert_eq!(ids(&bob.reply(&format!("notify:list:2020-01-01:{today}:k.other"))), ["c"]);
    bob.ask("notify:list:2020-01-01:2020-01-02", "data:null\n@bob@");
    assert!(bob.reply("notify:list:2020-02-30").starts_with("error:AT0022-"));
    assert!(bob.reply("notify:list:(").starts_with("error:AT0003-"));

    let fetched = json(&bob.reply("notify:fetch:c"));
    assert!(fetched.as_object().unwrap().values().all(Json::is_string), "{fetched}");
    for (member, want) in [
        ("id", "c"),
        ("fromAtSign", "@carol"),
        ("toAtSign", "@bob"),
        ("notification", "@bob:k.other@carol"),
        ("type", "NotificationType.received"),
        ("opType", "OperationType.update"),
        ("messageType", "MessageType.key"),
        ("priority", "NotificationPriority.medium"),
        ("notificationStatus", "NotificationStatus.delivered"),
        ("strategy", "all"),
        ("notifier", "app"),
        ("atValue", "v"),
        ("atMetadata", r#"{"ttl":"7"}"#),
        ("ttl", "900000"),
    ] {
        assert_eq!(fetched[member], want, "{member}");
    }
    assert_eq!(json(&alice.reply("notify:fetch:n0"))["type"], "NotificationType.sent");
    bob.ask("notify:fetch:none", "data:{\"id\":\"none\",\"notificationStatus\":\"NotificationStatus.expired\"}\n@bob@");
    // Of others: nothing.
    alice.ask("notify:status:c", "data:null\n@alice@");
    bob.ask("notify:status:c", "data:null\n@bob@");
    // Nobody here of that name.
    alice.ask("notify:id:z:@nobody:k.ns@alice:v", "data:z\n@alice@");
    assert!(["data:errored\n@alice@", "data:queued\n@alice@"].contains(&alice.reply("notify:status:z").as_str()));
    bob.ask("notify:remove:c", "data:success\n@bob@");
    bob.ask("notify:list:carol", "data:null\n@bob@");
    bob.ask("notify:remove:c", "data:success\n@bob@");
}

#[test]
fn a_new_public_key_puts_the_shared_key_aside() {
    let world = world();
    let (mut alice, mut bob) = (world.login("alice"), world.login("bob"));
    assert!(bob.reply("update:public:publickey@bob one").starts_with("data:"));
    alice.ask("plookup:publickey@bob", "data:one\n@alice@");
    alice.ask("llookup:cached:public:publickey@bob", "data:one\n@alice@");
    assert!(alice.reply("update:shared_key.bob@alice secret").starts_with("data:"));
    alice.ask("notify:id:1:@bob:k.ns@alice:v", "data:1\n@alice@");
    alice.ask("llookup:shared_key.bob@alice", "data:secret\n@alice@");
    // Bob begins anew.
    assert!(bob.reply("update:public:publickey@bob two").starts_with("data:"));
    alice.ask("notify:id:2:@bob:k.ns@alice:v", "data:2\n@alice@");
    assert!(alice.reply("llookup:shared_key.bob@alice").starts_with("error:AT0015-key not found"));
    alice.ask("llookup:cached:public:publickey@bob", "data:two\n@alice@");
    let aside = alice.reply("scan shared_key");
    assert!(aside.starts_with("data:[\"shared_key.bob.until.") && aside.ends_with("@alice\"]\n@alice@"), "{aside}");
}
