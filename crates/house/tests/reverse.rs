//! The reverse direction: a device listens on its loopback for a client, where its owner's list says so and not else, and
//! what connects there meets a service at the client's end.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use postern_house::in_house;
use postern_testkit::limits::{COMMAND, POLL, SESSION};
use postern_testkit::tcp::{echo_after_end, serve};
use postern_testkit::{Listener, ListenerWatch, NatNetwork, Options, Piece, Place, Places, Process, World, run, say};

/// Of the device, which stands in a namespace of its own.
const PORT: u16 = 18080;

fn npt(world: &World, reverse: &str) -> Command {
    let mut npt = world.postern(World::CLIENT);
    npt.args(["npt", "-f", World::CLIENT, "-t", World::DEVICE, "-d", World::DEVICE_NAME, "-r", World::RELAY]);
    npt.arg("-k").arg(world.key_file(World::CLIENT)).args(["--root-domain", &world.root(), "-R", reverse]);
    npt
}

/// Sends words from the device to its port, ends, and returns what comes back.
fn say_at_the_device(place: &Place, port: u16, words: &[u8]) -> anyhow::Result<Vec<u8>> {
    place.within(|| {
        let mut guest = TcpStream::connect(("127.0.0.1", port))?;
        guest.set_read_timeout(Some(SESSION))?;
        guest.write_all(words)?;
        guest.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        guest.read_to_end(&mut answer)?;
        Ok(answer)
    })
}

fn http(mut guest: TcpStream) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        guest.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    guest.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 22\r\n\r\nfrom the client's side")
}

/// Everything at once: nothing listens before, the listed port while the session runs, also after the relay was killed, and
/// nothing behind it.
#[test]
fn a_service_of_the_client_is_reached_from_the_device_while_the_session_runs() -> anyhow::Result<()> {
    let Some(network) = NatNetwork::build_or_skip()? else { return Ok(()) };
    let places = Places { client: network.client(), server: network.server(), device: network.device() };
    let (client, device) = (places.client.clone(), places.device.clone());
    let watch = ListenerWatch::start(&device);
    let list = ["--permit-listen".to_owned(), format!("{PORT},9000-9010")];
    let mut world = World::start(Options { places, device_words: list.to_vec(), ..Options::default() })?;
    let before = Listener::all(&device)?;
    let (service, _) = serve(&client, 0, 3, http)?;
    let (echo, _) = serve(&client, 0, 1, echo_after_end)?;
    let mut command = npt(&world, &format!("{PORT}:{service}"));
    command.args(["-R", &format!("9001:{echo}")]);
    let mut npt = Process::start(command)?;
    npt.wait_for_line(SESSION, |line| line.contains(&format!("the device listens on its localhost:{PORT} for")))?;

    // A program of the device's own, by the name that people type.
    let fetch = || {
        let mut curl = device.command("curl");
        curl.args(["-s", "-S", "--noproxy", "*", "--max-time", "60", &format!("http://localhost:{PORT}/")]);
        let page = run(curl, SESSION)?.success()?.text();
        ensure!(page == "from the client's side", "{page:?}");
        anyhow::Ok(())
    };
    fetch()?;
    let outside = SocketAddr::new(device.address(), PORT);
    let outside = device.within(|| Ok(TcpStream::connect_timeout(&outside, COMMAND).is_ok()))?;
    ensure!(!outside, "it listens not on the loopback alone");

    let mark = world.piece(Piece::Device)?.mark();
    world.kill_piece(Piece::Relay)?;
    world.start_piece(Piece::Relay)?;
    world.piece(Piece::Device)?.wait_for_line_after(mark, SESSION, |line| line.contains("sealed session goes on"))?;
    fetch()?;
    let answer = say_at_the_device(&device, 9001, b"half of it was closed")?;
    ensure!(answer == b"half of it was closed", "{answer:?}");

    let mark = world.piece(Piece::Device)?.mark();
    npt.terminate(COMMAND)?;
    world.piece(Piece::Device)?.wait_for_line_after(mark, SESSION, |line| line.contains("sealed session ended"))?;
    let ended = Instant::now();
    while Listener::all(&device)? != before {
        ensure!(ended.elapsed() < COMMAND, "it still listens: {:?}", Listener::all(&device)?);
        std::thread::sleep(POLL);
    }
    let (_, seen) = watch.finish()?;
    let mut wanted = before.clone();
    for port in [PORT, 9001] {
        wanted.insert(Listener::tcp(SocketAddr::from(([127, 0, 0, 1], port))));
        let six = Listener::tcp(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port)));
        if seen.contains(&six) {
            wanted.insert(six);
        }
    }
    ensure!(seen == wanted, "seen {seen:?} instead of {wanted:?}");
    let journal = world.home_of(World::DEVICE).join(".local/state/postern/journal/sshnpd.gateway@device.jsonl");
    let begun = Instant::now();
    while !std::fs::read_to_string(&journal)?.contains(&format!(r#""target":"listen:{PORT}""#)) {
        ensure!(begun.elapsed() < COMMAND, "not in the journal: {}", std::fs::read_to_string(&journal)?);
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Without the list, beside the list, and where the port is somebody else's.
#[test]
fn a_device_listens_on_nothing_that_its_owner_has_not_listed() -> anyhow::Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let taken_port = taken.local_addr()?.port();
    let refused = |world: &World, port: u16, words: &str| {
        let output = run(npt(world, &format!("{port}:localhost:80")), SESSION)?.exited(1)?;
        say(format_args!("{}", output.stderr.trim_end()));
        ensure!(output.stderr.contains(words), "{}", output.stderr);
        anyhow::Ok(())
    };
    in_house(Options::default(), |world| {
        let before = Listener::all(&Place::here())?;
        refused(world, 18081, "Listening on port 18081 denied based on daemon --permit-listen []")?;
        ensure!(!Listener::all(&Place::here())?.iter().any(|l| !before.contains(l) && l.to_string().contains("18081")));
        Ok(())
    })?;
    let list = vec!["--permit-listen".to_owned(), format!("18082,{taken_port}")];
    in_house(Options { device_words: list, ..Options::default() }, |world| {
        refused(world, 18081, &format!("denied based on daemon --permit-listen [18082,{taken_port}]"))?;
        refused(world, taken_port, "the device cannot listen on the port").context("a port that is taken")
    })
}
