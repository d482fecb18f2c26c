//! Who is measured.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use postern_testkit::limits::{COMMAND, READY};
use postern_testkit::{Mark, Place, Process, World, run};

/// One device and how it keeps its way open.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    /// Its interface: the daemon knows a modem by its name.
    pub(crate) link: &'static str,
    pub(crate) kind: What,
    /// How much faster than real its time runs.
    pub(crate) hastened: f64,
    /// Bytes a month that are promised.
    pub(crate) promise: Option<f64>,
}

pub(crate) enum What {
    /// `sshnpd` with each of these groups of further words: a process each.
    Daemon(&'static [&'static [&'static str]]),
    /// `ssh -R` with this `ServerAliveInterval`.
    ReverseSsh(u32),
}

/// All of them.
pub(crate) const SUBJECTS: [Subject; 6] = [
    Subject {
        name: "wired",
        link: "eth0",
        kind: What::Daemon(&[&["--profile", "wired", "--hasten", "60"]]),
        hastened: 60.0,
        promise: None,
    },
    Subject {
        name: "auto",
        link: "eth0",
        kind: What::Daemon(&[&["--hasten", "900"]]),
        hastened: 900.0,
        promise: Some(2e6),
    },
    // What auto makes of itself on a modem.
    Subject {
        name: "metered",
        link: "wwan0",
        kind: What::Daemon(&[&["--hasten", "900"]]),
        hastened: 900.0,
        promise: Some(1e6),
    },
    Subject {
        name: "sleepy",
        link: "wwan0",
        kind: What::Daemon(&[&["--profile", "sleepy", "--hasten", "900"]]),
        hastened: 900.0,
        promise: Some(1e6),
    },
    // Its daemon asks every 10 s on the connection for notifications and every 15 s on the other. Ours with the same
    // intervals: what its atServer adds by itself (statistics every 15 s) is not in it.
    Subject {
        name: "intervals of SSH No Ports",
        link: "eth0",
        kind: What::Daemon(&[&["--keep-alive", "10s"], &["--keep-alive", "15s"]]),
        hastened: 1.0,
        promise: None,
    },
    Subject {
        name: "ssh -R, alive every 30 s",
        link: "eth0",
        kind: What::ReverseSsh(30),
        hastened: 1.0,
        promise: None,
    },
];

/// A subject that runs.
pub(crate) struct Running {
    processes: Vec<Process>,
    ours: bool,
}

impl Subject {
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.kind, What::Daemon(_))
    }

    /// Starts it; its connections stand when this returns.
    pub(crate) fn start(&self, world: &World, server: &Place, place: &Place) -> anyhow::Result<Running> {
        match &self.kind {
            What::Daemon(groups) => {
                let mut processes = Vec::new();
                for (i, words) in groups.iter().enumerate() {
                    // A name of its own: they are devices of one atSign.
                    let name = format!("idle-{}-{i}", self.name.split_whitespace().next().unwrap_or_default());
                    let mut daemon = world.sshnpd_at(place, &name.to_lowercase());
                    daemon.args(*words);
                    processes.push(world.start_daemon(daemon)?);
                }
                Ok(Running { processes, ours: true })
            }
            What::ReverseSsh(seconds) => {
                Ok(Running { processes: reverse_ssh(*seconds, world, server, place)?, ours: false })
            }
        }
    }
}

impl Running {
    pub(crate) fn marks(&self) -> Vec<Mark> {
        self.processes.iter().map(Process::mark).collect()
    }

    /// Waits until the daemons have come back to a server that went.
    pub(crate) fn wait_until_back(&mut self, marks: &[Mark]) -> anyhow::Result<()> {
        if self.ours {
            for (process, mark) in self.processes.iter_mut().zip(marks) {
                process.wait_for_line_after(*mark, READY * 3, |line| line.contains("connection available"))?;
            }
        }
        Ok(())
    }
}

/// Port of the server's sshd, where it is alone.
const PORT: u16 = 2200;

fn reverse_ssh(seconds: u32, world: &World, server: &Place, place: &Place) -> anyhow::Result<Vec<Process>> {
    let dir = world.dir().join("reverse-ssh");
    std::fs::create_dir_all(&dir)?;
    for name in ["host", "user"] {
        let mut make = Command::new("ssh-keygen");
        make.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join(name));
        run(make, COMMAND)?.success()?;
    }
    let path = |name: &str| dir.join(name).display().to_string();
    let config = format!(
        "Port {PORT}\nListenAddress {}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
         PermitRootLogin prohibit-password\nLogLevel VERBOSE\n",
        server.address(),
        path("host"),
        path("user.pub")
    );
    std::fs::write(dir.join("sshd_config"), config)?;
    let sshd =
        ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"].into_iter().find(|path| Path::new(path).exists());
    let mut command = server.command(sshd.context("there is no sshd")?);
    command.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config"));
    let mut sshd = Process::start(command)?;
    sshd.wait_for_line(READY, |line| line.starts_with("Server listening on"))?;
    let mut command = place.command("ssh");
    command.args(["-v", "-N", "-R", "2222:127.0.0.1:22", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes"]);
    command.args(["-F", "none", "-o", "UserKnownHostsFile=/dev/null", "-o", &format!("ServerAliveInterval={seconds}")]);
    command.args(["-p", &PORT.to_string(), "-i", &path("user"), &server.address().to_string()]);
    command.env_remove("SSH_AUTH_SOCK");
    let mut ssh = Process::start(command)?;
    ssh.wait_for_line(Duration::from_secs(20), |line| line.contains("remote forward success"))?;
    Ok(vec![ssh, sshd])
}
