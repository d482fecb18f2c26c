//! The library against a real server: what a program that uses it relies on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::{House, KEYS, at, next};
use postern_client::limits::SIGNING_KEY_BYTES;
use postern_client::{
    Client, ClientError, Copies, EnrollmentInfo, EnrollmentRequest, EnrollmentStatus, Identity, PendingEnrollment,
    RecordOptions,
};
use postern_proto::{AtKey, ErrorCode, Metadata, Notification, Record};
use postern_store::{Batch, LogAs};
use zeroize::Zeroizing;

#[tokio::test(flavor = "multi_thread")]
async fn records_of_every_kind_come_back() {
    let house = House::new().await;
    let (alice, (bob, _)) = (house.alice().await, house.bob("").await);
    let plain = RecordOptions::default();

    alice.put_own("list.notes", "milk\nbread", plain).await.unwrap();
    assert_eq!(*alice.get_own("list.notes").await.unwrap(), "milk\nbread");
    let stored = house.store.get(&at("alice"), &AtKey::own("list.notes", &at("alice"))).unwrap().unwrap();
    assert!(!stored.value.contains("milk"), "a record of our own lies in clear on the server");

    alice.put_shared_with(&at("bob"), "hello.notes", "for bob", plain).await.unwrap();
    assert_eq!(*bob.get_shared(&at("alice"), "hello.notes").await.unwrap(), "for bob");
    assert_eq!(*alice.get_sent(&at("bob"), "hello.notes").await.unwrap(), "for bob");
    // Another process of Alice's, with nothing in its memory.
    assert_eq!(*house.alice().await.get_sent(&at("bob"), "hello.notes").await.unwrap(), "for bob");

    alice.put_public("card.notes", "Alice\nHer street", plain).await.unwrap();
    assert_eq!(bob.get_public(&at("alice"), "card.notes").await.unwrap(), "Alice\nHer street");

    let names = |keys: Vec<AtKey>| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        names(alice.scan(Some(r"\.notes@")).await.unwrap()),
        ["@bob:hello.notes@alice", "list.notes@alice", "public:card.notes@alice"]
    );
    assert_eq!(names(bob.scan_of(&at("alice"), Some("hello")).await.unwrap()), ["hello.notes@alice"]);
    alice.delete(&AtKey::own("list.notes", &at("alice"))).await.unwrap();
    assert!(alice.get_own("list.notes").await.unwrap_err().is_no_such_key());

    for bad in ["a b@c.notes", "", "a:b.notes"] {
        assert!(alice.put_own(bad, "x", plain).await.is_err(), "{bad:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_reach_the_server() {
    let house = House::new().await;
    let alice = house.alice().await;
    let options = RecordOptions {
        life: Some(Duration::from_secs(100)),
        birth: Some(Duration::from_secs(50)),
        copies: Copies::For(Duration::from_secs(7)),
        cascade: Some(true),
    };
    alice.put_own("later.notes", "x", options).await.unwrap();
    assert!(matches!(alice.get_own("later.notes").await, Err(ClientError::Inactive)));
    let stored = house.store.get(&at("alice"), &AtKey::own("later.notes", &at("alice"))).unwrap().unwrap();
    let Metadata { ttl, ttb, ttr, ccd, .. } = stored.metadata;
    assert_eq!((ttl, ttb, ttr, ccd), (Some(100_000), Some(50_000), Some(7), Some(true)));
}

/// A server that changes what somebody signed is found out.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_public_record_is_refused() {
    let house = House::new().await;
    let (alice, (bob, _)) = (house.alice().await, house.bob("").await);
    alice.put_public("card.notes", "Alice", RecordOptions::default()).await.unwrap();
    let key = AtKey::public("card.notes", &at("alice"));
    let mut record = house.store.get(&at("alice"), &key).unwrap().unwrap();
    record.value = "Mallory".into();
    house.store.commit(Batch::new(0).put(&at("alice"), &key, record, LogAs::Nothing)).await.unwrap();
    let error = bob.get_public(&at("alice"), "card.notes").await.unwrap_err();
    assert!(matches!(error, ClientError::Crypto("the signature of a public record")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_survive_a_restart_of_the_server() {
    let mut house = House::new().await;
    let (bob, mut inbox) = house.bob(r"\.notes@").await;
    let alice = house.alice().await;
    // Stored while the server is away: as one that arrived while Bob's link was cut, before he heard of anything.
    assert!(house.server.take().unwrap().stop().await);
    let missed = Notification {
        id: postern_proto::NotificationId::parse("missed").unwrap(),
        from: at("alice"),
        to: at("bob"),
        key: "@bob:missed.notes@alice".into(),
        value: Some("while you were away".into()),
        operation: Default::default(),
        message_type: Default::default(),
        at: now_ms(),
        expires_at: now_ms() + 60_000,
        is_encrypted: false,
        is_self: false,
        routing: Default::default(),
        metadata: Metadata::default(),
    };
    house.store.commit(Batch::new(now_ms()).receive(missed)).await.unwrap();
    house.start();
    let push = next(&mut inbox).await;
    assert_eq!(
        (push.key.as_str(), bob.open(&push).await.unwrap().as_str()),
        ("@bob:missed.notes@alice", "while you were away")
    );

    // And once only: the next is the next.
    alice.notify(&at("bob"), "other.word", "not asked for", None).await.unwrap();
    alice.notify(&at("bob"), "ping.notes", "secret", None).await.unwrap();
    let push = next(&mut inbox).await;
    assert_eq!((push.from.as_str(), push.bare_key().as_str()), ("@alice", "ping.notes"));
    assert!(push.value.as_deref().is_some_and(|value| value != "secret"), "sent in clear");
    assert_eq!(*bob.open(&push).await.unwrap(), "secret");
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_further_device_from_request_to_revocation() {
    let house = House::new().await;
    let (alice, mut news) = house.connect("alice", &KEYS[0], Some("__manage")).await;
    alice.put_own("list.notes", "milk", RecordOptions::default()).await.unwrap();
    alice.put_own("pin.bank", "1234", RecordOptions::default()).await.unwrap();

    let wanted = |device: &str, passcode: String| EnrollmentRequest {
        app: "notes".into(),
        device: device.into(),
        namespaces: BTreeMap::from([("notes".into(), "rw".into())]),
        passcode: Zeroizing::new(passcode),
        keys_life: None,
    };
    let settings = house.settings(None);
    let wrong = PendingEnrollment::request(&settings, &at("alice"), wanted("phone", "WRONG1".into())).await;
    assert!(wrong.is_err_and(|error| error.to_string().contains("invalid otp")));
    let passcode = alice.one_time_passcode(None).await.unwrap();
    let pending = PendingEnrollment::request(&settings, &at("alice"), wanted("phone", passcode)).await.unwrap();
    assert!(pending.poll().await.unwrap().is_none());

    // Heard at once, and listed.
    let heard = EnrollmentInfo::from_push(&next(&mut news).await).unwrap();
    assert_eq!((heard.id.as_str(), heard.device.as_str()), (pending.id().as_str(), "phone"));
    let listed = alice.enrollments(&[EnrollmentStatus::Pending]).await.unwrap();
    assert_eq!(listed, std::slice::from_ref(&heard));
    alice.approve(&heard).await.unwrap();
    // Two key streams: under one, the server could tell the self key from what it knows of the other text.
    let handed = |name: &str| {
        let key = AtKey::own(&format!("{}.{name}.__manage", pending.id()), &at("alice"));
        let record = house.store.get(&at("alice"), &key).unwrap().unwrap();
        let json: serde_json::Value = serde_json::from_str(&record.value).unwrap();
        json["iv"].as_str().unwrap().to_owned()
    };
    assert_ne!(handed("default_enc_private_key"), handed("default_self_enc_key"));
    let keys = Arc::new(pending.poll().await.unwrap().unwrap());
    assert_eq!(alice.enrollment(pending.id()).await.unwrap().status, EnrollmentStatus::Approved);

    // The new device has the atSign's keys, and its own namespace alone.
    let (phone, _) = house.connect("alice", &keys, None).await;
    assert_eq!(*phone.get_own("list.notes").await.unwrap(), "milk");
    phone.put_own("more.notes", "bread", RecordOptions::default()).await.unwrap();
    assert_eq!(*alice.get_own("more.notes").await.unwrap(), "bread");
    let refused = phone.get_own("pin.bank").await.unwrap_err();
    assert!(matches!(&refused, ClientError::Server(why) if why.code == Some(ErrorCode::Unauthorized)), "{refused}");

    alice.revoke(pending.id(), false).await.unwrap();
    let identity = Identity { at_sign: at("alice"), keys };
    let again = Client::connect(identity, settings.clone(), &house.tasks).await;
    assert!(matches!(again, Err(ClientError::LoginRefused(_, why)) if why.code == Some(ErrorCode::EnrollmentRevoked)));

    // A denied one is told so.
    alice.set_passcode("Secret7", None).await.unwrap();
    let pending =
        PendingEnrollment::request(&settings, &at("alice"), wanted("tablet", "secret7".into())).await.unwrap();
    alice.deny(pending.id()).await.unwrap();
    let denied = pending.poll().await.err().unwrap();
    assert!(matches!(&denied, ClientError::Server(why) if why.code == Some(ErrorCode::EnrollmentDenied)), "{denied}");
    alice.delete_enrollment(pending.id()).await.unwrap();
}

/// A relay keeps many of these for a minute, and anybody can publish one.
#[tokio::test]
async fn regression_a_record_too_long_for_a_signing_key_is_none() {
    let house = House::new().await;
    let (bob, _inbox) = house.connect("bob", &KEYS[1], None).await;
    let (alice, _inbox) = house.connect("alice", &KEYS[0], None).await;
    let name = bob.publish_signing_key().await.unwrap();
    let published = alice.signing_key_record(&name).await.unwrap();
    assert_eq!(published, Some(KEYS[1].pkam.public_key().unwrap().to_base64()));
    for (length, is_believed) in [(SIGNING_KEY_BYTES, true), (SIGNING_KEY_BYTES + 1, false)] {
        let record = Record::new("k".repeat(length), Metadata::default(), 0);
        house.store.commit(Batch::new(0).put(&at("bob"), &name.key(), record, LogAs::Nothing)).await.unwrap();
        assert_eq!(alice.signing_key_record(&name).await.unwrap().is_some(), is_believed, "{length} bytes");
    }
}
