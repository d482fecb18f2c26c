//! The host key: made at first use, kept where only its owner reads.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{Algorithm, PrivateKey};
use zeroize::Zeroizing;

use crate::limits::KEY_FILE_BYTES;

/// An ed25519 host key.
#[derive(Clone)]
pub struct HostKey(PrivateKey);

/// Why there is no host key.
#[derive(Debug)]
pub enum HostKeyError {
    /// The file is there, and others can read it or it holds no key of ours.
    Bad(PathBuf, &'static str),
    /// It could be neither read nor made.
    File(PathBuf, io::Error),
}

impl HostKey {
    /// A new one, kept nowhere.
    #[must_use]
    pub fn new() -> Self {
        let seed = Zeroizing::new(postern_crypto::random::<32>());
        Self(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
    }

    /// Reads the key at `path`, or makes it there, with its folder (0700) and mode 0600. An existing file is never
    /// overwritten; of two daemons that make one at the same time, both take the same.
    ///
    /// # Errors
    /// See [`HostKeyError`].
    pub fn read_or_make(path: &Path) -> Result<Self, HostKeyError> {
        let failed = |error| HostKeyError::File(path.to_owned(), error);
        if let Some(key) = Self::read(path)? {
            return Ok(key);
        }
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        }
        let key = Self::new();
        match key.write(path) {
            Ok(()) => Ok(key),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::read(path)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn read(path: &Path) -> Result<Option<Self>, HostKeyError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(HostKeyError::File(path.to_owned(), error)),
        };
        let bad = |why| HostKeyError::Bad(path.to_owned(), why);
        let failed = |error| HostKeyError::File(path.to_owned(), error);
        if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
            return Err(bad("others can read it (chmod 600, or remove it for a new one)"));
        }
        let mut text = Zeroizing::new(String::new());
        file.take(KEY_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
        let key = PrivateKey::from_openssh(text.as_bytes()).map_err(|_| bad("it holds no ssh key"))?;
        if key.algorithm() != Algorithm::Ed25519 || key.is_encrypted() {
            return Err(bad("it holds no ed25519 key without a passphrase"));
        }
        Ok(Some(Self(key)))
    }

    /// Whole or not at all: a draft is linked to its place.
    fn write(&self, path: &Path) -> io::Result<()> {
        let text = self.0.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}.new", std::process::id()));
        let draft = PathBuf::from(draft);
        // One of a process of this number that died in the middle.
        let _ = fs::remove_file(&draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let placed = written.and_then(|()| fs::hard_link(&draft, path));
        let _ = fs::remove_file(&draft);
        placed
    }

    /// `ssh-ed25519 AAAA…`, as clients compare it.
    #[must_use]
    pub fn public(&self) -> String {
        // Keys of a known kind have a text form.
        self.0.public_key().to_openssh().unwrap_or_default()
    }

    pub(crate) fn private(&self) -> PrivateKey {
        self.0.clone()
    }
}

impl Default for HostKey {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for HostKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad(path, why) => write!(f, "host key {}: {why}", path.display()),
            Self::File(path, error) => write!(f, "host key {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for HostKeyError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ssh/gw@device_ed25519");
        let made = HostKey::read_or_make(&path).unwrap().public();
        assert!(made.starts_with("ssh-ed25519 AAAA"), "{made}");
        assert_eq!(HostKey::read_or_make(&path).unwrap().public(), made);
        assert_ne!(HostKey::new().public(), made);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        let error = HostKey::read_or_make(&path).err().unwrap().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_key_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap().write_all(b"mine").unwrap();
        assert!(HostKey::read_or_make(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
