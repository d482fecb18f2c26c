//! A further device: passcode, request, decision, keys, and the end of its rights. Byte for byte.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use common::{Client, KEY, World};
use postern_crypto::SignatureHash;
use serde_json::{Value as Json, json};

/// The owner by the first enrolment, as `at_activate onboard` makes it.
struct House {
    world: World,
    first: String,
}

impl House {
    fn new() -> Self {
        let world = World::start();
        let secret = world.add("alice");
        world.add_activated("bob"); // so that the server cannot guess whom a stranger means
        let mut client = world.connect();
        client.cram("alice", &secret);
        let params = json!({
            "appName": "firstApp", "deviceName": "firstDevice", "apkamPublicKey": public(),
            "encryptedDefaultEncryptionPrivateKey": "cHJpdmF0ZQ==", "encryptedDefaultSelfEncryptionKey": "c2VsZg==",
        });
        let reply = data(&client.reply(&format!("enroll:request:{params}")));
        assert_eq!(reply["status"], "approved");
        let first = reply["enrollmentId"].as_str().unwrap().to_owned();
        Self { world, first }
    }

    fn owner(&self) -> Client {
        self.login(&self.first)
    }

    fn login(&self, id: &str) -> Client {
        let mut client = self.world.connect();
        assert_eq!(pkam(&mut client, id), "data:success\n@alice@");
        client
    }

    /// A stranger's connection that has said whom it means.
    fn stranger(&self) -> Client {
        let mut client = self.world.connect();
        client.challenge("alice");
        client
    }

    /// Asked for with a fresh passcode.
    fn request(&self, device: &str, namespaces: &Json) -> String {
        let otp = passcode(&mut self.owner());
        let reply = data(&self.stranger().reply(&request(device, namespaces, &otp)));
        assert_eq!(reply["status"], "pending");
        reply["enrollmentId"].as_str().unwrap().to_owned()
    }

    fn enrolled(&self, device: &str, namespaces: &Json) -> String {
        let id = self.request(device, namespaces);
        self.owner()
            .ask(&approve(&id), &format!("data:{{\"enrollmentId\":\"{id}\",\"status\":\"approved\"}}\n@alice@"));
        id
    }
}

fn public() -> String {
    KEY.public_key().unwrap().to_base64()
}

fn pkam(client: &mut Client, id: &str) -> String {
    let challenge = client.challenge("alice");
    let signature = KEY.sign(SignatureHash::Sha256, challenge.as_bytes()).unwrap();
    client.reply(&format!("pkam:signingAlgo:rsa2048:hashingAlgo:sha256:enrollmentId:{id}:{signature}"))
}

fn data(reply: &str) -> Json {
    let text = reply.strip_prefix("data:").unwrap_or_else(|| panic!("{reply}"));
    serde_json::from_str(text.split('\n').next().unwrap()).unwrap()
}

fn passcode(owner: &mut Client) -> String {
    let reply = owner.reply("otp:get");
    reply.strip_prefix("data:").unwrap().split('\n').next().unwrap().to_owned()
}

fn request(device: &str, namespaces: &Json, otp: &str) -> String {
    let params = json!({
        "appName": "app", "deviceName": device, "namespaces": namespaces, "otp": otp,
        "apkamPublicKey": public(), "encryptedAPKAMSymmetricKey": "c3ltbWV0cmlj",
    });
    format!("enroll:request:{params}")
}

fn approve(id: &str) -> String {
    let params = json!({
        "enrollmentId": id, "encryptedDefaultEncryptionPrivateKey": "ZW5j", "encryptedDefaultSelfEncryptionKey": "c2Vs",
    });
    format!("enroll:approve:{params}")
}

fn on(verb: &str, id: &str) -> String {
    format!("enroll:{verb}:{{\"enrollmentId\":\"{id}\"}}")
}

fn decided(id: &str, status: &str) -> String {
    format!("data:{{\"enrollmentId\":\"{id}\",\"status\":\"{status}\"}}\n@alice@")
}

#[test]
fn from_passcode_to_revocation() {
    let house = House::new();
    let mut owner = house.owner();
    let mut listener = house.owner();
    listener.send(b"monitor:strict:selfNotifications\n");
    listener.expect_silence();

    let id = house.request("pi", &json!({"sshnp": "rw", "logs": "r"}));
    let news = listener.text();
    assert!(news.contains(&format!("\"key\":\"{id}.new.enrollments.__manage@alice\"")), "{news}");
    assert!(news.contains("\\\"deviceName\\\":\\\"pi\\\""), "{news}");

    let mut device = house.world.connect();
    assert_eq!(pkam(&mut device, &id), format!("error:AT0026:enrollment_id: {id} is pending\n@"));
    let listed = data(&owner.reply("enroll:list:{\"enrollmentStatusFilter\":[\"pending\"]}"));
    assert_eq!(
        listed,
        json!({format!("{id}.new.enrollments.__manage@alice"): {
            "appName": "app", "deviceName": "pi", "namespace": {"sshnp": "rw", "logs": "r"},
            "encryptedAPKAMSymmetricKey": "c3ltbWV0cmlj", "status": "pending"}})
    );
    assert_eq!(data(&owner.reply(&on("fetch", &id)))["status"], "pending");
    owner.ask(&approve(&id), &decided(&id, "approved"));
    assert!(owner.reply(&approve(&id)).contains("Cannot approve an approved enrollment. Only pending"));

    assert_eq!(pkam(&mut device, &id), "data:success\n@alice@");
    device.ask(
        &format!("keys:get:keyName:{id}.default_enc_private_key.__manage@alice"),
        "data:{\"value\":\"ZW5j\"}\n@alice@",
    );
    device.ask(
        &format!("keys:get:keyName:{id}.default_self_enc_key.__manage@alice"),
        "data:{\"value\":\"c2Vs\"}\n@alice@",
    );
    assert!(device.reply("update:a.sshnp@alice v").starts_with("data:"));
    assert!(device.reply("update:a.logs@alice v").starts_with("error:AT0009-"));
    assert!(device.reply(&on("revoke", &house.first)).starts_with("error:AT0009-"));
    // Without the right to manage one sees oneself alone.
    assert_eq!(data(&device.reply("enroll:list")).as_object().unwrap().len(), 1);
    assert!(device.reply(&on("fetch", &house.first)).starts_with("error:AT0028:"));

    let mut monitor = house.login(&id);
    monitor.send(b"monitor:strict\n");
    monitor.expect_silence();
    owner.ask(&on("revoke", &id), &decided(&id, "revoked"));
    // Both of its connections hear of it at once, without having said a word.
    for client in [&mut monitor, &mut device] {
        let last = client.text();
        assert!(last.starts_with(&format!("error:AT0027:enrollment_id: {id} is revoked\n")), "{last}");
        client.expect_end();
    }
    let mut again = house.world.connect();
    assert_eq!(pkam(&mut again, &id), format!("error:AT0027:enrollment_id: {id} is revoked\n@"));
    // The others go on.
    listener.expect_silence();

    owner.ask(&on("unrevoke", &id), &decided(&id, "approved"));
    drop(house.login(&id));
    assert!(owner.reply(&on("delete", &id)).contains("Only denied or revoked enrollments can be deleted"));
    owner.ask(&on("revoke", &id), &decided(&id, "revoked"));
    owner.ask(&on("delete", &id), &decided(&id, "deleted"));
    assert_eq!(pkam(&mut again, &id), format!("error:AT0028:enrollment_id: {id} is expired or invalid\n@"));
    owner.ask(&on("approve", &id), &format!("error:AT0028:enrollment_id: {id} is expired or invalid\n@alice@"));
}

#[test]
fn a_passcode_counts_once_and_is_not_guessed() {
    let house = House::new();
    let namespaces = json!({"sshnp": "rw"});
    let invalid = "error:AT0011-Exception: invalid otp. Cannot process enroll request\n@";
    // No passcode at all, and things that would be names of other records.
    for otp in ["", "spp", "a.b.c.d", "../../x", "XXXXX1"] {
        house.stranger().ask(&request("pi", &namespaces, otp), invalid);
    }
    // Five wrong ones of this address: now even a right one waits, so that guessing at many connections is no help.
    let otp = passcode(&mut house.owner());
    let reply = house.stranger().reply(&request("pi", &namespaces, &otp));
    assert!(reply.contains("too many wrong passcodes : try again in"), "{reply}");
    // Whoever is authenticated needs none.
    let reply = house.owner().reply(&request("pi", &namespaces, ""));
    assert_eq!(data(&reply)["status"], "pending");
}

#[test]
fn one_time_and_lasting_passcodes() {
    let house = House::new();
    let namespaces = json!({"sshnp": "rw"});
    let otp = passcode(&mut house.owner());
    // What is wrong with the request itself does not cost the passcode.
    assert!(house.stranger().reply(&request("", &namespaces, &otp)).starts_with("error:AT0022-"));
    assert!(house.stranger().reply(&request("pi", &json!({}), &otp)).starts_with("error:AT0022-"));
    assert!(house.stranger().reply(&request("pi", &json!({"a": "x"}), &otp)).starts_with("error:AT0022-"));
    let reply = house.stranger().reply(&request("pi", &namespaces, &otp.to_lowercase()));
    assert_eq!(data(&reply)["status"], "pending");
    assert!(house.stranger().reply(&request("pi2", &namespaces, &otp)).contains("invalid otp"));
    // A twin is refused, and its passcode is spent.
    let otp = passcode(&mut house.owner());
    let reply = house.stranger().reply(&request("pi", &namespaces, &otp));
    assert!(reply.contains("exists with the app name: app and device name: pi in pending state"), "{reply}");
    assert!(house.stranger().reply(&request("pi2", &namespaces, &otp)).contains("invalid otp"));
    house.owner().ask("otp:put:Secret1", "data:ok\n@alice@");
    for device in ["pi3", "pi4"] {
        assert_eq!(data(&house.stranger().reply(&request(device, &namespaces, "secret1")))["status"], "pending");
    }
}

/// The current tools look up the public key and then ask, without ever saying `from`.
#[test]
fn whose_server_is_meant_is_known_from_the_question_before() {
    let house = House::new();
    house.owner().ask("update:public:publickey@alice MIIB", "data:0\n@alice@");
    let otp = passcode(&mut house.owner());
    let mut device = house.world.connect();
    assert!(device.reply(&request("pi", &json!({"a": "r"}), &otp)).starts_with("error:AT0022-"));
    device.ask("lookup:publickey@alice", "data:MIIB\n@");
    assert_eq!(data(&device.reply(&request("pi", &json!({"a": "r"}), &otp)))["status"], "pending");
}

#[test]
fn nobody_grants_more_than_they_have() {
    let house = House::new();
    let manager = house.enrolled("manager", &json!({"__manage": "rw", "photos": "rw", "logs": "r"}));
    let mut manager = house.login(&manager);
    for (device, namespaces, granted) in [
        ("a", json!({"photos": "rw", "logs": "r"}), true),
        ("b", json!({"logs": "rw"}), false),
        ("c", json!({"*": "r"}), false),
        ("d", json!({"other": "r"}), false),
        ("e", json!({"summer.photos": "rw", "__manage": "rw"}), true),
    ] {
        let id = house.request(device, &namespaces);
        let reply = manager.reply(&approve(&id));
        assert_eq!(reply.starts_with("data:"), granted, "{device}: {reply}");
        assert!(granted || reply.contains("does not have access to"), "{reply}");
    }
    // Nor takes away from the mighty.
    assert!(manager.reply(&on("revoke", &house.first)).contains("does not have access to * namespace"));
}

#[test]
fn ones_own_revocation_wants_force() {
    let house = House::new();
    let id = house.enrolled("pi", &json!({"__manage": "rw"}));
    let mut device = house.login(&id);
    let other = house.login(&id);
    assert!(device.reply(&on("revoke", &id)).starts_with("error:AT0031-Cannot revoke self enrollment : "));
    let reply = data(&device.reply(&format!("enroll:revoke:force:{{\"enrollmentId\":\"{id}\"}}")));
    assert_eq!((reply["status"].as_str(), reply["message"].is_string()), (Some("revoked"), true));
    device.expect_end();
    let mut other = other;
    assert!(other.text().starts_with("error:AT0027:"));
    other.expect_end();
}

/// A device that is given away takes its key back by itself, and can do that to nobody else.
#[test]
fn who_manages_nothing_may_still_leave() {
    let house = House::new();
    let id = house.enrolled("pi", &json!({"sshnp": "rw"}));
    let other = house.enrolled("other", &json!({"sshnp": "rw"}));
    let mut device = house.login(&id);
    assert!(device.reply(&on("revoke", &other)).starts_with("error:AT0009-"));
    assert!(device.reply(&on("deny", &id)).starts_with("error:AT0009-"));
    assert!(device.reply(&on("revoke", &id)).starts_with("error:AT0031-"));
    let reply = data(&device.reply(&format!("enroll:revoke:force:{{\"enrollmentId\":\"{id}\"}}")));
    assert_eq!(reply["status"].as_str(), Some("revoked"));
    device.expect_end();
}

/// The first device's key is the legacy key too: whoever loses the laptop must be able to close both doors.
#[test]
fn a_revoked_first_device_is_out_in_the_legacy_form_too() {
    let house = House::new();
    let second = house.enrolled("second", &json!({"*": "rw", "__manage": "rw"}));
    let mut legacy = house.world.login("alice");
    let mut second = house.login(&second);
    second.ask(&on("revoke", &house.first), &decided(&house.first, "revoked"));
    assert!(legacy.text().starts_with("error:AT0015-"));
    legacy.expect_end();
    let mut again = house.world.connect();
    let challenge = again.challenge("alice");
    let signature = KEY.sign(SignatureHash::Sha256, challenge.as_bytes()).unwrap();
    assert!(again.reply(&format!("pkam:{signature}")).starts_with("error:AT0015-"));
    second.ask(&on("unrevoke", &house.first), &decided(&house.first, "approved"));
    drop(house.world.login("alice"));
}

#[test]
fn denied_and_expired_ones_do_not_log_in() {
    let house = House::new();
    let id = house.request("pi", &json!({"a": "r"}));
    house.owner().ask(&on("deny", &id), &decided(&id, "denied"));
    let mut device = house.world.connect();
    assert_eq!(pkam(&mut device, &id), format!("error:AT0025:enrollment_id: {id} is denied\n@"));
    assert!(house.owner().reply(&approve(&id)).contains("Cannot approve a denied enrollment"));

    // Keys with an end of their own: a live connection ends with them.
    let otp = passcode(&mut house.owner());
    let line =
        request("short", &json!({"a": "r"}), &otp).replace("\"otp\"", "\"apkamKeysExpiryInMillis\":1500,\"otp\"");
    let id = data(&house.stranger().reply(&line))["enrollmentId"].as_str().unwrap().to_owned();
    house.owner().ask(&approve(&id), &decided(&id, "approved"));
    let mut device = house.login(&id);
    assert!(device.text().starts_with(&format!("error:AT0028:The enrollment id: {id} is expired. Closing")));
    device.expect_end();
    let mut device = house.world.connect();
    assert_eq!(pkam(&mut device, &id), format!("error:AT0028:enrollment_id: {id} is expired or invalid\n@"));
}

#[test]
fn the_published_signing_key_goes_with_its_enrolment() {
    let house = House::new();
    let id = house.enrolled("pi", &json!({"sshnp": "rw"}));
    let mut device = house.login(&id);
    let line = format!("update:public:_apsk.{id}.a.__e@alice key");
    device.ask(&line, "data:-1\n@alice@");
    house.login(&house.enrolled("other", &json!({"*": "rw"}))).ask(
        &line,
        &format!(
            "error:AT0009-UnAuthorized client in request : Connection with enrollment ID {} is not authorized to update key: public:_apsk.{id}.a.__e@alice\n@alice@",
            data(&house.owner().reply("enroll:list"))
                .as_object()
                .unwrap()
                .iter()
                .find(|(_, shown)| shown["deviceName"] == "other")
                .map(|(key, _)| key.split('.').next().unwrap().to_owned())
                .unwrap()
        ),
    );
    let anyone = |letter: &str| house.world.connect().reply(&format!("lookup:_apsk.{id}.{letter}.__e@alice"));
    assert_eq!(anyone("a"), "data:key\n@");
    house.owner().ask(&on("revoke", &id), &decided(&id, "revoked"));
    assert!(anyone("a").starts_with("error:AT0015-"));
    assert_eq!(anyone("r"), "data:key\n@");
    house.owner().ask(&on("unrevoke", &id), &decided(&id, "approved"));
    assert_eq!(anyone("a"), "data:key\n@");
}

#[test]
fn keys_of_an_enrolment_are_its_own() {
    let house = House::new();
    let mut one = house.login(&house.enrolled("one", &json!({"ns": "rw"})));
    let mut two = house.login(&house.enrolled("two", &json!({"ns": "rw"})));
    one.ask("keys:put:self:namespace:ns:keyType:aes256:keyName:k sealed", "data:-1\n@alice@");
    one.ask("keys:put:public:namespace:ns:keyName:p open", "data:-1\n@alice@");
    one.ask("keys:put:private:namespace:ns:keyName:q hidden", "data:-1\n@alice@");
    one.ask("keys:get:self", "data:[\"app.one.k.__self_keys.ns@alice\"]\n@alice@");
    one.ask("keys:get:private", "data:[\"private:app.one.q.__private_keys.ns@alice\"]\n@alice@");
    assert_eq!(data(&one.reply("keys:get:keyName:app.one.k.__self_keys.ns@alice"))["value"], "sealed");
    assert_eq!(data(&one.reply("keys:get:keyName:private:app.one.q.__private_keys.ns@alice"))["value"], "hidden");
    two.ask("keys:get:self", "data:[]\n@alice@");
    assert_eq!(data(&two.reply("keys:get:keyName:public:p.__public_keys.ns@alice"))["value"], "open");
    for line in [
        "keys:get:keyName:app.one.k.__self_keys.ns@alice",
        "keys:get:keyName:private:app.one.q.__private_keys.ns@alice",
        "keys:get:keyName:privatekey:at_pkam_publickey",
        "keys:get:keyName:@alice:signing_privatekey@alice",
        "keys:delete:keyName:public:p.__public_keys.ns@alice",
        "keys:delete:keyName:public:publickey@alice",
    ] {
        assert!(two.reply(line).starts_with("error:AT0015-"), "{line}");
    }
    assert!(two.reply("keys:put:public:namespace:ns:keyName:p mine").starts_with("error:AT0009-"));
    assert!(two.reply("keys:put:self:namespace:other:keyName:k v").starts_with("error:AT0009-"));
    assert!(two.reply("keys:put:self:namespace:ns:deviceName:one:keyName:k v").starts_with("error:AT0009-"));
    one.ask("keys:delete:keyName:public:p.__public_keys.ns@alice", "data:-1\n@alice@");
    assert!(two.reply("keys:get:keyName:public:p.__public_keys.ns@alice").starts_with("error:AT0015-"));
}

/// Newer programs bring the key to be published with the request, and counter blocks with the approval.
#[test]
fn members_of_newer_programs() {
    let house = House::new();
    let with = |device: &str, more: &str, otp: &str| {
        request(device, &json!({"a": "r"}), otp).replace("\"otp\"", &format!("{more},\"otp\""))
    };
    let otp = passcode(&mut house.owner());
    let both = house.stranger().reply(&with("x", r#""apsk":{"v":1},"apskLegacy":"k""#, &otp));
    assert!(both.starts_with("error:AT0022-"), "{both}");
    for (device, more, published) in
        [("one", r#""apskLegacy":"MIIB""#, "MIIB"), ("two", r#""apsk":{"v":1},"takesIV":true"#, r#"{"v":1}"#)]
    {
        let otp = passcode(&mut house.owner());
        let id = data(&house.stranger().reply(&with(device, more, &otp)))["enrollmentId"].as_str().unwrap().to_owned();
        let anyone = || house.world.connect().reply(&format!("lookup:_apsk.{id}.a.__e@alice"));
        assert!(anyone().starts_with("error:AT0015-"), "published before it was approved");
        let shown = data(&house.owner().reply(&on("fetch", &id)));
        assert_eq!(shown.get("takesIV").and_then(Json::as_bool), (device == "two").then_some(true));
        let line = approve(&id).replace("\"enrollmentId\"", "\"encPrivateKeyIV\":\"aXY=\",\"enrollmentId\"");
        house.owner().ask(&line, &decided(&id, "approved"));
        assert_eq!(anyone(), format!("data:{published}\n@"));
        let mut owner = house.login(&id);
        let get = |name: &str| format!("keys:get:keyName:{id}.{name}.__manage@alice");
        assert_eq!(data(&owner.reply(&get("default_enc_private_key"))), json!({"value": "ZW5j", "iv": "aXY="}));
        assert_eq!(data(&owner.reply(&get("default_self_enc_key"))), json!({"value": "c2Vs"}));
    }
}
