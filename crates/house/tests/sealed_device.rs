//! The device daemon as a real process, asked for sealed sessions by a client in the test's own hands.

use std::net::TcpListener as StdListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use postern_house::caller::{Caller, TicketRelay, Wish};
use postern_house::in_house;
use postern_link::sealed::{Local, State, StreamRefused, Target, Why};
use postern_net::tasks::Tasks;
use postern_session::{HostPort, RefusalCode};
use postern_testkit::limits::{COMMAND, SESSION};
use postern_testkit::{Listener, ListenerWatch, Memory, Options, Piece, Place, World, run, say};
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    timeout(LONG, future).await.context("not in time")
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn state(world: &World) -> PathBuf {
    world.dir().join("caller")
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

fn wish(relay: &TicketRelay) -> anyhow::Result<Wish> {
    Ok(Wish {
        ssh: false,
        resume: Duration::ZERO,
        idle: Duration::from_secs(60),
        relays: vec![relay.place()?],
        session: None,
        epoch: 0,
    })
}

/// The device's ssh server greets in the tunnel, a relay that is cut costs nothing, and nothing ever listens.
#[test]
fn an_ssh_session_is_sealed_and_goes_on_after_the_relay_is_cut() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let watch = ListenerWatch::start(&Place::here());
        let before = Listener::all(&Place::here())?;
        // The relay carries the last words while we look at the daemon.
        let (runtime, tasks) = (runtime()?, Tasks::new());
        runtime.block_on(async {
            let relay = TicketRelay::start(&tasks).await?;
            let caller = Caller::connect(world, World::CLIENT, state(world)).await?;
            let wish = Wish { ssh: true, resume: Duration::from_secs(60), ..wish(&relay)? };
            let (mut program, local) = tokio::io::duplex(64 * 1024);
            let (_, session) = caller.session(&wish, Some(Local::new(local))).await?;
            let mut greeting = [0; 8];
            within(program.read_exact(&mut greeting)).await??;
            ensure!(&greeting == b"SSH-2.0-", "{greeting:?}");
            let facts = session.facts();
            ensure!(facts.key_exchange == "X25519MLKEM768", "{facts:?}");

            // The host key is there before a session, signed, and said again inside.
            let key = std::fs::read_to_string(world.dir().join("ssh_host_ed25519_key.pub"))?;
            let key = key.split(' ').take(2).collect::<Vec<_>>().join(" ");
            let published = caller.host_keys().await?;
            ensure!(published == [key.trim()], "{published:?} instead of {key:?}");
            ensure!(caller.last_reply().is_some_and(|reply| reply.ssh_host_keys == published));

            // The server's key exchange shows that our words have reached it.
            program.write_all(b"SSH-2.0-test\r\n").await?;
            let mut more = [0; 200];
            within(program.read_exact(&mut more)).await??;
            relay.cut();
            within(until(|| session.progress().epoch > 0 || session.progress().state != State::Live)).await?;
            // What is said while the way is lost arrives: a packet of such a length makes the server hang up.
            program.write_all(&[0xff; 64]).await?;
            within(program.read_to_end(&mut Vec::new())).await??;
            within(until(|| session.progress().state == State::Live)).await?;
            ensure!(session.progress().epoch >= 1, "{:?}", session.progress());
            ensure!(relay.guests() >= 4, "{} came to the relay", relay.guests());
            session.close("done").await;
            within(session.ended()).await?;
            anyhow::Ok(())
        })?;
        world.piece(Piece::Device)?.wait_for_line(LONG, |line| line.contains("sealed session goes on"))?;
        world.piece(Piece::Device)?.wait_for_line(LONG, |line| line.contains("sealed session ended"))?;
        let journal = world.home_of(World::DEVICE).join(".local/state/postern/journal/sshnpd.gateway@device.jsonl");
        // Its writer does not make sessions wait for the disk.
        let start = Instant::now();
        let text = loop {
            let text = std::fs::read_to_string(&journal).unwrap_or_default();
            if text.contains(r#""event":"ended""#) || start.elapsed() > LONG {
                break text;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let events = text.lines().map(serde_json::from_str).collect::<Result<Vec<Json>, _>>()?;
        let of = |event: &str| {
            events
                .iter()
                .find(|line| line["event"] == event)
                .with_context(|| format!("no {event:?} in the journal: {text}"))
        };
        // In this order: what was carried stands before the end of what carried it.
        let order: Vec<_> = events.iter().filter_map(|line| line["event"].as_str()).collect();
        ensure!(order == ["pinned", "began", "resumed", "stream", "ended"], "{order:?}");
        for event in ["began", "resumed", "stream", "ended"] {
            let line = of(event)?;
            ensure!(line["who"] == "@client" && line["sealed"] == true && line["rule"] == "manager", "{line}");
        }
        let stream = of("stream")?;
        let target = format!("localhost:{}", world.ssh_port());
        ensure!(stream["target"] == target.as_str() && stream["address"].is_string(), "{stream}");
        ensure!(stream["received"].as_u64() > Some(70) && stream["sent"].as_u64() > Some(200), "{stream}");
        let (_, seen) = watch.finish()?;
        // The test's own relay listens; the daemon and what it dials do not.
        ensure!(seen.difference(&before).count() <= 1, "{seen:?}");
        Ok(())
    })
}

#[test]
fn targets_are_authorised_at_the_moment_of_dialling() -> anyhow::Result<()> {
    let neighbour = StdListener::bind("127.0.0.1:0")?;
    neighbour.set_nonblocking(true)?;
    let port = neighbour.local_addr()?.port();
    let permit_open = vec![format!("localhost:{port}"), format!("169.254.1.9:{port}"), "*:9".to_owned()];
    in_house(Options { permit_open, ..Options::default() }, |world| {
        let ssh_port = world.ssh_port();
        runtime()?.block_on(async {
            let tasks = Tasks::new();
            let relay = TicketRelay::start(&tasks).await?;
            let caller = Caller::connect(world, World::CLIENT, state(world)).await?;
            let (_, session) = caller.session(&wish(&relay)?, None).await?;
            let neighbour = TcpListener::from_std(neighbour)?;

            // Two targets in one session.
            let (mut program, local) = tokio::io::duplex(1000);
            let carrying = session.clone();
            let target = Target::HostPort(HostPort::localhost(port));
            drop(tasks.spawn(async move { carrying.carry(Local::new(local), target).await }));
            let (mut socket, _) = within(neighbour.accept()).await??;
            program.write_all(b"hello").await?;
            let mut heard = [0; 5];
            within(socket.read_exact(&mut heard)).await??;
            ensure!(&heard == b"hello", "{heard:?}");
            let (mut program, local) = tokio::io::duplex(1000);
            let carrying = session.clone();
            let target = Target::HostPort(HostPort::localhost(ssh_port));
            drop(tasks.spawn(async move { carrying.carry(Local::new(local), target).await }));
            let mut greeting = [0; 4];
            within(program.read_exact(&mut greeting)).await??;
            ensure!(&greeting == b"SSH-", "{greeting:?}");

            for (host, port, words) in [
                ("localhost", 1, "denied based on daemon --permit-open"),
                // The same place by another name is another target.
                ("127.0.0.1", port, "denied based on daemon --permit-open"),
                ("169.254.169.254", 9, "an address that is dialled only when"),
                ("0.0.0.0", 9, "an address that is dialled only when"),
                ("[fe80::1]", 9, "an address that is dialled only when"),
                ("[::ffff:169.254.169.254]", 9, "an address that is dialled only when"),
                ("no-such-name.invalid", 9, "is not known here"),
                ("localhost", 9, "refused"),
            ] {
                let target = Target::HostPort(HostPort { host: host.into(), port });
                let refused = match within(session.open(target)).await? {
                    Err(StreamRefused::Refused(code, text)) => format!("{code}: {text}"),
                    Err(other) => format!("{other}"),
                    Ok(_) => "it was opened".to_owned(),
                };
                say(format_args!("{host}:{port}: {refused}"));
                ensure!(refused.contains(words), "{host}:{port}: {refused}");
            }
            anyhow::Ok(())
        })
    })
}

#[test]
fn a_request_is_served_once_and_refusals_are_signed() -> anyhow::Result<()> {
    in_house(Options { strangers: vec!["@stranger".into()], ..Options::default() }, |world| {
        runtime()?.block_on(async {
            let tasks = Tasks::new();
            let relay = TicketRelay::start(&tasks).await?;
            let mut caller = Caller::connect(world, World::CLIENT, state(world)).await?;
            let wish = wish(&relay)?;

            // Sent again, it dials nobody and says nothing that could end the session.
            let request = caller.request(&wish, |_| ())?;
            caller.send(&request).await?;
            let plan = caller.plan(&wish, request.waiting, &request.session, None);
            let session = within(postern_link::sealed::dial(plan, LONG, &tasks)).await??;
            let guests = relay.guests();
            let name = "npt_request.gateway.sshnp";
            caller.client().notify(&"@device".parse_at()?, name, &request.text, None).await?;
            ensure!(caller.hears_nothing(&request.session, Duration::from_secs(2)).await, "a replay is answered");
            ensure!(relay.guests() == guests, "the device dialled for a replay");
            ensure!(session.progress().state == State::Live, "{:?}", session.progress());

            let mut refused = async |wish: &Wish, change: &dyn Fn(&mut postern_session::Offer)| {
                let request = caller.request(wish, change)?;
                caller.send(&request).await?;
                let (code, message) = caller.refusal(&request).await?;
                say(format_args!("{code}: {message}"));
                anyhow::Ok(code)
            };
            let late = |offer: &mut postern_session::Offer| {
                offer.issued_ms -= 400_000;
                offer.expires_ms -= 400_000;
            };
            ensure!(refused(&wish, &late).await? == RefusalCode::Expired);
            let resumed = Wish { epoch: 1, ..wish.clone() };
            ensure!(refused(&resumed, &|_| ()).await? == RefusalCode::NoSession);
            let elsewhere = |offer: &mut postern_session::Offer| offer.relays.clear();
            ensure!(refused(&wish, &elsewhere).await? == RefusalCode::RelayUnreachable);
            let other = |offer: &mut postern_session::Offer| {
                offer.device = postern_session::DeviceName::parse("another").unwrap_or_else(|_| offer.device.clone());
            };
            ensure!(refused(&wish, &other).await? == RefusalCode::Identity);

            // Somebody whom the device does not know hears nothing.
            let mut stranger = Caller::connect(world, "@stranger", world.dir().join("stranger")).await?;
            let request = stranger.request(&wish, |_| ())?;
            stranger.send(&request).await?;
            ensure!(stranger.hears_nothing(&request.session, Duration::from_secs(2)).await, "a stranger is answered");
            ensure!(relay.guests() == guests, "the device dialled for a stranger");

            session.close("done").await;
            ensure!(matches!(within(session.ended()).await?.why, Why::Closed(_)));
            anyhow::Ok(())
        })
    })
}

#[test]
fn an_idle_npt_session_ends_when_the_client_said() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        runtime()?.block_on(async {
            let tasks = Tasks::new();
            let relay = TicketRelay::start(&tasks).await?;
            let caller = Caller::connect(world, World::CLIENT, state(world)).await?;
            let wish = Wish { idle: Duration::from_secs(2), ..wish(&relay)? };
            let (_, session) = caller.session(&wish, None).await?;
            let ended = within(session.ended()).await?;
            ensure!(matches!(&ended.why, Why::ClosedByPeer(why) if why.contains("no connection")), "{ended:?}");
            anyhow::Ok(())
        })
    })
}

/// A person's word on the device counts more than what any server shows, in sessions of 2024 too.
#[test]
fn a_device_believes_its_pins_and_not_the_directory() -> anyhow::Result<()> {
    const OTHER: &str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
    let device_words = ["--strict-pins", "--min-security", "sealed"].map(str::to_owned).to_vec();
    in_house(Options { device_words, ..Options::default() }, |world| {
        let pin = |words: &[&str]| {
            let mut command = world.postern(World::DEVICE);
            command.arg("pin").args(words);
            run(command, COMMAND)?.success()
        };
        let older = |device: &str| {
            let mut older = world.sshnp();
            older.args(["-d", device, "--dialect", "5.11", "--", "true"]);
            run(older, SESSION)
        };
        let refused = older(World::DEVICE_NAME)?.exited(1)?;
        ensure!(refused.stderr.contains("serves sealed sessions alone"), "{}", refused.stderr);
        runtime()?.block_on(async {
            let tasks = Tasks::new();
            let relay = TicketRelay::start(&tasks).await?;
            let mut caller = Caller::connect(world, World::CLIENT, state(world)).await?;
            let wish = wish(&relay)?;
            let request = caller.request(&wish, |_| ())?;
            caller.send(&request).await?;
            let (code, message) = caller.refusal(&request).await?;
            ensure!(code == RefusalCode::Pin && message.contains("was not given in advance"), "{code}: {message}");
            let shown = message.rsplit(' ').next().context("no fingerprint")?;
            pin(&["accept", World::CLIENT, shown])?;
            let (_, session) = caller.session(&wish, None).await?;
            session.close("done").await;

            pin(&["accept", World::CLIENT, OTHER])?;
            let request = caller.request(&wish, |_| ())?;
            caller.send(&request).await?;
            let (code, message) = caller.refusal(&request).await?;
            ensure!(
                code == RefusalCode::Pin && message.contains("the key of @client has changed"),
                "{code}: {message}"
            );
            ensure!(message.contains(OTHER) && message.contains(shown), "not both fingerprints: {message}");
            anyhow::Ok(())
        })?;
        // A device that serves them does not believe another key in a session of 2024 either.
        let mut legacy = world.sshnpd("legacy");
        legacy.arg("-s");
        let _legacy = world.start_daemon(legacy)?;
        let refused = older("legacy")?.exited(1)?;
        ensure!(refused.stderr.contains("the key of @client has changed"), "{}", refused.stderr);
        pin(&["remove", World::CLIENT])?;
        older("legacy")?.success()?;
        Ok(())
    })
}

/// What a gateway with little memory has to find for sealed sessions.
#[test]
fn sealed_sessions_cost_little_memory() -> anyhow::Result<()> {
    const SESSIONS: usize = 10;
    in_house(Options::default(), |world| {
        let daemon = world.piece(Piece::Device)?.id();
        let resident = || anyhow::Ok(Memory::of(daemon)?.resident);
        let idle = resident()?;
        runtime()?.block_on(async {
            let tasks = Tasks::new();
            let relay = TicketRelay::start(&tasks).await?;
            let caller = Caller::connect(world, World::CLIENT, state(world)).await?;
            let wish = Wish { ssh: true, resume: Duration::from_secs(60), ..wish(&relay)? };
            let (mut figures, mut programs, mut sessions) = (vec![idle], Vec::new(), Vec::new());
            for n in 1..=SESSIONS {
                let (mut program, local) = tokio::io::duplex(64 * 1024);
                sessions.push(caller.session(&wish, Some(Local::new(local))).await?);
                program.write_all(b"SSH-2.0-test\r\n").await?;
                within(program.read_exact(&mut [0; 200])).await??;
                programs.push(program);
                if n == 1 || n == SESSIONS {
                    figures.push(resident()?);
                }
            }
            say(format_args!(
                "the daemon's resident memory idle, with 1 and {SESSIONS} sealed sessions: {figures:?} KiB"
            ));
            let each = figures[2].saturating_sub(figures[1]) / (SESSIONS as u64 - 1);
            ensure!(each <= 512, "{each} KiB for each further session: {figures:?}");
            ensure!(figures[2] <= 20 * 1024, "{figures:?}");
            anyhow::Ok(())
        })
    })
}

trait ParseAt {
    fn parse_at(&self) -> anyhow::Result<postern_proto::AtSign>;
}

impl ParseAt for str {
    fn parse_at(&self) -> anyhow::Result<postern_proto::AtSign> {
        Ok(postern_proto::AtSign::parse(self)?)
    }
}
