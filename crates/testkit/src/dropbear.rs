//! Dropbear as the device's ssh server, as on OpenWrt: own key, own port, loopback only, and no sftp server beside it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::limits::READY;
use crate::process::system;
use crate::sshd::MARK;
use crate::{Place, Process};

/// Said when it listens.
pub(crate) const LISTENS: &str = "Not backgrounding";

/// Its keys are where the account's home is, which it cannot be told: it gets a view of the files in which that is a directory
/// of the test.
const VIEW: &str = "mount --bind \"$1\" \"$2\" && shift 2 && for server in /usr/lib/openssh/sftp-server /usr/libexec/sftp-server; do \
                    if [ -e \"$server\" ]; then mount --bind /dev/null \"$server\" || exit 1; fi; done && exec \"$@\"";

/// What it needs, in the directory of a house.
#[derive(Debug)]
pub(crate) struct Dropbear {
    dir: PathBuf,
    port: u16,
}

impl Dropbear {
    /// The name that it looks for, and the daemon too.
    const HOST_KEY: &str = "dropbear_ed25519_host_key";

    pub(crate) fn lay_down(dir: &Path, port: u16) -> anyhow::Result<Self> {
        let host_key = dir.join(Self::HOST_KEY);
        system("dropbearkey", &["-t", "ed25519", "-f", host_key.to_str().context("path is not text")?])?;
        Ok(Self { dir: dir.to_owned(), port })
    }

    /// Starts it; ready when this returns.
    pub(crate) fn start(&self, place: &Place) -> anyhow::Result<Process> {
        let account = system("getent", &["passwd", &rustix::process::geteuid().as_raw().to_string()])?;
        let home = account.split(':').nth(5).context("an account without a home")?;
        let mut command = place.command("unshare");
        command.args(["--mount", "sh", "-c", VIEW, "sh"]).arg(self.dir.join("device")).arg(home);
        // In the foreground, what it says to standard error, no passwords, our environment for what it starts.
        command.args(["dropbear", "-F", "-E", "-s", "-e", "-P", "/dev/null"]);
        command.arg("-r").arg(self.dir.join(Self::HOST_KEY)).args(["-p", &format!("127.0.0.1:{}", self.port)]);
        command.env(MARK, &self.dir).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let mut process = Process::start(command)?;
        process.wait_for_line(READY, |line| line.contains(LISTENS))?;
        Ok(process)
    }
}
