//! Host keys of this device's ssh server: OpenSSH's and Dropbear's.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, PoisonError};

use postern_client::trust::now_ms;
use postern_identity::{Label, Statement};
use postern_net::ready;
use postern_net::tasks::blocking;
use postern_session::limits::HOST_KEYS;
use postern_session::{HostKeys, SshPublicKey};

use crate::daemon::Daemon;
use crate::limits::{HOST_KEYS_BYTES, KEY_FILE_BYTES};

/// Where host keys are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostKeySource {
    /// None are shown.
    Off,
    /// What OpenSSH and Dropbear use on this machine.
    Standard,
    /// Public key files, or directories that hold `ssh_host_*_key.pub` or Dropbear's `dropbear_*_host_key`.
    Paths(Vec<PathBuf>),
}

/// Where OpenSSH keeps its configuration and keys.
pub(crate) const OPENSSH: &str = "/etc/ssh";
/// Where Dropbear keeps its keys.
pub(crate) const DROPBEAR: &str = "/etc/dropbear";

impl HostKeySource {
    pub(crate) fn parse(text: &str) -> Self {
        match text.trim() {
            "off" => Self::Off,
            "auto" | "" => Self::Standard,
            paths => Self::Paths(paths.split(',').map(|path| PathBuf::from(path.trim())).collect()),
        }
    }

    /// Reads them, small ones first, as many as fit into a reply. What cannot be read is passed over.
    fn read(&self) -> Vec<SshPublicKey> {
        let mut keys = match self {
            Self::Off => Vec::new(),
            Self::Standard => {
                let mut keys = openssh(Path::new(OPENSSH));
                keys.extend(dropbear(Path::new(DROPBEAR)));
                keys
            }
            Self::Paths(paths) => paths.iter().flat_map(|path| named(path)).collect(),
        };
        keys.sort_by_key(|key| key.to_string().len());
        keys.dedup();
        let mut room = HOST_KEYS_BYTES;
        keys.retain(|key| match room.checked_sub(key.to_string().len()) {
            Some(rest) => {
                room = rest;
                true
            }
            None => false,
        });
        keys.truncate(HOST_KEYS);
        keys
    }
}

/// The keys that `sshd_config` names, or else those that the server takes by itself.
fn openssh(dir: &Path) -> Vec<SshPublicKey> {
    let mut configs = vec![dir.join("sshd_config")];
    configs.extend(listed(&dir.join("sshd_config.d"), |name| name.ends_with(".conf")));
    let texts: Vec<String> = configs.iter().filter_map(|path| text(path)).collect();
    let named: Vec<PathBuf> = texts.iter().flat_map(|text| named_in(text)).collect();
    let files = if named.is_empty() { in_dir(dir) } else { named };
    files.iter().filter_map(|file| public_key(file)).collect()
}

/// Public halves of the `HostKey` lines. Source: sshd_config(5): keywords in any case, `=` or white space behind them.
fn named_in(config: &str) -> Vec<PathBuf> {
    let of_line = |line: &str| {
        let (keyword, rest) = line.trim().split_once(|c: char| c.is_whitespace() || c == '=')?;
        let path = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '=').trim().trim_matches('"');
        (keyword.eq_ignore_ascii_case("hostkey") && path.starts_with('/')).then(|| PathBuf::from(format!("{path}.pub")))
    };
    config.lines().filter_map(of_line).collect()
}

/// The keys of a path that the configuration names.
fn named(path: &Path) -> Vec<SshPublicKey> {
    if path.is_dir() {
        let mut keys: Vec<_> = in_dir(path).iter().filter_map(|file| public_key(file)).collect();
        keys.extend(dropbear(path));
        keys
    } else {
        public_key(path).into_iter().collect()
    }
}

fn in_dir(dir: &Path) -> Vec<PathBuf> {
    listed(dir, |name| name.starts_with("ssh_host_") && name.ends_with("_key.pub"))
}

/// Dropbear's files hold both halves; its own tool shows the public one, to who may read them.
fn dropbear(dir: &Path) -> Vec<SshPublicKey> {
    let shown = |file: PathBuf| {
        let mut tool = Command::new("dropbearkey");
        tool.arg("-y").arg("-f").arg(file).stdin(Stdio::null()).stderr(Stdio::null());
        let output = ready::keep_from_child(&mut tool).output().ok()?;
        String::from_utf8_lossy(&output.stdout).lines().find_map(|line| SshPublicKey::parse(line).ok())
    };
    let files = listed(dir, |name| name.starts_with("dropbear_") && name.ends_with("_host_key"));
    files.into_iter().filter_map(shown).collect()
}

fn listed(dir: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let named = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(&wanted));
    let mut paths: Vec<PathBuf> = named.map(|entry| entry.path()).take(HOST_KEYS).collect();
    paths.sort();
    paths
}

fn public_key(file: &Path) -> Option<SshPublicKey> {
    SshPublicKey::parse(text(file)?.lines().next()?).ok()
}

/// The keys that the ssh server shows, by OpenSSH's own tool. `None`: the tool is not there, or no server answered it.
fn shown_at(port: u16) -> Option<Vec<SshPublicKey>> {
    let mut tool = Command::new("ssh-keyscan");
    tool.args(["-T", "2", "-p", &port.to_string(), "127.0.0.1"]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = ready::keep_from_child(&mut tool).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // A line is `host type key`.
    let keys = text.lines().filter_map(|line| SshPublicKey::parse(line.split_once(' ')?.1).ok());
    let keys: Vec<_> = keys.take(HOST_KEYS).collect();
    (!keys.is_empty()).then_some(keys)
}

/// How many keys there are, and those of them that the ssh server shows, where they were only looked for.
pub(crate) fn usable(source: &HostKeySource, port: u16) -> (usize, Vec<SshPublicKey>) {
    let mut keys = source.read();
    let named = keys.len();
    if *source == HostKeySource::Standard
        && named > 0
        && let Some(shown) = shown_at(port)
    {
        keys.retain(|key| shown.contains(key));
    }
    (named, keys)
}

fn text(file: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(file).ok()?.take(KEY_FILE_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

impl Daemon {
    /// As they were last read.
    pub(crate) fn host_keys(&self) -> Arc<[SshPublicKey]> {
        Arc::clone(&self.host_keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads them anew; a change is worth a line. Where they were only looked for, those that the ssh server does not show
    /// are left out: it may not be this machine's usual one.
    pub(crate) async fn read_host_keys(&self) {
        if let Some(ssh) = &self.builtin_ssh {
            let keys = ssh.public().filter(|_| self.config.host_keys != HostKeySource::Off);
            *self.host_keys.lock().unwrap_or_else(PoisonError::into_inner) = keys.into_iter().collect();
            return;
        }
        let (source, port) = (self.config.host_keys.clone(), self.config.sshd_port);
        let (named, found) = blocking(move || usable(&source, port)).await;
        if named > 0 && found.is_empty() {
            tracing::warn!(
                "the ssh server at port {port} shows none of the host keys of {OPENSSH}, so none are told to clients: name its keys with --ssh-host-keys"
            );
        }
        let found: Arc<[SshPublicKey]> = found.into();
        let before =
            std::mem::replace(&mut *self.host_keys.lock().unwrap_or_else(PoisonError::into_inner), Arc::clone(&found));
        if !before.is_empty() && before != found {
            tracing::info!(keys = found.len(), "the host keys of the ssh server have changed");
        }
    }

    /// The statement for the managers; `None`: there are none, or nobody vouches for us yet.
    pub(crate) fn signed_host_keys(&self) -> Option<String> {
        let keys = self.host_keys();
        let voucher = self.own.ready_voucher().filter(|_| !keys.is_empty())?;
        let payload = HostKeys::new(&self.config.at_sign, &self.config.device, &keys, now_ms());
        Some(Statement::print(Label::HostKeys, &payload, self.own.key(), Some(&voucher)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 2] = [
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g",
    ];

    #[test]
    fn keys_are_those_that_the_configuration_names_or_the_usual_ones() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("ssh_host_ed25519_key.pub", &format!("{} root@gw\n", KEYS[0]));
        write("ssh_host_rsa_key.pub", "not a key\n");
        write("moduli", "x");
        let read = |source: &HostKeySource| source.read().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(read(&HostKeySource::Paths(vec![dir.path().to_owned()])), [KEYS[0]]);
        let shown = openssh(dir.path());
        assert_eq!(shown.iter().map(ToString::to_string).collect::<Vec<_>>(), [KEYS[0]]);
        write("own.pub", KEYS[1]);
        let own = dir.path().join("own");
        write("sshd_config", &format!("# HostKey /nowhere\nPort 22\nhostkey = \"{}\"\n", own.display()));
        let shown = openssh(dir.path());
        assert_eq!(shown.iter().map(ToString::to_string).collect::<Vec<_>>(), [KEYS[1]]);
        assert_eq!(HostKeySource::parse("off"), HostKeySource::Off);
        assert!(HostKeySource::Off.read().is_empty());
        assert_eq!(HostKeySource::parse(" /a, /b").read(), []);
    }
}
