//! An ssh server of the test's own: own keys, own port, loopback only.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::limits::{COMMAND, READY};
use crate::process::{run, system};
use crate::{Place, Process};

/// Debian keeps it out of the path of ordinary users; it must be started by its full name.
const PLACES: [&str; 3] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"];

/// Set for every command that runs through the server, to the directory of its house: a command
/// without a terminal outlives its connection, and must not outlive its house.
pub(crate) const MARK: &str = "POSTERN_HOUSE";

/// What an ssh server needs, laid down in a directory.
#[derive(Debug)]
pub(crate) struct SshdFiles {
    config: PathBuf,
    host_key: PathBuf,
}

impl SshdFiles {
    /// Makes keys and configuration. `authorized_keys` is the one file that lets anybody in.
    pub(crate) fn lay_down(dir: &Path, port: u16, authorized_keys: &Path) -> anyhow::Result<Self> {
        let files = Self { config: dir.join("sshd_config"), host_key: dir.join("ssh_host_ed25519_key") };
        make_key(&files.host_key)?;
        let mut config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n",
            files.host_key.display(),
            authorized_keys.display()
        );
        // The directory is in /tmp, which strict modes rightly dislike. Twenty sessions at once are
        // a test of ours, not an attack.
        config.push_str(
            "StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nMaxStartups 200\nMaxSessions 200\nPrintMotd no\n\
             PrintLastLog no\nLogLevel VERBOSE\nSubsystem sftp internal-sftp\n",
        );
        // The start files of whoever runs the tests have no part in them: what they start and lock would outlive a session.
        let _ = writeln!(config, "SetEnv {MARK}={} HOME={}", dir.display(), dir.display());
        let _ = writeln!(config, "UsePAM {}", if account_is_locked() { "yes" } else { "no" });
        // All our clients share one address; newer servers would punish it for a broken session.
        let lenient = format!("{config}PerSourcePenalties no\n");
        if files.accepts(&lenient)? {
            return Ok(files);
        }
        if !files.accepts(&config)? {
            bail!("this sshd does not take our configuration:\n{config}");
        }
        Ok(files)
    }

    /// Starts it; ready when this returns.
    pub(crate) fn start(&self, place: &Place) -> anyhow::Result<Process> {
        let mut command = place.command(sshd_path()?);
        command.arg("-D").arg("-e").arg("-f").arg(&self.config);
        let mut process = Process::start(command)?;
        process.wait_for_line(READY, |line| line.starts_with("Server listening on"))?;
        Ok(process)
    }

    fn accepts(&self, config: &str) -> anyhow::Result<bool> {
        std::fs::write(&self.config, config).context("failed to write sshd_config")?;
        let mut command = std::process::Command::new(sshd_path()?);
        command.arg("-t").arg("-f").arg(&self.config);
        Ok(run(command, COMMAND)?.status.success())
    }
}

/// Ends what was started through the ssh server of the house in `dir` and still runs.
pub fn end_sessions(dir: &Path) {
    let mark = format!("{MARK}={}", dir.display());
    let Ok(processes) = std::fs::read_dir("/proc") else { return };
    for entry in processes.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes()) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Makes an ssh key pair without a passphrase.
pub(crate) fn make_key(path: &Path) -> anyhow::Result<()> {
    let path = path.to_str().context("path is not text")?;
    system("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "postern-test", "-f", path]).map(drop)
}

fn sshd_path() -> anyhow::Result<&'static str> {
    if rustix::process::geteuid().is_root() {
        // Its empty room for unprivileged work; made by the service's start, which we are not.
        let room = Path::new("/run/sshd");
        if !room.exists() {
            std::fs::create_dir_all(room).context("failed to make /run/sshd")?;
            std::fs::set_permissions(room, std::fs::Permissions::from_mode(0o755))?;
        }
    }
    PLACES.into_iter().find(|path| Path::new(path).exists()).context("no sshd here: install openssh-server")
}

/// Without PAM, sshd takes a password field that starts with `!` for a locked account. Only root
/// can look, and only for root's sshd it matters.
fn account_is_locked() -> bool {
    let Ok(shadow) = std::fs::read_to_string("/etc/shadow") else { return false };
    shadow.lines().any(|line| line.starts_with("root:!"))
}
