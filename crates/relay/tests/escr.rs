//! Challenges, detection and the port for all, with real sockets on loopback and real keys.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail by panic")]

use std::collections::BTreeMap;
use std::future::ready;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use postern_crypto::{AesKey, Iv, RsaPrivateKey, SignatureHash};
use postern_net::tasks::Tasks;
use postern_proto::{AtSign, SigningKeyName};
use postern_relay::engine::{EscrSpec, KeyRecord, Modes, Refusal, Relay, SessionSpec, SigningKeys, Unknown};
use postern_relay::limits::RelayLimits;
use postern_rendezvous::{AuthLine, AuthMode, Challenge, ChallengeSigner, EscrParties, EscrProver, Expected, Side};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing that is to happen may take longer.
const SOON: Duration = Duration::from_secs(20);
/// Longer than any test: what needs it would not end.
const NEVER: Duration = Duration::from_secs(3600);
const SESSION: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
const CLIENT_KEY: &str = "public:_apsk.primary.a.__e@client";
const DEVICE_KEY: &str = "public:_apsk.primary.a.__e@device";

fn limits() -> RelayLimits {
    RelayLimits { bind: IpAddr::V4(Ipv4Addr::LOCALHOST), detect_window: NEVER, ..RelayLimits::default() }
}

/// One port for all. Who says nothing there is asked soon.
fn with_port(limits: RelayLimits) -> Relay {
    let detect_window = Duration::from_millis(20);
    let relay = Relay::with_single_port(RelayLimits { detect_window, ..limits }, Tasks::new(), 0).unwrap();
    relay.serve_port(None);
    relay
}

/// One key for both, which is enough: what it proves is in the names.
fn key() -> &'static RsaPrivateKey {
    static KEY: OnceLock<RsaPrivateKey> = OnceLock::new();
    KEY.get_or_init(|| RsaPrivateKey::generate().unwrap())
}

/// Records as atServers would show them.
#[derive(Default)]
struct Records(Mutex<BTreeMap<String, KeyRecord>>);

impl Records {
    fn published() -> Arc<Self> {
        let records = Self::default();
        for name in [CLIENT_KEY, DEVICE_KEY] {
            records.set(name, Ok(Some(key().public_key().unwrap().to_base64())));
        }
        Arc::new(records)
    }

    fn set(&self, name: &str, record: KeyRecord) {
        self.0.lock().unwrap().insert(name.to_owned(), record);
    }
}

impl SigningKeys for Records {
    fn record<'a>(
        &'a self,
        name: &'a SigningKeyName,
    ) -> std::pin::Pin<Box<dyn Future<Output = KeyRecord> + Send + 'a>> {
        let record = self.0.lock().unwrap().get(&name.to_string()).cloned();
        Box::pin(ready(record.unwrap_or(Ok(None))))
    }
}

fn secret() -> AesKey {
    AesKey::from_bytes([9; 32])
}

fn spec(session: &str, modes: Modes, keys: Arc<Records>) -> SessionSpec {
    let parties = EscrParties {
        session_id: session.to_owned(),
        client: AtSign::parse("client").unwrap(),
        device: AtSign::parse("device").unwrap(),
    };
    SessionSpec {
        requester: "@client".into(),
        expected: Expected { session_id: session.into(), client_nonce: "cn".into(), rvd_nonce: "rn".into() },
        authenticate_a: true,
        authenticate_b: true,
        verify: Arc::new(|_, _, signature, _| signature == b"sig"),
        escr: Some(EscrSpec { key: secret(), parties, keys }),
        modes,
        single_port: false,
    }
}

fn prover(session: &str, side: Side, key_name: &str) -> EscrProver {
    let name = SigningKeyName::parse(key_name).unwrap();
    let signer = ChallengeSigner::new(name, |text| key().sign(SignatureHash::Sha256, text));
    EscrProver::new(session, side, secret(), signer)
}

fn prover_of(session: &str, side: Side) -> EscrProver {
    prover(session, side, if side == Side::A { CLIENT_KEY } else { DEVICE_KEY })
}

type Socket = BufReader<TcpStream>;

async fn dial(port: NonZeroU16) -> Socket {
    BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port.get())).await.unwrap())
}

async fn line(socket: &mut Socket) -> String {
    let mut text = String::new();
    timeout(SOON, socket.read_line(&mut text)).await.expect("a line arrives").unwrap();
    text
}

/// Answers the challenge; gives the verdict and what was answered.
async fn prove(socket: &mut Socket, prover: &EscrProver, number: Option<u32>) -> (String, String) {
    let challenge = Challenge::parse(&line(socket).await).expect("a challenge");
    let answer = prover.answer(&challenge, number, Iv::generate()).unwrap();
    socket.write_all(answer.as_bytes()).await.unwrap();
    (line(socket).await, answer)
}

async fn proven(port: NonZeroU16, prover: &EscrProver, number: Option<u32>) -> Socket {
    let mut socket = dial(port).await;
    assert_eq!(prove(&mut socket, prover, number).await.0, "ok\n");
    socket
}

async fn talk(a: &mut Socket, b: &mut Socket, text: &[u8]) {
    a.write_all(text).await.unwrap();
    let mut bytes = vec![0; text.len()];
    timeout(SOON, b.read_exact(&mut bytes)).await.expect("bytes arrive").unwrap();
    assert_eq!(bytes, text);
}

/// The socket ends, by an end or a reset.
async fn closed(socket: &mut Socket) {
    let ended = timeout(SOON, socket.read(&mut [0; 64])).await.expect("the relay closes it");
    assert!(matches!(ended, Ok(0) | Err(_)), "no bytes from nowhere");
}

#[tokio::test]
async fn both_sides_prove_themselves_and_are_joined() {
    let relay = Relay::new(limits(), Tasks::new());
    let session = relay.open(spec(SESSION, Modes::One(AuthMode::Escr), Records::published())).unwrap();
    let mut a = proven(session.port_a, &prover_of(SESSION, Side::A), Some(0)).await;
    let mut b = proven(session.port_b, &prover_of(SESSION, Side::B), Some(0)).await;
    talk(&mut a, &mut b, b"hello").await;
    talk(&mut b, &mut a, b"you").await;
}

#[tokio::test]
async fn an_answer_opens_one_socket_only() {
    let relay = Relay::new(limits(), Tasks::new());
    let session = relay.open(spec(SESSION, Modes::One(AuthMode::Escr), Records::published())).unwrap();
    let mut first = dial(session.port_a).await;
    let (verdict, answer) = prove(&mut first, &prover_of(SESSION, Side::A), None).await;
    assert_eq!(verdict, "ok\n");
    let mut replay = dial(session.port_a).await;
    line(&mut replay).await;
    replay.write_all(answer.as_bytes()).await.unwrap();
    assert_eq!(line(&mut replay).await, "Socket auth failed\n");
    closed(&mut replay).await;
    // A's proof at B's port, another atSign's key, an unpublished key: all the same to who asks.
    let others = [
        (session.port_b, prover_of(SESSION, Side::A)),
        (session.port_a, prover(SESSION, Side::A, "public:_apsk.primary.a.__e@mallory")),
        (session.port_a, prover(SESSION, Side::A, "public:_apsk.6f.a.__e@client")),
        (session.port_a, prover_of("7f9619ff-8b86-4d01-b42d-00cf4fc964ff", Side::A)),
    ];
    let count = u64::try_from(others.len()).unwrap();
    for (port, prover) in others {
        let mut socket = dial(port).await;
        assert_eq!(prove(&mut socket, &prover, None).await.0, "Socket auth failed\n");
        closed(&mut socket).await;
    }
    assert_eq!(relay.totals().not_authenticated, 1 + count);
}

#[tokio::test]
async fn who_speaks_first_and_who_waits_meet() {
    let window = Duration::from_millis(200);
    let relay = Relay::new(RelayLimits { detect_window: window, ..limits() }, Tasks::new());
    let session = relay.open(spec(SESSION, Modes::Detect(None), Records::published())).unwrap();
    let start = Instant::now();
    let mut b = proven(session.port_b, &prover_of(SESSION, Side::B), None).await;
    assert!(start.elapsed() >= window, "it was given time to speak first");
    let mut a = dial(session.port_a).await;
    a.write_all(AuthLine::new(SESSION, "cn", "rn").print("c2ln").as_bytes()).await.unwrap();
    talk(&mut a, &mut b, b"old and new").await;
    // What a side has shown once is known of it.
    let start = Instant::now();
    let _more = proven(session.port_b, &prover_of(SESSION, Side::B), None).await;
    assert!(start.elapsed() < window, "it was not kept waiting again: {:?}", start.elapsed());
    let mut nonsense = dial(session.port_a).await;
    nonsense.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    assert_ne!(line(&mut nonsense).await, "ok\n");
}

#[tokio::test]
async fn a_hint_of_the_client_spares_the_wait() {
    let relay = Relay::new(limits(), Tasks::new());
    let escr = || Some(AuthMode::Escr);
    let session = relay.open(spec(SESSION, Modes::Detect(escr()), Records::published())).unwrap();
    let mut a = proven(session.port_a, &prover_of(SESSION, Side::A), None).await;
    let b = dial(session.port_b).await;
    assert!(!relay.hint(SESSION, "@mallory", "rn", None, escr()), "not who opened the session");
    assert!(!relay.hint(SESSION, "@client", "other", None, escr()), "not this session's nonce");
    assert!(relay.hint(SESSION, "@client", "rn", None, escr()));
    let mut b = b;
    assert_eq!(prove(&mut b, &prover_of(SESSION, Side::B), None).await.0, "ok\n");
    talk(&mut a, &mut b, b"at once").await;
}

#[tokio::test]
async fn a_session_ends_when_its_key_is_revoked_and_not_when_nobody_can_tell() {
    let recheck = Duration::from_millis(50);
    let relay = Relay::new(RelayLimits { key_recheck: recheck, ..limits() }, Tasks::new());
    let records = Records::published();
    let session = relay.open(spec(SESSION, Modes::One(AuthMode::Escr), Arc::clone(&records))).unwrap();
    let mut a = proven(session.port_a, &prover_of(SESSION, Side::A), None).await;
    let mut b = proven(session.port_b, &prover_of(SESSION, Side::B), None).await;
    talk(&mut a, &mut b, b"x").await;
    records.set(CLIENT_KEY, Err(Unknown));
    tokio::time::sleep(4 * recheck).await; // nothing may happen in this time
    talk(&mut a, &mut b, b"y").await;
    records.set(CLIENT_KEY, Ok(None));
    closed(&mut a).await;
    closed(&mut b).await;
    timeout(SOON, session.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn one_port_serves_many_sessions() {
    let relay = with_port(limits());
    let port = relay.single_port().unwrap();
    let names = ["1f9619ff-8b86-4d01-b42d-00cf4fc964ff", "2f9619ff-8b86-4d01-b42d-00cf4fc964ff"];
    for name in names {
        let spec = spec(name, Modes::One(AuthMode::Escr), Records::published());
        let session = relay.open(SessionSpec { single_port: true, ..spec }).unwrap();
        assert_eq!((session.port_a, session.port_b), (port, port));
    }
    let two_ports = relay.open(spec(SESSION, Modes::One(AuthMode::Escr), Records::published())).unwrap();
    assert_ne!(two_ports.port_a, port);
    // All of one side first: only what they say tells them apart.
    let mut a = Vec::new();
    for name in names {
        a.push(proven(port, &prover_of(name, Side::A), Some(0)).await);
    }
    for (name, a) in names.iter().zip(&mut a).rev() {
        let mut b = proven(port, &prover_of(name, Side::B), Some(0)).await;
        talk(a, &mut b, name.as_bytes()).await;
        talk(&mut b, a, b"back").await;
    }
    for stranger in [prover_of("3f9619ff-8b86-4d01-b42d-00cf4fc964ff", Side::A), prover_of(SESSION, Side::A)] {
        let mut socket = dial(port).await;
        assert_eq!(prove(&mut socket, &stranger, None).await.0, "Socket auth failed\n");
    }
    let mut line_first = dial(port).await;
    line(&mut line_first).await;
    line_first.write_all(AuthLine::new(names[0], "cn", "rn").print("c2ln").as_bytes()).await.unwrap();
    assert_eq!(line(&mut line_first).await, "Socket auth failed\n");
}

#[tokio::test]
async fn a_port_for_all_is_not_promised_where_there_is_none() {
    let relay = Relay::new(limits(), Tasks::new());
    let spec = spec(SESSION, Modes::One(AuthMode::Escr), Records::published());
    let refused = relay.open(SessionSpec { single_port: true, ..spec });
    assert!(matches!(refused, Err(Refusal::NoSinglePort)));
}

#[tokio::test]
async fn who_does_not_answer_at_the_port_for_all_is_sent_away() {
    let prove_within = Duration::from_millis(200);
    let relay = with_port(RelayLimits { prove_within, ..limits() });
    let mut slow = dial(relay.single_port().unwrap()).await;
    line(&mut slow).await;
    assert_eq!(line(&mut slow).await, "Socket auth failed\n");
    closed(&mut slow).await;
    assert_eq!(relay.sockets(), (0, 0));
}
