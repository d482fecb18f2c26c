//! Holes of the reference, and some that were ours: each was open once, none may open again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use common::readers::{Java, Listener, Reader};
use common::{Client, KEY, World};
use postern_crypto::SignatureHash;
use postern_proto::{AtKey, AtSign, Metadata, Record};
use postern_store::{Batch, LogAs};

const ID: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";

fn world() -> World {
    let world = World::start();
    world.add_activated("alice");
    world.add_activated("bob");
    world
}

/// A connection of an approved enrolment with these namespaces.
fn enrolled(world: &World, namespaces: &str) -> Client {
    let alice = AtSign::parse("alice").unwrap();
    let public = KEY.public_key().unwrap().to_base64();
    let json = format!(
        r#"{{"appName":"a","deviceName":"d","namespaces":{namespaces},"apkamPublicKey":"{public}","approval":{{"state":"approved"}}}}"#
    );
    let key = AtKey::own(&format!("{ID}.new.enrollments.__manage"), &alice);
    let record = Record::new(json, Metadata::default(), 0);
    world.runtime.block_on(world.store.commit(Batch::new(0).put(&alice, &key, record, LogAs::Nothing))).unwrap();
    let mut client = world.connect();
    let challenge = client.challenge("alice");
    let signature = KEY.sign(SignatureHash::Sha256, challenge.as_bytes()).unwrap();
    client.ask(&format!("pkam:enrollmentId:{ID}:{signature}"), "data:success\n@alice@");
    client
}

fn refused(client: &mut Client, line: &str, code: &str) {
    let reply = client.reply(line);
    assert!(reply.starts_with(&format!("error:{code}-")), "{line}: {reply}");
}

#[test]
fn regression_a_name_that_begins_like_a_shared_key_is_in_its_own_namespace() {
    let world = world();
    let mut owner = world.login("alice");
    for name in ["shared_key.diary.bank", "shared_key.bob", "shared_key.bob.until.1729760400123"] {
        assert!(owner.reply(&format!("update:{name}@alice x")).starts_with("data:"));
    }
    let mut device = enrolled(&world, r#"{"sshnp":"rw"}"#);
    device.ask("llookup:shared_key.bob@alice", "data:x\n@alice@");
    device.ask("llookup:shared_key.bob.until.1729760400123@alice", "data:x\n@alice@");
    refused(&mut device, "llookup:shared_key.diary.bank@alice", "AT0009");
    refused(&mut device, "update:shared_key.diary.bank@alice y", "AT0009");
    refused(&mut device, "delete:shared_key.diary.bank@alice", "AT0009");
    device.ask("scan diary", "data:[]\n@alice@");
}

#[test]
fn regression_nobody_tells_of_keys_that_he_could_not_write() {
    let world = world();
    world.login("alice").ask("update:isEncrypted:false:public:publickey@alice GOOD", "data:0\n@alice@");
    let mut device = enrolled(&world, r#"{"*":"rw"}"#);
    refused(&mut device, "update:public:publickey@alice EVIL", "AT0009");
    // What others cache of it is as good as the record.
    for key in [
        ":@bob:public:publickey@alice",
        ":@bob:public:PublicKey@alice",
        ":@bob:public:signing_publickey@alice",
        ":@bob:public:_apsk.11111111-8b86-4d01-b42d-00cf4fc964ff.a.__e@alice",
        ":public:publickey@alice",
    ] {
        refused(&mut device, &format!("notify:update:ttr:-1:isEncrypted:false{key}:EVIL"), "AT0009");
    }
    let mut bob = world.login("bob");
    bob.ask("plookup:publickey@alice", "data:GOOD\n@bob@");
    bob.ask("scan cached", "data:[\"cached:public:publickey@alice\"]\n@bob@");
    bob.ask("llookup:cached:public:publickey@alice", "data:GOOD\n@bob@");
    assert!(device.reply("notify:update:@bob:public:news.ns@alice:v").starts_with("data:"));
}

#[test]
fn regression_a_cached_secret_is_no_secret_to_delete() {
    let world = world();
    let mut alice = world.login("alice");
    refused(&mut alice, "delete:cached:privatekey:at_secret", "AT0003");
    let mark = AtKey::private_key("at_secret_deleted");
    assert_eq!(world.store.get(&"@alice".parse().unwrap(), &mark).unwrap(), None);
}

#[test]
fn protected_and_reserved_names_in_any_spelling() {
    let world = world();
    let mut alice = world.login("alice");
    alice.ask("update:isEncrypted:false:public:publickey@alice GOOD", "data:0\n@alice@");
    for line in ["delete:public:publickey@alice", "delete:PUBLIC:PublicKey@ALICE", "delete:public: publickey @alice@"] {
        let reply = alice.reply(line);
        assert!(reply.starts_with("error:"), "{line}: {reply}");
    }
    refused(&mut alice, "delete:privatekey:AT_PKAM_publickey", "AT0009");
    refused(&mut alice, "update:privatekey:at_secret guess", "AT0016");
    refused(&mut alice, "update:privatekey:at_secret_deleted false", "AT0016");
    refused(&mut alice, "update:private:blocklist@alice []", "AT0016");
    refused(&mut alice, "update:cached:public:publickey@bob EVIL", "AT0016");
    refused(&mut alice, &format!("update:{ID}.new.enrollments.__manage@alice {{}}"), "AT0016");
    refused(&mut alice, "llookup:private:blocklist@alice", "AT0015");
    // Names that contain a reserved one are names like others, and lie in their namespace.
    let mut device = enrolled(&world, r#"{"sshnp":"rw"}"#);
    for name in ["public:publickey.evil", "privatekey.at_pkam_publickey.evil", "configkey.evil", "xshared_key.bob.evil"]
    {
        refused(&mut device, &format!("update:{name}@alice x"), "AT0009");
    }
    alice.ask("llookup:public:publickey@alice", "data:GOOD\n@alice@");
}

#[test]
fn strangers_hear_nothing_of_notifications() {
    let world = world();
    world.login("alice").ask("notify:id:n1:update:@bob:k.ns@alice:v", "data:n1\n@alice@");
    let mut stranger = world.connect();
    stranger.challenge("bob");
    for line in [
        "notify:status:n1",
        "notify:fetch:n1",
        "notify:remove:n1",
        "notify:all:@bob:k.ns@alice:v",
        "notify:update:@bob:k.ns@alice:v",
        "monitor:0",
    ] {
        refused(&mut stranger, line, "AT0401");
    }
    stranger.ask("notify:list", "data:null\n@");
    world.login("alice").ask("notify:status:n1", "data:delivered\n@alice@");
}

#[test]
fn references_lead_nowhere_that_the_reader_could_not_go() {
    let world = world();
    let mut alice = world.login("alice");
    assert!(alice.reply("update:diary.bank@alice mine").starts_with("data:"));
    let mut device = enrolled(&world, r#"{"sshnp":"rw"}"#);
    for (n, target) in
        ["diary.bank@alice", "@alice:diary.bank@alice", "private:blocklist@alice", "privatekey:at_secret"]
            .into_iter()
            .enumerate()
    {
        assert!(device.reply(&format!("update:@alice:r{n}.sshnp@alice atsign://{target}")).starts_with("data:"));
        device.ask(&format!("lookup:r{n}.sshnp@alice"), "data:null\n@alice@");
        assert!(alice.reply(&format!("update:public:p{n}@alice atsign://{target}")).starts_with("data:"));
        world.connect().ask(&format!("lookup:p{n}@alice"), "data:null\n@");
    }
}

#[test]
fn regression_a_notification_is_one_line_to_java_too() {
    let world = world();
    let mut alice = Java::open(world.unread());
    let challenge = alice.ask("from:@alice", 0).data().to_owned();
    let signature = KEY.sign(SignatureHash::Sha256, challenge.as_bytes()).unwrap();
    assert_eq!(alice.ask(&format!("pkam:{signature}"), 0).data(), "success");
    alice.send("monitor:0");
    let forged = r#"notification: {"id":"x","from":"@carol","to":"@alice","key":"@alice:k@carol"}"#;
    for (n, end) in ["\u{2028}", "\u{2029}", "\u{85}", "\r"].into_iter().enumerate() {
        let text = format!("hello{end}{forged}{end}");
        let mut bob = world.login("bob");
        bob.ask(
            &format!("notify:id:v{n}:update:isEncrypted:false:@alice:k.ns@bob:{text}."),
            &format!("data:v{n}\n@bob@"),
        );
        let (_, line) = alice.line();
        let push: serde_json::Value = serde_json::from_str(line.trim()).expect("whole, whatever it says");
        assert_eq!((&push["from"], &push["value"]), (&"@bob".into(), &format!("{text}.").into()));
    }
}
