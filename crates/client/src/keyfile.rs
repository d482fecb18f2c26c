//! Key files on disk.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use postern_crypto::{AtKeys, KeyFileError};
use postern_proto::AtSign;
use zeroize::Zeroizing;

use crate::files;
use crate::limits::KEY_FILE_ROOM;

/// Reading and writing of `.atKeys` files.
pub struct KeyFile;

/// Why a key file could not be used; says what to do.
#[derive(Debug)]
pub struct KeyFileTrouble {
    path: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Missing,
    Io(io::Error),
    Content(KeyFileError),
    Exists,
}

/// `~/.atsign/keys/@alice_key.atKeys`
pub fn default_key_file(home: &Path, at_sign: &AtSign) -> PathBuf {
    home.join(".atsign").join("keys").join(format!("{at_sign}_key.atKeys"))
}

impl KeyFile {
    /// Reads and opens a key file.
    pub fn load(path: &Path) -> Result<AtKeys, KeyFileTrouble> {
        let trouble = |why| KeyFileTrouble { path: path.to_owned(), why };
        let text = match fs::read_to_string(path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(trouble(Why::Missing)),
            Err(error) => return Err(trouble(Why::Io(error))),
        };
        AtKeys::parse(&text).map_err(|error| trouble(Why::Content(error)))
    }

    /// Whether a new file may be written there: nothing is ever overwritten.
    /// Makes the folder, 0700, and tries to write as much as a key file there, so that a lack of rights or room shows before
    /// keys are made: the server would have them, and nobody else.
    pub fn check_free(path: &Path) -> Result<(), KeyFileTrouble> {
        let trouble = |why| KeyFileTrouble { path: path.to_owned(), why };
        if path.exists() {
            return Err(trouble(Why::Exists));
        }
        files::make_private_folder(path)
            .and_then(|()| files::try_to_write(path, KEY_FILE_ROOM))
            .map_err(|error| trouble(Why::Io(error)))
    }

    /// Writes a new key file: 0600, whole or not at all, never over another.
    pub fn create(path: &Path, text: &str) -> Result<(), KeyFileTrouble> {
        let trouble = |why| KeyFileTrouble { path: path.to_owned(), why };
        Self::check_free(path)?;
        match files::create(path, text) {
            Ok(true) => Ok(()),
            Ok(false) => Err(trouble(Why::Exists)),
            Err(error) => Err(trouble(Why::Io(error))),
        }
    }
}

impl fmt::Display for KeyFileTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.why {
            Why::Missing => {
                write!(f, "there is no key file {path}; activate the atSign with at_activate, or name its file with -k")
            }
            Why::Io(error) => write!(f, "key file {path}: {error}"),
            Why::Content(error) => write!(f, "key file {path}: {error}"),
            Why::Exists => {
                write!(f, "{path} exists already and is never overwritten; move it away or name another file with -k")
            }
        }
    }
}

impl std::error::Error for KeyFileTrouble {}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn written_once_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/@a_key.atKeys");
        KeyFile::create(&path, "secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        let error = KeyFile::create(&path, "other").unwrap_err().to_string();
        assert!(error.contains("never overwritten"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "secret");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_file_says_what_to_do() {
        let error = KeyFile::load(Path::new("/nonexistent/@a.atKeys")).err().unwrap().to_string();
        assert!(error.contains("at_activate"), "{error}");
    }
}
