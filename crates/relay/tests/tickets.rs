//! Guests with tickets at the one port, with real sockets on loopback and real keys.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail by panic")]

use std::future::ready;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use postern_client::trust::now_ms;
use postern_crypto::{Ed25519PrivateKey, RsaPrivateKey, RsaPublicKey};
use postern_identity::{DeviceName, Voucher};
use postern_net::tasks::Tasks;
use postern_net::tls::{PrivateCa, ServerTls, TlsStream, Trust, connect_relay};
use postern_observe::journal::{self, Journal};
use postern_proto::{AtSign, SigningKeyName, Uuid};
use postern_relay::engine::{KeyRecord, Relay, SigningKeys, TicketKeys, TicketSpec, Unknown};
use postern_relay::limits::RelayLimits;
use postern_rendezvous::{HallRules, Refusal, RefusalCode, Side, Ticket, TicketTo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing that is to happen may take longer.
const SOON: Duration = Duration::from_secs(20);
const DAY_MS: u64 = 24 * 3600 * 1000;

/// The keys of an atSign and its one enrolment, an identity key, and its voucher.
struct Guest {
    name: AtSign,
    encryption: RsaPrivateKey,
    enrolled: RsaPrivateKey,
    identity: Ed25519PrivateKey,
    voucher: String,
}

static CLIENT: LazyLock<Guest> = LazyLock::new(|| Guest::new("client", None));
static DEVICE: LazyLock<Guest> = LazyLock::new(|| Guest::new("device", Some("gw-17")));
static MALLORY: LazyLock<Guest> = LazyLock::new(|| Guest::new("mallory", None));

impl Guest {
    fn new(name: &str, device: Option<&str>) -> Self {
        let [encryption, enrolled] = [(); 2].map(|()| RsaPrivateKey::generate().unwrap());
        let identity = Ed25519PrivateKey::generate().unwrap();
        let device = device.map(|device| DeviceName::parse(device).unwrap());
        let signing = SigningKeyName::new(None, &at(name)).unwrap();
        let (key, device) = (identity.public_key(), device.as_ref());
        let voucher = Voucher::issue(&key, device, &encryption, (&signing, &enrolled), now_ms(), DAY_MS).unwrap();
        Self { name: at(name), encryption, enrolled, identity, voucher }
    }

    fn line(&self, to: &TicketTo) -> String {
        self.line_made(to, now_ms())
    }

    fn line_made(&self, to: &TicketTo, when: u64) -> String {
        Ticket::make(to, &self.identity, &self.voucher, when, postern_crypto::random())
    }
}

fn at(name: &str) -> AtSign {
    AtSign::parse(name).unwrap()
}

fn to(session: u8, side: Side) -> TicketTo {
    let session = Uuid::from_random([session; 16]);
    TicketTo { relay: at("relay"), session, epoch: 0, side, client: at("client"), device: at("device") }
}

/// The atServers of all guests.
#[derive(Default)]
struct Servers {
    asked: AtomicUsize,
    down: AtomicBool,
}

impl Servers {
    fn guest(of: &AtSign) -> Option<&'static Guest> {
        [&*CLIENT, &*DEVICE, &*MALLORY].into_iter().find(|guest| guest.name == *of)
    }

    fn answers<T>(&self, answer: impl FnOnce() -> T) -> Result<T, Unknown> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.down.load(Ordering::Relaxed) { Err(Unknown) } else { Ok(answer()) }
    }
}

impl SigningKeys for Servers {
    fn record<'a>(&'a self, name: &'a SigningKeyName) -> Pin<Box<dyn Future<Output = KeyRecord> + Send + 'a>> {
        let guest = Self::guest(name.owner());
        Box::pin(ready(self.answers(|| guest.map(|guest| guest.enrolled.public_key().unwrap().to_base64()))))
    }
}

impl TicketKeys for Servers {
    fn encryption_key<'a>(
        &'a self,
        of: &'a AtSign,
    ) -> Pin<Box<dyn Future<Output = Result<RsaPublicKey, Unknown>> + Send + 'a>> {
        let guest = Self::guest(of).ok_or(Unknown);
        Box::pin(ready(guest.and_then(|guest| self.answers(|| guest.encryption.public_key().unwrap()))))
    }
}

/// A relay that serves @client and @device alone.
struct House {
    relay: Relay,
    tasks: Tasks,
    servers: Arc<Servers>,
}

impl House {
    fn new(tickets: HallRules) -> Self {
        Self::at(IpAddr::V4(Ipv4Addr::LOCALHOST), tickets)
    }

    fn at(bind: IpAddr, tickets: HallRules) -> Self {
        Self::with(RelayLimits { bind, tickets, ..RelayLimits::default() })
    }

    fn with(limits: RelayLimits) -> Self {
        let (tasks, servers) = (Tasks::new(), Arc::<Servers>::default());
        let relay = Relay::with_single_port(limits, tasks.clone(), 0).unwrap();
        let served = [at("client"), at("device")];
        relay.serve_port(Some(TicketSpec {
            relay: at("relay"),
            serves: Arc::new(move |client| served.contains(client)),
            keys: Arc::clone(&servers) as Arc<dyn TicketKeys>,
        }));
        Self { relay, tasks, servers }
    }

    async fn show(&self, line: &str) -> TcpStream {
        let port = self.relay.single_port().unwrap().get();
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        socket.write_all(line.as_bytes()).await.unwrap();
        socket
    }

    async fn code(&self, line: &str) -> RefusalCode {
        code(self.show(line).await).await
    }
}

/// A refusal and the end; whatever else is a failure.
async fn code(mut socket: TcpStream) -> RefusalCode {
    let mut said = Vec::new();
    timeout(SOON, socket.read_to_end(&mut said)).await.expect("an end").expect("no reset");
    Refusal::parse(&said).unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(&said))).code
}

/// Waits for what the relay does in its own time.
async fn until(done: impl Fn() -> bool) {
    let seen = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, seen).await.expect("it happens");
}

async fn talk(a: &mut (impl AsyncWrite + Unpin), b: &mut (impl AsyncRead + Unpin), text: &[u8]) {
    a.write_all(text).await.unwrap();
    a.flush().await.unwrap();
    let mut bytes = vec![0; text.len()];
    timeout(SOON, b.read_exact(&mut bytes)).await.expect("bytes arrive").unwrap();
    assert_eq!(bytes, text);
}

#[tokio::test]
async fn two_guests_with_vouchers_are_joined_without_a_word_of_the_relay() {
    let house = House::new(HallRules::default());
    for (session, first) in [(1, Side::A), (2, Side::B)] {
        let line = |side| if side == Side::A { &CLIENT } else { &DEVICE }.line(&to(session, side));
        let one = house.show(&line(first)).await;
        let two = house.show(&line(first.other())).await;
        let (mut a, mut b) = if first == Side::A { (one, two) } else { (two, one) };
        talk(&mut b, &mut a, b"\x16 hello").await;
        talk(&mut a, &mut b, b"finished").await;
        a.shutdown().await.unwrap();
        talk(&mut b, &mut a, b"half-closed").await;
        drop(b);
        let mut rest = Vec::new();
        timeout(SOON, a.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert!(rest.is_empty());
    }
    assert_eq!(house.relay.totals().tickets_refused, 0);
    let asked = house.servers.asked.load(Ordering::Relaxed);
    assert!(asked <= 6, "keys are remembered, not asked for again: {asked}");
}

/// A relay that speaks TLS as well, with whose certificates it is believed.
fn behind_tls() -> (House, Trust) {
    let house = House::new(HallRules::default());
    let ca = PrivateCa::make(&["localhost".to_owned()], &[]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&certificate, &ca.cert_pem).unwrap();
    std::fs::write(&key, ca.key_pem.as_bytes()).unwrap();
    house.relay.speak_tls(ServerTls::relay_from_pem_files(&certificate, &key).unwrap());
    (house, Trust::only_pem(ca.ca_pem.as_bytes()).unwrap())
}

async fn show_by_tls(port: u16, trust: &Trust, line: &str) -> TlsStream {
    let mut socket = connect_relay(trust, "localhost", port, SOON).await.unwrap();
    socket.write_all(line.as_bytes()).await.unwrap();
    socket.flush().await.unwrap();
    socket
}

#[tokio::test]
async fn behind_tls_at_the_same_port_and_at_another() {
    let (house, trust) = behind_tls();
    let entrance = house.relay.bind_beside(0).unwrap();
    let (port, beside) = (house.relay.single_port().unwrap().get(), entrance.port.get());
    house.relay.serve_beside(entrance);
    for (session, port_a, port_b) in [(1, port, port), (2, beside, port)] {
        // Who waits behind TLS has sent its first bytes, which fit no buffer of the kernel's that we could look into.
        let mut b = show_by_tls(port_b, &trust, &DEVICE.line(&to(session, Side::B))).await;
        b.write_all(&[0x16; 6000]).await.unwrap();
        b.flush().await.unwrap();
        let mut a = show_by_tls(port_a, &trust, &CLIENT.line(&to(session, Side::A))).await;
        let mut first = vec![0; 6000];
        timeout(SOON, a.read_exact(&mut first)).await.expect("the device's first bytes").unwrap();
        assert!(first.iter().all(|byte| *byte == 0x16));
        talk(&mut a, &mut b, b"there").await;
        a.shutdown().await.unwrap();
        talk(&mut b, &mut a, b"half-closed").await;
        b.shutdown().await.unwrap();
        let mut rest = Vec::new();
        timeout(SOON, a.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert!(rest.is_empty());
    }
    // One end behind TLS, the other not.
    let mut a = house.show(&CLIENT.line(&to(3, Side::A))).await;
    let mut b = show_by_tls(port, &trust, &DEVICE.line(&to(3, Side::B))).await;
    talk(&mut a, &mut b, &[1; 100_000][..4096]).await;
    talk(&mut b, &mut a, b"back").await;
    // Refusals travel behind it too; who leaves does so for the relay as well.
    let mut said = Vec::new();
    let mut refused = show_by_tls(port, &trust, "ticket:nonsense\n").await;
    timeout(SOON, refused.read_to_end(&mut said)).await.expect("an end").unwrap();
    assert_eq!(Refusal::parse(&said).unwrap().code, RefusalCode::BadTicket);
    drop((a, b, refused));
    until(|| house.relay.sockets() == (0, 0)).await;
}

#[tokio::test]
async fn the_sessions_of_one_client_share_its_rate_and_both_directions_do() {
    const RATE: u64 = 400_000;
    let bind = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let house = House::with(RelayLimits { bind, max_rate: Some(RATE), ..RelayLimits::default() });
    let mut flows = Vec::new();
    for session in [1, 2] {
        let a = house.show(&CLIENT.line(&to(session, Side::A))).await;
        let b = house.show(&DEVICE.line(&to(session, Side::B))).await;
        let ((from_a, to_a), (from_b, to_b)) = (a.into_split(), b.into_split());
        flows.extend([(to_a, from_b), (to_b, from_a)]);
    }
    let span = Duration::from_secs(3);
    let until = tokio::time::Instant::now() + span;
    let counting: Vec<_> = flows
        .into_iter()
        .map(|(mut to, mut from)| {
            tokio::spawn(async move {
                let (mut carried, mut buffer) = (0_u64, vec![0; 64 * 1024]);
                let flood = async { while to.write_all(&[0; 16 * 1024]).await.is_ok() {} };
                let count = async {
                    while let Ok(n @ 1..) = from.read(&mut buffer).await {
                        carried += n as u64;
                    }
                };
                let both = async { tokio::join!(flood, count) };
                let _over = tokio::time::timeout_at(until, both).await;
                carried
            })
        })
        .collect();
    let mut carried = Vec::new();
    for count in counting {
        carried.push(count.await.unwrap());
    }
    let all: u64 = carried.iter().sum();
    let may = RATE * span.as_secs();
    assert!((may * 6 / 10..=may * 13 / 10).contains(&all), "{all} of {may}");
    let (least, most) = (carried.iter().min().unwrap(), carried.iter().max().unwrap());
    assert!(*least * 2 > *most, "fair: {carried:?}");
}

#[tokio::test]
async fn a_journal_says_who_met_whom_and_how_many_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("srvd.jsonl");
    let house = House::new(HallRules { wait: Duration::from_millis(100), ..HallRules::default() });
    house.relay.keep_journal(Journal::open(path.clone()));
    let mut a = house.show(&CLIENT.line(&to(1, Side::A))).await;
    let mut b = house.show(&DEVICE.line(&to(1, Side::B))).await;
    talk(&mut a, &mut b, b"question").await;
    talk(&mut b, &mut a, b"answer").await;
    drop((a, b));
    until(|| house.relay.totals().pairs == 1).await;
    assert_eq!(house.code(&CLIENT.line(&to(2, Side::A))).await, RefusalCode::Alone);
    assert_eq!(house.code("ticket:nonsense\n").await, RefusalCode::BadTicket);
    assert!(house.tasks.close_and_wait(SOON).await);
    drop(house);
    assert!(journal::verify(&path).unwrap().is_whole());
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let said = |line: &str, words: &[&str]| {
        let missing: Vec<_> = words.iter().filter(|word| !line.contains(**word)).collect();
        assert!(missing.is_empty(), "no {missing:?} in {line}");
    };
    let session = to(1, Side::A).session.to_string();
    let who = [r#""who":"@client""#, r#""device":"@device""#, r#""sealed":true"#];
    said(lines[0], &[&[r#""event":"began""#, session.as_str()], &who[..]].concat());
    said(lines[1], &[&[r#""event":"ended""#, r#""received":8"#, r#""sent":6"#], &who[..]].concat());
    said(lines[2], &[&[r#""event":"refused""#, "alone: the other side did not come"], &who[..]].concat());
    assert_eq!(lines.len(), 3, "strangers leave no line: {text}");
}

#[tokio::test]
async fn over_ipv6_at_the_same_port() {
    let house = House::at("::".parse().unwrap(), HallRules::default());
    let port = house.relay.single_port().unwrap().get();
    let Ok(mut a) = TcpStream::connect((std::net::Ipv6Addr::LOCALHOST, port)).await else {
        return println!("skipped: this machine has no IPv6");
    };
    a.write_all(CLIENT.line(&to(1, Side::A)).as_bytes()).await.unwrap();
    let mut b = house.show(&DEVICE.line(&to(1, Side::B))).await;
    talk(&mut b, &mut a, b"from IPv4 to IPv6").await;
}

#[tokio::test]
async fn bytes_behind_the_ticket_arrive_first() {
    let house = House::new(HallRules::default());
    let mut b = house.show(&format!("{}first", DEVICE.line(&to(1, Side::B)))).await;
    let mut a = house.show(&CLIENT.line(&to(1, Side::A))).await;
    b.write_all(b" then").await.unwrap();
    let mut bytes = [0; 10];
    timeout(SOON, a.read_exact(&mut bytes)).await.expect("bytes arrive").unwrap();
    assert_eq!(&bytes, b"first then");
    talk(&mut a, &mut b, b"x").await;
}

#[tokio::test]
async fn who_is_not_let_in_is_told_why() {
    let house = House::new(HallRules { wait: Duration::from_millis(200), ..HallRules::default() });
    let a = to(1, Side::A);
    assert_eq!(house.code("ticket:nonsense\n").await, RefusalCode::BadTicket);
    assert_eq!(house.code(&format!("ticket:{}\n", "A".repeat(5000))).await, RefusalCode::BadTicket);
    let elsewhere = TicketTo { relay: at("other"), ..a.clone() };
    assert_eq!(house.code(&CLIENT.line(&elsewhere)).await, RefusalCode::BadTicket);
    assert_eq!(house.code(&MALLORY.line(&a)).await, RefusalCode::BadTicket);
    let hers = TicketTo { client: at("mallory"), ..a.clone() };
    assert_eq!(house.code(&MALLORY.line(&hers)).await, RefusalCode::NotServed);
    let stale = CLIENT.line_made(&a, now_ms() - 10 * 60_000);
    assert_eq!(house.code(&stale).await, RefusalCode::Expired);
    assert_eq!(house.servers.asked.load(Ordering::Relaxed), 0, "nobody was asked for the keys of any of these");

    // An impostor has the name and not the key.
    let impostor = Guest { name: at("client"), ..Guest::new("client", None) };
    assert_eq!(house.code(&impostor.line(&a)).await, RefusalCode::UnknownKey);
    let good = CLIENT.line(&a);
    let waited = std::time::Instant::now();
    assert_eq!(house.code(&good).await, RefusalCode::Alone);
    assert!(waited.elapsed() >= Duration::from_millis(200));
    assert_eq!(house.code(&good).await, RefusalCode::BadTicket, "used before");
    assert_eq!(house.relay.totals().tickets_refused, 9);
    until(|| house.relay.sockets() == (0, 0)).await;
}

#[tokio::test]
async fn keys_that_cannot_be_had_are_asked_for_again() {
    let house = House::new(HallRules::default());
    house.servers.down.store(true, Ordering::Relaxed);
    assert_eq!(house.code(&CLIENT.line(&to(1, Side::A))).await, RefusalCode::UnknownKey);
    house.servers.down.store(false, Ordering::Relaxed);
    let mut a = house.show(&CLIENT.line(&to(1, Side::A))).await;
    let mut b = house.show(&DEVICE.line(&to(1, Side::B))).await;
    talk(&mut a, &mut b, b"x").await;
}

#[tokio::test]
async fn one_atsign_has_its_share() {
    let house = House::new(HallRules { sessions_per_atsign: 1, ..HallRules::default() });
    let mut first = house.show(&CLIENT.line(&to(1, Side::A))).await;
    let mut b = house.show(&DEVICE.line(&to(1, Side::B))).await;
    talk(&mut first, &mut b, b"x").await;
    assert_eq!(house.code(&CLIENT.line(&to(2, Side::A))).await, RefusalCode::Quota);
    drop((first, b));
    // It is free again when both have gone, which the relay notices in its own time.
    until(|| house.relay.totals().pairs == 1).await;
    let mut a = house.show(&CLIENT.line(&to(3, Side::A))).await;
    let mut b = house.show(&DEVICE.line(&to(3, Side::B))).await;
    talk(&mut a, &mut b, b"x").await;
}

#[tokio::test]
async fn a_later_epoch_ends_the_earlier() {
    let house = House::new(HallRules::default());
    let epoch = |epoch, side| TicketTo { epoch, ..to(1, side) };
    let mut a = house.show(&CLIENT.line(&epoch(0, Side::A))).await;
    let mut b = house.show(&DEVICE.line(&epoch(0, Side::B))).await;
    talk(&mut a, &mut b, b"x").await;
    let mut again_b = house.show(&DEVICE.line(&epoch(1, Side::B))).await;
    for old in [&mut a, &mut b] {
        let cut = timeout(SOON, old.read(&mut [0])).await.expect("the old pair is cut");
        assert!(matches!(cut, Ok(0) | Err(_)));
    }
    let mut again_a = house.show(&CLIENT.line(&epoch(1, Side::A))).await;
    talk(&mut again_a, &mut again_b, b"goes on").await;
}

#[tokio::test]
async fn who_waits_is_told_when_the_relay_stops_and_pairs_are_cut() {
    let house = House::new(HallRules::default());
    let waits = house.show(&DEVICE.line(&to(1, Side::B))).await;
    let mut a = house.show(&CLIENT.line(&to(2, Side::A))).await;
    let mut b = house.show(&DEVICE.line(&to(2, Side::B))).await;
    talk(&mut a, &mut b, b"x").await;
    assert!(house.tasks.close_and_wait(SOON).await, "everything has ended");
    assert_eq!(code(waits).await, RefusalCode::Stopping);
    assert!(matches!(timeout(SOON, a.read(&mut [0])).await.unwrap(), Ok(0) | Err(_)));
    assert_eq!(house.relay.totals().pairs, 1);
}
