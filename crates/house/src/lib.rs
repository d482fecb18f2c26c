//! What the tests of the whole house share: a house whose client and device are behind NAT, watched
//! for listening sockets from start to end.

pub mod caller;
pub mod cast;
mod clock;
pub mod enrolment;
pub mod liar;
mod matrix;
pub mod meddler;
mod own_tools;

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use postern_testkit::limits::SESSION;
use postern_testkit::{
    Listener, ListenerWatch, NatNetwork, Options, Place, Places, World, run, say, shell_line, user_name,
};

pub use clock::with_clock;
pub use matrix::Matrix;
pub use own_tools::{OwnTools, Sharing, Told, environment_or_skip, programs_or_skip};

/// Port of a service in the device's network, beside the device: the device itself listens on nothing.
pub const NEIGHBOUR_PORT: u16 = 7000;

/// Runs a test in a house on loopback. When it fails, every piece's last words are printed.
pub fn in_house(options: Options, test: impl FnOnce(&mut World) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut world = World::start(options)?;
    let outcome = test(&mut world);
    if outcome.is_err() {
        say(format_args!("{}", world.last_words()));
    }
    outcome
}

/// Runs a test in a house behind NAT and looks at the device's sockets meanwhile. Without namespaces
/// it is skipped, which is printed (and a failure in CI).
pub fn behind_nat(test: impl FnOnce(&mut NatHouse) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let Some(mut house) = NatHouse::start_or_skip()? else { return Ok(()) };
    let outcome = test(&mut house);
    if outcome.is_err() {
        say(format_args!("{}", house.last_words()));
    }
    outcome.and_then(|()| house.finish())
}

/// Client behind NAT, device behind NAT and walls, server in between.
pub struct NatHouse {
    // Processes end before their network does.
    watch: ListenerWatch,
    world: World,
    network: NatNetwork,
}

impl NatHouse {
    fn start_or_skip() -> anyhow::Result<Option<Self>> {
        let Some(network) = NatNetwork::build_or_skip()? else { return Ok(None) };
        let places = Places { client: network.client(), server: network.server(), device: network.device() };
        let neighbour = SocketAddr::new(network.device_neighbour().address(), NEIGHBOUR_PORT);
        let watch = ListenerWatch::start(&places.device);
        let options = Options { places, permit_open: vec![neighbour.to_string()], ..Options::default() };
        let world = World::start(options)?;
        Ok(Some(Self { watch, world, network }))
    }

    /// The wires.
    pub fn network(&self) -> &NatNetwork {
        &self.network
    }

    /// Where a service stands that only the device can reach.
    pub fn neighbour(&self) -> Place {
        self.network.device_neighbour()
    }

    /// Ends the house and looks at what listened in the device's namespace meanwhile.
    ///
    /// # Errors
    /// Something other than the device's sshd, on loopback, was ever seen listening.
    fn finish(self) -> anyhow::Result<()> {
        let sshd = Listener::tcp(SocketAddr::from(([127, 0, 0, 1], self.world.ssh_port())));
        let (looks, seen) = self.watch.finish()?;
        let names: Vec<String> = seen.iter().map(ToString::to_string).collect();
        say(format_args!("listeners in the device's namespace in {looks} looks: {}", names.join(", ")));
        ensure!(looks > 10, "too few looks to tell");
        ensure!(seen.contains(&sshd), "the watch did not even see sshd");
        ensure!(seen.len() == 1, "the device listened on more than its sshd");
        Ok(())
    }
}

impl Deref for NatHouse {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for NatHouse {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

/// Copies a file by scp over a local port that leads to the device's sshd.
pub fn scp(world: &World, port: u16, way: Copy<'_>) -> anyhow::Result<()> {
    let remote = |path: &Path| format!("{}@localhost:{}", user_name(), path.display());
    let (from, to) = match way {
        Copy::Up(from, to) => (from.display().to_string(), remote(to)),
        Copy::Down(from, to) => (remote(from), to.display().to_string()),
    };
    let mut command = world.places().client.command("scp");
    command.args(["-q", "-P", &port.to_string(), "-o", "IdentitiesOnly=yes", "-i"]).arg(world.identity());
    for option in world.ssh_options() {
        command.args(["-o", &option]);
    }
    command.args([from, to]);
    run(command, SESSION)?.success().context("scp")?;
    Ok(())
}

/// From where to where.
#[derive(Clone, Copy, Debug)]
pub enum Copy<'a> {
    /// A local file to the device.
    Up(&'a Path, &'a Path),
    /// A file of the device to here.
    Down(&'a Path, &'a Path),
}

/// A checksum by the system's own program.
pub fn checksum(path: &Path) -> anyhow::Result<String> {
    let mut command = Command::new("sha256sum");
    command.arg(path);
    let output = run(command, SESSION)?.success()?.text();
    Ok(output.split(' ').next().unwrap_or_default().to_owned())
}

/// A file of random bytes.
pub fn random_file(path: PathBuf, mebibytes: u64) -> anyhow::Result<PathBuf> {
    let mut source = std::io::Read::take(std::fs::File::open("/dev/urandom")?, mebibytes << 20);
    std::io::copy(&mut source, &mut std::fs::File::create(&path)?)?;
    Ok(path)
}

/// A program at a terminal of its own, of that kind (`TERM`): what it shows comes as standard output, and what it is given
/// is typed.
pub fn at_terminal(program: &Command, kind: &str) -> Command {
    let mut script = Command::new("script");
    script.args(["-qec", &shell_line(program), "/dev/null"]).env("TERM", kind);
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    script
}
