//! Byte for byte what clients of the 2024 programs read, one TLS record at a time.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use common::{KEY, World};
use postern_crypto::SignatureHash;

fn without_ids(text: &str) -> String {
    // 8-4-4-4-12 hex digits become U.
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::new();
    let mut i = 0;
    while i < bytes.len() {
        let uuid: String = bytes[i..].iter().take(36).collect();
        if uuid.len() == 36 && postern_proto::Uuid::parse(&uuid).is_some() {
            out.push('U');
            i += 36;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    out
}

#[test]
fn the_c_daemon_finds_its_server_and_starts() {
    let world = World::start();
    world.add_activated("alice");
    world.add_activated("bob");
    let port = world.address.port();

    let mut root = world.connect();
    root.ask("\r", "error:AT0003-Exception: invalid command\n@");
    root.ask("alice", &format!("localhost:{port}\r\n@"));
    root.ask("\r", "null\r\n@");
    root.ask("nobody", "null\r\n@");
    root.ask("@Bob", &format!("localhost:{port}\r\n@"));
    root.send(b"@exit\n");
    root.expect_end();

    let mut bob = world.login("bob");
    bob.ask("update:isEncrypted:false:public:publickey@bob MIIB", "data:0\n@bob@");

    let mut alice = world.connect();
    alice.ask("\r", "error:AT0003-Exception: invalid command\n@");
    let challenge = alice.reply("from:alice\r");
    assert_eq!(without_ids(&challenge), "data:_U@alice:U\n@");
    let text = challenge.strip_prefix("data:").unwrap().split('\n').next().unwrap().to_owned();
    let signature = KEY.sign(SignatureHash::Sha256, text.as_bytes()).unwrap();
    alice.ask(&format!("pkam:{signature}\r"), "data:success\n@alice@");
    let all = alice.reply("plookup:all:publickey@bob\r");
    assert!(
        all.starts_with(r#"data:{"key":"public:publickey@bob","data":"MIIB","metaData":{"createdBy":"@bob""#),
        "{all}"
    );
    assert!(all.ends_with("}\n@alice@"), "{all}");
    alice.ask(
        "llookup:shared_key.bob@alice\r",
        "error:AT0015-key not found : shared_key.bob@alice does not exist in keystore\n@alice@",
    );
    // The copy of the public key was the first commit.
    alice.ask("update:shared_key.bob@alice qX==\r", "data:1\n@alice@");
    alice.ask("update:@bob:shared_key@alice Zp==\r", "data:2\n@alice@");
    let sent = alice.reply("notify:update:ttl:10000:isEncrypted:true:ivNonce:8m==:@bob:ping.dev1.sshnp@alice:Vt==\r");
    assert_eq!(without_ids(&sent), "data:U\n@alice@");
}

#[test]
fn the_dart_client_reads_json_errors_and_lists_what_is_shared() {
    let world = World::start();
    world.add_activated("alice");
    world.add_activated("bob");
    world.login("bob").ask("update:@alice:device_info.dev1.sshnp@bob x", "data:0\n@bob@");
    let mut alice = world.connect();
    let challenge = alice.reply("from:@alice:clientConfig:{\"version\":\"3.0.49\"}");
    let text = challenge.strip_prefix("data:").unwrap().split('\n').next().unwrap().to_owned();
    let signature = KEY.sign(SignatureHash::Sha256, text.as_bytes()).unwrap();
    alice.ask(&format!("pkam:signingAlgo:rsa2048:hashingAlgo:sha256:{signature}"), "data:success\n@alice@");
    alice.ask(
        "lookup:all:username.dev1.sshnp@bob",
        "error:{\"errorCode\":\"AT0015\",\"errorDescription\":\"key not found : @alice:username.dev1.sshnp@bob does not exist in keystore\"}\n@alice@",
    );
    alice.ask("scan:showHidden:true:@bob sshnp", "data:[\"device_info.dev1.sshnp@bob\"]\n@alice@");
    alice.ask("lookup:device_info.dev1.sshnp@bob", "data:x\n@alice@");
    let all = alice.reply("lookup:all:device_info.dev1.sshnp@bob");
    assert!(all.starts_with(r#"data:{"key":"@alice:device_info.dev1.sshnp@bob","data":"x","#), "{all}");
}

#[test]
fn first_activation_of_the_dart_tool_and_the_old_one() {
    let world = World::start();
    let secret = world.add("alice");
    let public = KEY.public_key().unwrap().to_base64();
    let mut status = world.connect();
    status
        .ask("lookup:publickey@alice", "error:AT0015-Exception: public:publickey@alice does not exist in keystore\n@");
    // One household only: whose names are meant is clear.
    status.ask("scan", "data:[]\n@");

    let mut first = world.connect();
    first.cram("alice", &secret);
    let reply = first.reply(&format!(
        "enroll:request:{{\"appName\":\"firstApp\",\"deviceName\":\"firstDevice\",\"apkamPublicKey\":\"{public}\",\"encryptedDefaultEncryptionPrivateKey\":\"priv\",\"encryptedDefaultSelfEncryptionKey\":\"self\"}}"
    ));
    assert_eq!(without_ids(&reply), "data:{\"enrollmentId\":\"U\",\"status\":\"approved\"}\n@alice@");
    let id = reply.split('"').nth(3).unwrap().to_owned();

    let mut second = world.connect();
    let challenge = second.challenge("alice");
    let signature = KEY.sign(SignatureHash::Sha256, challenge.as_bytes()).unwrap();
    second.ask(
        &format!("pkam:signingAlgo:rsa2048:hashingAlgo:sha256:enrollmentId:{id}:{signature}"),
        "data:success\n@alice@",
    );
    second.ask(&format!("update:isEncrypted:false:public:publickey@alice {public}"), "data:0\n@alice@");
    second.ask("delete:privatekey:at_secret", "data:-1\n@alice@");
    second.ask(
        &format!("keys:get:keyName:{id}.default_enc_private_key.__manage@alice"),
        "data:{\"value\":\"priv\"}\n@alice@",
    );
    let list = second.reply("enroll:list");
    assert!(list.contains(&format!("{id}.new.enrollments.__manage@alice")), "{list}");
    // The key works in the legacy form too.
    second.pkam("alice");
    second.ask("scan", "data:[\"public:publickey@alice\"]\n@alice@");
    second.ask(
        &format!("llookup:{id}.new.enrollments.__manage@alice"),
        &format!(
            "data:{}\n@alice@",
            // The owner with all rights may look; nobody may write or list it.
            world
                .store
                .get(
                    &"@alice".parse().unwrap(),
                    &postern_proto::AtKey::parse(&format!("{id}.new.enrollments.__manage@alice")).unwrap()
                )
                .unwrap()
                .unwrap()
                .value
        ),
    );
    status.ask("scan", "data:[\"publickey@alice\"]\n@");
    // The secret is gone for good.
    let mut late = world.connect();
    let challenge = late.challenge("alice");
    let digest = postern_crypto::sha512_hex(&[secret.as_bytes(), challenge.as_bytes()]);
    late.ask(&format!("cram:{digest}"), "error:AT0015-Exception: privatekey:at_secret does not exist in keystore\n@");
}

#[test]
fn pipelined_requests_are_answered_in_order_each_in_its_record() {
    let world = World::start();
    world.add_activated("alice");
    let mut alice = world.login("alice");
    let mut all = String::new();
    for n in 0..50 {
        all += &format!("update:k{n}@alice v{n}\nllookup:k{n}@alice\n");
    }
    alice.send(all.as_bytes());
    for n in 0..50 {
        alice.expect(&format!("data:{n}\n@alice@"));
        alice.expect(&format!("data:v{n}\n@alice@"));
    }
}

#[test]
fn a_long_reply_ends_with_line_end_and_prompt_in_one_record() {
    let world = World::start();
    world.add_activated("alice");
    let mut alice = world.login("alice");
    for len in [16_384 - 13, 16_384 - 12, 16_384 - 5, 16_384, 40_000] {
        let value = "x".repeat(len);
        assert!(alice.reply(&format!("update:long@alice {value}")).starts_with("data:"));
        alice.send(b"llookup:long@alice\n");
        let mut got = String::new();
        let last = loop {
            let record = alice.text();
            got += &record;
            if got.ends_with('@') {
                break record;
            }
        };
        assert_eq!(got, format!("data:{value}\n@alice@"));
        assert!(last.ends_with("\n@alice@"), "{len}: {last:?}");
    }
}

#[test]
fn metadata_merges_null_clears_and_times_hide() {
    let world = World::start();
    world.add_activated("alice");
    let mut alice = world.login("alice");
    alice.ask("update:ttl:100000:isEncrypted:true:ivNonce:AA==:k@alice one", "data:0\n@alice@");
    alice.ask("update:ivNonce:null:ccd:True:k@alice two", "data:1\n@alice@");
    let meta = alice.reply("llookup:meta:k@alice");
    assert!(
        meta.contains("\"ttl\":100000") && meta.contains("\"isEncrypted\":true") && meta.contains("\"version\":1"),
        "{meta}"
    );
    assert!(meta.contains("\"ccd\":true") && !meta.contains("ivNonce"), "{meta}");
    alice.ask("update:ttb:100000:later@alice v", "data:2\n@alice@");
    alice.ask("llookup:later@alice", "data:null\n@alice@");
    alice.ask("update:ttl:1:soon@alice v", "data:3\n@alice@");
    common::until("the record to expire", || alice.reply("llookup:soon@alice") == "data:null\n@alice@");
    alice.ask("scan", "data:[\"k@alice\"]\n@alice@");
    alice.ask("delete:k@alice", "data:4\n@alice@");
    alice.ask("delete:k@alice", "data:5\n@alice@");
}

#[test]
fn small_verbs() {
    let world = World::start();
    world.add_activated("alice");
    let mut anyone = world.connect();
    anyone.ask("noop:0", "data:ok\n@");
    assert!(anyone.reply("info:brief").starts_with("data:{\"version\":\""));
    anyone.ask("monitor", "error:AT0401-Exception: Command cannot be executed without auth\n@");
    anyone.ask("nonsense", "error:AT0003-Exception: invalid command\n@");
    let mut alice = world.login("alice");
    let otp = alice.reply("otp:get");
    assert_eq!(otp.len(), "data:ABCDE2\n@alice@".len(), "{otp}");
    alice.ask("otp:put:secret1", "data:ok\n@alice@");
    alice
        .ask("enroll:approve:{\"enrollmentId\":\"x\"}", "error:AT0028:enrollment_id: x is expired or invalid\n@alice@");
    alice.ask("keys:get:self", "error:AT0011-Internal server exception : keys can be used on connections with an approved enrollment only\n@alice@");
    alice.send(b"@exit\n");
    alice.expect_end();
}
