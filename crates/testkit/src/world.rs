//! A whole house in a temporary directory: server, relay, daemon, ssh server, and a client's keys.

use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::dropbear::{self, Dropbear};
use crate::limits::{COMMAND, READY, SESSION};
use crate::process::{run, system};
use crate::sshd::{SshdFiles, end_sessions, make_key};
use crate::{Output, Place, Process, postern_bin};

/// The server's port where nobody else can have it.
const SERVER_PORT: u16 = 6464;
/// The relay's port where nobody else can have it.
const RELAY_PORT: u16 = 4443;
/// The device's ssh port where nobody else can have it.
const SSH_PORT: u16 = 2222;

/// Where the pieces run. The relay shares the server's host.
#[derive(Clone, Debug)]
pub struct Places {
    /// The person.
    pub client: Place,
    /// Server and relay.
    pub server: Place,
    /// Daemon and ssh server.
    pub device: Place,
}

/// What a house is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program under test; by default [`postern_bin`] finds it.
    pub binary: Option<PathBuf>,
    /// Where the pieces run.
    pub places: Places,
    /// What the daemon permits beside the device's ssh port, as `host:port`.
    pub permit_open: Vec<String>,
    /// Put the client's ssh key among the authorised ones; without it the key must be pushed (`-s`).
    pub authorize_client: bool,
    /// Further words for the daemon.
    pub device_words: Vec<String>,
    /// The server runs the relay itself (`run --relay`): there is no [`Piece::Relay`].
    pub relay_beside_server: bool,
    /// Further words for the relay.
    pub relay_words: Vec<String>,
    /// Further atSigns, activated, that the daemon does not know.
    pub strangers: Vec<String>,
    /// Host name and port of the server instead of `localhost` and a free port, for programs that know only one.
    pub server_name: Option<(String, u16)>,
    /// The device's ssh port instead of a free one.
    pub ssh_port: Option<u16>,
    /// What runs the daemon instead of [`Options::binary`]: another build, or an emulator's words in front of it.
    pub device_program: Vec<String>,
    /// Start our device daemon; without it, something else plays the device.
    pub own_daemon: bool,
    /// What answers ssh on the device.
    pub ssh_server: SshServer,
    /// Told what happens, step by step.
    pub progress: fn(fmt::Arguments<'_>),
}

/// What answers ssh on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshServer {
    /// OpenSSH's sshd, the one that is installed.
    OpenSsh,
    /// Dropbear, as on OpenWrt: no sftp server beside it. For root alone.
    Dropbear,
    /// The daemon itself; nothing else is started or need be installed.
    BuiltIn,
}

/// The files of the one that is started.
#[derive(Debug)]
enum SshFiles {
    OpenSsh(SshdFiles),
    Dropbear(Dropbear),
    /// The daemon makes its own.
    BuiltIn,
}

/// A long-lived piece of the house.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// `postern server run`
    Server,
    /// `postern srvd`
    Relay,
    /// `postern sshnpd`
    Device,
    /// The device's ssh server.
    Sshd,
}

/// A house that runs. Dropping it ends every piece and removes its directory.
pub struct World {
    // Fields drop in this order: processes before the directory they write to.
    device: Option<Process>,
    sshd: Option<Process>,
    relay: Option<Process>,
    server: Option<Process>,
    options: Options,
    binary: PathBuf,
    server_address: SocketAddr,
    server_host: String,
    ssh_port: u16,
    relay_port: u16,
    ssh_files: SshFiles,
    dir: TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        // The server first, or it would start more.
        self.sshd = None;
        end_sessions(self.dir.path());
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Relay => "relay",
            Self::Device => "device daemon",
            Self::Sshd => "device's sshd",
        })
    }
}

impl Default for Options {
    fn default() -> Self {
        let here = Place::here();
        Self {
            binary: None,
            places: Places { client: here.clone(), server: here.clone(), device: here },
            permit_open: Vec::new(),
            authorize_client: true,
            device_words: Vec::new(),
            relay_beside_server: false,
            relay_words: Vec::new(),
            strangers: Vec::new(),
            server_name: None,
            ssh_port: None,
            device_program: Vec::new(),
            own_daemon: true,
            ssh_server: SshServer::OpenSsh,
            progress: |_| {},
        }
    }
}

impl World {
    /// The client's atSign.
    pub const CLIENT: &str = "@client";
    /// The device's atSign.
    pub const DEVICE: &str = "@device";
    /// The relay's atSign.
    pub const RELAY: &str = "@relay";
    /// The device's name.
    pub const DEVICE_NAME: &str = "gateway";

    /// Builds a house and starts it; everything is ready when this returns.
    ///
    /// # Errors
    /// A piece does not come up; the message has its last lines.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let progress = options.progress;
        let binary = options.binary.clone().map_or_else(postern_bin, Ok)?;
        let dir = tempfile::Builder::new().prefix("postern-").tempdir().context("no temporary directory")?;
        for home in ["client", "device", "relay"] {
            std::fs::create_dir_all(dir.path().join(home).join(".ssh"))?;
        }
        let local = options.places.server == Place::here();
        let ip = options.places.server.address();
        let (server_host, server_port) = match options.server_name.clone() {
            Some(name) => name,
            None if local => ("localhost".to_owned(), free_port()?),
            None => (ip.to_string(), SERVER_PORT),
        };
        let ssh_port = match options.ssh_port {
            Some(port) => port,
            None if options.places.device == Place::here() => free_port()?,
            None => SSH_PORT,
        };
        // Below, that of the server's place: known before it runs, and the same when it comes back.
        let relay_port = if local { free_port()? } else { RELAY_PORT };
        let authorized_keys = dir.path().join("device/.ssh/authorized_keys");
        let ssh_files = match options.ssh_server {
            SshServer::OpenSsh => SshFiles::OpenSsh(SshdFiles::lay_down(dir.path(), ssh_port, &authorized_keys)?),
            SshServer::Dropbear => SshFiles::Dropbear(Dropbear::lay_down(dir.path(), ssh_port)?),
            SshServer::BuiltIn => SshFiles::BuiltIn,
        };
        let mut world = Self {
            device: None,
            sshd: None,
            relay: None,
            server: None,
            binary,
            server_address: SocketAddr::new(ip, server_port),
            server_host,
            ssh_port,
            relay_port,
            ssh_files,
            dir,
            options,
        };
        progress(format_args!("making an ssh key for the client"));
        make_key(&world.identity())?;
        let public = std::fs::read_to_string(world.identity().with_extension("pub"))?;
        std::fs::write(&authorized_keys, if world.options.authorize_client { public.as_str() } else { "" })?;

        let secrets = world.found_server()?;
        progress(format_args!("starting the server: atDirectory and atServers on {}", world.root()));
        world.start_piece(Piece::Server)?;
        progress(format_args!("activating {}", secrets.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(", ")));
        world.activate(&secrets)?;
        match world.options.ssh_server {
            SshServer::BuiltIn => progress(format_args!("starting the relay and the daemon")),
            SshServer::OpenSsh | SshServer::Dropbear => {
                progress(format_args!("starting the relay, the device's sshd (127.0.0.1:{ssh_port}) and the daemon"));
            }
        }
        if world.options.relay_beside_server {
            world.piece(Piece::Server)?.wait_for_line(READY, |line| is_ready(Piece::Relay, line))?;
        } else {
            world.start_piece(Piece::Relay)?;
        }
        if world.options.ssh_server != SshServer::BuiltIn {
            world.start_piece(Piece::Sshd)?;
        }
        if world.options.own_daemon {
            world.start_piece(Piece::Device)?;
        }
        Ok(world)
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `host:port` of the atDirectory.
    pub fn root(&self) -> String {
        format!("{}:{}", self.server_host, self.server_address.port())
    }

    /// Port of the device's ssh server, on the device's loopback.
    pub fn ssh_port(&self) -> u16 {
        self.ssh_port
    }

    /// The relay's one port, on the server's host, also after the relay has come back. Not with `--443` or an older
    /// `--behave-as` among [`Options::relay_words`].
    pub fn relay_port(&self) -> u16 {
        self.relay_port
    }

    /// Where the pieces run.
    pub fn places(&self) -> &Places {
        &self.options.places
    }

    /// The client's private ssh key.
    pub fn identity(&self) -> PathBuf {
        self.dir().join("client/.ssh/id_ed25519")
    }

    /// The file that lets people into the device.
    pub fn authorized_keys(&self) -> PathBuf {
        self.dir().join("device/.ssh/authorized_keys")
    }

    /// Keys of an atSign.
    pub fn key_file(&self, at_sign: &str) -> PathBuf {
        self.home_of(at_sign).join(format!(".atsign/keys/{at_sign}_key.atKeys"))
    }

    /// A piece that runs.
    pub fn piece(&mut self, piece: Piece) -> anyhow::Result<&mut Process> {
        self.slot(piece).as_mut().with_context(|| format!("the {piece} does not run"))
    }

    /// `kill -9`.
    pub fn kill_piece(&mut self, piece: Piece) -> anyhow::Result<()> {
        self.slot(piece).take().with_context(|| format!("the {piece} does not run"))?.kill();
        Ok(())
    }

    /// Starts a piece that does not run and waits until it says that it is ready.
    pub fn start_piece(&mut self, piece: Piece) -> anyhow::Result<()> {
        let start = Instant::now();
        self.respawn_piece(piece)?;
        self.wait_until_ready(piece)?;
        (self.options.progress)(format_args!("  {piece}: ready after {:.0?}", start.elapsed()));
        Ok(())
    }

    /// Starts a piece as a supervisor does: without waiting for anything.
    pub fn respawn_piece(&mut self, piece: Piece) -> anyhow::Result<()> {
        let process = self.launch(piece)?;
        *self.slot(piece) = Some(process);
        Ok(())
    }

    /// Waits for a piece's ready line.
    pub fn wait_until_ready(&mut self, piece: Piece) -> anyhow::Result<()> {
        let process = self.piece(piece)?;
        process
            .wait_for_line(READY, |line| is_ready(piece, line))
            .with_context(|| format!("the {piece} is not ready"))?;
        Ok(())
    }

    /// A program of ours with the home of this atSign, in its place.
    pub fn postern(&self, at_sign: &str) -> Command {
        let place = match at_sign {
            Self::DEVICE => &self.options.places.device,
            Self::RELAY => &self.options.places.server,
            _ => &self.options.places.client,
        };
        self.postern_at(place, at_sign)
    }

    /// The same on any host.
    pub fn postern_at(&self, place: &Place, at_sign: &str) -> Command {
        self.at_home(place.command(&self.binary), at_sign)
    }

    fn at_home(&self, mut command: Command, at_sign: &str) -> Command {
        command.env("HOME", self.home_of(at_sign)).env("POSTERN_CA_FILE", self.ca_file());
        // What our programs remember belongs to the home as well, and what they tell of themselves while they run.
        command.env("XDG_RUNTIME_DIR", self.home_of(at_sign));
        for folder in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"] {
            command.env_remove(folder);
        }
        // Nobody's proxy leads to this house.
        for name in ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"] {
            command.env_remove(name);
        }
        // Keys of the person who runs the test have no business here.
        command.env_remove("SSH_AUTH_SOCK");
        if std::env::var_os("USER").is_none() {
            command.env("USER", user_name());
        }
        command
    }

    /// `sshnp` of the client to the device, ready for further words.
    pub fn sshnp(&self) -> Command {
        self.sshnp_as(Self::CLIENT)
    }

    /// `sshnp` of any atSign to the device.
    pub fn sshnp_as(&self, at_sign: &str) -> Command {
        let mut command = self.postern(at_sign);
        command.args(["sshnp", "-f", at_sign, "-t", Self::DEVICE, "-d", Self::DEVICE_NAME, "-r", Self::RELAY]);
        command.arg("-k").arg(self.key_file(at_sign)).args(["--root-domain", &self.root()]);
        command.arg("-i").arg(self.identity());
        for option in self.ssh_options() {
            command.args(["-o", &format!("-o {option}")]);
        }
        command
    }

    /// Options for ssh and scp: the person's own known hosts stay out of it, and nothing is asked.
    pub fn ssh_options(&self) -> [String; 3] {
        let known = self.dir().join("client/.ssh/known_hosts");
        [
            format!("UserKnownHostsFile={}", known.display()),
            "StrictHostKeyChecking=accept-new".to_owned(),
            "BatchMode=yes".to_owned(),
        ]
    }

    /// `npt` of the client to a port of the device, ready for further words.
    pub fn npt(&self, remote_port: u16) -> Command {
        let mut command = self.postern(Self::CLIENT);
        command.args(["npt", "-f", Self::CLIENT, "-t", Self::DEVICE, "-d", Self::DEVICE_NAME, "-r", Self::RELAY]);
        command.arg("-k").arg(self.key_file(Self::CLIENT)).args(["--root-domain", &self.root()]);
        command.args(["-p", &remote_port.to_string()]);
        command
    }

    /// `sshnpd` under this name, ready for further words.
    pub fn sshnpd(&self, name: &str) -> Command {
        let mut command = self.sshnpd_at(&self.options.places.device, name);
        // The tests cut links and wait for what follows.
        command.args(["--keep-alive", "30s"]);
        command
    }

    /// The same on another host.
    pub fn sshnpd_at(&self, place: &Place, name: &str) -> Command {
        let mut command = match self.options.device_program.split_first() {
            None => self.postern_at(place, Self::DEVICE),
            Some((program, words)) => {
                let mut command = place.command(program);
                command.args(words);
                self.at_home(command, Self::DEVICE)
            }
        };
        command.args(["sshnpd", "-v", "-a", Self::DEVICE, "-m", Self::CLIENT, "-d", name]);
        command.arg("-k").arg(self.key_file(Self::DEVICE)).args(["--root-domain", &self.root()]);
        let ssh = format!("localhost:{}", self.ssh_port);
        let permit: Vec<String> = std::iter::once(ssh).chain(self.options.permit_open.clone()).collect();
        command.args(["--local-sshd-port", &self.ssh_port.to_string(), "--permit-open", &permit.join(",")]);
        if self.options.ssh_server == SshServer::BuiltIn {
            command.args(["--ssh-server", "builtin"]);
        } else {
            command.arg("--ssh-host-keys").arg(self.dir());
        }
        command
    }

    /// `srvd` of this atSign, ready for further words; but for the house's own on any free port, which it says.
    pub fn srvd(&self, at_sign: &str) -> Command {
        let mut command = self.postern_at(&self.options.places.server, at_sign);
        command.args(["srvd", "-v", "-a", at_sign, "-i", &self.server_host]);
        command.arg("-k").arg(self.key_file(at_sign)).args(["--root-domain", &self.root()]);
        if !self.options.relay_words.iter().any(|word| word == "--443") {
            let port = if at_sign == Self::RELAY { self.relay_port } else { 0 };
            command.args(["--bind-port", &port.to_string()]);
        }
        command.args(&self.options.relay_words);
        command
    }

    /// Starts one more relay beside the house's own; ready when this returns.
    pub fn start_relay(&self, srvd: Command) -> anyhow::Result<Process> {
        let mut process = Process::start(srvd)?;
        process.wait_for_line(READY, |line| is_ready(Piece::Relay, line))?;
        Ok(process)
    }

    /// Starts one more daemon beside the house's own; ready when this returns.
    pub fn start_daemon(&self, sshnpd: Command) -> anyhow::Result<Process> {
        let mut process = Process::start(sshnpd)?;
        process.wait_for_line(READY, |line| is_ready(Piece::Device, line))?;
        Ok(process)
    }

    /// Runs a command on the device by `sshnp`.
    pub fn on_device(&self, words: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.sshnp();
        command.arg("--").args(words);
        run(command, SESSION)
    }

    /// Starts `npt` in its inline form; returns it with its local port.
    pub fn start_npt(&self, mut npt: Command) -> anyhow::Result<(Process, u16)> {
        npt.args(["-T", "30s"]);
        let mut process = Process::start(npt)?;
        let line = process.wait_for_line(SESSION, |line| line.contains("npt is listening on"))?;
        let port = line.split("localhost:").nth(1).map(|rest| rest.trim_end_matches(|c: char| !c.is_ascii_digit()));
        // Newer programs add the address in brackets.
        let port = port.and_then(|rest| rest.split(' ').next()).and_then(|text| text.parse().ok());
        Ok((process, port.with_context(|| format!("no port in: {line}"))?))
    }

    /// The last words of every piece, for a message to a human.
    pub fn last_words(&self) -> String {
        let pieces = [&self.server, &self.relay, &self.device, &self.sshd];
        pieces.into_iter().flatten().map(Process::tail).collect::<Vec<_>>().join("\n")
    }

    /// Home directory of an atSign; the client's is also that of all strangers.
    pub fn home_of(&self, at_sign: &str) -> PathBuf {
        self.dir().join(match at_sign {
            Self::DEVICE => "device",
            Self::RELAY => "relay",
            _ => "client",
        })
    }

    /// Certificate of the server's private CA.
    pub fn ca_file(&self) -> PathBuf {
        self.dir().join("server/ca.pem")
    }

    fn slot(&mut self, piece: Piece) -> &mut Option<Process> {
        match piece {
            Piece::Server => &mut self.server,
            Piece::Relay => &mut self.relay,
            Piece::Device => &mut self.device,
            Piece::Sshd => &mut self.sshd,
        }
    }

    /// Makes room for a new atSign on the server, which may be running; returns the secret that activates it.
    pub fn add_at_sign(&self, name: &str) -> anyhow::Result<String> {
        let mut add = self.options.places.server.command(&self.binary);
        add.args(["server", "add", name]).arg("--dir").arg(self.dir().join("server"));
        Ok(run(add, COMMAND)?.success().with_context(|| format!("server add {name}"))?.text())
    }

    /// Makes the server's directory and the atSigns; returns their secrets.
    fn found_server(&self) -> anyhow::Result<Vec<(String, String)>> {
        let dir = self.dir().join("server");
        let port = self.server_address.port().to_string();
        let mut init = self.options.places.server.command(&self.binary);
        init.args(["server", "init", "--host", &self.server_host, "--port", &port]).arg("--dir").arg(&dir);
        run(init, COMMAND)?.success().context("server init")?;
        let mut secrets = Vec::new();
        let relay = Some(Self::RELAY).filter(|_| !self.options.relay_beside_server);
        let names = [Self::CLIENT, Self::DEVICE].into_iter().chain(relay).map(str::to_owned);
        for name in names.chain(self.options.strangers.clone()) {
            let secret = self.add_at_sign(&name)?;
            secrets.push((name, secret));
        }
        Ok(secrets)
    }

    /// All at once: each spends its time on making RSA keys.
    fn activate(&self, secrets: &[(String, String)]) -> anyhow::Result<()> {
        let mut running = Vec::new();
        for (name, secret) in secrets {
            let mut command = self.postern(name);
            command.args(["at_activate", "onboard", "-a", name, "-c", secret, "-r", &self.root()]);
            command.arg("-k").arg(self.key_file(name));
            running.push((name, Process::start(command)?));
        }
        for (name, process) in running {
            process.wait(COMMAND)?.success().with_context(|| format!("activation of {name}"))?;
        }
        Ok(())
    }

    fn launch(&self, piece: Piece) -> anyhow::Result<Process> {
        match piece {
            Piece::Sshd => match &self.ssh_files {
                SshFiles::OpenSsh(files) => files.start(&self.options.places.device),
                SshFiles::Dropbear(files) => files.start(&self.options.places.device),
                SshFiles::BuiltIn => bail!("the daemon is its own ssh server"),
            },
            Piece::Server => {
                let mut command = self.options.places.server.command(&self.binary);
                command.args(["server", "run"]).arg("--dir").arg(self.dir().join("server"));
                command.args(["--listen", &self.server_address.to_string()]);
                command.env("XDG_RUNTIME_DIR", self.dir().join("server"));
                if self.options.relay_beside_server {
                    command.args(["-v", "--relay", Self::RELAY, "--relay-port", &self.relay_port.to_string()]);
                }
                Process::start(command)
            }
            Piece::Relay => Process::start(self.srvd(Self::RELAY)),
            Piece::Device => {
                let mut command = self.sshnpd(Self::DEVICE_NAME);
                command.arg("-s").args(&self.options.device_words);
                Process::start(command)
            }
        }
    }
}

fn is_ready(piece: Piece, line: &str) -> bool {
    match piece {
        Piece::Server => line.contains("listening on "),
        Piece::Relay => line.contains("monitor started for "),
        Piece::Device => line.split_once("Monitor ").is_some_and(|(_, rest)| rest.contains("monitor started")),
        Piece::Sshd => line.starts_with("Server listening on") || line.contains(dropbear::LISTENS),
    }
}

/// Who we are on this machine.
pub fn user_name() -> String {
    system("id", &["-un"]).unwrap_or_else(|_| "root".to_owned())
}

/// A port that nobody on loopback has, below the range from which the kernel takes ports of outgoing
/// connections; sshd and the server's directory entry need it before they listen.
fn free_port() -> anyhow::Result<u16> {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run at the same time begin at different places.
    let spread = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0).wrapping_mul(7) % COUNT;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (spread + step % COUNT) % COUNT;
        if TcpListener::bind((IpAddr::from([127, 0, 0, 1]), port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on loopback")
}
