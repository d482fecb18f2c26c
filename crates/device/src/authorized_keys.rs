//! Keys in `~/.ssh/authorized_keys`: pushed ones, which stay, and ephemeral ones, which go.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use postern_proto::Uuid;
use postern_session::SshPublicKey;

use crate::limits::AUTHORIZED_KEYS_BYTES;

/// What happened to a pushed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    Now,
    Before,
}

/// Adds `key` with `options` in front, on a line of its own, unless a line for it is there.
pub(crate) fn add(ssh_dir: &Path, key: &SshPublicKey, options: &str) -> io::Result<Added> {
    let space = if options.is_empty() { "" } else { " " };
    let line = format!("{options}{space}{key}");
    let changed =
        edit(ssh_dir, |text| (!lines(text).any(|line| key.is_in_line(&line))).then(|| with_line(text, &line)))?;
    Ok(if changed { Added::Now } else { Added::Before })
}

/// What the line of an ephemeral key says beside the key.
pub(crate) struct EphemeralLine<'a> {
    pub(crate) session: &'a Uuid,
    /// `type base64`
    pub(crate) key: &'a str,
    /// The device's ssh server, the only place to which the key may forward.
    pub(crate) sshd_port: u16,
    /// Further options of the owner.
    pub(crate) more: &'a str,
}

impl EphemeralLine<'_> {
    /// The key can do nothing but forward to the ssh server itself. Source: NoPorts, daemon side of ssh_request;
    /// forwarding of agent and X11 is ours to forbid, in words that Dropbear knows as well.
    fn print(&self) -> String {
        let Self { session, key, sshd_port, more } = self;
        let comma = if more.is_empty() { "" } else { "," };
        format!(
            r#"command="echo \"ssh session complete\";sleep 20",PermitOpen="localhost:{sshd_port}",no-agent-forwarding,no-X11-forwarding{comma}{more} {key} {EPHEMERAL}{session}"#
        )
    }
}

/// Begins the comment of every ephemeral key; the session id follows.
const EPHEMERAL: &str = "sshnp_ephemeral_";

/// Lets an ephemeral key in.
pub(crate) fn add_ephemeral(ssh_dir: &Path, line: &EphemeralLine<'_>) -> io::Result<()> {
    edit(ssh_dir, |text| Some(with_line(text, &line.print()))).map(drop)
}

/// Takes the ephemeral key of this session out again.
pub(crate) fn remove_ephemeral(ssh_dir: &Path, session: &Uuid) -> io::Result<()> {
    remove(ssh_dir, |of| of == session)
}

/// Takes out what a daemon that was killed has left behind.
pub(crate) fn remove_leftovers(ssh_dir: &Path) -> io::Result<()> {
    remove(ssh_dir, |_| true)
}

fn remove(ssh_dir: &Path, gone: impl Fn(&Uuid) -> bool) -> io::Result<()> {
    if !ssh_dir.join("authorized_keys").exists() {
        return Ok(());
    }
    // Our own lines and no others: the comment is the last word, and of our making.
    let ours = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        let id = line.split_ascii_whitespace().next_back().and_then(|word| word.strip_prefix(EPHEMERAL));
        id.and_then(Uuid::parse).is_some_and(|id| gone(&id))
    };
    edit(ssh_dir, |text| {
        let kept: Vec<u8> =
            text.split_inclusive(|b| *b == b'\n').filter(|line| !ours(line)).flatten().copied().collect();
        (kept.len() != text.len()).then_some(kept)
    })
    .map(drop)
}

fn lines(text: &[u8]) -> impl Iterator<Item = String> {
    text.split(|b| *b == b'\n').map(|line| String::from_utf8_lossy(line).into_owned())
}

fn with_line(text: &[u8], line: &str) -> Vec<u8> {
    let mut text = text.to_vec();
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(line.as_bytes());
    text.push(b'\n');
    text
}

/// Replaces the file whole, unless `change` says `None`; readers never see half of it. Other daemons of this user
/// wait meanwhile. Returns whether it was changed.
fn edit(ssh_dir: &Path, change: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> io::Result<bool> {
    if !ssh_dir.exists() {
        fs::create_dir_all(ssh_dir)?;
        fs::set_permissions(ssh_dir, fs::Permissions::from_mode(0o700))?;
    }
    let turn = File::open(ssh_dir)?;
    turn.lock()?;
    // A link (some systems keep the file elsewhere) is followed, not replaced.
    let path = ssh_dir.join("authorized_keys");
    let path = fs::canonicalize(&path).unwrap_or(path);
    let (text, mode) = match File::open(&path) {
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
    let Some(text) = change(&text) else { return Ok(false) };
    let draft = path.with_file_name(format!("authorized_keys.{}.new", std::process::id()));
    let replaced = write_new(&draft, &text, mode).and_then(|()| fs::rename(&draft, &path));
    if replaced.is_err() {
        let _ = fs::remove_file(&draft);
    }
    replaced.map(|()| true)
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
    fn an_ephemeral_key_comes_and_goes_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let ssh = dir.path().join(".ssh");
        fs::create_dir(&ssh).unwrap();
        let file = ssh.join("authorized_keys");
        let other = format!("{KEY} sshnp_ephemeral_of_somebody\n# sshnp_ephemeral_");
        fs::write(&file, &other).unwrap();
        let [a, b] = [1, 2].map(|n| Uuid::from_random([n; 16]));
        let line = |session, more| EphemeralLine { session, key: KEY, sshd_port: 2222, more };
        add_ephemeral(&ssh, &line(&a, "")).unwrap();
        add_ephemeral(&ssh, &line(&b, "from=\"127.0.0.1\"")).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let want = format!(
            r#"command="echo \"ssh session complete\";sleep 20",PermitOpen="localhost:2222",no-agent-forwarding,no-X11-forwarding {KEY} sshnp_ephemeral_{a}"#
        );
        assert_eq!(text.lines().nth(2), Some(want.as_str()));
        assert!(text.lines().nth(3).unwrap().contains(r#"no-X11-forwarding,from="127.0.0.1" ssh-ed25519"#), "{text}");
        remove_ephemeral(&ssh, &a).unwrap();
        assert!(!fs::read_to_string(&file).unwrap().contains(a.as_str()));
        assert!(fs::read_to_string(&file).unwrap().contains(b.as_str()));
        remove_leftovers(&ssh).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{other}\n"));
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
