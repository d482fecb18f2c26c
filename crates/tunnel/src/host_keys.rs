//! Host keys of devices' ssh servers, told to ssh when it asks: `hostkeys` is its `KnownHostsCommand`.
//!
//! They are those that the configuration file names. Keys that a device has signed will stand beside them once sessions
//! carry them.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use crate::hosts::{HostName, Hosts};

/// Lines for ssh, under the name it asks for: `gw.np`, or `[gw.np]:2222`. Nothing for names that are not ours.
pub(crate) fn lines(asked: &str, hosts: &Hosts) -> Vec<String> {
    let inner = match asked.strip_prefix('[') {
        Some(rest) => rest.rsplit_once("]:").filter(|(_, port)| port.parse::<u16>().is_ok()).map(|(name, _)| name),
        None => Some(asked),
    };
    let Some(host) = inner.and_then(|name| HostName::parse(name).ok()) else { return Vec::new() };
    hosts.host_keys(&host).iter().map(|key| format!("{asked} {key}")).collect()
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

    #[test]
    fn ssh_hears_of_devices_that_are_named_and_of_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yaml");
        fs::write(&config, format!("hosts:\n  gw-17: {{host-keys: ['{KEY}']}}\n")).unwrap();
        let hosts = Hosts::read(Some(&config)).unwrap();
        assert_eq!(lines("gw-17.np", &hosts), [format!("gw-17.np {KEY}")]);
        assert_eq!(lines("[gw-17.np]:2222", &hosts), [format!("[gw-17.np]:2222 {KEY}")]);
        for other in ["gw-18.np", "gw-17.site.np", "", "*", "../x", "[gw-17.np]:x", "[gw-17.np"] {
            assert!(lines(other, &hosts).is_empty(), "{other}");
        }
    }
}
