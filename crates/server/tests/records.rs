//! Records: their metadata, copies, references, synchronisation, and the verbs that look at a whole household.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use common::{Client, KEY, World};
use postern_crypto::SignatureHash;
use postern_proto::{AtKey, AtSign, Metadata, Record};
use postern_store::{Batch, LogAs};
use serde_json::{Value as Json, json};

fn world() -> World {
    let world = World::start();
    for name in ["alice", "bob"] {
        world.add_activated(name);
    }
    world
}

/// The JSON behind `data:`.
fn data(reply: &str) -> Json {
    let text = reply.strip_prefix("data:").unwrap_or_else(|| panic!("{reply}"));
    serde_json::from_str(text.split('\n').next().unwrap()).unwrap_or_else(|_| panic!("{reply}"))
}

fn done(client: &mut Client, line: &str) {
    let reply = client.reply(line);
    assert!(reply.starts_with("data:") && !reply.starts_with("data:null"), "{line}: {reply}");
}

fn refused(client: &mut Client, line: &str, code: &str, text: &str) {
    let reply = client.reply(line);
    assert!(reply.starts_with(&format!("error:{code}-")) && reply.contains(text), "{line}: {reply}");
}

/// An approved enrolment of alice with these namespaces, logged in.
fn enrolled(world: &World, id: &str, namespaces: &str) -> Client {
    let alice = AtSign::parse("alice").unwrap();
    let public = KEY.public_key().unwrap().to_base64();
    let json = format!(
        r#"{{"appName":"a","deviceName":"d","namespaces":{namespaces},"apkamPublicKey":"{public}","approval":{{"state":"approved"}}}}"#
    );
    let key = AtKey::own(&format!("{id}.new.enrollments.__manage"), &alice);
    let batch = Batch::new(0).put(&alice, &key, Record::new(json, Metadata::default(), 0), LogAs::Nothing);
    world.runtime.block_on(world.store.commit(batch)).unwrap();
    let mut client = world.connect();
    let challenge = client.challenge("alice");
    let signature = KEY.sign(SignatureHash::Sha256, challenge.as_bytes()).unwrap();
    client.ask(&format!("pkam:enrollmentId:{id}:{signature}"), "data:success\n@alice@");
    client
}

const ID: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";

#[test]
fn metadata_is_merged_cleared_and_written_alone() {
    let world = world();
    let mut alice = world.login("alice");
    alice.ask("update:ttl:600000:encoding:base64:isEncrypted:True:ivNonce:A==:k.ns@alice v", "data:0\n@alice@");
    alice.ask("update:encoding:null:k.ns@alice w", "data:1\n@alice@");
    let all = data(&alice.reply("llookup:all:k.ns@alice"));
    assert_eq!((&all["key"], &all["data"]), (&json!("k.ns@alice"), &json!("w")));
    let meta = &all["metaData"];
    assert_eq!((&meta["ttl"], &meta["ivNonce"], &meta["isEncrypted"]), (&json!(600_000), &json!("A=="), &json!(true)));
    assert_eq!((meta.get("encoding"), &meta["version"]), (None, &json!(1)));
    assert!(meta["expiresAt"].is_string());
    // Metadata alone; the value stays, the end goes.
    alice.ask("update:meta:k.ns@alice:ttl:0:isBinary:true:unknown:x", "data:2\n@alice@");
    let all = data(&alice.reply("llookup:all:k.ns@alice"));
    assert_eq!((&all["data"], all["metaData"].get("expiresAt")), (&json!("w"), None));
    assert_eq!((&all["metaData"]["isBinary"], &all["metaData"]["version"]), (&json!(true), &json!(2)));
    refused(&mut alice, "update:meta:none.ns@alice:ttl:5", "AT0015", "none.ns@alice does not exist in keystore");
    refused(&mut alice, "update:meta:k.ns@bob:ttl:5", "AT0016", "sharedBy");
    refused(&mut alice, "update:meta:k.ns@alice:ttr:-2", "AT0003", "ttr");
    // As JSON, and whom it is shared with hears it under the right name.
    let mut bob = world.login("bob");
    bob.send(b"monitor:strict\n");
    bob.expect_silence();
    done(
        &mut alice,
        r#"update:json:{"atKey":"Phone.ns","value":"1 2","sharedBy":"@alice","sharedWith":"@bob","metadata":{"ttr":-1,"ccd":true}}"#,
    );
    assert!(bob.text().contains(r#""key":"@bob:phone.ns@alice","value":"1 2""#));
    alice.ask("llookup:@bob:phone.ns@alice", "data:1 2\n@alice@");
    refused(&mut alice, r#"update:json:{"atKey":"k","sharedBy":"@bob","value":"v"}"#, "AT0016", "sharedBy");
    refused(&mut alice, &format!("update:{}@alice v", "k".repeat(300)), "AT0016", "248");
    // Not yet born.
    done(&mut alice, "update:ttb:600000:later.ns@alice v");
    alice.ask("llookup:later.ns@alice", "data:null\n@alice@");
    assert!(!alice.reply("scan").contains("later"));
}

#[test]
fn an_immutable_record_is_written_once() {
    let world = world();
    let (mut one, mut other) = (world.login("alice"), world.login("alice"));
    let lock = "update:ttl:30000:isEncrypted:false:immutable:true:5e0f.session_mutexes.sshnp@alice lock";
    done(&mut one, lock);
    refused(&mut other, lock, "AT0009", "immutable");
    refused(&mut other, "update:meta:5e0f.session_mutexes.sshnp@alice:immutable:false", "AT0009", "immutable");
    refused(&mut other, "delete:5e0f.session_mutexes.sshnp@alice", "AT0009", "Immutable records may not be deleted");
    assert_eq!(data(&one.reply("llookup:meta:5e0f.session_mutexes.sshnp@alice"))["immutable"], true);
    done(&mut other, "delete:force:5e0f.session_mutexes.sshnp@alice");
    // Its time ends.
    done(&mut one, "update:ttl:1:immutable:true:brief.sshnp@alice lock");
    common::until("the record to expire", || {
        one.reply("update:immutable:true:brief.sshnp@alice x").starts_with("data:")
    });
    // Of many that try at once, one wins.
    let wins: usize = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..8)
            .map(|_| {
                let mut client = world.login("alice");
                scope.spawn(move || {
                    let reply = client.reply("update:ttl:30000:immutable:true:race.session_mutexes.sshnp@alice lock");
                    assert!(reply.starts_with("data:") || reply.contains("immutable"), "{reply}");
                    usize::from(reply.starts_with("data:"))
                })
            })
            .collect();
        tries.into_iter().map(|one| one.join().unwrap()).sum()
    });
    assert_eq!(wins, 1);
}

#[test]
fn copies_are_read_while_they_count() {
    let world = world();
    let (mut alice, mut bob) = (world.login("alice"), world.login("bob"));
    // Shared before alice listened to anything: put into the store without a notification.
    let (a, b) = (AtSign::parse("alice").unwrap(), AtSign::parse("bob").unwrap());
    let put = |name: &str, value: &str, ttr| {
        let record = Record::new(value, Metadata { ttr, ..Metadata::default() }, common::now_ms());
        let batch = Batch::new(0).put(&b, &AtKey::shared(&a, name, &b), record, LogAs::Put);
        world.runtime.block_on(world.store.commit(batch)).unwrap();
    };
    put("forever.ns", "one", Some(-1));
    put("never.ns", "one", None);
    let key = |reply: &str| data(reply)["key"].clone();
    assert_eq!(key(&alice.reply("lookup:all:forever.ns@bob")), "@alice:forever.ns@bob");
    assert_eq!(key(&alice.reply("lookup:all:forever.ns@bob")), "cached:@alice:forever.ns@bob");
    assert_eq!(key(&alice.reply("lookup:all:never.ns@bob")), "@alice:never.ns@bob");
    assert_eq!(key(&alice.reply("lookup:all:never.ns@bob")), "@alice:never.ns@bob");
    alice.ask("scan forever", "data:[\"cached:@alice:forever.ns@bob\"]\n@alice@");
    alice.ask("llookup:cached:@alice:forever.ns@bob", "data:one\n@alice@");
    put("forever.ns", "two", Some(-1));
    alice.ask("lookup:forever.ns@bob", "data:one\n@alice@");
    alice.ask("lookup:bypassCache:true:forever.ns@bob", "data:two\n@alice@");
    alice.ask("lookup:forever.ns@bob", "data:two\n@alice@");
    // Gone: the next look at the original takes the copy along.
    let gone = Batch::new(0).remove(&b, &AtKey::shared(&a, "forever.ns", &b));
    world.runtime.block_on(world.store.commit(gone)).unwrap();
    alice.ask("lookup:forever.ns@bob", "data:two\n@alice@");
    refused(&mut alice, "lookup:bypassCache:true:forever.ns@bob", "AT0015", "@alice:forever.ns@bob");
    refused(&mut alice, "llookup:cached:@alice:forever.ns@bob", "AT0015", "cached:@alice:forever.ns@bob");
    // Public ones are kept, and never older than the original.
    done(&mut bob, "update:ttr:600:public:open.ns@bob one");
    alice.ask("plookup:open.ns@bob", "data:one\n@alice@");
    alice.ask("llookup:cached:public:open.ns@bob", "data:one\n@alice@");
    done(&mut bob, "update:public:open.ns@bob two");
    alice.ask("plookup:open.ns@bob", "data:two\n@alice@");
    // Copies cannot be forged, but they can be thrown away.
    refused(&mut alice, "update:cached:public:open.ns@bob x", "AT0016", "sharedBy");
    done(&mut alice, "delete:cached:public:open.ns@bob");
    refused(&mut alice, "llookup:cached:public:open.ns@bob", "AT0015", "does not exist");
}

#[test]
fn references_lead_where_the_reader_may_go() {
    let world = world();
    let (mut alice, mut bob) = (world.login("alice"), world.login("bob"));
    for line in [
        "update:public:landline.ns@alice 040",
        "update:public:ref.ns@alice atsign://landline.ns@alice",
        "update:public:ref2.ns@alice atsign://ref.ns@alice",
        "update:public:ref3.ns@alice atsign://ref2.ns@alice",
        "update:public:ref4.ns@alice atsign://ref3.ns@alice",
        "update:public:loop.ns@alice atsign://loop.ns@alice",
        "update:secret.ns@alice mine",
        "update:@bob:shared.ns@alice ours",
        "update:public:leak.ns@alice atsign://secret.ns@alice",
        "update:@bob:forbob.ns@alice atsign://shared.ns@alice",
        "update:public:forbob.ns@alice atsign://shared.ns@alice",
    ] {
        done(&mut alice, line);
    }
    let mut anyone = world.connect();
    for (name, want) in [
        ("ref", "040"),
        ("ref2", "040"),
        ("ref3", "040"),
        ("ref4", "null"),
        ("loop", "null"),
        ("leak", "null"),
        ("forbob", "null"),
    ] {
        anyone.ask(&format!("lookup:{name}.ns@alice"), &format!("data:{want}\n@"));
    }
    bob.ask("plookup:ref.ns@alice", "data:040\n@bob@");
    bob.ask("plookup:leak.ns@alice", "data:null\n@bob@");
    bob.ask("lookup:forbob.ns@alice", "data:ours\n@bob@");
    let all = data(&anyone.reply("lookup:all:ref.ns@alice"));
    assert_eq!((&all["key"], &all["data"]), (&json!("public:ref.ns@alice"), &json!("040")));
    alice.ask("llookup:public:ref.ns@alice", "data:atsign://landline.ns@alice\n@alice@");
    // A detour does not lead past a block list.
    world.add_activated("carol");
    done(&mut world.login("carol"), "update:public:detour.ns@carol atsign://shared.ns@alice");
    bob.ask("plookup:detour.ns@carol", "data:ours\n@bob@");
    done(&mut alice, "config:block:add:@bob");
    bob.ask("plookup:detour.ns@carol", "data:null\n@bob@");
}

#[test]
fn sync_tells_what_changed_page_by_page() {
    let world = world();
    let mut alice = world.login("alice");
    alice.ask("sync:from:-1:limit:10", "data:[]\n@alice@");
    for n in 0..30 {
        done(&mut alice, &format!("update:ttl:{}:k{n}.ns@alice v{n}", 600_000 + n));
    }
    done(&mut alice, "update:k0.ns@alice again");
    done(&mut alice, "update:meta:k1.ns@alice:ttl:0");
    done(&mut alice, "delete:k2.ns@alice");
    done(&mut alice, "update:public:publickey@alice P");
    done(&mut alice, "update:shared_key.bob@alice S");
    let page = |client: &mut Client, line: &str| data(&client.reply(line)).as_array().unwrap().clone();
    let first = page(&mut alice, "sync:from:-1:limit:100");
    assert_eq!(first.len(), 25);
    let last = first.last().unwrap()["commitId"].as_i64().unwrap();
    let rest = page(&mut alice, &format!("sync:from:{last}:limit:100"));
    let all: Vec<&Json> = first.iter().chain(&rest).collect();
    assert_eq!(all.len(), 32, "each key once");
    let ids: Vec<i64> = all.iter().map(|entry| entry["commitId"].as_i64().unwrap()).collect();
    assert!(ids.is_sorted() && *ids.last().unwrap() == 34, "{ids:?}");
    let entry = |name: &str| all.iter().find(|entry| entry["atKey"] == format!("{name}.ns@alice")).unwrap();
    assert_eq!((&entry("k0")["operation"], &entry("k0")["value"]), (&json!("+"), &json!("again")));
    assert_eq!((&entry("k1")["operation"], &entry("k1")["value"]), (&json!("#"), &json!("v1")));
    assert_eq!((&entry("k2")["operation"], &entry("k2")["value"]), (&json!("-"), &Json::Null));
    assert_eq!(entry("k2")["metadata"], Json::Null);
    assert!(entry("k3")["metadata"].as_object().unwrap().values().all(Json::is_string));
    assert_eq!(entry("k3")["metadata"]["ttl"], "600003");
    // What matches, and what no client can do without.
    let names: Vec<Json> =
        page(&mut alice, "sync:from:-1:limit:25:k1[0-2]").iter().map(|entry| entry["atKey"].clone()).collect();
    assert_eq!(
        names,
        ["k10.ns@alice", "k11.ns@alice", "k12.ns@alice", "public:publickey@alice", "shared_key.bob@alice"]
    );
    assert_eq!(page(&mut alice, "sync:from:-1:limit:2").len(), 2);
    assert!(page(&mut alice, "sync:from:31:skipDeletesUntil:32").iter().all(|entry| entry["operation"] != "-"));
    // Pages are bounded, and one long entry goes out alone.
    for name in ["long1", "long2"] {
        done(&mut alice, &format!("update:{name}.ns@alice {}", "x".repeat(4_000_000)));
    }
    alice.send(b"sync:from:34:limit:25\n");
    let mut reply = String::new();
    while !reply.ends_with("\n@alice@") {
        reply += &alice.text();
    }
    assert_eq!(data(&reply).as_array().unwrap().len(), 1);
    world.connect().ask("sync:from:-1", "error:AT0401-Exception: Command cannot be executed without auth\n@");
    refused(&mut alice, "sync:from:-1:limit:5:(", "AT0003", "regular expression");
    let mut bob = world.login("bob");
    bob.ask("sync:from:-1:limit:25", "data:[]\n@bob@");
}

#[test]
fn a_batch_does_one_after_the_other() {
    let world = world();
    let mut alice = world.login("alice");
    let batch = json!([
        {"id": 1, "command": "update:a.ns@alice v"},
        {"id": 2, "command": "update:a.ns@bob v"},
        {"id": 3, "command": "update:meta:a.ns@alice:ttl:0"},
        {"id": 4, "command": "delete:a.ns@alice"},
        {"id": 5, "command": "from:@bob"},
        {"id": 6, "command": "nonsense"},
        {"id": 7, "command": "notify:id:n:@bob:k.ns@alice:v"},
    ]);
    let responses = data(&alice.reply(&format!("batch:{batch}")));
    let response = |id: usize| responses[id - 1]["response"].clone();
    assert_eq!(responses.as_array().unwrap().len(), 7);
    assert_eq!(
        (response(1), response(3), response(4)),
        (json!({"data": "0"}), json!({"data": "1"}), json!({"data": "2"}))
    );
    assert_eq!(response(2)["error_code"], "AT0016");
    assert!(response(2)["error_message"].as_str().unwrap().starts_with("Invalid key"));
    assert_eq!((&response(5)["error_code"], &response(6)["error_code"]), (&json!("AT0003"), &json!("AT0003")));
    assert_eq!(response(7), json!({"data": "n"}));
    alice.ask("llookup:a.ns@alice", "error:AT0015-key not found : a.ns@alice does not exist in keystore\n@alice@");
    alice.ask("batch:[]", "data:[]\n@alice@");
    world.connect().ask("batch:[]", "error:AT0401-Exception: Command cannot be executed without auth\n@");
}

#[test]
fn who_is_blocked_is_shut_out() {
    let world = world();
    let (mut alice, mut bob) = (world.login("alice"), world.login("bob"));
    done(&mut bob, "update:@alice:k.ns@bob v");
    done(&mut bob, "update:public:open.ns@bob v");
    bob.ask("config:block:show", "data:null\n@bob@");
    bob.ask("config:block:add:@alice @eve @bob", "data:success\n@bob@");
    bob.ask("config:block:show", "data:[\"@alice\",\"@eve\"]\n@bob@");
    let blocked = "error:AT0013-Connection Exception : Unable to connect\n@alice@";
    alice.ask("lookup:k.ns@bob", blocked);
    alice.ask("scan:@bob", blocked);
    alice.ask("plookup:open.ns@bob", "data:v\n@alice@");
    alice.ask("notify:id:n:@bob:k.ns@alice:v", "data:n\n@alice@");
    alice.ask("notify:status:n", "data:errored\n@alice@");
    done(&mut alice, "update:ttr:-1:@bob:k.ns@alice v");
    bob.ask("notify:list", "data:null\n@bob@");
    bob.ask("scan cached", "data:[]\n@bob@");
    bob.ask("config:block:remove:@alice @eve", "data:success\n@bob@");
    bob.ask("config:block:show", "data:null\n@bob@");
    alice.ask("lookup:k.ns@bob", "data:v\n@alice@");
    alice.ask("config:set:inbound_max_limit=5", "data:testing mode disabled by default\n@alice@");
    world.connect().ask("config:block:show", "error:AT0401-Exception: Command cannot be executed without auth\n@");
    refused(&mut alice, "llookup:private:blocklist@alice", "AT0015", "private:blocklist@alice");
}

#[test]
fn figures_are_real() {
    let world = world();
    let mut alice = world.login("alice");
    done(&mut alice, "update:a.ns@alice 123");
    done(&mut alice, "update:b.other@alice 123");
    done(&mut alice, "notify:messageType:text:@bob:hi");
    let reply = alice.reply("stats");
    assert!(
        reply.starts_with("data: [{\"id\":\"1\",\"name\":\"activeInboundConnections\",\"value\":\"1\"}"),
        "{reply}"
    );
    let all = data(&reply);
    assert_eq!(all.as_array().unwrap().len(), 15);
    assert!(all.as_array().unwrap().iter().all(|stat| stat["value"].is_string() && stat["id"].is_string()));
    assert_eq!((&all[2]["name"], &all[2]["value"]), (&json!("lastCommitID"), &json!("1")));
    assert!(all[3]["value"].as_str().unwrap().parse::<u64>().unwrap() > 30);
    assert!(all[7]["value"].as_str().unwrap().ends_with('Z'));
    let counted: Json = serde_json::from_str(all[10]["value"].as_str().unwrap()).unwrap();
    assert_eq!((&counted["type"]["sent"], &counted["messageType"]["text"]), (&json!(1), &json!(1)));
    alice.ask("stats:3:ns", "data: [{\"id\":\"3\",\"name\":\"lastCommitID\",\"value\":\"0\"}]\n@alice@");
    let latest = data(&alice.reply("stats:15"));
    let latest: Json = serde_json::from_str(latest[0]["value"].as_str().unwrap()).unwrap();
    assert_eq!(latest, json!({"a.ns@alice": [0, "+"], "b.other@alice": [1, "+"]}));
    refused(&mut alice, "stats:99", "AT0003", "No metric with ID 99");
    world.connect().ask("stats", "error:AT0401-Exception: Command cannot be executed without auth\n@");
    let info = data(&world.connect().reply("info"));
    assert!(info["version"].is_string() && info.get("apkam_metadata").is_none());
}

#[test]
fn every_household_whose_log_moved_is_told() {
    let world = world();
    let mut bob = world.login("bob");
    bob.send(b"monitor no_such_key\n");
    bob.expect_silence();
    let mut alice = world.login("alice");
    // The copy is written at bob's.
    done(&mut alice, "update:ttr:-1:@bob:k.ns@alice v");
    let stats = bob.text();
    assert!(
        stats.contains("\"id\":\"-1\"") && stats.contains("\"from\":\"@bob\"") && stats.contains("\"value\":\"0\""),
        "{stats}"
    );
}

#[test]
fn an_enrolment_stays_within_its_rights_with_every_verb() {
    let world = world();
    let mut owner = world.login("alice");
    done(&mut owner, "update:a.sshnp@alice v");
    done(&mut owner, "update:a.photos@alice v");
    done(&mut owner, "update:public:publickey@alice P");
    let mut bob = world.login("bob");
    done(&mut bob, "notify:id:p:@alice:x.photos@bob:v");
    done(&mut bob, "notify:id:s:@alice:x.sshnp@bob:v");
    done(&mut bob, "update:ttr:-1:@alice:y.photos@bob v");
    done(&mut owner, "notify:id:o:@bob:x.photos@alice:v");
    let mut device = enrolled(&world, ID, r#"{"sshnp":"rw","logs":"r"}"#);
    for line in
        ["update:meta:a.sshnp@alice:ttl:0", "notify:all:@bob:x.sshnp@alice:v", "notify:fetch:s", "notify:remove:s"]
    {
        done(&mut device, line);
    }
    for line in [
        "update:meta:a.photos@alice:ttl:0",
        "update:meta:x.logs@alice:ttl:0",
        r#"update:json:{"atKey":"a.photos","value":"v"}"#,
        "notify:all:@bob:x.photos@alice:v",
        "notify:public:x.photos@alice:v",
        "notify:fetch:p",
        "notify:status:o",
        "notify:remove:p",
        "llookup:cached:@alice:y.photos@bob",
        "delete:cached:@alice:y.photos@bob",
        "delete:force:a.photos@alice",
        "config:block:show",
        "config:block:add:@bob",
    ] {
        refused(&mut device, line, "AT0009", "not authorized");
    }
    let batch =
        json!([{"id": 1, "command": "update:a.photos@alice v"}, {"id": 2, "command": "update:a.sshnp@alice v"}]);
    let responses = data(&device.reply(&format!("batch:{batch}")));
    assert_eq!(responses[0]["response"]["error_code"], "AT0009");
    assert!(responses[1]["response"]["data"].is_string());
    // Lists are shorter.
    let entries = data(&device.reply("sync:from:-1:limit:25"));
    let names: Vec<&Json> = entries.as_array().unwrap().iter().map(|entry| &entry["atKey"]).collect();
    assert_eq!(names, ["public:publickey@alice", "a.sshnp@alice"]);
    device.ask("notify:list", "data:null\n@alice@");
    let latest = data(&device.reply("stats:15:photos"));
    assert_eq!(latest[0]["value"], "{}");
    let info = data(&device.reply("info"));
    assert_eq!(
        (&info["apkam_metadata"]["enrollmentId"], &info["apkam_metadata"]["appName"]),
        (&json!(ID), &json!("a"))
    );
}
