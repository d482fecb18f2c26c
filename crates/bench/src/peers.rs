//! The rivals: the plain ssh recipe through a server, and ssh over rathole,
//! the best a user can put together today. All end to end, all with their
//! defaults but for what a row's name says.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context, anyhow, bail, ensure};

use crate::bulk::{Running, Tunnel};
use crate::cpu::{Account, Accounts, Role};
use crate::host::{Host, Site, free_port};
use crate::process::{Process, Spawn};

/// Where `rathole` is looked for besides `PATH`; how to put it there is said
/// by [`rathole`] and in `docs/benchmarks.md`.
const RATHOLE_HOME: &str = "target/bench-peers/bin/rathole";

/// Key pairs and the user for ssh, made once a run.
#[derive(Debug)]
pub(crate) struct SshKit {
    dir: PathBuf,
    user: String,
    sshd: PathBuf,
}

impl SshKit {
    /// Makes the keys.
    ///
    /// # Errors
    /// OpenSSH's client, server or key generator is not installed.
    pub(crate) fn new(dir: &Path) -> anyhow::Result<Self> {
        let sshd = find("sshd").context("no sshd: install openssh-server")?;
        find("ssh").context("no ssh: install openssh-client")?;
        let dir = dir.join("ssh");
        fs::create_dir_all(&dir)?;
        let mut known = String::new();
        for name in ["user", "server", "device"] {
            let status = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
                .arg(dir.join(name))
                .status()
                .context("no ssh-keygen")?;
            ensure!(status.success(), "ssh-keygen failed");
            let public = fs::read_to_string(dir.join(format!("{name}.pub")))?;
            // sshnp asks for the device by another name.
            let alias = if name == "device" { ",gateway.device.noports" } else { "" };
            writeln!(known, "{name}{alias} {}", public.trim())?;
        }
        fs::write(dir.join("known_hosts"), known)?;
        fs::copy(dir.join("user.pub"), dir.join("authorized_keys"))?;
        let user = Command::new("id").arg("-un").output().context("no id")?;
        let user = String::from_utf8(user.stdout)?.trim().to_owned();
        if user == "root" {
            // Where sshd separates its privileges; packages make it at boot only.
            fs::create_dir_all("/run/sshd")?;
        }
        Ok(Self { dir, user, sshd })
    }

    /// The user's private key.
    pub(crate) fn identity(&self) -> PathBuf {
        self.dir.join("user")
    }

    /// Starts an sshd of its own configuration at a host; returns when it greets.
    pub(crate) fn sshd(&self, host: &Host, name: &str, port: u16, account: &Account) -> anyhow::Result<Process> {
        let dir = self.dir.display();
        let config = self.dir.join(format!("sshd-{name}-{port}"));
        fs::write(
            &config,
            format!(
                "Port {port}\nListenAddress {}\nHostKey {dir}/{name}\nAuthorizedKeysFile {dir}/authorized_keys\n\
                 StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nPidFile none\nUseDNS no\n\
                 PrintMotd no\nPrintLastLog no\nLogLevel ERROR\nMaxStartups 1000\n",
                host.address
            ),
        )?;
        let mut process = Spawn::new(&self.sshd)
            .args(["-D", "-e", "-f"])
            .args([&config])
            .account(account)
            .netns(host.netns.clone())
            .log(self.dir.join(format!("sshd-{name}.log")))
            .start()?;
        host.wait_for_ssh(host.at(port), "sshd", &mut [&mut process])?;
        Ok(process)
    }

    /// Writes a client configuration: defaults, known keys, and these hosts.
    pub(crate) fn config(&self, name: &str, hosts: &str) -> anyhow::Result<PathBuf> {
        let (dir, user) = (self.dir.display(), &self.user);
        let path = self.dir.join(name);
        fs::write(
            &path,
            format!(
                "{hosts}\nHost *\n  User {user}\n  IdentityFile {dir}/user\n  IdentitiesOnly yes\n  \
                 UserKnownHostsFile {dir}/known_hosts\n  GlobalKnownHostsFile /dev/null\n  \
                 StrictHostKeyChecking yes\n  BatchMode yes\n  LogLevel ERROR\n"
            ),
        )?;
        Ok(path)
    }

    /// `ssh` at this host with this configuration.
    pub(crate) fn ssh(&self, host: &Host, config: &Path) -> Spawn<'static> {
        Spawn::new("ssh").args(["-F"]).args([config]).netns(host.netns.clone()).log(self.dir.join("ssh.log"))
    }
}

/// How a user reaches the device over something that is up.
#[derive(Debug)]
pub(crate) struct Way {
    config: PathBuf,
    /// Destination name in the configuration.
    name: &'static str,
    /// What `ssh -W` is asked for, and at whom, to see the device's greeting only.
    greeting: Option<(String, &'static str)>,
}

/// What stands between client and device, without a client.
pub(crate) struct Standing {
    pub(crate) way: Way,
    /// The program that runs on the device for the sake of the tunnel.
    pub(crate) agent: Option<u32>,
    processes: Vec<Process>,
    accounts: Vec<Account>,
}

/// Which recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipe {
    /// `ssh device`: there is an open port. Not a rival, but its floor.
    Straight,
    /// `ssh -J server` over `ssh -R` from the device.
    JumpReverse,
    /// ssh over a rathole TCP service.
    Rathole,
}

impl Recipe {
    /// Name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Straight => "ssh straight to the device",
            Self::JumpReverse => "ssh -J over -R",
            Self::Rathole => "ssh over rathole",
        }
    }

    /// Brings up everything but the user's own ssh.
    pub(crate) fn stand(self, kit: &SshKit, accounts: &Accounts, site: &Site) -> anyhow::Result<Standing> {
        let device_port = free_port()?;
        let device = accounts.account(Role::Device);
        let device_sshd = kit.sshd(&site.device, "device", device_port, &device)?;
        let inside = SocketAddr::from((site.device.address, device_port));
        match self {
            Self::Straight => {
                let hosts = format!(
                    "Host straight\n  HostName {}\n  Port {device_port}\n  HostKeyAlias device\n",
                    site.device.address
                );
                let way = Way { config: kit.config("config-straight", &hosts)?, name: "straight", greeting: None };
                Ok(Standing { way, agent: None, processes: vec![device_sshd], accounts: vec![device] })
            }
            Self::JumpReverse => {
                let relay = accounts.account(Role::Relay);
                let server_port = free_port()?;
                let server_sshd = kit.sshd(&site.server, "server", server_port, &relay)?;
                let reverse_port = free_port()?;
                let hosts = format!(
                    "Host server\n  HostName {}\n  Port {server_port}\n  HostKeyAlias server\n\
                     Host device\n  HostName 127.0.0.1\n  Port {reverse_port}\n  HostKeyAlias device\n  ProxyJump server\n",
                    site.server.address
                );
                let config = kit.config("config-jump", &hosts)?;
                let mut agent = kit
                    .ssh(&site.device, &config)
                    .args(["-N", "-o", "ExitOnForwardFailure=yes", "-R"])
                    .args([format!("127.0.0.1:{reverse_port}:{inside}"), "server".to_owned()])
                    .account(&device)
                    .start()?;
                let reverse = SocketAddr::from(([127, 0, 0, 1], reverse_port));
                site.server.wait_for_ssh(reverse, "ssh -R", &mut [&mut agent])?;
                let way = Way { config, name: "device", greeting: Some((reverse.to_string(), "server")) };
                Ok(Standing {
                    way,
                    agent: Some(agent.id()),
                    processes: vec![agent, server_sshd, device_sshd],
                    accounts: vec![relay, device],
                })
            }
            Self::Rathole => {
                let relay = accounts.account(Role::Relay);
                let (control, service) = (free_port()?, free_port()?);
                let (server_process, agent) = rathole_pair(kit, site, control, service, inside, &relay, &device)?;
                let hosts = format!(
                    "Host rathole\n  HostName {}\n  Port {service}\n  HostKeyAlias device\n",
                    site.server.address
                );
                let way = Way { config: kit.config("config-rathole", &hosts)?, name: "rathole", greeting: None };
                Ok(Standing {
                    way,
                    agent: Some(agent.id()),
                    processes: vec![agent, server_process, device_sshd],
                    accounts: vec![relay, device],
                })
            }
        }
    }
}

fn rathole_pair(
    kit: &SshKit,
    site: &Site,
    control: u16,
    service: u16,
    inside: SocketAddr,
    relay: &Account,
    device: &Account,
) -> anyhow::Result<(Process, Process)> {
    let program = rathole()?;
    let server_config = kit.dir.join("rathole-server.toml");
    fs::write(
        &server_config,
        format!(
            "[server]\nbind_addr = \"{}\"\n[server.services.ssh]\ntoken = \"bench\"\nbind_addr = \"{}\"\n",
            site.server.at(control),
            site.server.at(service)
        ),
    )?;
    let client_config = kit.dir.join("rathole-client.toml");
    fs::write(
        &client_config,
        format!(
            "[client]\nremote_addr = \"{}\"\n[client.services.ssh]\ntoken = \"bench\"\nlocal_addr = \"{inside}\"\n",
            site.server.at(control)
        ),
    )?;
    let start = |config: &Path, host: &Host, account: &Account| {
        Spawn::new(&program)
            .args([config])
            .account(account)
            .netns(host.netns.clone())
            .log(kit.dir.join("rathole.log"))
            .start()
    };
    let mut server_process = start(&server_config, &site.server, relay)?;
    // The client program tries again only after a second.
    site.server.wait_for_port(site.server.at(control), "rathole's server", &mut [&mut server_process])?;
    let mut agent = start(&client_config, &site.device, device)?;
    site.server.wait_for_ssh(site.server.at(service), "rathole", &mut [&mut server_process, &mut agent])?;
    Ok((server_process, agent))
}

impl Standing {
    /// `ssh … true` as the client's user types it.
    pub(crate) fn true_command(&self, kit: &SshKit, site: &Site) -> Spawn<'static> {
        kit.ssh(&site.client, &self.way.config).args([self.way.name, "true"])
    }

    /// What shows the device's greeting on standard output; `None` where any
    /// TCP connection does.
    pub(crate) fn greeting_command(&self, kit: &SshKit, site: &Site) -> Option<Spawn<'static>> {
        let (to, at) = self.way.greeting.as_ref()?;
        Some(kit.ssh(&site.client, &self.way.config).args(["-W", to, at]).stdout())
    }
}

/// A recipe with a TCP forward of the client's ssh through it.
pub(crate) struct SshTunnel {
    pub(crate) recipe: Recipe,
    /// Cipher of the end-to-end connection; the default when `None`.
    pub(crate) cipher: Option<&'static str>,
    /// The keys, or why there are none.
    pub(crate) kit: Result<Rc<SshKit>, String>,
}

impl Tunnel for SshTunnel {
    fn name(&self) -> String {
        match self.cipher {
            Some(cipher) => format!("{}, {}", self.recipe.name(), cipher.trim_end_matches("@openssh.com")),
            None => self.recipe.name().to_owned(),
        }
    }

    fn slow(&self) -> bool {
        self.recipe == Recipe::JumpReverse
    }

    fn start(&self, accounts: &Accounts, site: &Site, target: SocketAddr) -> anyhow::Result<Running> {
        let kit = self.kit.as_ref().map_err(|why| anyhow!("{why}"))?;
        let standing = self.recipe.stand(kit, accounts, site)?;
        let client = accounts.account(Role::Client);
        let entry = site.client.at(free_port()?);
        let mut spawn = kit
            .ssh(&site.client, &standing.way.config)
            .args(["-N", "-o", "ExitOnForwardFailure=yes", "-L"])
            .args([format!("{entry}:{target}")])
            .account(&client);
        if let Some(cipher) = self.cipher {
            spawn = spawn.args(["-c", cipher]);
        }
        let forward = spawn.args([standing.way.name]).start()?;
        let Standing { mut processes, mut accounts, .. } = standing;
        processes.insert(0, forward);
        accounts.insert(0, client);
        Ok(Running { entry, processes, accounts })
    }
}

/// The rathole program.
///
/// # Errors
/// It is not installed; the text says how to.
pub(crate) fn rathole() -> anyhow::Result<PathBuf> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(RATHOLE_HOME);
    if home.exists() {
        return Ok(home);
    }
    find("rathole").context(
        "no rathole: cargo install rathole --version 0.5.0 --no-default-features --features server,client \
         --root target/bench-peers",
    )
}

/// Looks a program up in `PATH` and where administrators' programs live.
fn find(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    for dir in std::env::split_paths(&path).chain(system) {
        let candidate = dir.join(name);
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!("{name} not found")
}
