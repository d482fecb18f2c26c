//! The relay beside the server, for who has one machine: `run --relay` makes its keys once, and keeps it running as a process
//! of its own of the same binary.
//!
//! Towards the server it is a relay like all others, which logs in with keys of its own. It runs as the server's user, though:
//! who wants a wall between the two runs `srvd` as somebody else.

use std::fs::DirBuilder;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use postern_proto::{AtKey, AtSign};
use postern_store::Store;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::cli::say;
use crate::home::{AddError, Home};
use crate::limits::DRAIN;

/// The first pause before it is started again; each is twice the one before.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest: a name that the world does not know yet is known some day.
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);

/// The relay that is wanted.
pub(crate) struct Wanted {
    pub(crate) at_sign: AtSign,
    /// Its one port; `None`: its own choice.
    pub(crate) port: Option<u16>,
    /// What it logs.
    pub(crate) verbose: u8,
}

/// Where things are.
struct Beside<'a> {
    home: &'a Home,
    wanted: &'a Wanted,
    /// `host:port` of the directory, as everybody knows it.
    root: String,
    /// Where the server listens.
    bind: IpAddr,
    keys: PathBuf,
}

/// Keeps it running until `stop`, and ends when it has ended. Says what goes wrong; the server goes on without it.
pub(crate) async fn keep(
    home: &Home,
    store: &dyn Store,
    wanted: &Wanted,
    address: SocketAddr,
    stop: &CancellationToken,
) {
    let port = home.settings().advertised_port.unwrap_or(address.port());
    let keys = home.relay_dir().join(format!("{}_key.atKeys", wanted.at_sign));
    let beside = Beside { home, wanted, root: format!("{}:{port}", home.settings().host), bind: address.ip(), keys };
    let mut pause = AGAIN;
    loop {
        let begun = Instant::now();
        let why = match beside.once(store, stop).await {
            Ok(None) => return,
            Ok(Some(status)) => status.to_string(),
            Err(why) => why,
        };
        if begun.elapsed() > AGAIN_AT_MOST {
            pause = AGAIN;
        }
        say(&format!("[WARN] the relay {} ended: {why}; once more in {} s", wanted.at_sign, pause.as_secs()));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(AGAIN_AT_MOST),
        }
    }
}

impl Beside<'_> {
    /// From the keys to its end; `None`: it was asked to end.
    async fn once(&self, store: &dyn Store, stop: &CancellationToken) -> Result<Option<ExitStatus>, String> {
        if !self.keys.exists()
            && let Some(status) = self.activate(store, stop).await?
        {
            return Ok(Some(status).filter(|_| !stop.is_cancelled()));
        }
        let Wanted { at_sign, port, verbose } = self.wanted;
        let mut srvd = self.program("srvd")?;
        srvd.args(["-a", at_sign.as_str(), "-i", &self.home.settings().host, "--root-domain", &self.root]);
        srvd.args(["--bind", &self.bind.to_string()]);
        srvd.args(["--end-with", &std::process::id().to_string()]).arg("-k").arg(&self.keys);
        if let Some(port) = port {
            srvd.args(["--bind-port", &port.to_string()]);
        }
        match verbose {
            0 => {}
            1 => drop(srvd.arg("-v")),
            _ => drop(srvd.arg("--debug")),
        }
        let child = srvd.stdin(Stdio::null()).spawn().map_err(|error| format!("it cannot be started: {error}"))?;
        ended(child, stop).await.map_err(|error| error.to_string())
    }

    /// Makes its atSign, if there is none, and its keys. Gives how that ended where it did not succeed.
    async fn activate(&self, store: &dyn Store, stop: &CancellationToken) -> Result<Option<ExitStatus>, String> {
        let at_sign = &self.wanted.at_sign;
        let secret = match self.home.add(store, at_sign, None).await {
            Ok(secret) => secret,
            Err(AddError::Exists(_)) => self.secret(store)?,
            Err(error) => return Err(error.to_string()),
        };
        let dir = self.home.relay_dir();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        let mut activate = self.program("at_activate")?;
        activate.args(["onboard", "-a", at_sign.as_str(), "-r", &self.root, "-c", "-"]).arg("-k").arg(&self.keys);
        let spawned = activate.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let mut child = spawned.map_err(|error| format!("at_activate cannot be started: {error}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends without reading says why by itself.
            let _ = stdin.write_all(secret.as_bytes()).await;
        }
        let status = ended(child, stop).await.map_err(|error| error.to_string())?;
        Ok(status.filter(|status| !status.success()))
    }

    /// Of an atSign that nobody has activated yet.
    fn secret(&self, store: &dyn Store) -> Result<Zeroizing<String>, String> {
        let at_sign = &self.wanted.at_sign;
        let record = store.get(at_sign, &AtKey::private_key("at_secret")).map_err(|error| error.to_string())?;
        let missing = || {
            format!(
                "{at_sign} is activated already, and its keys are not in {}: put them there, or name another atSign",
                self.keys.display()
            )
        };
        Ok(Zeroizing::new(record.ok_or_else(missing)?.value))
    }

    /// Another program of this binary.
    fn program(&self, name: &str) -> Result<Command, String> {
        let this = std::env::current_exe().map_err(|error| format!("this binary is not found: {error}"))?;
        let mut command = Command::new(this);
        command.arg(name).kill_on_drop(true);
        // The service manager hears from the server alone.
        for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(variable);
        }
        if let Some(ca) = self.home.ca()
            && std::env::var_os("POSTERN_CA_FILE").is_none()
        {
            command.env("POSTERN_CA_FILE", absolute(&ca));
        }
        Ok(command)
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Waits for its end. `None`: it ended because it was to stop.
async fn ended(mut child: Child, stop: &CancellationToken) -> io::Result<Option<ExitStatus>> {
    tokio::select! {
        status = child.wait() => return status.map(Some),
        () = stop.cancelled() => {}
    }
    let pid = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    if let Some(pid) = pid {
        // It may be gone by now.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    if tokio::time::timeout(DRAIN, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(None)
}
