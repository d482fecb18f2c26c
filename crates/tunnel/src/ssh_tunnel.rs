//! The ssh tunnel of a session that is not encrypted: an ssh of our own, let in by the ephemeral key
//! of the device's reply, inside which the user's ssh runs. Daemons of version 4 know no other way.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use postern_client::home_dir;
use postern_proto::{AtSign, Uuid};
use postern_session::{DeviceName, EphemeralSshKey};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::limits::{LAST_WORDS, LAST_WORDS_BYTES, SSH_TUNNEL};
use crate::ssh::{program, split_words};
use crate::trouble::Trouble;

/// What the user said about it.
pub(crate) struct TunnelOptions {
    /// Login; without one the user's own.
    pub(crate) user: Option<String>,
    /// The ssh server as the device sees it.
    pub(crate) remote_sshd_port: u16,
    /// Life without connections.
    pub(crate) idle: Duration,
    /// The words of `-o` are for the tunnel and not for the user's ssh.
    pub(crate) takes_words: bool,
}

/// Everything the tunnel's ssh is told.
pub(crate) struct SshTunnel<'a> {
    pub(crate) session: &'a Uuid,
    pub(crate) at_sign: &'a AtSign,
    pub(crate) device: &'a DeviceName,
    pub(crate) user: &'a str,
    pub(crate) key: &'a EphemeralSshKey,
    /// Our end of the relay connection.
    pub(crate) through: u16,
    /// Where the user's ssh is to find the device.
    pub(crate) local_port: u16,
    pub(crate) options: &'a TunnelOptions,
    /// The words of `-o`.
    pub(crate) words: &'a [String],
}

impl SshTunnel<'_> {
    /// Starts it; stands when this returns. It ends by itself: when the relay connection does, or after the idle
    /// time without a connection. Source: NoPorts, two client paths.
    pub(crate) async fn start(&self) -> Result<(), Trouble> {
        let dir = home_dir().map_err(Trouble::Start)?.join(".sshnp");
        let key = KeyFile::write(&dir, self.session, self.key).map_err(Trouble::Ssh)?;
        let mut child = self.command(&dir, &key.0).spawn().map_err(Trouble::Ssh)?;
        // With -f the first process ends when the tunnel stands.
        let status = match timeout(SSH_TUNNEL, child.wait()).await {
            Ok(status) => status.map_err(Trouble::Ssh)?,
            Err(_) => return Err(Trouble::SshTunnel(format!("no connection within {} s", SSH_TUNNEL.as_secs()))),
        };
        if status.success() { Ok(()) } else { Err(Trouble::SshTunnel(last_words(&mut child).await)) }
    }

    fn command(&self, dir: &Path, key: &Path) -> Command {
        let mut command = Command::new(program());
        // The user's configuration is for the user's ssh; this one is the same everywhere. It remembers the host key
        // beside the user's, under the device's name: the port differs from run to run.
        command.args(["-F", "/dev/null", "-p", &self.through.to_string(), "-i"]).arg(key);
        let to = format!("{}:localhost:{}", self.local_port, self.options.remote_sshd_port);
        command.args(["-L", &to]);
        for option in [
            "LogLevel=ERROR",
            "StrictHostKeyChecking=accept-new",
            &format!("HostKeyAlias={}.{}.noports", self.device, self.at_sign.body()),
            "CheckHostIP=no",
            &format!("UserKnownHostsFile={}", quoted(&dir.join("known_hosts"))),
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
            "ExitOnForwardFailure=yes",
        ] {
            command.args(["-o", option]);
        }
        if self.options.takes_words {
            command.args(self.words.iter().flat_map(|words| split_words(words)));
        }
        command.args(["-n", "-f", &format!("{}@localhost", self.user), "sleep"]);
        command.arg(self.options.idle.as_secs().max(1).to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// An option's value with spaces, as ssh reads it.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// What ssh said before it gave up.
async fn last_words(child: &mut Child) -> String {
    let mut text = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = timeout(LAST_WORDS, stderr.take(LAST_WORDS_BYTES).read_to_end(&mut text)).await;
    }
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join("; ");
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    if clean.is_empty() { "ssh did not say why".to_owned() } else { clean }
}

/// The ephemeral key on disk, for ssh reads no other; gone with this value.
struct KeyFile(PathBuf);

impl KeyFile {
    fn write(dir: &Path, session: &Uuid, key: &EphemeralSshKey) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let path = dir.join(format!("ephemeral_{session}"));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let this = Self(path);
        file.write_all(key.reveal().as_bytes())?;
        Ok(this)
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
