//! Sealed sessions with their true handshake, over real sockets and through a relay that changes bytes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use postern_crypto::{Ed25519PrivateKey, RsaPrivateKey};
use postern_identity::{Expected, Voucher, VoucherClaim};
use postern_link::sealed::*;
use postern_net::tasks::Tasks;
use postern_proto::{AtSign, SigningKeyName, Uuid};
use postern_rendezvous::RelayAddress;
use postern_seal::{Answer, DeviceEnd, Knock, Waiting};
use postern_session::{Admitted, DeviceName, Door, Envelope, Guest, Offer, PermitOpen, SignedRequest, SshRequest};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const NOW: u64 = 1_800_000_000_000;
const FIRST_WORDS: &[u8] = b"SSH-2.0-program\r\n";
const LONG: Duration = Duration::from_secs(30);

static KEY: LazyLock<RsaPrivateKey> = LazyLock::new(|| RsaPrivateKey::generate().unwrap());

/// Which byte of which direction the relay changes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    Nothing,
    ToClient(usize),
    ToDevice(usize),
}

/// What the relay has carried.
#[derive(Default)]
struct Seen {
    from_client: usize,
    from_device: usize,
}

struct Relay {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Relay {
    /// Joins one client and one device.
    async fn start(tasks: &Tasks, lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (inner, carried) = (tasks.clone(), Arc::clone(&seen));
        drop(tasks.spawn(async move {
            let (mut client, mut device) = (None, None);
            while client.is_none() || device.is_none() {
                let mut socket = BufReader::with_capacity(1, listener.accept().await.unwrap().0);
                let mut line = String::new();
                socket.read_line(&mut line).await.unwrap();
                let place = if line == "ticket:client\n" { &mut client } else { &mut device };
                *place = Some(socket.into_inner());
            }
            let (client_read, client_write) = client.unwrap().into_split();
            let (device_read, device_write) = device.unwrap().into_split();
            let counted = Arc::clone(&carried);
            let to_device = if let Lie::ToDevice(at) = lie { Some(at) } else { None };
            let to_client = if let Lie::ToClient(at) = lie { Some(at) } else { None };
            let count = move |n| counted.lock().unwrap().from_client += n;
            drop(inner.spawn(carry(client_read, device_write, to_device, count)));
            carry(device_read, client_write, to_client, move |n| carried.lock().unwrap().from_device += n).await;
        }));
        Self { address, seen }
    }

    fn places(&self) -> Vec<RelayAddress> {
        vec![RelayAddress::new(&self.address.ip().to_string(), self.address.port(), false).unwrap()]
    }
}

/// Carries bytes; the one at `change` becomes another.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, change: Option<usize>, count: impl Fn(usize)) {
    let (mut buffer, mut done) = (vec![0; 16 * 1024], 0);
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if let Some(byte) = change.and_then(|at| at.checked_sub(done)).and_then(|at| buffer[..n].get_mut(at)) {
            *byte ^= 0x10;
        }
        done += n;
        count(n);
        if to.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
}

fn vouched(at_sign: &AtSign, device: Option<&DeviceName>, key: &Ed25519PrivateKey) -> (String, Voucher) {
    let name = SigningKeyName::new(None, at_sign).unwrap();
    let text = Voucher::issue(&key.public_key(), device, &KEY, (&name, &KEY), NOW, 86_400_000).unwrap();
    let claim = VoucherClaim::parse(&text).unwrap();
    let voucher = claim.believe(Expected { at_sign, device }, &KEY.public_key().unwrap(), None, NOW).unwrap();
    (text, voucher)
}

struct SshAt(u16);

impl Authorize for SshAt {
    fn dial<'a>(&'a self, target: &'a Target) -> Future<'a, Result<TcpStream, Refusal>> {
        Box::pin(async move {
            assert_eq!(*target, Target::Ssh);
            Ok(TcpStream::connect(("127.0.0.1", self.0)).await?)
        })
    }
}

/// Request, admission, reply, belief: as client and device do it.
struct Scene {
    relay: Relay,
    sshd: TcpListener,
    device: Sealed,
    client: Result<Sealed, DialError>,
    program: tokio::io::DuplexStream,
}

impl Scene {
    async fn play(tasks: &Tasks, lie: Lie) -> Self {
        let (alice, gateway) = (AtSign::parse("alice").unwrap(), AtSign::parse("device").unwrap());
        let name = DeviceName::parse("gw-17").unwrap();
        let (client_key, device_key) = (Ed25519PrivateKey::generate().unwrap(), Ed25519PrivateKey::generate().unwrap());
        let (client_text, client_voucher) = vouched(&alice, None, &client_key);
        let (device_text, device_voucher) = vouched(&gateway, Some(&name), &device_key);
        let relay = Relay::start(tasks, lie).await;

        let (knock, hello) = Knock::new().unwrap();
        let session_id = Uuid::from_random(postern_crypto::random());
        let offer = Offer {
            hello,
            to: gateway.clone(),
            device: name.clone(),
            issued_ms: NOW,
            expires_ms: NOW + 30_000,
            nonce: postern_crypto::random(),
            epoch: 0,
            resume: Duration::ZERO,
            relays: Vec::new(),
            only: true,
        };
        let request = SshRequest::sealed(&session_id, &offer);
        let text = Envelope::sign_sealed(&request, &KEY, None, (&client_key, &client_text)).unwrap();
        let envelope = Envelope::parse(&text).unwrap();
        let knock = knock.asked(postern_seal::Asked {
            request: envelope.payload_hash(),
            session_id,
            epoch: 0,
            at_sign: gateway.clone(),
            device: name.clone(),
            own: alice.clone(),
        });

        let signed = SignedRequest::verify::<SshRequest>(&envelope, client_voucher, &gateway, &name).unwrap();
        let guest = Guest::manager(std::slice::from_ref(&alice), &alice).unwrap();
        let admitted: Admitted = Door::new(PermitOpen::default()).knock_sealed(&guest, signed, 22, None, NOW).unwrap();
        let answer = Answer {
            at_sign: &gateway,
            device: &name,
            identity: &device_key,
            voucher: &device_text,
            resume: Duration::ZERO,
            ssh_host_keys: &[],
            now_ms: NOW,
        };
        let sshd = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plan = DevicePlan {
            relays: relay.places(),
            ticket: Box::new(|_, _| Ok("ticket:device\n".into())),
            end: DeviceEnd::accept(&admitted, &answer).unwrap(),
            authorize: Arc::new(SshAt(sshd.local_addr().unwrap().port())),
            ssh: true,
            resume: Duration::ZERO,
            stop: tasks.token().clone(),
        };
        let device = serve(plan, tasks).await.unwrap();

        let (mut program, local) = tokio::io::duplex(100_000);
        // What the program says at once goes out right behind the proof.
        program.write_all(FIRST_WORDS).await.unwrap();
        let client_key = Arc::new(client_key);
        let plan = ClientPlan {
            relays: relay.places(),
            ticket: Box::new(|_, _| Ok("ticket:client\n".into())),
            knock,
            believe: Box::new(move |waiting: Waiting| {
                let (voucher, key) = (device_voucher.clone(), Arc::clone(&client_key));
                Box::pin(async move { Ok(waiting.open(&voucher, &key, NOW)?) })
            }),
            ask_again: None,
            resume: Duration::ZERO,
            first: Some(Local::new(local)),
            stop: tasks.token().clone(),
        };
        // A length that was made longer waits for what never comes.
        let client = within(dial(plan, Duration::from_secs(2), tasks)).await;
        Self { relay, sshd, device, client, program }
    }
}

async fn within<T>(future: impl std::future::Future<Output = T>) -> T {
    timeout(LONG, future).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_with_its_handshake_reaches_the_ssh_server() {
    let tasks = Tasks::new();
    let mut scene = Scene::play(&tasks, Lie::Nothing).await;
    let client = scene.client.unwrap();
    assert_eq!(client.facts().key_exchange, "X25519MLKEM768");
    assert!(client.facts().cipher.starts_with("TLS13_"), "{:?}", client.facts());
    let (mut sshd, _) = within(scene.sshd.accept()).await.unwrap();
    sshd.write_all(b"SSH-2.0-test\r\n").await.unwrap();
    let mut greeting = [0; 14];
    within(scene.program.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"SSH-2.0-test\r\n");
    scene.program.write_all(&[7; 60_000]).await.unwrap();
    scene.program.shutdown().await.unwrap();
    let mut said = Vec::new();
    within(sshd.read_to_end(&mut said)).await.unwrap();
    assert!(said.strip_prefix(FIRST_WORDS) == Some(&[7; 60_000]));
    drop(sshd);
    assert_eq!(within(client.first()).await.unwrap().out, said.len() as u64);
    client.close("done").await;
    assert_eq!(within(scene.device.ended()).await.why, Why::ClosedByPeer("done".into()));
}

/// A relay that changes one byte of the device's flight or reply: the client does not open, and has not said a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_changes_the_answer_hears_nothing_from_the_client() {
    let tasks = Tasks::new();
    // A first run tells how long the flight is: the hybrid's ServerHello, certificate, reply.
    for at in [0, 7, 60, 300, 1200, 1300, 1500, 1700, 1900, 2400] {
        let scene = Scene::play(&tasks, Lie::ToClient(at)).await;
        let error = scene.client.err().unwrap_or_else(|| panic!("byte {at}: it was believed"));
        let seen = scene.relay.seen.lock().unwrap();
        assert_eq!(seen.from_client, 0, "byte {at}: {error}");
        assert!(seen.from_device > at, "byte {at} was not of the flight");
    }
}

/// A relay that changes one byte of the client's Finished or proof: the ssh server hears nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_changes_the_proof_gets_nothing_to_the_ssh_server() {
    let tasks = Tasks::new();
    for at in [12, 40, 70, 90, 200, 300] {
        let scene = Scene::play(&tasks, Lie::ToDevice(at)).await;
        let _client = scene.client.unwrap();
        let (mut sshd, _) = within(scene.sshd.accept()).await.unwrap();
        let ended = within(scene.device.ended()).await;
        assert!(matches!(ended.why, Why::Broken(_) | Why::Lost), "byte {at}: {:?}", ended.why);
        let mut said = Vec::new();
        let _ = within(sshd.read_to_end(&mut said)).await;
        assert!(said.is_empty(), "byte {at}");
    }
}
