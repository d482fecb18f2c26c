//! How many times bytes travel to the server and back: what a user far away from it waits for.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{House, KEYS, PATIENCE, at, next};
use postern_client::{AddressBook, Client, ClientError, Identity, Settings, parse_root};
use postern_proto::verb::Noop;
use postern_proto::{Request, ServerAddress};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};

/// One way. Long, so that what a busy machine takes for itself is short beside it.
const DELAY: Duration = Duration::from_millis(300);

/// A port behind which the server is far away: bytes take [`DELAY`] in each direction. The connection itself stands at once.
async fn far_away(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            for (mut from, mut to) in [(near_in, far_out), (far_in, near_out)] {
                let (sent, mut under_way) = mpsc::unbounded_channel::<(tokio::time::Instant, Vec<u8>)>();
                tokio::spawn(async move {
                    let mut chunk = vec![0; 64 * 1024];
                    while let Ok(n @ 1..) = from.read(&mut chunk).await {
                        let _ = sent.send((tokio::time::Instant::now() + DELAY, chunk[..n].to_vec()));
                    }
                });
                tokio::spawn(async move {
                    while let Some((due, bytes)) = under_way.recv().await {
                        sleep_until(due).await;
                        if to.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
    });
    address
}

fn alice() -> Identity {
    Identity { at_sign: at("alice"), keys: Arc::clone(&KEYS[0]) }
}

fn round_trips(took: Duration) -> f64 {
    took.as_secs_f64() / (2 * DELAY).as_secs_f64()
}

/// TLS, question and claim, proof and notification: three, where one after the other they were five and a login.
#[tokio::test(flavor = "multi_thread")]
async fn a_notification_behind_the_proof_takes_three_round_trips_from_nothing() {
    let house = House::new().await;
    let (_bob, mut inbox) = house.bob("").await;
    let far = far_away(house.address).await;
    let root = parse_root(&format!("localhost:{}", far.port())).unwrap();
    let settings = Settings { root, ..house.settings(Some("")) };
    let start = Instant::now();
    let (alice, _inbox, login) = Client::begin(alice(), settings, None, &house.tasks);
    let (bob, to) = (at("bob"), &KEYS[1].encryption_public);
    let work = alice.notify_once(&bob, to, "ping.notes", "are you there?", None);
    timeout(PATIENCE, work).await.unwrap().unwrap();
    let trips = round_trips(start.elapsed());
    assert!((2.9..3.7).contains(&trips), "{trips} round trips");
    login.outcome().await.unwrap();
    let push = next(&mut inbox).await;
    assert_eq!((push.from, push.value.is_some(), push.is_encrypted), (at("alice"), true, true));
    // Each further request is one.
    let start = Instant::now();
    alice.request(Request::Noop(Noop { ms: 0 })).await.unwrap();
    let trips = round_trips(start.elapsed());
    assert!((0.9..1.7).contains(&trips), "{trips} round trips");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_one_notification_opens_it_and_the_usual_key_goes_on_to_work() {
    let house = House::new().await;
    let (bob, mut inbox) = house.bob(r"\.notes@").await;
    let alice = house.alice().await;
    let to = &KEYS[1].encryption_public;
    alice.notify(&at("bob"), "a.notes", "first", None).await.unwrap();
    alice.notify_once(&at("bob"), to, "b.notes", "second", None).await.unwrap();
    alice.notify(&at("bob"), "c.notes", "third", None).await.unwrap();
    for wanted in ["first", "second", "third"] {
        let push = next(&mut inbox).await;
        assert_eq!(*bob.open(&push).await.unwrap(), wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asked_before_a_refused_login_hears_that_it_was_refused() {
    let house = House::new().await;
    let identity = Identity { at_sign: at("alice"), keys: Arc::clone(&KEYS[1]) };
    let (client, _inbox, login) = Client::begin(identity, house.settings(Some("")), None, &house.tasks);
    let asked = client.request(Request::Noop(Noop { ms: 0 }));
    let (asked, login) = timeout(PATIENCE, async { tokio::join!(asked, login.outcome()) }).await.unwrap();
    assert!(matches!(login, Err(ClientError::LoginRefused(..))), "{login:?}");
    assert!(asked.is_err(), "a server answered somebody whom it refused");
}

/// A server that a household left, and the one it lives in now.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_address_costs_time_and_nothing_else() {
    let house = House::new().await;
    let dir = tempfile::tempdir().unwrap();
    let book = AddressBook::at(dir.path().join("addresses"));
    let settings = house.settings(None);
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for port in [gone.port(), silent.local_addr().unwrap().port()] {
        let stale = ServerAddress { host: "localhost".into(), port };
        book.remember(&settings.root, &at("alice"), &stale).unwrap();
        let (client, _inbox, login) = Client::begin(alice(), settings.clone(), Some(book.clone()), &house.tasks);
        timeout(PATIENCE, login.outcome()).await.unwrap().unwrap();
        client.request(Request::Noop(Noop { ms: 0 })).await.unwrap();
        assert_eq!(book.find(&settings.root, &at("alice")), Some(settings.root.clone()), "what is true is remembered");
    }
}

/// The directory is far away, the atServer is near: with its address remembered the directory is waited for no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_remembered_address_spares_the_way_to_the_directory() {
    let house = House::new().await;
    let dir = tempfile::tempdir().unwrap();
    let book = AddressBook::at(dir.path().join("addresses"));
    let far = far_away(house.address).await;
    let root = parse_root(&format!("localhost:{}", far.port())).unwrap();
    let settings = Settings { root: root.clone(), ..house.settings(None) };
    let near = ServerAddress { host: "localhost".into(), port: house.address.port() };
    book.remember(&root, &at("alice"), &near).unwrap();
    let start = Instant::now();
    let (client, _inbox, login) = Client::begin(alice(), settings, Some(book), &house.tasks);
    timeout(PATIENCE, login.outcome()).await.unwrap().unwrap();
    client.request(Request::Noop(Noop { ms: 0 })).await.unwrap();
    let trips = round_trips(start.elapsed());
    assert!(trips < 1.0, "{trips} round trips to the directory");
}
