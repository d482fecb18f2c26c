//! Postern itself: server, relay and daemon as they are shipped, brought up
//! anew for each measurement, with the client's programs as a user runs them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};

use crate::bulk::{self, Running, Tunnel};
use crate::cpu::{Account, Accounts, Role};
use crate::host::{Host, Site, free_port};
use crate::idle::{self, Memory};
use crate::limits::{READY_DEADLINE, SETUP_DEADLINE};
use crate::peers::SshKit;
use crate::process::{Process, Spawn};
use crate::setup::{self, Entrance, FirstByte, Step, Way, time_to_end};
use crate::table::Check;

/// Row name of everything here.
pub(crate) const NAME: &str = "postern";

pub(crate) const CLIENT: &str = "@client";
pub(crate) const DEVICE: &str = "@device";
pub(crate) const RELAY: &str = "@relay";
pub(crate) const DEVICE_NAME: &str = "gateway";
/// Clients where one is too few.
pub(crate) const MORE_CLIENTS: &[&str] = &["@client", "@client2", "@client3", "@client4", "@client5"];
/// Where sshnp tells ssh to look the device's host key up.
const HOST_KEY_ALIAS: &str = "gateway.device.noports";

/// What ssh says with `-v` when the other side's greeting is there.
const GREETED: &str = "Remote protocol version";

/// Directory, atServers, relay and daemon, up and ready. Fields drop in this
/// order: the programs, then the accounts with what may be left in them.
pub(crate) struct House {
    processes: Vec<Process>,
    accounts: Vec<Account>,
    program: PathBuf,
    dir: PathBuf,
    root: String,
    daemon: u32,
}

impl House {
    /// Brings it up; the daemon permits `ports` of its own host, the first of
    /// them as its ssh port.
    pub(crate) fn stand(accounts: &Accounts, site: &Site, ports: &[u16]) -> anyhow::Result<Self> {
        let program = program()?;
        let dir = tempfile::Builder::new().prefix("house-").tempdir_in(&site.dir)?.keep();
        for home in [CLIENT, DEVICE, RELAY] {
            fs::create_dir_all(dir.join(home).join(".ssh"))?;
        }
        let server_at = site.server.at(free_port()?);
        let mut house = Self {
            processes: Vec::new(),
            accounts: vec![accounts.account(Role::Relay), accounts.account(Role::Device)],
            program,
            root: server_at.to_string(),
            dir,
            daemon: 0,
        };
        let secrets = house.found(&site.server, server_at)?;
        house.start_server(&site.server, server_at)?;
        house.activate(site, &secrets)?;
        house.start_relay(&site.server)?;
        house.start_daemon(&site.device, ports)?;
        Ok(house)
    }

    /// The server alone, and keys of two atSigns.
    pub(crate) fn stand_server(accounts: &Accounts, site: &Site) -> anyhow::Result<Self> {
        let program = program()?;
        let dir = tempfile::Builder::new().prefix("server-").tempdir_in(&site.dir)?.keep();
        for home in [CLIENT, DEVICE, RELAY] {
            fs::create_dir_all(dir.join(home))?;
        }
        let server_at = site.server.at(free_port()?);
        let mut house = Self {
            processes: Vec::new(),
            accounts: vec![accounts.account(Role::Relay)],
            program,
            root: server_at.to_string(),
            dir,
            daemon: 0,
        };
        let secrets = house.found(&site.server, server_at)?;
        house.start_server(&site.server, server_at)?;
        house.activate(site, &secrets)?;
        Ok(house)
    }

    /// Server and relay, and keys of these clients.
    pub(crate) fn stand_relay(accounts: &Accounts, site: &Site, clients: &[&'static str]) -> anyhow::Result<Self> {
        let program = program()?;
        let dir = tempfile::Builder::new().prefix("relay-").tempdir_in(&site.dir)?.keep();
        for home in [DEVICE, RELAY].iter().chain(clients) {
            fs::create_dir_all(dir.join(home))?;
        }
        let server_at = site.server.at(free_port()?);
        let mut house = Self {
            processes: Vec::new(),
            // The relay's own.
            accounts: vec![accounts.account(Role::Relay), accounts.account(Role::Device)],
            program,
            root: server_at.to_string(),
            dir,
            daemon: 0,
        };
        let secrets = house.found_with(&site.server, server_at, &[&[DEVICE, RELAY], clients].concat())?;
        house.accounts.swap(0, 1);
        house.start_server(&site.server, server_at)?;
        house.accounts.swap(0, 1);
        house.activate(site, &secrets)?;
        house.start_relay(&site.server)?;
        Ok(house)
    }

    /// The relay's process, where it was started last.
    pub(crate) fn relay(&self) -> u32 {
        self.processes.first().map_or(0, Process::id)
    }

    /// `kill -9` to the server that stands alone, and its successor at once; returns when that says it listens.
    pub(crate) fn replace_server(&mut self, site: &Site) -> anyhow::Result<()> {
        self.processes.clear();
        let at = self.root.parse().context("the root is an address")?;
        self.start_server(&site.server, at)
    }

    /// CPU time of the server so far, its predecessors' included; of a house that is stood for its relay, the relay's.
    pub(crate) fn server_used(&self) -> Duration {
        self.accounts.first().map_or(Duration::ZERO, Account::used)
    }

    /// `host:port` of the atDirectory.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// Certificate of the server's private CA.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.server_dir().join("ca.pem")
    }

    fn server_dir(&self) -> PathBuf {
        self.dir.join("server")
    }

    /// The key file of an atSign.
    pub(crate) fn keys(&self, at_sign: &str) -> PathBuf {
        self.dir.join(at_sign).join("keys.atKeys")
    }

    /// Where the programs of an atSign are at home.
    pub(crate) fn home(&self, at_sign: &str) -> PathBuf {
        self.dir.join(at_sign)
    }

    /// The client's ssh with this ProxyCommand of ours, as a line of its configuration.
    pub(crate) fn proxy_line(&self, words: &str) -> String {
        let (program, home) = (self.program.display(), self.home(CLIENT));
        let (home, ca) = (home.display(), self.ca_file());
        let ca = ca.display();
        format!("ProxyCommand env HOME={home} XDG_RUNTIME_DIR={home} POSTERN_CA_FILE={ca} {program} {words}")
    }

    fn log(&self, piece: &str) -> PathBuf {
        self.dir.join(piece).with_extension("log")
    }

    /// A program of ours at a host, at home where this atSign is.
    fn postern(&self, host: &Host, at_sign: &str, args: &[&str]) -> Spawn<'static> {
        Spawn::new(&self.program)
            .args(args)
            .env("HOME", self.dir.join(at_sign))
            .env("POSTERN_CA_FILE", self.server_dir().join("ca.pem"))
            .env("USER", user_name())
            .env("XDG_RUNTIME_DIR", self.home(at_sign))
            .netns(host.netns.clone())
    }

    /// Makes the server's directory and the atSigns; gives their secrets.
    fn found(&self, host: &Host, at: SocketAddr) -> anyhow::Result<Vec<(&'static str, String)>> {
        self.found_with(host, at, &[CLIENT, DEVICE, RELAY])
    }

    fn found_with(
        &self,
        host: &Host,
        at: SocketAddr,
        names: &[&'static str],
    ) -> anyhow::Result<Vec<(&'static str, String)>> {
        let run = |args: &[&str]| {
            let mut process = self
                .postern(host, CLIENT, &["server"])
                .args(args)
                .args(["--dir"])
                .args([self.server_dir()])
                .log(self.log("init"))
                .stdout()
                .start()?;
            let output = process.output()?;
            process.succeed(READY_DEADLINE)?;
            anyhow::Ok(output.trim().to_owned())
        };
        run(&["init", "--host", &at.ip().to_string(), "--port", &at.port().to_string()])?;
        names.iter().map(|name| Ok((*name, run(&["add", name])?))).collect()
    }

    fn start_server(&mut self, host: &Host, at: SocketAddr) -> anyhow::Result<()> {
        let mut server = self
            .postern(host, RELAY, &["server", "run", "--listen", &at.to_string(), "--dir"])
            .args([self.server_dir()])
            .account(&self.accounts[0])
            .log(self.log("server"))
            .start()?;
        server.wait_for_log("listening on ")?;
        self.processes.push(server);
        Ok(())
    }

    /// All at once: each spends its time on making RSA keys.
    fn activate(&self, site: &Site, secrets: &[(&str, String)]) -> anyhow::Result<()> {
        let mut running = Vec::new();
        for (name, secret) in secrets {
            let words = ["at_activate", "onboard", "-a", name, "-c", secret, "-r", &self.root, "-k"];
            let spawn = self.postern(&site.client, name, &words).args([self.keys(name)]);
            running.push((name, spawn.log(self.log("activate")).start()?));
        }
        for (name, mut process) in running {
            process.succeed(SETUP_DEADLINE).with_context(|| format!("activation of {name}"))?;
        }
        Ok(())
    }

    fn start_relay(&mut self, host: &Host) -> anyhow::Result<()> {
        let address = host.address.to_string();
        let words = ["srvd", "-v", "-a", RELAY, "-i", &address, "--root-domain", &self.root, "--bind-port", "0", "-k"];
        let mut relay = self
            .postern(host, RELAY, &words)
            .args([self.keys(RELAY)])
            .account(&self.accounts[0])
            .log(self.log("relay"))
            .start()?;
        relay.wait_for_log("monitor started for ")?;
        self.processes.insert(0, relay);
        Ok(())
    }

    fn start_daemon(&mut self, host: &Host, ports: &[u16]) -> anyhow::Result<()> {
        let permitted: Vec<String> = ports.iter().map(|port| format!("localhost:{port}")).collect();
        let ssh_port = ports.first().context("no port to permit")?.to_string();
        let mut daemon = self
            .postern(host, DEVICE, &["sshnpd", "-v", "-a", DEVICE, "-m", CLIENT, "-d", DEVICE_NAME])
            .args(["--root-domain", &self.root, "--local-sshd-port", &ssh_port])
            .args(["--permit-open", &permitted.join(","), "-k"])
            .args([self.keys(DEVICE)])
            .account(&self.accounts[1])
            .log(self.log("daemon"))
            .start()?;
        daemon.wait_for_log("monitor started")?;
        self.daemon = daemon.id();
        self.processes.insert(0, daemon);
        Ok(())
    }

    /// A program of the client's.
    pub(crate) fn client_program(&self, host: &Host, words: &[&str]) -> Spawn<'static> {
        self.postern(host, CLIENT, words).log(self.log("client"))
    }

    /// A client program towards the device, with what both take.
    fn client(&self, host: &Host, name: &str) -> Spawn<'static> {
        self.postern(host, CLIENT, &[name, "-f", CLIENT, "-t", DEVICE, "-d", DEVICE_NAME])
            .args(["-r", RELAY, "--root-domain", &self.root, "-k"])
            .args([self.keys(CLIENT)])
            .log(self.log(name))
    }

    /// `sshnp` to the device's ssh, told where its keys and known hosts are.
    pub(crate) fn sshnp(&self, site: &Site, ssh: &DeviceSsh, ssh_words: &str) -> Spawn<'static> {
        let words = format!("-F {} {ssh_words}", ssh.config.display());
        self.client(&site.client, "sshnp").args(["-i"]).args([&ssh.identity]).args(["-o", words.trim()])
    }

    /// Opens the first session of this house. The daemon may still be
    /// publishing its records when it is ready to be asked, and who comes
    /// before them is refused; tried until they are there.
    fn first_session(&self, site: &Site, ssh: &DeviceSsh) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            match time_to_end(self.sshnp(site, ssh, "").args(["--", "true"])) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => {}
            }
        }
    }
}

/// The device's own ssh server, and what a user's ssh is told about it.
pub(crate) struct DeviceSsh {
    config: PathBuf,
    identity: PathBuf,
    pub(crate) port: u16,
    /// Kept, not read: dropping them ends the server and closes its account.
    _process: Process,
    _account: Account,
}

impl DeviceSsh {
    /// Starts it on the device's loopback.
    pub(crate) fn start(kit: &SshKit, accounts: &Accounts, site: &Site) -> anyhow::Result<Self> {
        let port = free_port()?;
        let account = accounts.account(Role::Device);
        let inside = Host { address: Host::loopback().address, ..site.device.clone() };
        Ok(Self {
            config: kit.config("config-postern", &format!("Host localhost\n  HostKeyAlias {HOST_KEY_ALIAS}\n"))?,
            identity: kit.identity(),
            port,
            _process: kit.sshd(&inside, "device", port, &account)?,
            _account: account,
        })
    }
}

impl DeviceSsh {
    /// The configuration of an ssh that goes by our ProxyCommand.
    pub(crate) fn proxied(&self, kit: &SshKit, house: &House, words: &str) -> anyhow::Result<PathBuf> {
        let line = house.proxy_line(words);
        let host = format!("Host {DEVICE_NAME}\n  HostKeyAlias {HOST_KEY_ALIAS}\n  {line}\n");
        kit.config("config-connect", &host)
    }
}

/// The product as a way to the device's ssh.
pub(crate) struct PosternWay {
    pub(crate) kit: Result<Rc<SshKit>, String>,
    /// Whose habits the client has, as its option takes it; `None`: its own.
    pub(crate) dialect: Option<&'static str>,
}

struct PosternEntrance {
    house: House,
    ssh: DeviceSsh,
    dialect: Option<&'static str>,
}

impl PosternEntrance {
    fn sshnp(&self, site: &Site, ssh_words: &str) -> Spawn<'static> {
        let dialect = self.dialect.map(|name| ["--dialect", name]);
        self.house.sshnp(site, &self.ssh, ssh_words).args(dialect.iter().flatten())
    }
}

impl Way for PosternWay {
    fn name(&self) -> String {
        self.dialect.map_or_else(|| NAME.to_owned(), |dialect| format!("{NAME}, client of {dialect}"))
    }

    fn open(&self, accounts: &Accounts, site: &Site) -> anyhow::Result<Box<dyn Entrance>> {
        let kit = self.kit.as_ref().map_err(|why| anyhow!("{why}"))?;
        let ssh = DeviceSsh::start(kit, accounts, site)?;
        let house = House::stand(accounts, site, &[ssh.port])?;
        house.first_session(site, &ssh)?;
        Ok(Box::new(PosternEntrance { house, ssh, dialect: self.dialect }))
    }

    fn checks(&self, row: &setup::Row) -> Vec<Check> {
        if self.dialect.is_some() {
            return Vec::new();
        }
        let figure = format!("{NAME}: sshnp to ssh's first byte, loopback, median");
        vec![Check::at_most(figure, row.first_byte.median(), 0.35, "s")]
    }

    fn delayed_checks(&self, row: &setup::Row) -> Vec<Check> {
        if self.dialect.is_some() {
            return Vec::new();
        }
        let figure = format!("{NAME}: remote true, 50 ms between any two hosts, median");
        vec![Check::at_most(figure, row.remote_true_delayed.median(), 2.0, "s")]
    }
}

impl Entrance for PosternEntrance {
    fn remote_true(&self, site: &Site) -> anyhow::Result<Duration> {
        time_to_end(self.sshnp(site, "").args(["--", "true"]))
    }

    /// The same command, told to say more: ssh says when it is greeted, sshnp what it did before.
    fn first_byte(&self, site: &Site) -> anyhow::Result<Option<FirstByte>> {
        let command = self.sshnp(site, "-v").args(["-v", "--", "true"]).stderr();
        let start = Instant::now();
        let mut process = command.start()?;
        let mut steps = Vec::new();
        let mut said = Vec::new();
        let took = loop {
            let Some(line) = process.error_line()? else {
                return Err(anyhow!("ended before ssh was greeted; it said: {}", said.join(" | ")));
            };
            if line.contains(GREETED) {
                break start.elapsed();
            }
            steps.extend(Step::parse(&line));
            said.push(line);
        };
        while process.error_line()?.is_some() {}
        process.succeed(SETUP_DEADLINE)?;
        Ok(Some(FirstByte { took, steps }))
    }
}

/// The product as a tunnel: `npt`, encrypted as it is by default.
pub(crate) struct PosternTunnel;

impl Tunnel for PosternTunnel {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    fn start(&self, accounts: &Accounts, site: &Site, target: SocketAddr) -> anyhow::Result<Running> {
        let house = House::stand(accounts, site, &[target.port()])?;
        let client = accounts.account(Role::Client);
        let mut npt =
            house.client(&site.client, "npt").args(["-p", &target.port().to_string()]).account(&client).start()?;
        let line = npt.wait_for_log("npt is listening on ")?;
        let port = line.rsplit(':').next().and_then(|port| port.trim().parse().ok());
        let port = port.with_context(|| format!("no port in {line:?}"))?;
        let House { mut processes, mut accounts, .. } = house;
        processes.insert(0, npt);
        accounts.insert(0, client);
        Ok(Running { entry: site.client.at(port), processes, accounts })
    }

    fn checks(&self, row: &bulk::Row) -> Vec<Check> {
        bulk::checks(row)
    }
}

/// The daemon waiting: as it came up, and after it has served a session.
pub(crate) fn idle(accounts: &Accounts, site: &Site, kit: &SshKit) -> Vec<idle::Row> {
    let names = ["idle daemon: postern sshnpd", "idle daemon: postern sshnpd, after a session"];
    let measured = (|| {
        let ssh = DeviceSsh::start(kit, accounts, site)?;
        let house = House::stand(accounts, site, &[ssh.port])?;
        let fresh = Memory::of(house.daemon)?;
        house.first_session(site, &ssh)?;
        anyhow::Ok([fresh, Memory::of(house.daemon)?])
    })();
    let row = |(index, name): (usize, &str)| match &measured {
        Ok(memory) => idle::Row::measured(name, memory[index]),
        Err(error) => idle::Row::failed(name, &format!("{error:#}")),
    };
    names.into_iter().enumerate().map(row).collect()
}

/// The program under test, beside our own.
fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("failed to find our own program")?;
    let program = own.parent().unwrap_or(Path::new(".")).join("postern");
    ensure!(program.is_file(), "no postern beside the bench: cargo build --release -p postern");
    Ok(program)
}

fn user_name() -> String {
    std::env::var("USER").unwrap_or_else(|_| "root".to_owned())
}
