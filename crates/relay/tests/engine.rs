//! The relay's engine with real sockets on loopback.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail by panic")]

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use postern_net::seats::SeatLimits;
use postern_net::tasks::Tasks;
use postern_relay::engine::{Modes, Refusal, Relay, Session, SessionSpec};
use postern_relay::limits::RelayLimits;
use postern_rendezvous::{AuthLine, AuthMode, Expected, Side};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing that is to happen may take longer.
const SOON: Duration = Duration::from_secs(20);
const MIB: usize = 1024 * 1024;

fn limits() -> RelayLimits {
    RelayLimits { bind: IpAddr::V4(Ipv4Addr::LOCALHOST), ..RelayLimits::default() }
}

fn relay(limits: RelayLimits) -> Relay {
    Relay::new(limits, Tasks::new())
}

/// A signature is good if it names the session and the side; real keys are another room's test.
fn spec(requester: &str) -> SessionSpec {
    SessionSpec {
        requester: requester.to_owned(),
        expected: Expected { session_id: "s-1".into(), client_nonce: "cn".into(), rvd_nonce: "rn".into() },
        authenticate_a: true,
        authenticate_b: true,
        verify: Arc::new(|side, text, signature, _| {
            text == AuthLine::new("s-1", "cn", "rn").signed_text() && signature == good(side)
        }),
        escr: None,
        modes: Modes::One(AuthMode::Payload),
        single_port: false,
    }
}

/// The same under another name, for who only counts sessions.
fn another(requester: &str) -> SessionSpec {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut spec = spec(requester);
    spec.expected.session_id = format!("other-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    spec
}

fn good(side: Side) -> &'static [u8] {
    match side {
        Side::A => b"of the client",
        Side::B => b"of the device",
    }
}

fn line(side: Side) -> String {
    AuthLine::new("s-1", "cn", "rn").print(&Base64::encode_string(good(side)))
}

async fn dial(port: NonZeroU16) -> TcpStream {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port.get())).await.unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

impl Ports for Session {
    fn port(&self, side: Side) -> NonZeroU16 {
        match side {
            Side::A => self.port_a,
            Side::B => self.port_b,
        }
    }
}

trait Ports {
    fn port(&self, side: Side) -> NonZeroU16;
}

async fn admitted(session: &Session, side: Side) -> TcpStream {
    let mut socket = dial(session.port(side)).await;
    socket.write_all(line(side).as_bytes()).await.unwrap();
    socket
}

async fn read(socket: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    timeout(SOON, socket.read_exact(&mut bytes)).await.expect("bytes arrive").unwrap();
    assert_eq!(bytes, expected);
}

/// Waits for the end of a socket that has got nothing.
async fn closed(socket: &mut TcpStream) {
    match timeout(SOON, socket.read(&mut [0; 64])).await.expect("the relay closes it") {
        Ok(n) => assert_eq!(n, 0, "no bytes from nowhere"),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

/// Waits until the relay has this many strangers and guests.
async fn until_sockets(relay: &Relay, sockets: (u32, u32)) {
    let deadline = Instant::now() + SOON;
    while relay.sockets() != sockets {
        assert!(Instant::now() < deadline, "{:?} is not {sockets:?}", relay.sockets());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn two_sockets_are_joined_and_nothing_is_lost() {
    let relay = relay(limits());
    let session = relay.open(spec("@c")).unwrap();
    // Bytes in the same packet as the line, and more while waiting.
    let mut a = dial(session.port_a).await;
    a.write_all(format!("{}early ", line(Side::A)).as_bytes()).await.unwrap();
    a.write_all(b"bird ").await.unwrap();
    until_sockets(&relay, (0, 1)).await;
    let mut b = admitted(&session, Side::B).await;
    a.write_all(b"sings").await.unwrap();
    read(&mut b, b"early bird sings").await;
    b.write_all(b"answer").await.unwrap();
    read(&mut a, b"answer").await;
    assert_eq!((relay.sessions(), relay.sockets()), (1, (0, 2)));
    drop(a);
    closed(&mut b).await;
    drop(b);
    until_sockets(&relay, (0, 0)).await;
    session.stop.cancel();
    let tally = timeout(SOON, session.ended).await.unwrap().unwrap();
    assert_eq!((tally.pairs, tally.carried.a_to_b, tally.carried.b_to_a), (1, 16, 6));
    assert_eq!((relay.sessions(), relay.totals().bytes), (0, 22));
}

#[tokio::test]
async fn one_end_of_stream_is_not_both() {
    let relay = relay(limits());
    let session = relay.open(spec("@c")).unwrap();
    let (mut a, mut b) = (admitted(&session, Side::A).await, admitted(&session, Side::B).await);
    a.write_all(b"question").await.unwrap();
    a.shutdown().await.unwrap();
    let mut text = Vec::new();
    timeout(SOON, b.read_to_end(&mut text)).await.unwrap().unwrap();
    assert_eq!(text, b"question");
    b.write_all(b"a long answer").await.unwrap();
    drop(b);
    text.clear();
    timeout(SOON, a.read_to_end(&mut text)).await.unwrap().unwrap();
    assert_eq!(text, b"a long answer");
}

#[tokio::test]
async fn who_asks_and_ends_while_waiting_still_gets_an_answer() {
    let relay = relay(limits());
    let session = relay.open(spec("@c")).unwrap();
    let mut a = admitted(&session, Side::A).await;
    a.write_all(b"question").await.unwrap();
    a.shutdown().await.unwrap();
    until_sockets(&relay, (0, 1)).await;
    let mut b = admitted(&session, Side::B).await;
    read(&mut b, b"question").await;
    closed(&mut b).await; // its reading half
    b.write_all(b"answer").await.unwrap();
    read(&mut a, b"answer").await;
}

#[tokio::test]
async fn the_wrong_signature_is_closed_without_a_word() {
    let relay = relay(limits());
    let session = relay.open(spec("@c")).unwrap();
    for bytes in [line(Side::B), line(Side::A).replace("s-1", "s-2"), "GET / HTTP/1.1\n".to_owned(), "\n".to_owned()] {
        let mut stranger = dial(session.port_a).await;
        stranger.write_all(bytes.as_bytes()).await.unwrap();
        let started = Instant::now();
        closed(&mut stranger).await;
        assert!(started.elapsed() < limits().auth_within, "at once, not by the timer");
    }
    let (mut a, mut b) = (admitted(&session, Side::A).await, admitted(&session, Side::B).await);
    a.write_all(b"still open for the right ones").await.unwrap();
    read(&mut b, b"still open for the right ones").await;
    assert_eq!(relay.totals().not_authenticated, 4);
}

#[tokio::test]
async fn silence_and_slowness_end_in_time() {
    let relay = relay(RelayLimits { auth_within: Duration::from_millis(200), ..limits() });
    let session = relay.open(spec("@c")).unwrap();
    let started = Instant::now();
    let mut silent = dial(session.port_a).await;
    let mut slow = dial(session.port_b).await;
    slow.write_all(&line(Side::B).as_bytes()[..20]).await.unwrap();
    closed(&mut silent).await;
    closed(&mut slow).await;
    assert!(started.elapsed() >= Duration::from_millis(200));
    until_sockets(&relay, (0, 0)).await;
    assert_eq!(relay.totals().not_authenticated, 2);
}

#[tokio::test]
async fn a_session_ends_after_its_grace_and_never_under_a_pair() {
    let grace = Duration::from_millis(300);
    let relay = relay(RelayLimits { grace, ..limits() });
    let lonely = relay.open(SessionSpec { authenticate_a: false, ..another("@c") }).unwrap();
    let mut waiting = dial(lonely.port_a).await;
    let busy = relay.open(spec("@c")).unwrap();
    let (mut a, mut b) = (admitted(&busy, Side::A).await, admitted(&busy, Side::B).await);
    a.write_all(b"x").await.unwrap();
    read(&mut b, b"x").await;

    assert_eq!(timeout(SOON, lonely.ended).await.unwrap().unwrap().pairs, 0);
    closed(&mut waiting).await;
    let again = TcpStream::connect((Ipv4Addr::LOCALHOST, lonely.port_a.get())).await;
    assert_eq!(again.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);

    tokio::time::sleep(2 * grace).await; // nothing may happen in this time
    assert!(!busy.ended.is_finished());
    a.write_all(b"y").await.unwrap();
    read(&mut b, b"y").await;
    drop((a, b));
    assert_eq!(timeout(SOON, busy.ended).await.unwrap().unwrap().pairs, 1);
    assert_eq!(relay.sessions(), 0);
}

#[tokio::test]
async fn a_waiting_socket_that_died_is_not_joined_and_the_order_stays() {
    let relay = relay(limits());
    let session = relay.open(spec("@c")).unwrap();
    let dead = admitted(&session, Side::A).await;
    until_sockets(&relay, (0, 1)).await;
    drop(dead);
    until_sockets(&relay, (0, 0)).await; // noticed while waiting
    let mut a = admitted(&session, Side::A).await;
    until_sockets(&relay, (0, 1)).await;
    let mut for_the_dead = admitted(&session, Side::B).await;
    closed(&mut for_the_dead).await;
    let mut b = admitted(&session, Side::B).await;
    a.write_all(b"mine").await.unwrap();
    read(&mut b, b"mine").await;
}

#[tokio::test]
async fn without_authentication_sockets_are_joined_as_they_come() {
    let relay = relay(limits());
    let open = SessionSpec { authenticate_a: false, authenticate_b: false, ..spec("@c") };
    let session = relay.open(open).unwrap();
    let scan = dial(session.port_a).await;
    until_sockets(&relay, (1, 0)).await;
    drop(scan);
    until_sockets(&relay, (0, 0)).await;
    let (mut a, mut b) = (dial(session.port_a).await, dial(session.port_b).await);
    b.write_all(b"SSH-2.0-x\r\n").await.unwrap();
    read(&mut a, b"SSH-2.0-x\r\n").await;
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_without_a_newline_cost_four_kilobytes() {
    let relay = relay(limits());
    let session = relay.open(spec("@c")).unwrap();
    let garbage = Arc::new(vec![b'x'; 10 * MIB]);
    let before = resident_bytes();
    let mut senders = Vec::new();
    for n in 0..60 {
        let (port, garbage) = (if n % 2 == 0 { session.port_a } else { session.port_b }, Arc::clone(&garbage));
        senders.push(tokio::spawn(async move {
            let mut socket = dial(port).await;
            socket.write_all(&garbage).await.expect_err("nobody reads ten megabytes");
        }));
    }
    for sender in senders {
        timeout(SOON, sender).await.unwrap().unwrap();
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 16 * MIB, "grew by {grown} bytes");
    until_sockets(&relay, (0, 0)).await;
}

#[tokio::test]
async fn a_crowd_of_strangers_does_not_keep_the_device_out() {
    let seats = SeatLimits { total: 1000, anonymous: 64, per_address: 32 };
    let relay = relay(RelayLimits { seats, unauthenticated_per_side: 8, ..limits() });
    let session = relay.open(spec("@c")).unwrap();
    let mut crowd = Vec::new();
    for _ in 0..300 {
        crowd.push(dial(session.port_b).await);
        assert!(relay.sockets().0 <= 64);
    }
    let (mut a, mut b) = (admitted(&session, Side::A).await, admitted(&session, Side::B).await);
    b.write_all(b"here").await.unwrap();
    read(&mut a, b"here").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_pairs_keep_their_order() {
    let relay = relay(limits());
    let session = relay.open(spec("@c")).unwrap();
    let mut pairs = Vec::new();
    for n in 0..50_u32 {
        let a = admitted(&session, Side::A).await;
        until_sockets(&relay, (0, 2 * n + 1)).await; // the order of authentication is the order of pairs
        let b = admitted(&session, Side::B).await;
        until_sockets(&relay, (0, 2 * n + 2)).await;
        pairs.push((n, a, b));
    }
    for (n, a, _) in &mut pairs {
        a.write_all(&n.to_le_bytes()).await.unwrap();
    }
    for (n, a, b) in &mut pairs {
        read(b, &n.to_le_bytes()).await;
        b.write_all(&n.to_be_bytes()).await.unwrap();
        read(a, &n.to_be_bytes()).await;
    }
    drop(pairs);
    until_sockets(&relay, (0, 0)).await;
    session.stop.cancel();
    assert_eq!(timeout(SOON, session.ended).await.unwrap().unwrap().pairs, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_mebibytes_each_way() {
    const PIECE: usize = MIB;
    fn piece(seed: usize, n: usize) -> Vec<u8> {
        (0..PIECE / 8).flat_map(|k| (seed + n * PIECE + k).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect()
    }
    async fn flow(mut from: tokio::net::tcp::OwnedWriteHalf, mut to: tokio::net::tcp::OwnedReadHalf, seed: usize) {
        let send = tokio::spawn(async move {
            for n in 0..200 {
                from.write_all(&piece(seed, n)).await.unwrap();
            }
            from.shutdown().await.unwrap();
        });
        let mut bytes = vec![0; PIECE];
        for n in 0..200 {
            to.read_exact(&mut bytes).await.unwrap();
            assert!(bytes == piece(seed, n), "piece {n} differs");
        }
        assert_eq!(to.read(&mut bytes).await.unwrap(), 0);
        send.await.unwrap();
    }
    let relay = relay(limits());
    let session = relay.open(spec("@c")).unwrap();
    let (a_in, a_out) = admitted(&session, Side::A).await.into_split();
    let (b_in, b_out) = admitted(&session, Side::B).await.into_split();
    let there = tokio::spawn(flow(a_out, b_in, 1));
    flow(b_out, a_in, 2).await;
    there.await.unwrap();
    until_sockets(&relay, (0, 0)).await;
    assert_eq!(relay.totals().bytes, 400 * MIB as u64);
}

#[tokio::test]
async fn sessions_are_counted_per_relay_and_per_atsign() {
    let tasks = Tasks::new();
    let relay = Relay::new(RelayLimits { sessions: 3, sessions_per_atsign: 2, ..limits() }, tasks.clone());
    let first = relay.open(spec("@c")).unwrap();
    assert!(matches!(relay.open(spec("@c")), Err(Refusal::Known)));
    let _second = relay.open(another("@c")).unwrap();
    assert!(matches!(relay.open(another("@c")), Err(Refusal::TooManyOfYours)));
    let _third = relay.open(another("@other")).unwrap();
    assert!(matches!(relay.open(another("@more")), Err(Refusal::Full)));
    assert_eq!((relay.sessions(), relay.totals().refused), (3, 3));
    first.stop.cancel();
    timeout(SOON, first.ended).await.unwrap().unwrap();
    let again = relay.open(spec("@c")).unwrap();
    let (mut a, mut b) = (admitted(&again, Side::A).await, admitted(&again, Side::B).await);
    a.write_all(b"x").await.unwrap();
    read(&mut b, b"x").await;
    assert!(tasks.close_and_wait(SOON).await, "sessions, guests and pairs end when the relay stops");
    closed(&mut a).await;
    closed(&mut b).await;
    assert!(matches!(relay.open(spec("@c")), Err(Refusal::Stopping)));
    assert_eq!((relay.sessions(), relay.sockets()), (0, (0, 0)));
}
