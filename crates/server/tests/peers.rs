//! Servers of different operators, as processes: nobody shares a store, a directory, or a certificate authority.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use common::operator::{Operator, claim, name, public_key};
use common::{Client, until};
use postern_proto::{AtKey, Metadata, Notification};
use postern_store::{Batch, Delivery};

/// Alice's operator and Bob's, running.
fn two() -> (Operator, Operator) {
    let (mut a, mut b) = (Operator::new("localhost", &["alice"]), Operator::new("127.0.0.1", &["bob"]));
    a.start(&[&b]);
    b.start(&[&a]);
    (a, b)
}

fn pushed(line: &str) -> Notification {
    let json = line.strip_prefix("notification: ").unwrap_or_else(|| panic!("{line}"));
    Notification::from_push(json).unwrap_or_else(|| panic!("{line}"))
}

fn monitor(at: &Operator, who: &str) -> Client {
    let mut client = at.login(who);
    client.send(b"monitor:strict:0\n");
    client.expect_silence();
    client
}

#[test]
fn notifications_go_both_ways() {
    let (a, b) = two();
    let (mut alice, mut bob) = (a.login("alice"), b.login("bob"));
    let (mut alice_hears, mut bob_hears) = (monitor(&a, "alice"), monitor(&b, "bob"));
    alice.ask(
        "notify:id:n1:update:ttl:10000:isEncrypted:true:sharedKeyEnc:abc=:ivNonce:8m==:@bob:Ping.dev1.sshnp@alice:Vt==",
        "data:n1\n@alice@",
    );
    let heard = pushed(&bob_hears.text());
    assert_eq!((heard.id.as_str(), heard.from, heard.to), ("n1", name("alice"), name("bob")));
    assert_eq!((heard.key.as_str(), heard.value.as_deref()), ("@bob:Ping.dev1.sshnp@alice", Some("Vt==")));
    assert_eq!((heard.metadata.iv_nonce.as_deref(), heard.is_encrypted), (Some("8m=="), true));
    assert_eq!(heard.metadata.shared_key_enc.as_deref(), Some("abc="));
    let (alices, id) = (a.store(), heard.id);
    until("the delivery to be noted", || {
        alices.outgoing_status(&name("alice"), &id).unwrap() == Some(Delivery::Delivered)
    });
    bob.ask("notify:id:n2:update:messageType:text:@alice:hello: you", "data:n2\n@bob@");
    let heard = pushed(&alice_hears.text());
    assert_eq!((heard.from, heard.key.as_str(), heard.is_encrypted), (name("bob"), "@alice:hello: you", false));
    // A key that is shared tells of itself; and so does its end.
    bob.ask("update:@alice:phone.ns@bob 123", "data:0\n@bob@");
    let heard = pushed(&alice_hears.text());
    assert_eq!((heard.key.as_str(), heard.value.as_deref()), ("@alice:phone.ns@bob", Some("123")));
    bob.ask("delete:@alice:phone.ns@bob", "data:1\n@bob@");
    assert_eq!(pushed(&alice_hears.text()).operation.as_str(), "delete");
}

#[test]
fn lookups_go_both_ways_and_copies_are_kept_as_their_owner_says() {
    let (a, b) = two();
    let (mut alice, mut bob) = (a.login("alice"), b.login("bob"));
    for line in [
        "update:ttr:3600:@alice:kept.ns@bob one",
        "update:@alice:fresh.ns@bob two",
        "update:secret.ns@bob three",
        "update:@carol:other.ns@bob four",
        "update:public:open.ns@bob five",
    ] {
        assert!(bob.reply(line).starts_with("data:"), "{line}");
    }
    alice.ask("lookup:fresh.ns@bob", "data:two\n@alice@");
    alice.ask("lookup:kept.ns@bob", "data:one\n@alice@");
    alice.ask("plookup:open.ns@bob", "data:five\n@alice@");
    let all = alice.reply("lookup:all:fresh.ns@bob");
    assert!(
        all.starts_with(r#"data:{"key":"@alice:fresh.ns@bob","data":"two","metaData":{"createdBy":"@bob""#),
        "{all}"
    );
    assert!(alice.reply("lookup:meta:fresh.ns@bob").starts_with(r#"data:{"createdBy":"@bob""#));
    let all = alice.reply("lookup:all:kept.ns@bob");
    assert!(all.starts_with(r#"data:{"key":"cached:@alice:kept.ns@bob","data":"one","metaData":{"#), "{all}");
    let all = alice.reply("plookup:all:open.ns@bob");
    assert!(all.starts_with(r#"data:{"key":"cached:public:open.ns@bob","data":"five""#), "{all}");
    // A copy counts until its owner's server is asked again, or tells.
    bob.ask("update:public:open.ns@bob six", "data:5\n@bob@");
    alice.ask("plookup:open.ns@bob", "data:five\n@alice@");
    alice.ask("plookup:bypassCache:true:open.ns@bob", "data:six\n@alice@");
    alice.ask("plookup:open.ns@bob", "data:six\n@alice@");
    bob.ask("update:ttr:3600:@alice:kept.ns@bob seven", "data:6\n@bob@");
    until("the pushed copy", || alice.reply("lookup:kept.ns@bob") == "data:seven\n@alice@");
    alice.ask("scan:@bob", "data:[\"fresh.ns@bob\",\"kept.ns@bob\"]\n@alice@");
    alice.ask("scan:@bob fresh", "data:[\"fresh.ns@bob\"]\n@alice@");
    for line in ["lookup:secret.ns@bob", "lookup:other.ns@bob", "plookup:secret.ns@bob", "lookup:none.ns@bob"] {
        let reply = alice.reply(line);
        assert!(reply.starts_with("error:AT0015-key not found : ") && reply.ends_with("\n@alice@"), "{line}: {reply}");
    }
    let reply = alice.reply("lookup:x.ns@nobody");
    assert!(reply.starts_with("error:AT0007-Secondary server not found : "), "{reply}");
    // Strangers make nobody ask.
    assert!(a.connect().reply("lookup:open.ns@bob").starts_with("error:AT0007-"));
    // The other way, on what alice shares.
    assert!(alice.reply("update:@bob:mine.ns@alice eight").starts_with("data:"));
    bob.ask("lookup:mine.ns@alice", "data:eight\n@bob@");
}

#[test]
fn a_server_that_is_gone_is_told_in_time() {
    let (a, mut b) = two();
    let mut alice = a.login("alice");
    alice.ask("plookup:bypassCache:true:publickey@bob", &missing("public:publickey@bob"));
    b.put("bob", &AtKey::public("publickey", &name("bob")), "key-one");
    alice.ask("plookup:publickey@bob", "data:key-one\n@alice@");
    b.kill();
    // Where bob lives is remembered, but nobody answers; his public key is remembered too.
    let reply = alice.reply("lookup:k.ns@bob");
    assert!(reply.starts_with("error:AT0021-Unable to connect to secondary : "), "{reply}");
    alice.ask("plookup:publickey@bob", "data:key-one\n@alice@");
    b.start(&[&a]);
    alice.ask("lookup:k.ns@bob", &missing("@alice:k.ns@bob"));
}

fn missing(key: &str) -> String {
    format!("error:AT0015-key not found : {key} does not exist in keystore\n@alice@")
}

#[test]
fn a_changed_public_key_retires_the_shared_key() {
    let (a, b) = two();
    let key = AtKey::public("publickey", &name("bob"));
    b.put("bob", &key, "key-one");
    let mut alice = a.login("alice");
    assert!(alice.reply("update:shared_key.bob@alice wrapped-for-alice").starts_with("data:"));
    alice.ask("plookup:publickey@bob", "data:key-one\n@alice@");
    alice.ask("llookup:shared_key.bob@alice", "data:wrapped-for-alice\n@alice@");
    b.put("bob", &key, "key-two");
    // Whatever is asked in alice's name looks at the key first.
    alice.ask("lookup:x.ns@bob", &missing("@alice:x.ns@bob"));
    alice.ask("llookup:shared_key.bob@alice", &missing("shared_key.bob@alice"));
    let names = alice.reply("scan shared_key");
    assert!(names.starts_with("data:[\"shared_key.bob.until."), "{names}");
    alice.ask("llookup:cached:public:publickey@bob", "data:key-two\n@alice@");
}

#[test]
fn a_peer_speaks_for_itself_alone() {
    let mut m = Operator::new("localhost", &["mallory"]);
    let mut b = Operator::new("127.0.0.1", &["bob", "bobs_friend"]);
    m.start(&[&b]);
    b.start(&[&m]);
    let mut bob = b.login("bob");
    for line in [
        "update:@mallory:for.her@bob hers",
        "update:@alice:not.for.her@bob alices",
        "update:own.ns@bob mine",
        "update:public:open.ns@bob all",
    ] {
        assert!(bob.reply(line).starts_with("data:"), "{line}");
    }
    let (certificate, key) = m.certificate();
    let mut peer = b.connect_as(&certificate, &key);
    peer.ask("lookup:open.ns@bob", "data:all\n@");
    // Exactly the prompt.
    assert_eq!(claim(&mut peer, &m, "mallory"), "@mallory@");
    peer.ask("lookup:for.her@bob", "data:hers\n@mallory@");
    peer.ask("scan", "data:[\"for.her@bob\"]\n@mallory@");
    for line in ["lookup:not.for.her@bob", "lookup:own.ns@bob", "lookup:open.ns@bob", "lookup:at_secret@bob"] {
        assert!(peer.reply(line).starts_with("error:AT0015-Exception: @mallory:"), "{line}");
    }
    for line in [
        "llookup:own.ns@bob",
        "plookup:open.ns@bob",
        "update:x.ns@mallory v",
        "update:@bob:x.ns@mallory v",
        "delete:own.ns@bob",
        "monitor",
        "scan:@bob",
        "notify:remove:x",
        "otp:get",
        "keys:get:self",
        "enroll:list",
        "update:meta:x.ns@bob:ttl:1",
        "sync:from:0:limit:10",
        "batch:[{\"id\":1,\"command\":\"llookup:own.ns@bob\"}]",
        "stats:3",
        "config:block:show",
        "config:block:add:@alice",
        "notify:list",
        "notify:status:x",
        "notify:fetch:x",
        "notify:all:@bob:k.ns@mallory:v",
    ] {
        let reply = peer.reply(line);
        let nothing = reply.starts_with("error:AT0401-Exception: ") && reply.ends_with("\n@");
        // Names shared with mallory are all that a scan ever gives her.
        assert!(nothing || reply == "data:[\"for.her@bob\"]\n@mallory@", "{line}: {reply}");
    }
    for (line, code) in [
        ("notify:id:x:update:messageType:key:@bob:k.ns@alice:v", "AT0009"),
        ("notify:id:x:update:messageType:key:@bob:k.ns@bob:v", "AT0009"),
        ("notify:id:x:update:messageType:key:@bob:k@carol@mallory:v", "AT0016"),
        ("notify:id:x:update:messageType:key:@carol:k.ns@mallory:v", "AT0007"),
        ("notify:id:x:update:messageType:key:public:k.ns@mallory:v", "AT0003"),
        ("notify:id:x y:update:@bob:k.ns@mallory:v", "AT0003"),
    ] {
        let reply = peer.reply(line);
        assert!(reply.starts_with(&format!("error:{code}-Exception: ")), "{line}: {reply}");
    }
    let mut hears = monitor(&b, "bob");
    peer.ask("notify:id:m1:update:messageType:key:ttr:-1:@bob:k.ns@mallory:v", "data:success\n@mallory@");
    assert_eq!(pushed(&hears.text()).key, "@bob:k.ns@mallory");
    // The same id again is taken, and is not told again.
    peer.ask("notify:id:m1:update:messageType:key:ttr:-1:@bob:k.ns@mallory:v", "data:success\n@mallory@");
    hears.expect_silence();
    bob.ask("llookup:cached:@bob:k.ns@mallory", "data:v\n@bob@");
    // A pushed public key would decide what is encrypted to whom.
    peer.ask("notify:id:m2:update:ttr:-1:@bob:public:publickey@mallory:evil", "data:success\n@mallory@");
    pushed(&hears.text());
    assert!(bob.reply("llookup:cached:public:publickey@mallory").starts_with("error:AT0015-"));
    // Blocked: not even that.
    b.put("bob", &AtKey::private("blocklist", &name("bob")), r#"["@mallory"]"#);
    for line in ["lookup:for.her@bob", "scan", "notify:id:m3:update:@bob:k.ns@mallory:v"] {
        assert!(peer.reply(line).starts_with("error:AT0013-Exception: Unable to connect"), "{line}");
    }
    peer.ask("notify:id:m4:update:@bobs_friend:k.ns@mallory:v", "data:success\n@mallory@");
    hears.expect_silence();
    // A proof counts once.
    let reply = peer.reply("pol");
    assert!(reply.starts_with("error:AT0011-Exception: ") && reply.ends_with("\n@"), "{reply}");
    peer.expect_end();
}

#[test]
fn on_a_port_of_its_own_the_blocked_do_not_get_as_far_as_a_proof() {
    let a = Operator::new("localhost", &["alice"]);
    let mut b = Operator::new("localhost", &[]);
    let port = b.add_with_port("dave");
    b.start(&[&a]);
    let mut client = b.connect_to_port(port);
    assert!(client.challenge("mallory").starts_with("proof:_"));
    b.put("dave", &AtKey::private("blocklist", &name("dave")), r#"["@mallory"]"#);
    let mut client = b.connect_to_port(port);
    client.ask("from:@mallory", "error:AT0013-Exception: Unable to connect\n@");
    client.expect_end();
    let mut client = b.connect_to_port(port);
    assert!(client.challenge("alice").starts_with("proof:_"));
}

#[test]
fn who_cannot_prove_it_is_refused() {
    let (a, b) = two();
    let mut m = Operator::new("127.0.0.1", &["mallory"]);
    m.start(&[&a]);
    b.put("bob", &AtKey::public("signing_publickey", &name("bob")), &public_key());
    // Without a claim.
    let mut client = b.connect();
    assert!(client.reply("pol").starts_with("error:AT0011-Exception: "));
    client.expect_end();
    // As an owner of the server itself: no way in by pol.
    let mut client = b.connect();
    assert!(!client.challenge("bob").starts_with("proof:"));
    assert!(client.reply("pol").starts_with("error:AT0011-Exception: "));
    // Nothing to show.
    let mut client = b.connect();
    assert!(client.challenge("alice").starts_with("proof:_"));
    client.ask("pol", "error:AT0401-Exception: Certificate Verification Failed\n@");
    client.ask("llookup:x@alice", "error:AT0401-Exception: Command cannot be executed without auth\n@");
    // The certificate of somebody else, whom bob's operator does not even know.
    let (certificate, key) = m.certificate();
    let mut client = b.connect_as(&certificate, &key);
    assert!(client.challenge("alice").starts_with("proof:_"));
    client.ask("pol", "error:AT0401-Exception: Certificate Verification Failed\n@");
    // The right one, and no signature at alice's own server: the server that lies has nothing there.
    let (certificate, key) = a.certificate();
    let mut client = b.connect_as(&certificate, &key);
    assert!(client.challenge("alice").starts_with("proof:_"));
    client.ask("pol", "error:AT0401-Exception: Pol Authentication Failed\n@");
    // A signature of an earlier proof.
    let mut client = b.connect_as(&certificate, &key);
    assert_eq!(claim(&mut client, &a, "alice"), "@alice@");
    assert!(client.challenge("alice").starts_with("proof:_"));
    client.ask("pol", "error:AT0401-Exception: Pol Authentication Failed\n@");
    client.ask("scan", "data:[\"signing_publickey@bob\"]\n@");
    // Nobody knows the name.
    let mut client = b.connect_as(&certificate, &key);
    client.challenge("nobody");
    assert!(client.reply("pol").starts_with("error:AT0007-Exception: "));
    // Nobody is there to ask: a stranger does not hear where we dialled, nor how it failed.
    let mut a = a;
    a.kill();
    let mut client = b.connect_as(&certificate, &key);
    client.challenge("alice");
    client.ask("pol", "error:AT0021-Exception: the server of @alice cannot be asked\n@");
}

#[test]
fn a_claim_passed_on_by_a_hostile_server_is_given_away_by_its_certificate() {
    let (a, b) = two();
    // Alice's server has published a good signature of a proof that bob's server made, for it was asked by somebody who
    // passed the proof on. That somebody has a certificate that bob's operator trusts, of another host.
    let other = postern_net::tls::PrivateCa::make(&["mallory.example".to_owned()], &[]).unwrap();
    let ca = a.home.ca().unwrap();
    let both = std::fs::read_to_string(&ca).unwrap() + &other.ca_pem;
    drop(b);
    std::fs::write(&ca, both).unwrap();
    let mut b = Operator::new("127.0.0.1", &["bob"]);
    b.start(&[&a]);
    let mut client = b.connect_as(other.cert_pem.as_bytes(), other.key_pem.as_bytes());
    assert_eq!(claim(&mut client, &a, "alice"), "error:AT0401-Exception: Certificate Verification Failed\n@");
    // An operator may choose to look at no certificate.
    let mut lax = Operator::new("127.0.0.1", &["bob"]).with_settings("peer-certificates = \"ignored\"");
    lax.start(&[&a]);
    let mut client = lax.connect_as(other.cert_pem.as_bytes(), other.key_pem.as_bytes());
    assert_eq!(claim(&mut client, &a, "alice"), "@alice@");
}

#[test]
fn what_was_sent_arrives_once_and_in_order_whoever_is_killed_meanwhile() {
    const EACH: usize = 30;
    let (mut a, mut b) = two();
    let mut hears = monitor(&b, "bob");
    let send = |a: &Operator, from: usize| {
        let mut alice = a.login("alice");
        for n in from..from + EACH {
            alice.ask(&format!("notify:id:n{n}:ttln:600000:@bob:k{n}.ns@alice:v{n}"), &format!("data:n{n}\n@alice@"));
        }
    };
    send(&a, 0);
    hears.text();
    b.kill(); // in the middle of the first thirty, or behind them
    send(&a, EACH);
    a.kill();
    a.start(&[&b]);
    send(&a, 2 * EACH);
    b.start(&[&a]);
    a.kill(); // whatever it waits for, a new one begins at once
    a.start(&[&b]);
    let mut hears = b.login("bob");
    hears.send(b"monitor:strict:0\n");
    for n in 0..3 * EACH {
        let heard = pushed(&hears.text());
        assert_eq!((heard.id.as_str(), heard.value), (format!("n{n}").as_str(), Some(format!("v{n}"))));
    }
    hears.expect_silence();
    let store = a.store();
    until("the queue to be empty", || store.waiting_pairs(9).unwrap().is_empty());
}

#[test]
fn a_dead_recipient_holds_up_nobody_and_hears_all_when_it_is_back() {
    let (mut a, mut b) = (Operator::new("localhost", &["alice"]), Operator::new("127.0.0.1", &["bob"]));
    let mut c = Operator::new("localhost", &["carol"]);
    c.start(&[&a]);
    b.start(&[&a]);
    a.start(&[&b, &c]);
    let mut alice = a.login("alice");
    let mut bob = monitor(&b, "bob");
    // So that alice's server remembers where carol is, and finds nobody there.
    assert!(alice.reply("lookup:x@carol").starts_with("error:AT0015-"));
    c.kill();
    for n in 0..20 {
        alice.ask(&format!("notify:id:c{n}:@carol:k.ns@alice:v"), &format!("data:c{n}\n@alice@"));
        alice.ask(&format!("notify:id:b{n}:@bob:k.ns@alice:v"), &format!("data:b{n}\n@alice@"));
    }
    for n in 0..20 {
        assert_eq!(pushed(&bob.text()).id.as_str(), format!("b{n}"));
    }
    c.start(&[&a]);
    let mut carol = c.login("carol");
    carol.tcp().set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap(); // the quarantine, and slack
    carol.send(b"monitor:strict:0\n");
    for n in 0..20 {
        assert_eq!(pushed(&carol.text()).id.as_str(), format!("c{n}"));
    }
}

#[test]
fn what_has_expired_or_has_no_recipient_is_not_delivered() {
    let (a, mut b) = two();
    let mut alice = a.login("alice");
    b.kill();
    alice.ask("notify:id:brief:ttln:300:@bob:k.ns@alice:v", "data:brief\n@alice@");
    alice.ask("notify:id:long:ttln:600000:@bob:k.ns@alice:v", "data:long\n@alice@");
    alice.ask("notify:id:lost:ttln:600000:@nobody:k.ns@alice:v", "data:lost\n@alice@");
    let end = common::now_ms() + 300;
    until("the brief one to end", || common::now_ms() > end);
    b.start(&[&a]);
    let mut bob = b.login("bob");
    bob.tcp().set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    bob.send(b"monitor:strict:0\n");
    assert_eq!(pushed(&bob.text()).id.as_str(), "long");
    bob.expect_silence();
    let status =
        |id: &str| a.store().outgoing_status(&name("alice"), &postern_proto::NotificationId::parse(id).unwrap());
    until("the long one to be noted", || status("long").unwrap() == Some(Delivery::Delivered));
    assert!(matches!(status("brief").unwrap(), Some(Delivery::Expired) | None));
    assert_eq!(status("lost").unwrap(), Some(Delivery::Queued));
}

#[test]
fn the_queue_of_an_old_store_is_delivered() {
    // As if written before this server knew others: nothing but a queued row.
    let (mut a, mut b) = (Operator::new("localhost", &["alice"]), Operator::new("127.0.0.1", &["bob"]));
    let now = common::now_ms();
    let sent = Notification {
        id: postern_proto::NotificationId::parse("old").unwrap(),
        from: name("alice"),
        to: name("bob"),
        key: "@bob:k.ns@alice".into(),
        value: Some("v".into()),
        operation: Default::default(),
        message_type: Default::default(),
        at: now,
        expires_at: now + 600_000,
        is_encrypted: true,
        is_self: false,
        metadata: Metadata::default(),
        routing: Default::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(a.store().commit(Batch::new(now).send(sent))).unwrap();
    b.start(&[&a]);
    a.start(&[&b]);
    assert_eq!(pushed(&monitor_text(&b)).id.as_str(), "old");
}

fn monitor_text(b: &Operator) -> String {
    let mut bob = b.login("bob");
    bob.send(b"monitor:strict:0\n");
    bob.text()
}
