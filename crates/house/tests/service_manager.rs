//! What the programs tell a service manager: ready when they are, a line of status, alive while their loop turns, and that
//! their end is wanted. The manager is a socket of this test's.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use postern_house::in_house;
use postern_testkit::limits::READY;
use postern_testkit::{Options, Piece, Process, World};

/// What the manager waits for between two signs of life; a beat comes twice in it.
const WATCHDOG: Duration = Duration::from_secs(1);

struct Manager(UnixDatagram);

impl Manager {
    fn listen(path: &Path) -> anyhow::Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_read_timeout(Some(READY))?;
        Ok(Self(socket))
    }

    /// The next message that begins like this; others before it are passed over.
    fn hear(&self, wanted: &str) -> anyhow::Result<String> {
        let mut bytes = [0; 4096];
        let until = Instant::now() + READY;
        loop {
            let n = self.0.recv(&mut bytes).with_context(|| format!("nothing more was told, and no {wanted}"))?;
            let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
            if text.starts_with(wanted) {
                return Ok(text);
            }
            ensure!(Instant::now() < until, "no {wanted} in time; the last was {text:?}");
        }
    }
}

fn managed(mut command: Command, socket: &Path) -> Command {
    command.env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    command
}

/// From the start to the end of one program.
fn one_life(world: &World, name: &str, command: Command, status: &str) -> anyhow::Result<()> {
    let socket = world.dir().join(format!("{name}.notify"));
    let manager = Manager::listen(&socket)?;
    let process = Process::start(managed(command, &socket))?;
    manager.hear("READY=1").context(name.to_owned())?;
    let line = manager.hear("STATUS=").context(name.to_owned())?;
    ensure!(line.contains(status), "{name} says {line:?}");
    for _ in 0..3 {
        manager.hear("WATCHDOG=1").context(name.to_owned())?;
    }
    let output = process.terminate(READY)?;
    ensure!(output.status.success(), "{name}: {}\n{}", output.status, output.stderr);
    manager.hear("STOPPING=1").context(name.to_owned())?;
    Ok(())
}

#[test]
fn each_daemon_tells_of_its_life() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        world.kill_piece(Piece::Device)?;
        one_life(world, "sshnpd", world.sshnpd(World::DEVICE_NAME), "sessions: 0")?;
        world.kill_piece(Piece::Relay)?;
        let srvd = world.srvd(World::RELAY);
        one_life(world, "srvd", srvd, World::RELAY)?;
        let dir = world.dir().join("another-server");
        let mut init = world.postern(World::CLIENT);
        init.args(["server", "init", "--host", "localhost", "--listen", "127.0.0.1:0", "--dir"]).arg(&dir);
        postern_testkit::run(init, READY)?.success()?;
        let mut server = world.postern(World::CLIENT);
        server.args(["server", "run", "--dir"]).arg(&dir);
        one_life(world, "server", server, "listening on 127.0.0.1:")
    })
}

/// The daemon logs in for as long as it takes, and is not ready before it has.
#[test]
fn without_a_server_the_daemon_is_not_ready() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        world.kill_piece(Piece::Device)?;
        world.kill_piece(Piece::Server)?;
        let socket = world.dir().join("notify");
        let manager = Manager::listen(&socket)?;
        let _daemon = Process::start(managed(world.sshnpd(World::DEVICE_NAME), &socket))?;
        manager.hear("STATUS=logging in")?;
        manager.0.set_read_timeout(Some(WATCHDOG * 3))?;
        ensure!(manager.0.recv(&mut [0; 64]).is_err(), "it told of more than its login");
        manager.0.set_read_timeout(Some(READY))?;
        world.start_piece(Piece::Server)?;
        manager.hear("READY=1").map(drop)
    })
}
