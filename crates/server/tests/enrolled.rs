//! Connections with an enrolment: their namespaces, and the end of their rights.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use common::{Client, KEY, World};
use postern_crypto::SignatureHash;
use postern_proto::{AtKey, AtSign, Metadata, Record};
use postern_store::{Batch, LogAs};

const ID: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";

/// Writes the record as an approval will.
fn enroll(world: &World, state: &str, namespaces: &str) {
    let alice = AtSign::parse("alice").unwrap();
    let public = KEY.public_key().unwrap().to_base64();
    let json = format!(
        r#"{{"appName":"a","deviceName":"d","namespaces":{namespaces},"apkamPublicKey":"{public}","approval":{{"state":"{state}"}}}}"#
    );
    let key = AtKey::own(&format!("{ID}.new.enrollments.__manage"), &alice);
    let record = Record::new(json, Metadata::default(), 0);
    world.runtime.block_on(world.store.commit(Batch::new(0).put(&alice, &key, record, LogAs::Nothing))).unwrap();
}

fn pkam(client: &mut Client) -> String {
    let challenge = client.challenge("alice");
    let signature = KEY.sign(SignatureHash::Sha256, challenge.as_bytes()).unwrap();
    client.reply(&format!("pkam:enrollmentId:{ID}:{signature}"))
}

fn world() -> World {
    let world = World::start();
    world.add_activated("alice");
    world.add_activated("bob");
    world
}

#[test]
fn an_enrolment_stays_in_its_namespaces() {
    let world = world();
    let mut owner = world.login("alice");
    for line in [
        "update:a.photos@alice x",
        "update:@bob:b.photos@alice x",
        "update:public:c.photos@alice x",
        "update:d.sshnp@alice x",
    ] {
        assert!(owner.reply(line).starts_with("data:"));
    }
    world.login("bob").ask("update:@alice:e.photos@bob x", "data:0\n@bob@");
    enroll(&world, "approved", r#"{"sshnp":"rw","logs":"r"}"#);
    let mut device = world.connect();
    assert_eq!(pkam(&mut device), "data:success\n@alice@");
    for line in [
        "update:@bob:request.dev1.sshnp@alice v",
        "llookup:d.sshnp@alice",
        "llookup:public:c.photos@alice",
        "update:shared_key.bob@alice v",
        "update:@bob:shared_key@alice v",
        "llookup:shared_key.bob@alice",
        "notify:@bob:ping.dev1.sshnp@alice:v",
        "plookup:c.photos@alice",
        "delete:d.sshnp@alice",
    ] {
        let reply = device.reply(line);
        assert!(reply.starts_with("data:"), "{line}: {reply}");
    }
    for (line, verb, key) in [
        ("update:x.photos@alice v", "update", "x.photos@alice"),
        ("update:x.logs@alice v", "update", "x.logs@alice"),
        ("llookup:a.photos@alice", "llookup", "a.photos@alice"),
        ("lookup:e.photos@bob", "lookup", "@alice:e.photos@bob"),
        ("delete:a.photos@alice", "delete", "a.photos@alice"),
        ("notify:@bob:x.photos@alice:v", "notify", "@bob:x.photos@alice"),
        ("update:privatekey:at_pkam_publickey MIIB", "update", "privatekey:at_pkam_publickey"),
        ("update:public:publickey@alice MIIB", "update", "public:publickey@alice"),
        ("delete:privatekey:at_secret", "delete", "privatekey:at_secret"),
        (
            &format!("llookup:{ID}.new.enrollments.__manage@alice"),
            "llookup",
            &format!("{ID}.new.enrollments.__manage@alice"),
        ),
    ] {
        device.ask(line, &format!(
            "error:AT0009-UnAuthorized client in request : Connection with enrollment ID {ID} is not authorized to {verb} key: {key}\n@alice@"
        ));
    }
    device.ask("scan", "data:[\"@bob:request.dev1.sshnp@alice\",\"@bob:shared_key@alice\",\"public:c.photos@alice\",\"shared_key.bob@alice\"]\n@alice@");
    device.ask("scan:@bob", "data:[]\n@alice@");
    assert!(device.reply("otp:put:secret1").starts_with("error:AT0009-"));
    assert!(
        device
            .reply(&format!("keys:get:keyName:{ID}.default_enc_private_key.__manage@alice"))
            .starts_with("error:AT0015-")
    );
    device.send(b"monitor:strict\n");
    device.expect_silence();
    let mut bob = world.login("bob");
    bob.ask("notify:id:n1:@alice:x.photos@bob:v", "data:n1\n@bob@");
    bob.ask("notify:id:n2:@alice:x.dev1.sshnp@bob:v", "data:n2\n@bob@");
    assert!(device.text().starts_with("notification: {\"id\":\"n2\""));
    device.expect_silence();
}

#[test]
fn states_and_the_end_of_rights() {
    let world = world();
    let mut client = world.connect();
    assert_eq!(pkam(&mut client), format!("error:AT0028:enrollment_id: {ID} is expired or invalid\n@"));
    for (state, want) in [("pending", "AT0026"), ("denied", "AT0025"), ("revoked", "AT0027")] {
        enroll(&world, state, "{}");
        assert_eq!(pkam(&mut client), format!("error:{want}:enrollment_id: {ID} is {state}\n@"));
    }
    enroll(&world, "approved", r#"{"sshnp":"r"}"#);
    assert_eq!(pkam(&mut client), "data:success\n@alice@");
    assert!(client.reply("update:x.sshnp@alice v").starts_with("error:AT0009-"));
    // Rights change while the connection stands.
    enroll(&world, "approved", r#"{"sshnp":"rw"}"#);
    client.ask("update:x.sshnp@alice v", "data:0\n@alice@");
    enroll(&world, "revoked", r#"{"sshnp":"rw"}"#);
    client.ask("update:x.sshnp@alice v", &format!("error:AT0027:enrollment_id: {ID} is revoked\n@"));
    client.expect_end();
}
