//! Real programs over a relay whose operator changes, cuts, swaps and replays what it carries: a session is refused or goes
//! on whole, the user is told what to do, and the relay has learnt nothing of what was said.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_house::in_house;
use postern_house::liar::{Lie, LyingRelay};
use postern_net::tasks::Tasks;
use postern_rendezvous::Side;
use postern_testkit::limits::SESSION;
use postern_testkit::{Options, Output, Process, World, run, say};

const EVIL: &str = "@evil";
const LONG: Duration = Duration::from_secs(20);
/// What no relay may see.
const SECRET: &[u8] = b"the quick brown fox jumps over the lazy dog, and nobody at the relay may know";

/// A house with a relay that lies, and a port of the device's that repeats what it hears.
fn with_liar(test: impl FnOnce(&mut World, &LyingRelay, &Echo) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let echo = Echo::start()?;
    let permit_open = vec![format!("localhost:{}", echo.port)];
    let options = Options { strangers: vec![EVIL.to_owned()], permit_open, ..Options::default() };
    in_house(options, |world| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let tasks = Tasks::new();
        let liar = runtime.block_on(LyingRelay::start(world, EVIL, &tasks))?;
        // They know each other, by a relay that does not lie.
        world.on_device(&["true"])?.success()?;
        test(world, &liar, &echo)
    })
}

/// Repeats what it hears; a thread for each connection, which ends with it.
struct Echo {
    port: u16,
}

impl Echo {
    fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        std::thread::spawn(move || {
            while let Ok((mut socket, _)) = listener.accept() {
                std::thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while let Ok(n @ 1..) = socket.read(&mut buffer) {
                        if socket.write_all(&buffer[..n]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Ok(Self { port })
    }
}

fn sshnp(world: &World, words: &[&str]) -> Command {
    let mut sshnp = world.sshnp();
    sshnp.arg("--verbose").args(["-r", EVIL]).args(words).args(["--", "echo inside"]);
    sshnp
}

fn start_npt(world: &World, port: u16, words: &[&str]) -> anyhow::Result<(Process, TcpStream)> {
    let mut npt = world.npt(port);
    npt.arg("--verbose").args(["-r", EVIL]).args(words);
    let (npt, port) = world.start_npt(npt)?;
    let socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(LONG))?;
    Ok((npt, socket))
}

/// Refused, with words that say what happened and what to do.
fn is_refused(output: Output, words: &[&str]) -> anyhow::Result<()> {
    let output = output.exited(1)?;
    ensure!(!output.text().contains("inside"), "{}", output.text());
    let told = output.stderr;
    say(format_args!("{}", told.lines().filter(|line| !line.starts_with("npt")).collect::<Vec<_>>().join("\n")));
    ensure!(words.iter().any(|word| told.contains(word)), "none of {words:?} in: {told}");
    Ok(())
}

#[test]
fn a_relay_that_only_reads_learns_nothing() -> anyhow::Result<()> {
    with_liar(|world, liar, echo| {
        let (npt, mut socket) = start_npt(world, echo.port, &[])?;
        socket.write_all(SECRET)?;
        let mut heard = vec![0; SECRET.len()];
        socket.read_exact(&mut heard)?;
        ensure!(heard == SECRET, "{:?}", String::from_utf8_lossy(&heard));
        let seen = liar.seen();
        for (who, bytes) in [("clients", &seen.from_clients), ("devices", &seen.from_devices)] {
            // A TLS record of a handshake, or of application data.
            ensure!(
                bytes.starts_with(&[0x16, 3, 3]) || bytes.starts_with(&[0x14, 3, 3]),
                "{who}: {:?}",
                bytes.get(..8)
            );
            ensure!(bytes.len() > SECRET.len(), "{who} said {} bytes", bytes.len());
            for part in [&SECRET[..16], b"localhost", b"gateway", b"payload"] {
                let found = bytes.windows(part.len()).any(|window| window == part);
                ensure!(!found, "what {who} say shows {:?}", String::from_utf8_lossy(part));
            }
        }
        npt.kill();
        Ok(())
    })
}

#[test]
fn a_bit_flipped_in_the_handshake_is_no_session_and_no_lesser_one() -> anyhow::Result<()> {
    with_liar(|world, liar, _| {
        // Header, ServerHello, certificate, reply: whatever it is, the client has not said a word.
        for at in [0, 60, 1200, 1500, 2200] {
            liar.lie(Lie::Flip(Side::A, at), None);
            let output = run(sshnp(world, &[]), SESSION)?;
            is_refused(output, &["try another relay"]).with_context(|| format!("byte {at} of the device's"))?;
            let seen = liar.seen();
            ensure!(seen.from_clients.is_empty(), "byte {at}: the client said {} bytes", seen.from_clients.len());
            ensure!(seen.from_devices.len() > at, "byte {at} was not of the flight");
        }
        // The client's Finished and proof.
        for at in [12, 40, 120] {
            liar.lie(Lie::Flip(Side::B, at), None);
            let output = run(sshnp(world, &["--resume", "0"]), SESSION)?;
            is_refused(output, &["lost", "try another relay"]).with_context(|| format!("byte {at} of the client's"))?;
        }
        // As the words say, another relay will do.
        let honest = world.on_device(&["echo", "inside"])?.success()?;
        ensure!(honest.text().contains("inside"), "{}", honest.text());
        Ok(())
    })
}

#[test]
fn a_bit_flipped_in_a_session_ends_it_before_it_is_read() -> anyhow::Result<()> {
    with_liar(|world, liar, echo| {
        for side in [Side::A, Side::B] {
            // Behind every handshake.
            liar.lie(Lie::Flip(side, 40_000), None);
            let (npt, mut socket) = start_npt(world, echo.port, &["--resume", "0"])?;
            let said: Vec<u8> = SECRET.iter().copied().cycle().take(200_000).collect();
            let mut writer = socket.try_clone()?;
            let all = said.clone();
            let writing = std::thread::spawn(move || _ = writer.write_all(&all));
            let mut heard = Vec::new();
            let _ = socket.read_to_end(&mut heard);
            ensure!(heard.len() < said.len() && said.starts_with(&heard), "{} bytes came back", heard.len());
            drop(socket);
            npt.kill();
            let _ = writing.join();
        }
        Ok(())
    })
}

#[test]
fn a_session_that_is_cut_short_goes_on_whole_or_says_that_it_does_not() -> anyhow::Result<()> {
    with_liar(|world, liar, echo| {
        // In the middle of the data, twice; then the relay behaves.
        liar.lie(Lie::Cut(Side::A, 30_000), Some(2));
        let (npt, mut socket) = start_npt(world, echo.port, &[])?;
        let said: Vec<u8> = SECRET.iter().copied().cycle().take(300_000).collect();
        let mut writer = socket.try_clone()?;
        let all = said.clone();
        let writing = std::thread::spawn(move || _ = writer.write_all(&all));
        let mut heard = vec![0; said.len()];
        socket.read_exact(&mut heard).context("it does not go on")?;
        ensure!(heard == said, "what came back is something else");
        let _ = writing.join();
        ensure!(liar.seen().guests >= 6, "{} came to the relay", liar.seen().guests);
        drop(socket);
        npt.kill();

        // In the middle of the handshake: nothing to go on with.
        liar.lie(Lie::Cut(Side::A, 700), None);
        is_refused(run(sshnp(world, &[]), SESSION)?, &["another relay", "lost"])
    })
}

#[test]
fn two_sessions_joined_crosswise_are_both_refused() -> anyhow::Result<()> {
    with_liar(|world, liar, _| {
        liar.lie(Lie::Cross, None);
        let start = || {
            let mut command = sshnp(world, &[]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
        };
        let (first, second) = (start()?, start()?);
        for child in [first, second] {
            let output = child.wait_with_output()?;
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            say(format_args!("{told}"));
            ensure!(output.status.code() == Some(1), "{:?}: {told}", output.status);
            ensure!(!String::from_utf8_lossy(&output.stdout).contains("inside"), "it was let in");
            ensure!(told.contains("try another relay"), "{told}");
        }
        ensure!(liar.seen().from_clients.is_empty(), "a client said something");
        Ok(())
    })
}

#[test]
fn what_the_device_said_in_another_session_is_not_believed() -> anyhow::Result<()> {
    with_liar(|world, liar, _| {
        let first = run(sshnp(world, &[]), SESSION)?.success()?;
        ensure!(first.text().contains("inside"), "{}", first.stderr);
        liar.lie(Lie::Replay, None);
        is_refused(run(sshnp(world, &[]), SESSION)?, &["try another relay"])?;
        ensure!(liar.seen().from_clients.is_empty(), "the client said something");
        Ok(())
    })
}
