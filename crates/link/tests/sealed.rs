//! Sealed sessions over real sockets: a relay of the test's own that can be cut, and plain text where TLS would be (that is
//! tested where it lives).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postern_link::sealed::*;
use postern_net::tasks::Tasks;
use postern_session::HostPort;
use postern_streams::RefusalCode;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(30);
const HELLO: &[u8] = b"\x16hello";

/// Plain text with a greeting and a last byte.
#[derive(Default)]
struct Plain {
    greeting: Vec<u8>,
    closed: bool,
}

impl End for Plain {
    fn read(&mut self, tls: &mut [u8], plain: &mut dyn FnMut(&[u8])) -> Result<usize, EndFault> {
        plain(tls);
        Ok(tls.len())
    }
    fn write(&mut self, head: &[u8], body: &[u8], tls: &mut Vec<u8>) -> Result<(), EndFault> {
        self.flush(tls);
        tls.extend_from_slice(head);
        tls.extend_from_slice(body);
        Ok(())
    }
    fn flush(&mut self, tls: &mut Vec<u8>) {
        tls.append(&mut self.greeting);
    }
    fn close(&mut self, _: &mut Vec<u8>) {
        self.closed = true;
    }
    fn closed(&self) -> bool {
        self.closed
    }
    fn proven(&self) -> bool {
        true
    }
    fn facts(&self) -> Facts {
        Facts { key_exchange: "none".into(), cipher: "none".into() }
    }
}

#[derive(Default)]
struct PlainKnock(usize);

impl Knocking for PlainKnock {
    fn read(&mut self, tls: &[u8]) -> Result<usize, EndFault> {
        let take = tls.len().min(HELLO.len() - self.0);
        assert_eq!(tls[..take], HELLO[self.0..self.0 + take]);
        self.0 += take;
        Ok(take)
    }
    fn answered(&self) -> bool {
        self.0 == HELLO.len()
    }
}

/// Joins by the ticket's text, and can cut what it has joined.
#[derive(Clone)]
struct Relay {
    address: SocketAddr,
    cut: Arc<Mutex<CancellationToken>>,
    /// Joined sockets are kept open and nothing is carried any more.
    frozen: Arc<Mutex<CancellationToken>>,
    closed: CancellationToken,
    tasks: Tasks,
}

impl Relay {
    async fn start(tasks: &Tasks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Self {
            address: listener.local_addr().unwrap(),
            cut: Arc::default(),
            frozen: Arc::default(),
            closed: CancellationToken::new(),
            tasks: tasks.clone(),
        };
        let waiting = Arc::new(Mutex::new(HashMap::<String, TcpStream>::new()));
        let (cut, frozen) = (Arc::clone(&relay.cut), Arc::clone(&relay.frozen));
        let (inner, closed) = (tasks.clone(), relay.closed.clone());
        drop(tasks.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                if closed.is_cancelled() {
                    continue;
                }
                let (cut, frozen, waiting) = (Arc::clone(&cut), Arc::clone(&frozen), Arc::clone(&waiting));
                drop(inner.spawn(async move {
                    let mut line = String::new();
                    let mut reader = BufReader::with_capacity(1, socket);
                    reader.read_line(&mut line).await.unwrap();
                    let mut socket = reader.into_inner();
                    if line.contains("nobody") {
                        socket.write_all(b"!not-served who are you\n").await.unwrap();
                        return;
                    }
                    let other = waiting.lock().unwrap().remove(&line);
                    let Some(mut other) = other else {
                        waiting.lock().unwrap().insert(line, socket);
                        return;
                    };
                    let (cut, frozen) = (cut.lock().unwrap().clone(), frozen.lock().unwrap().clone());
                    tokio::select! {
                        () = cut.cancelled() => {}
                        () = frozen.cancelled() => std::future::pending().await,
                        _ = tokio::io::copy_bidirectional(&mut socket, &mut other) => {}
                    }
                }));
            }
        }));
        relay
    }

    fn address(&self) -> RelayAddress {
        RelayAddress::new(&self.address.ip().to_string(), self.address.port(), false).unwrap()
    }

    /// Ends what is joined, and whoever comes is sent away.
    fn close(&self) {
        self.closed.cancel();
        self.cut();
    }

    /// What is joined now carries nothing any more, and nobody is told: an address that is gone, a cable that is out.
    fn freeze(&self) {
        std::mem::take(&mut *self.frozen.lock().unwrap()).cancel();
    }

    /// Ends what is joined now.
    fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
    }
}

/// Dials what it is told, except port 1.
struct Dialler;

impl Authorize for Dialler {
    fn dial<'a>(&'a self, target: &'a Target) -> Future<'a, Result<TcpStream, Refusal>> {
        Box::pin(async move {
            let Target::HostPort(target) = target else {
                return Err(Refusal { code: RefusalCode::NotPermitted, text: "no ssh here".into() });
            };
            if target.port == 1 {
                return Err(Refusal { code: RefusalCode::NotPermitted, text: "not on the list".into() });
            }
            Ok(TcpStream::connect((target.host.as_str(), target.port)).await?)
        })
    }

    fn listen(&self, port: u16) -> Future<'_, Result<Vec<TcpListener>, Refusal>> {
        Box::pin(async move {
            if port == 1 {
                return Err(Refusal { code: RefusalCode::NotPermitted, text: "not on the list".into() });
            }
            Ok(vec![TcpListener::bind(("127.0.0.1", port)).await?])
        })
    }
}

struct House {
    relay: Relay,
    client: Sealed,
    device: Sealed,
    tasks: Tasks,
}

fn ticket(session: &'static str) -> Ticket {
    Box::new(move |_, epoch| Ok(format!("ticket:{session}{epoch}\n")))
}

fn greeting() -> Plain {
    Plain { greeting: HELLO.to_vec(), closed: false }
}

impl House {
    async fn start(resume: Duration) -> Self {
        let tasks = Tasks::new();
        let relay = Relay::start(&tasks).await;
        let device = serve(
            DevicePlan {
                relays: vec![relay.address()],
                ticket: ticket("one"),
                end: greeting(),
                authorize: Arc::new(Dialler),
                ssh: false,
                resume,
                stop: tasks.token().clone(),
            },
            &tasks,
        )
        .await
        .unwrap();
        let (ask, mut asked) = mpsc::channel::<u32>(4);
        let plan = ClientPlan {
            relays: vec![relay.address()],
            ticket: ticket("one"),
            knock: PlainKnock::default(),
            believe: Box::new(|_: PlainKnock| Box::pin(async { Ok(Plain::default()) })),
            ask_again: (!resume.is_zero()).then(|| -> AskAgain<PlainKnock> {
                Box::new(move |epoch| {
                    let ask = ask.clone();
                    Box::pin(async move {
                        ask.send(epoch).await?;
                        let refused = Box::pin(std::future::pending());
                        Ok(Asked { knock: PlainKnock::default(), refused })
                    })
                })
            }),
            resume,
            first: None,
            stop: tasks.token().clone(),
        };
        let client = dial(plan, LONG, &tasks).await.unwrap();
        let (again, place) = (device.clone(), relay.address());
        drop(tasks.spawn(async move {
            while let Some(epoch) = asked.recv().await {
                let _ = again.resume(greeting(), epoch, std::slice::from_ref(&place), &ticket("one")).await;
            }
        }));
        Self { relay, client, device, tasks }
    }

    /// A program at the client's end, and its stream's outcome.
    fn program(&self, port: u16) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<Result<Carried, StreamRefused>>) {
        let (near, far) = tokio::io::duplex(100_000);
        let client = self.client.clone();
        let carrying = self.tasks.spawn(async move { client.carry(Local::new(far), to(port)).await });
        (near, carrying)
    }
}

use postern_link::Carried;
use postern_rendezvous::RelayAddress;

fn to(port: u16) -> Target {
    Target::HostPort(HostPort { host: "127.0.0.1".into(), port })
}

/// Sends back what it gets, and ends when that ends.
async fn echo(tasks: &Tasks) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let inner = tasks.clone();
    drop(tasks.spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            drop(inner.spawn(async move {
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            }));
        }
    }));
    port
}

fn noise(length: usize) -> Vec<u8> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random.to_le_bytes()[0]
    })
    .take(length)
    .collect()
}

async fn within<T>(future: impl std::future::Future<Output = T>) -> T {
    timeout(LONG, future).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_carry_bytes_both_ways_and_end_by_halves() {
    let house = House::start(Duration::ZERO).await;
    let port = echo(&house.tasks).await;
    let mut running = Vec::new();
    for n in 0..20 {
        let (near, carrying) = house.program(port);
        let bytes = noise(200_000 + n);
        running.push((
            bytes.len() as u64,
            carrying,
            house.tasks.spawn(async move {
                let (mut read, mut write) = tokio::io::split(near);
                let (sent, mut got) = (bytes.clone(), Vec::new());
                let writing = async move {
                    write.write_all(&sent).await.unwrap();
                    write.shutdown().await.unwrap();
                };
                let (_, read) = tokio::join!(writing, read.read_to_end(&mut got));
                read.unwrap();
                assert!(got == bytes);
            }),
        ));
    }
    for (length, carrying, checked) in running {
        within(checked).await.unwrap();
        assert_eq!(within(carrying).await.unwrap().unwrap(), Carried { out: length, back: length });
    }
    house.client.close("done here").await;
    let ended = within(house.device.ended()).await;
    assert_eq!(ended.why, Why::ClosedByPeer("done here".into()));
    assert_eq!(within(house.client.ended()).await.why, Why::Closed("done here".into()));
    assert_eq!(ended.carried.out, (0..20).map(|n| 200_000 + n).sum::<u64>());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_says_why_not() {
    let house = House::start(Duration::ZERO).await;
    let refused = |target| async { within(house.client.open(target)).await.err().unwrap() };
    assert_eq!(refused(to(1)).await.to_string(), "the device refused: not permitted: not on the list");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    assert!(matches!(refused(to(nobody)).await, StreamRefused::Refused(RefusalCode::TargetRefused, _)));
    assert_eq!(refused(Target::Ssh).await, StreamRefused::Refused(RefusalCode::NotPermitted, "no ssh here".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_read_stops_no_other() {
    let house = House::start(Duration::ZERO).await;
    let port = echo(&house.tasks).await;
    let (mut stalled, _carrying) = house.program(port);
    let fill = house.tasks.spawn(async move {
        while timeout(Duration::from_millis(500), stalled.write_all(&[7; 50_000])).await.is_ok() {}
        stalled
    });
    let stalled = within(fill).await.unwrap();
    let opened = within(house.client.open(to(port))).await.unwrap();
    let (mut near, far) = tokio::io::duplex(1 << 20);
    let carrying = house.tasks.spawn(opened.carry(Local::new(far)));
    within(near.write_all(b"hello")).await.unwrap();
    let mut got = [0; 5];
    within(near.read_exact(&mut got)).await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(within(carrying).await.unwrap().unwrap(), Carried { out: 5, back: 5 });
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_survives_the_loss_of_its_way_again_and_again() {
    let house = House::start(Duration::from_secs(60)).await;
    let port = echo(&house.tasks).await;
    let (near, carrying) = house.program(port);
    let bytes = noise(8_000_000);
    let (mut read, mut write) = tokio::io::split(near);
    let sent = bytes.clone();
    let writing = house.tasks.spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut got = vec![0; bytes.len()];
    for (n, part) in got.chunks_mut(2_000_000).enumerate() {
        within(read.read_exact(part)).await.unwrap();
        if n < 3 {
            house.relay.cut();
        }
    }
    assert!(got == bytes);
    assert_eq!(within(read.read(&mut [0])).await.unwrap(), 0);
    within(writing).await.unwrap();
    assert_eq!(within(carrying).await.unwrap().unwrap(), Carried { out: 8_000_000, back: 8_000_000 });
    // The last bytes may have been here already when the way was cut, and a cut may have met one that was lost anyhow.
    let back = async {
        while house.client.progress().state != State::Live {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(back).await;
    let progress = house.client.progress();
    assert!(progress.epoch >= 1, "{progress:?}");
    house.client.close("done").await;
    assert_eq!(within(house.device.ended()).await.why, Why::ClosedByPeer("done".into()));
}

/// Takes some 12 s: silence is what tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_falls_silent_is_given_up_and_another_is_found() {
    let house = House::start(Duration::from_secs(60)).await;
    let port = echo(&house.tasks).await;
    let (mut near, _carrying) = house.program(port);
    let mut got = [0; 6];
    within(near.write_all(b"before")).await.unwrap();
    within(near.read_exact(&mut got)).await.unwrap();
    house.relay.freeze();
    within(near.write_all(b"behind")).await.unwrap();
    within(near.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"behind");
    assert_eq!(house.client.progress().epoch, 1);
    assert_eq!(house.device.progress().epoch, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_nobody_mends_ends_when_its_time_is_over() {
    let house = House::start(Duration::from_secs(2)).await;
    let port = echo(&house.tasks).await;
    let (_near, carrying) = house.program(port);
    let opened = within(house.client.open(to(port))).await.unwrap();
    house.relay.close();
    let why = Why::NotResumed(Duration::from_secs(2));
    assert_eq!(within(house.device.ended()).await.why, why);
    assert_eq!(within(house.client.ended()).await.why, why);
    assert_eq!(within(carrying).await.unwrap(), Err(StreamRefused::Over(why)));
    drop(opened);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_resumption_off_a_loss_is_the_end() {
    let house = House::start(Duration::ZERO).await;
    let port = echo(&house.tasks).await;
    let (_near, carrying) = house.program(port);
    let opened = within(house.client.open(to(port))).await.unwrap();
    house.relay.cut();
    assert_eq!(within(carrying).await.unwrap(), Err(StreamRefused::Over(Why::Lost)));
    assert_eq!(within(house.device.ended()).await.why, Why::Lost);
    assert!(within(opened.carry(Local::new(tokio::io::empty()))).await.is_err());
    assert_eq!(house.client.progress().state, State::Over);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plans_stop_ends_it_at_both_ends() {
    let house = House::start(Duration::from_secs(60)).await;
    // One token stops both ends here; whichever is first, neither waits for a resumption.
    house.tasks.token().cancel();
    for end in [&house.client, &house.device] {
        let why = within(end.ended()).await.why;
        assert!(matches!(why, Why::Closed(_) | Why::ClosedByPeer(_)), "{why:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_handle_resets_the_stream() {
    let house = House::start(Duration::ZERO).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let opened = house.client.open(to(listener.local_addr().unwrap().port()));
    let (opened, accepted) = tokio::join!(within(opened), within(listener.accept()));
    let (mut socket, _) = accepted.unwrap();
    drop(opened.unwrap());
    assert!(matches!(within(socket.read(&mut [0])).await, Ok(0) | Err(_)));
}

/// Leads to one port, whatever is asked.
struct SshAt(u16);

impl Authorize for SshAt {
    fn dial<'a>(&'a self, target: &'a Target) -> Future<'a, Result<TcpStream, Refusal>> {
        Box::pin(async move {
            assert_eq!(*target, Target::Ssh);
            Ok(TcpStream::connect(("127.0.0.1", self.0)).await?)
        })
    }
}

/// A session whose first stream is open from the start; the program's end of it.
async fn ssh_session(tasks: &Tasks, ssh: u16) -> (Sealed, tokio::io::DuplexStream) {
    let relay = Relay::start(tasks).await;
    let plan = DevicePlan {
        relays: vec![relay.address()],
        ticket: ticket("ssh"),
        end: greeting(),
        authorize: Arc::new(SshAt(ssh)),
        ssh: true,
        resume: Duration::ZERO,
        stop: tasks.token().clone(),
    };
    serve(plan, tasks).await.unwrap();
    let (near, far) = tokio::io::duplex(100_000);
    let plan = ClientPlan {
        relays: vec![relay.address()],
        ticket: ticket("ssh"),
        knock: PlainKnock::default(),
        believe: Box::new(|_: PlainKnock| Box::pin(async { Ok(Plain::default()) })),
        ask_again: None,
        resume: Duration::ZERO,
        first: Some(Local::new(far)),
        stop: tasks.token().clone(),
    };
    (dial(plan, LONG, tasks).await.unwrap(), near)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_to_the_ssh_server_is_open_from_the_start() {
    let tasks = Tasks::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (started, accepted) = tokio::join!(ssh_session(&tasks, port), within(listener.accept()));
    let ((session, mut near), (mut sshd, _)) = (started, accepted.unwrap());
    // The server speaks first, as ssh does; nothing was asked for.
    sshd.write_all(b"SSH-2.0-test\r\n").await.unwrap();
    let mut greeting = [0; 14];
    within(near.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"SSH-2.0-test\r\n");
    within(near.write_all(b"bye")).await.unwrap();
    near.shutdown().await.unwrap();
    let mut said = Vec::new();
    within(sshd.read_to_end(&mut said)).await.unwrap();
    assert_eq!(said, b"bye");
    drop(sshd);
    assert_eq!(within(session.first()).await.unwrap(), Carried { out: 3, back: 14 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_an_ssh_server_says_so() {
    let tasks = Tasks::new();
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (session, _near) = ssh_session(&tasks, nobody).await;
    let error = within(session.first()).await.unwrap_err();
    assert!(matches!(error, StreamRefused::Refused(RefusalCode::TargetRefused, _)), "{error}");
}

#[tokio::test]
async fn a_relay_that_refuses_is_quoted() {
    let tasks = Tasks::new();
    let relay = Relay::start(&tasks).await;
    let plan = ClientPlan {
        relays: vec![relay.address()],
        ticket: ticket("nobody"),
        knock: PlainKnock::default(),
        believe: Box::new(|_: PlainKnock| Box::pin(async { Ok(Plain::default()) })),
        ask_again: None,
        resume: Duration::ZERO,
        first: None,
        stop: CancellationToken::new(),
    };
    let error = within(dial(plan, LONG, &tasks)).await.err().unwrap();
    assert_eq!(error.to_string(), format!("the relay {} refused: who are you (not-served)", relay.address));
    let _ = relay.tasks;
}

/// A port that is free now.
async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Waits until nobody listens on a port.
async fn until_closed(port: u16) {
    while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn has_it_listen(house: &House, port: u16, target: u16) -> Result<Listening, StreamRefused> {
    let target = HostPort { host: "127.0.0.1".into(), port: target };
    within(house.client.listen(port, target, Arc::new(Dialler))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_hands_connections_to_the_client_over_losses_and_stops_when_asked() {
    let house = House::start(Duration::from_secs(60)).await;
    let (target, port) = (echo(&house.tasks).await, free_port().await);
    let listening = has_it_listen(&house, port, target).await.unwrap();
    let bytes = noise(1_000_000);
    for round in 0..3 {
        let mut guest = within(TcpStream::connect(("127.0.0.1", port))).await.unwrap();
        let (mut read, mut write) = guest.split();
        let sending = async {
            write.write_all(&bytes[..500_000]).await.unwrap();
            if round == 1 {
                house.relay.cut();
            }
            write.write_all(&bytes[500_000..]).await.unwrap();
            // The echo ends when it has heard the end, and not before: both halves end by themselves.
            write.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (_, read) = within(async { tokio::join!(sending, read.read_to_end(&mut got)) }).await;
        read.unwrap();
        assert!(got == bytes, "{} bytes in round {round}", got.len());
    }
    assert!(house.device.progress().epoch >= 1, "the cut was not noticed");
    drop(listening);
    within(until_closed(port)).await;
    assert_eq!(house.client.progress().state, State::Live);
    // The port may be asked for again, and is closed with the session.
    let listening = has_it_listen(&house, port, target).await.unwrap();
    house.client.close("done").await;
    within(until_closed(port)).await;
    assert!(matches!(within(listening.ended()).await, Err(StreamRefused::Over(Why::Closed(_)))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_device_does_not_listen_on_and_the_client_cannot_reach() {
    let house = House::start(Duration::ZERO).await;
    let refused = has_it_listen(&house, 1, 80).await.err();
    assert_eq!(refused, Some(StreamRefused::Refused(RefusalCode::NotPermitted, "not on the list".into())));
    // The client refuses to dial port 1, so the program at the device meets an end.
    let port = free_port().await;
    let _listening = has_it_listen(&house, port, 1).await.unwrap();
    let mut guest = within(TcpStream::connect(("127.0.0.1", port))).await.unwrap();
    let end = within(guest.read(&mut [0])).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    // A client that did not ask is handed nothing, and a client cannot be made to dial.
    let made = within(house.device.carry(Local::new(tokio::io::duplex(8).0), to(port))).await;
    assert_eq!(made, Err(StreamRefused::Refused(RefusalCode::NotPermitted, String::new())));
}
