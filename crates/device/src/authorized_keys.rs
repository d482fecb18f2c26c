//! Adding a pushed key to `~/.ssh/authorized_keys`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use postern_session::SshPublicKey;

use crate::limits::AUTHORIZED_KEYS_BYTES;

/// What happened to a pushed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    Now,
    Before,
}

/// Adds `key` with `options` in front, on a line of its own, unless a line for
/// it is there. The file is replaced whole; readers never see half of it.
pub(crate) fn add(ssh_dir: &Path, key: &SshPublicKey, options: &str) -> io::Result<Added> {
    if !ssh_dir.exists() {
        fs::create_dir_all(ssh_dir)?;
        fs::set_permissions(ssh_dir, fs::Permissions::from_mode(0o700))?;
    }
    // A link (some systems keep the file elsewhere) is followed, not replaced.
    let path = ssh_dir.join("authorized_keys");
    let path = fs::canonicalize(&path).unwrap_or(path);
    let (mut text, mode) = match File::open(&path) {
        Ok(file) => {
            let meta = file.metadata()?;
            if meta.len() > AUTHORIZED_KEYS_BYTES {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "authorized_keys is larger than 1 MiB"));
            }
            let mut text = Vec::new();
            file.take(AUTHORIZED_KEYS_BYTES).read_to_end(&mut text)?;
            (text, meta.permissions().mode() & 0o777)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), 0o600),
        Err(error) => return Err(error),
    };
    if String::from_utf8_lossy(&text).lines().any(|line| key.is_in_line(line)) {
        return Ok(Added::Before);
    }
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    let space = if options.is_empty() { "" } else { " " };
    text.extend_from_slice(format!("{options}{space}{key}\n").as_bytes());
    let draft = path.with_file_name(format!("authorized_keys.{}.new", std::process::id()));
    let replaced = write_new(&draft, &text, mode).and_then(|()| fs::rename(&draft, &path));
    if replaced.is_err() {
        let _ = fs::remove_file(&draft);
    }
    replaced.map(|()| Added::Now)
}

fn write_new(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJmqGKdB5CmNkCT2cHKP4tdT2o2CSgnaYoM1vQ5kBv2a";

    #[test]
    fn once_with_its_newline_whatever_the_file_ended_with() {
        let dir = tempfile::tempdir().unwrap();
        let ssh = dir.path().join(".ssh");
        let key = SshPublicKey::parse(KEY).unwrap();
        assert_eq!(add(&ssh, &key, "").unwrap(), Added::Now);
        assert_eq!(add(&ssh, &key, "restrict").unwrap(), Added::Before);
        let file = ssh.join("authorized_keys");
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{KEY}\n"));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

        fs::write(&file, "ssh-rsa AAAA no newline").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(add(&ssh, &key, "from=\"127.0.0.1\"").unwrap(), Added::Now);
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("ssh-rsa AAAA no newline\nfrom=\"127.0.0.1\" {KEY}\n"));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(&ssh).unwrap().count(), 1);
    }

    #[test]
    fn a_linked_file_stays_linked() {
        let dir = tempfile::tempdir().unwrap();
        let ssh = dir.path().join(".ssh");
        fs::create_dir(&ssh).unwrap();
        let real = dir.path().join("keys");
        fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, ssh.join("authorized_keys")).unwrap();
        add(&ssh, &SshPublicKey::parse(KEY).unwrap(), "").unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), format!("{KEY}\n"));
    }
}
