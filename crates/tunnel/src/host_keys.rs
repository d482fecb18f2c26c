//! Host keys of devices' ssh servers, told to ssh when it asks: `hostkeys` is its `KnownHostsCommand`.
//!
//! They are those that the configuration file names for it, or else those that the device has signed, in the reply of its last
//! sealed session: these lie in `$XDG_CACHE_HOME/postern/hostkeys/`, written before any byte of ssh's flows.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use postern_proto::AtSign;
use postern_session::limits::HOST_KEYS;
use postern_session::{DeviceName, SshPublicKey};

use crate::hosts::{HostName, Hosts, xdg};
use crate::limits::HOST_KEY_BYTES;

/// Lines for ssh, under the name it asks for: `gw.np`, or `[gw.np]:2222`. Nothing for names that are not ours.
pub(crate) fn lines(asked: &str, hosts: &Hosts) -> Vec<String> {
    let inner = match asked.strip_prefix('[') {
        Some(rest) => rest.rsplit_once("]:").filter(|(_, port)| port.parse::<u16>().is_ok()).map(|(name, _)| name),
        None => Some(asked),
    };
    let Some(host) = inner.and_then(|name| HostName::parse(name).ok()) else { return Vec::new() };
    of_host(&host, hosts).iter().map(|key| format!("{asked} {key}")).collect()
}

/// What is known of a host: `ssh-ed25519 AAAA…` and the like. Where the file names keys, no others count.
pub(crate) fn of_host(host: &HostName, hosts: &Hosts) -> Vec<String> {
    match (hosts.host_keys(host), hosts.device(host)) {
        ([], Ok((to, device))) => Cache::usual().find(&to, &device).iter().map(ToString::to_string).collect(),
        (named, _) => named.to_vec(),
    }
}

/// Keeps what a device has signed. What cannot be written is asked of the user by ssh.
pub(crate) fn store(to: &AtSign, device: &DeviceName, keys: &[SshPublicKey]) {
    if let Err(error) = Cache::usual().store(to, device, keys) {
        tracing::warn!(%error, "the device's ssh host keys are not kept, so ssh may refuse it");
    }
}

/// What a device has signed in the form of `known_hosts`, under this name: the file. `None`: nothing is known, or it cannot be
/// kept, and ssh goes by its own files.
pub(crate) fn known_hosts(to: &AtSign, device: &DeviceName, name: &str) -> Option<PathBuf> {
    Cache::usual().known_hosts(to, device, name)
}

/// One file for each device, one key a line.
struct Cache(PathBuf);

impl Cache {
    fn usual() -> Self {
        Self(xdg("XDG_CACHE_HOME", ".cache").join("hostkeys"))
    }

    fn file(&self, to: &AtSign, device: &DeviceName) -> PathBuf {
        self.0.join(format!("{device}{to}"))
    }

    fn find(&self, to: &AtSign, device: &DeviceName) -> Vec<SshPublicKey> {
        let mut text = String::new();
        let limit = u64::try_from(HOST_KEYS * HOST_KEY_BYTES).unwrap_or(u64::MAX);
        let read = fs::File::open(self.file(to, device)).and_then(|file| file.take(limit).read_to_string(&mut text));
        if read.is_err() {
            return Vec::new();
        }
        text.lines().filter_map(|line| SshPublicKey::parse(line).ok()).take(HOST_KEYS).collect()
    }

    fn known_hosts(&self, to: &AtSign, device: &DeviceName, name: &str) -> Option<PathBuf> {
        let keys = self.find(to, device);
        if keys.is_empty() {
            return None;
        }
        let file = self.0.join(format!("{device}{to}.known_hosts"));
        let text: String = keys.iter().map(|key| format!("{name} {key}\n")).collect();
        let written = fs::read_to_string(&file).is_ok_and(|old| old == text) || write_whole(&file, &text).is_ok();
        // In ssh's options a quote or a percent sign would mean something else.
        (written && file.to_str().is_some_and(|path| !path.contains(['"', '%', '\n']))).then_some(file)
    }

    fn store(&self, to: &AtSign, device: &DeviceName, keys: &[SshPublicKey]) -> io::Result<()> {
        if self.find(to, device) == keys {
            return Ok(());
        }
        make_private_dir(&self.0)?;
        let text: String = keys.iter().map(|key| format!("{key}\n")).collect();
        write_whole(&self.file(to, device), &text)
    }
}

/// A directory for us alone.
pub(crate) fn make_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Writes a file for us alone: readers see the old one or the new one.
pub(crate) fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let draft = path.with_file_name(name);
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options
        .open(&draft)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA";
    const SIGNED: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJmqGKdB5CmNkCT2cHKP4tdT2o2CSgnaYoM1vQ5kBv2a";

    #[test]
    fn ssh_hears_of_devices_that_are_named_and_of_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yaml");
        fs::write(&config, format!("hosts:\n  gw-17: {{host-keys: ['{KEY}']}}\n")).unwrap();
        let hosts = Hosts::read(Some(&config)).unwrap();
        assert_eq!(lines("gw-17.np", &hosts), [format!("gw-17.np {KEY}")]);
        assert_eq!(lines("[gw-17.np]:2222", &hosts), [format!("[gw-17.np]:2222 {KEY}")]);
        let cache = Cache(dir.path().join("cache"));
        let (to, device) = (AtSign::parse("@device").unwrap(), DeviceName::parse("gw-17").unwrap());
        assert_eq!(cache.find(&to, &device), []);
        let keys = [SshPublicKey::parse(SIGNED).unwrap()];
        cache.store(&to, &device, &keys).unwrap();
        assert_eq!(cache.find(&to, &device), keys);
        let file = cache.known_hosts(&to, &device, "gw-17.device.noports").unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), format!("gw-17.device.noports {SIGNED}\n"));
        cache.store(&to, &device, &[]).unwrap();
        assert_eq!(cache.known_hosts(&to, &device, "gw-17.device.noports"), None);
        assert_eq!(cache.find(&to, &device), []);
        for other in ["gw-18.np", "gw-17.site.np", "", "*", "../x", "[gw-17.np]:x", "[gw-17.np"] {
            assert!(lines(other, &hosts).is_empty(), "{other}");
        }
    }
}
