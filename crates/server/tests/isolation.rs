//! Never another atSign's data: each verb, each kind of caller.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use common::{KEY, World};
use postern_crypto::{SignatureHash, sha512_hex};

fn world() -> World {
    let world = World::start();
    world.add_activated("alice");
    world.add_activated("bob");
    let mut bob = world.login("bob");
    for line in [
        "update:secret.ns@bob bobs-own",
        "update:@carol:secret.ns@bob for-carol",
        "update:@alice:shared.ns@bob for-alice",
        "update:public:open.ns@bob for-all",
        "update:public:_hidden@bob by-name",
    ] {
        assert!(bob.reply(line).starts_with("data:"), "{line}");
    }
    world
}

#[test]
fn verbs_by_callers() {
    let world = world();
    let anyone = || world.connect();
    let alice = || world.login("alice");
    let auth = "error:AT0401-Exception: Command cannot be executed without auth\n@";
    for line in [
        "llookup:secret.ns@bob",
        "plookup:open.ns@bob",
        "update:secret.ns@bob x",
        "update:public:open.ns@bob x",
        "delete:secret.ns@bob",
        "delete:privatekey:at_secret",
        "update:privatekey:at_pkam_publickey x",
        "notify:remove:x",
        "monitor",
        "otp:get",
        "otp:put:secret1",
        "keys:get:self",
    ] {
        anyone().ask(line, auth);
    }
    anyone().ask(
        "notify:@bob:k.ns@alice:v",
        "error:AT0401-Exception: Notify command cannot be executed without authentication\n@",
    );
    anyone().ask("enroll:list", "error:AT0401-Exception: Cannot list enrollment without authentication\n@");
    anyone().ask("scan:@bob", "error:AT0401-Exception: Scan to another atSign cannot be performed without auth\n@");
    // Two households: a stranger has to say whose names it wants.
    anyone().ask("scan", "error:AT0003-Exception: invalid command\n@");
    let mut claimed = anyone();
    claimed.challenge("bob");
    claimed.ask("scan", "data:[\"open.ns@bob\"]\n@");
    anyone().ask("lookup:open.ns@bob", "data:for-all\n@");
    anyone().ask("lookup:_hidden@bob", "data:by-name\n@");
    for line in ["lookup:secret.ns@bob", "lookup:shared.ns@bob"] {
        assert!(anyone().reply(line).starts_with("error:AT0015-"), "{line}");
    }
    assert!(anyone().reply("lookup:x@nobody").starts_with("error:AT0007-"));

    let mut alice = alice();
    alice.ask("lookup:shared.ns@bob", "data:for-alice\n@alice@");
    alice.ask("plookup:open.ns@bob", "data:for-all\n@alice@");
    alice.ask("scan:@bob", "data:[\"shared.ns@bob\"]\n@alice@");
    for (line, code) in [
        ("lookup:secret.ns@bob", "AT0015"),
        ("plookup:secret.ns@bob", "AT0015"),
        ("llookup:secret.ns@bob", "AT0015"),
        ("llookup:@alice:shared.ns@bob", "AT0015"),
        ("llookup:private:spp.__otp@alice", "AT0015"),
        ("llookup:privatekey:at_secret", "AT0003"),
        ("update:secret.ns@bob x", "AT0016"),
        ("update:@alice:shared.ns@bob x", "AT0016"),
        ("update:private:x@alice x", "AT0016"),
        ("update:privatekey:at_secret x", "AT0016"),
        ("update:cached:public:open.ns@bob x", "AT0016"),
        ("update:x.new.enrollments.__manage@alice {}", "AT0016"),
        ("delete:secret.ns@bob", "AT0016"),
        ("delete:PUBLIC:PublicKey@alice", "AT0009"),
        ("delete:privatekey:at_pkam_publickey", "AT0009"),
        ("notify:@bob:k.ns@carol:v", "AT0009"),
        ("notify:@bob:k.ns@carol@alice:v", "AT0016"),
        ("plookup:x@nobody", "AT0007"),
        ("from:@nobody", "AT0007"),
    ] {
        let reply = alice.reply(line);
        assert!(reply.starts_with(&format!("error:{code}-")), "{line}: {reply}");
    }
    let scan = alice.reply("scan:showHidden:true");
    assert_eq!(scan, "data:[]\n@alice@");
    world.login("bob").ask("llookup:secret.ns@bob", "data:bobs-own\n@bob@");
}

#[test]
fn a_proof_is_for_one_name_one_time() {
    let world = world();
    let sign = |text: &str| KEY.sign(SignatureHash::Sha256, text.as_bytes()).unwrap();
    let failed = "error:AT0401-Exception: pkam authentication failed\n@";
    // For bob, presented as alice.
    let mut client = world.connect();
    let bobs = sign(&client.challenge("bob"));
    client.challenge("alice");
    client.ask(&format!("pkam:{bobs}"), failed);
    // The same connection goes on.
    client.pkam("alice");
    // A second proof without a claim: refused, and the first is void.
    assert!(client.reply(&format!("pkam:{bobs}")).starts_with("error:AT0015-Exception: private:_"));
    client.ask("llookup:x@alice", "error:AT0401-Exception: Command cannot be executed without auth\n@");
    // Of another connection.
    let (mut one, mut other) = (world.connect(), world.connect());
    let proof = sign(&one.challenge("alice"));
    other.challenge("alice");
    other.ask(&format!("pkam:{proof}"), failed);
    one.ask(&format!("pkam:{proof}"), "data:success\n@alice@");
    // A claim by an owner keeps the prompt.
    assert!(one.reply("from:@alice").ends_with("\n@alice@"));
    // Guessing ends.
    let mut guesser = world.connect();
    for _ in 0..10 {
        guesser.challenge("alice");
        let digest = sha512_hex(&[b"guess"]);
        guesser.ask(&format!("cram:{digest}"), "error:AT0401-Exception: Authentication Failed\n@");
    }
    guesser.expect_end();
}
