//! Real ssh and scp through a sealed session, behind two NATs: the relay dies and another takes its place, the client has
//! another address, the device's way out dies and comes back; a shell and a copy of 200 MiB go on.
//!
//! Frames, records and driver are the product's; keys are given in place of a handshake, and requests to resume go through
//! a channel in place of notifications.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_crypto::AeadAlgorithm;
use postern_house::{behind_nat, checksum, random_file};
use postern_link::sealed::{
    AskAgain, Asked, Authorize, ClientPlan, DevicePlan, End, EndFault, Facts, Future, Knocking, Local, Refusal, Sealed,
    Target, Ticket, dial, serve,
};
use postern_net::tasks::Tasks;
use postern_rendezvous::RelayAddress;
use postern_seal::Records;
use postern_session::HostPort;
use postern_testkit::limits::{POLL, READY, SESSION};
use postern_testkit::{Place, Process, say, user_name};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Size of the copied file, in MiB.
const FILE_MIB: u64 = 200;
/// scp's own limit in Kbit/s, so that there is time to do harm: 60 MB/s.
const SCP_LIMIT: &str = "480000";
/// How long both ends would wait.
const RESUME: Duration = Duration::from_secs(120);

/// Keys of an epoch: each connection has others.
struct Keyed {
    records: Records,
    greeting: Vec<u8>,
}

impl Keyed {
    fn of(epoch: u32, device: bool) -> Self {
        let mut keys = [[1; 32], [2; 32]];
        keys.iter_mut().for_each(|key| key[..4].copy_from_slice(&epoch.to_be_bytes()));
        let [mut sealing, mut opening] = keys;
        if device {
            std::mem::swap(&mut sealing, &mut opening);
        }
        let records = Records::danger_with_keys(AeadAlgorithm::Aes256Gcm, &sealing, &opening).expect("32 bytes each");
        Self { records, greeting: if device { vec![0x16] } else { Vec::new() } }
    }
}

impl End for Keyed {
    fn read(&mut self, tls: &mut [u8], plain: &mut dyn FnMut(&[u8])) -> Result<usize, EndFault> {
        self.records.read(tls, plain).map_err(|error| EndFault(error.into()))
    }

    fn write(&mut self, head: &[u8], body: &[u8], tls: &mut Vec<u8>) -> Result<(), EndFault> {
        self.flush(tls);
        self.records.write(head, body, tls).map_err(|error| EndFault(error.into()))
    }

    fn flush(&mut self, tls: &mut Vec<u8>) {
        tls.append(&mut self.greeting);
    }

    fn close(&mut self, tls: &mut Vec<u8>) {
        let _ = self.records.close(tls);
    }

    fn closed(&self) -> bool {
        self.records.closed()
    }

    fn proven(&self) -> bool {
        true
    }

    fn facts(&self) -> Facts {
        Facts::default()
    }
}

struct Knock {
    epoch: u32,
    answered: bool,
}

impl Knocking for Knock {
    fn read(&mut self, _: &[u8]) -> Result<usize, EndFault> {
        self.answered = true;
        Ok(1)
    }

    fn answered(&self) -> bool {
        self.answered
    }
}

struct Sshd(u16);

impl Authorize for Sshd {
    fn dial<'a>(&'a self, _: &'a Target) -> Future<'a, Result<TcpStream, Refusal>> {
        Box::pin(async move { Ok(TcpStream::connect(("127.0.0.1", self.0)).await?) })
    }
}

fn ticket() -> Ticket {
    Box::new(|_, epoch| Ok(format!("ticket:{epoch}\n")))
}

/// Runs `work` to its end on a thread and runtime of its own in `place`.
fn at<W: std::future::Future<Output = anyhow::Result<()>>>(place: Place, work: impl FnOnce() -> W + Send + 'static) {
    std::thread::spawn(move || {
        let outcome = place.within(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work())
        });
        if let Err(error) = outcome {
            say(format_args!("{error:#}"));
        }
    });
}

/// Joins the two that show the same ticket, until `life` ends: then it is dead like a killed process.
async fn relay(listener: std::net::TcpListener, life: CancellationToken) -> anyhow::Result<()> {
    let work = async {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (tasks, waiting) = (Tasks::new(), Arc::new(Mutex::new(HashMap::<String, TcpStream>::new())));
        loop {
            let (socket, _) = listener.accept().await?;
            let (waiting, life) = (Arc::clone(&waiting), life.clone());
            drop(tasks.spawn(async move {
                let mut line = String::new();
                let mut reader = BufReader::with_capacity(1, socket);
                if reader.read_line(&mut line).await.is_err() {
                    return;
                }
                let mut socket = reader.into_inner();
                let other = waiting.lock().expect("no holder panics").remove(&line);
                let Some(mut other) = other else {
                    waiting.lock().expect("no holder panics").insert(line, socket);
                    return;
                };
                tokio::select! {
                    () = life.cancelled() => {}
                    _ = tokio::io::copy_bidirectional(&mut socket, &mut other) => {}
                }
            }));
        }
    };
    tokio::select! {
        () = life.cancelled() => Ok(()),
        outcome = work => outcome,
    }
}

async fn device(relay: RelayAddress, ssh: u16, mut again: mpsc::Receiver<u32>) -> anyhow::Result<()> {
    let tasks = Tasks::new();
    let relays = vec![relay];
    let plan = DevicePlan {
        relays: relays.clone(),
        ticket: ticket(),
        end: Keyed::of(0, true),
        authorize: Arc::new(Sshd(ssh)),
        ssh: false,
        resume: RESUME,
        stop: tasks.token().clone(),
    };
    let session = serve(plan, &tasks).await?;
    while let Some(epoch) = again.recv().await {
        // A device without a way out hears of nothing and reaches nobody; the client asks again.
        let _ = session.resume(Keyed::of(epoch, true), epoch, &relays, &ticket()).await;
    }
    session.ended().await;
    Ok(())
}

async fn client(relay: RelayAddress, again: mpsc::Sender<u32>, up: Sender<(Sealed, u16)>) -> anyhow::Result<()> {
    let tasks = Tasks::new();
    let ask_again: AskAgain<Knock> = Box::new(move |epoch| {
        let again = again.clone();
        Box::pin(async move {
            again.send(epoch).await?;
            Ok(Asked { knock: Knock { epoch, answered: false }, refused: Box::pin(std::future::pending()) })
        })
    });
    let plan = ClientPlan {
        relays: vec![relay],
        ticket: ticket(),
        knock: Knock { epoch: 0, answered: false },
        believe: Box::new(|knock: Knock| Box::pin(async move { Ok(Keyed::of(knock.epoch, false)) })),
        ask_again: Some(ask_again),
        resume: RESUME,
        first: None,
        stop: tasks.token().clone(),
    };
    let session = dial(plan, READY, &tasks).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    up.send((session.clone(), listener.local_addr()?.port()))?;
    let target = Target::HostPort(HostPort::localhost(22));
    loop {
        let (socket, _) = listener.accept().await?;
        let (session, target) = (session.clone(), target.clone());
        drop(tasks.spawn(async move { session.carry(Local::from(socket), target).await }));
    }
}

#[test]
fn a_shell_and_a_copy_go_on_when_the_relay_dies_the_address_changes_or_the_way_out_is_cut() -> anyhow::Result<()> {
    behind_nat(|house| {
        let places = house.places().clone();
        let address = SocketAddr::new(places.server.address(), 7443);
        let relay_address = RelayAddress::new(&address.ip().to_string(), address.port(), false)?;
        let start_relay = || -> anyhow::Result<CancellationToken> {
            let life = CancellationToken::new();
            let (token, listener) = (life.clone(), bind(&places.server, address)?);
            at(places.server.clone(), move || relay(listener, token));
            Ok(life)
        };
        let life = start_relay()?;
        let (again, asked) = mpsc::channel(4);
        let (ssh, place) = (house.ssh_port(), relay_address.clone());
        at(places.device.clone(), move || device(place, ssh, asked));
        let (up, is_up) = std::sync::mpsc::channel();
        at(places.client.clone(), move || client(relay_address, again, up));
        let (session, port) = is_up.recv_timeout(READY).context("the session did not come up")?;

        let ssh_words = |command: &mut std::process::Command| {
            for option in house.ssh_options() {
                command.args(["-o", &option]);
            }
            command.arg("-i").arg(house.identity());
        };
        let mut shell = places.client.command("ssh");
        ssh_words(&mut shell);
        shell.args(["-tt", "-p", &port.to_string(), &format!("{}@127.0.0.1", user_name())]);
        let mut shell = Process::start_with(shell, Stdio::piped())?;
        let mut keyboard = shell.stdin().context("standard input was asked for")?;
        let mut answers = |question: u32| -> anyhow::Result<()> {
            keyboard.write_all(format!("echo sum-$(({question}+1000))\n").as_bytes())?;
            let answer = format!("sum-{}", question + 1000);
            shell.wait_for_stdout(SESSION, |screen| screen.contains(&answer)).map(drop)
        };
        answers(1)?;

        let (original, copy) = (house.dir().join("original"), house.dir().join("copy"));
        random_file(original.clone(), FILE_MIB)?;
        let mut scp = places.client.command("scp");
        ssh_words(&mut scp);
        scp.args(["-q", "-l", SCP_LIMIT, "-P", &port.to_string()]);
        scp.arg(format!("{}@127.0.0.1:{}", user_name(), original.display())).arg(&copy);
        let mut scp = Process::start(scp)?;
        let mut until = |mib: u64| -> anyhow::Result<()> {
            while session.progress().carried.back < mib << 20 {
                ensure!(scp.is_running(), "scp ended early: {}", scp.tail());
                std::thread::sleep(POLL);
            }
            Ok(())
        };

        until(30)?;
        life.cancel();
        until_it_is_noticed(&session)?;
        let life = start_relay()?;
        answers(2)?;
        until(80)?;
        let first = session.progress().epoch;
        say(format_args!("the relay was killed and started again: epoch {first}"));
        ensure!(first > 0, "nothing was lost: the test shows nothing");

        house.network().change_client_address()?;
        answers(3)?;
        let second = session.progress().epoch;
        say(format_args!("the client has another address: epoch {second}"));
        ensure!(second > first, "nothing was lost: the test shows nothing");

        house.network().cut_device_link()?;
        until_it_is_noticed(&session)?;
        house.network().mend_device_link()?;
        answers(4)?;
        say(format_args!("the device's way out died and came back: epoch {}", session.progress().epoch));
        ensure!(session.progress().epoch > second, "nothing was lost: the test shows nothing");

        scp.wait(SESSION)?.success()?;
        ensure!(checksum(&copy)? == checksum(&original)?, "the copy is another");
        answers(5)?;
        drop(life);
        Ok(())
    })
}

/// Binds as soon as a relay before has let go.
fn bind(place: &Place, address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let begun = std::time::Instant::now();
    loop {
        match place.within(|| Ok(std::net::TcpListener::bind(address)?)) {
            Ok(listener) => return Ok(listener),
            Err(error) if begun.elapsed() > READY => return Err(error),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// Waits until the client's end has noticed.
fn until_it_is_noticed(session: &Sealed) -> anyhow::Result<()> {
    let begun = std::time::Instant::now();
    while session.progress().state == postern_link::sealed::State::Live {
        ensure!(begun.elapsed() < READY, "nobody noticed that the relay is gone");
        std::thread::sleep(POLL);
    }
    Ok(())
}
