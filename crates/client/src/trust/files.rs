//! Where identities and pins lie, and how they are read and written.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use postern_identity::DeviceName;
use postern_proto::AtSign;
use zeroize::Zeroizing;

use crate::keyfile::{draft_of, set_mode, write_new};
use crate::limits::PINS_LOCK;
use crate::start::home_dir;

/// The folders of a user. `None`: there is no home, and nothing is kept.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Holds `known_atsigns`.
    pub config: Option<PathBuf>,
    /// Holds `identity/` and `known_keys/`.
    pub state: Option<PathBuf>,
}

impl Places {
    /// `$XDG_CONFIG_HOME/postern` and `$XDG_STATE_HOME/postern`, by default `~/.config/postern` and `~/.local/state/postern`.
    #[must_use]
    pub fn of_user() -> Self {
        let place = |variable: &str, under_home: &str| {
            // The specification of these variables has relative paths ignored.
            let named = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
            let base = named.or_else(|| home_dir().ok().map(|home| home.join(under_home)))?;
            Some(base.join("postern"))
        };
        Self { config: place("XDG_CONFIG_HOME", ".config"), state: place("XDG_STATE_HOME", ".local/state") }
    }

    /// The file of the pins.
    #[must_use]
    pub fn pins(&self) -> Option<PathBuf> {
        self.config.as_ref().map(|folder| folder.join("known_atsigns"))
    }

    /// The folder of the identity keys.
    #[must_use]
    pub fn identities(&self) -> Option<PathBuf> {
        self.state.as_ref().map(|folder| folder.join("identity"))
    }

    /// A public key that belongs to a pin.
    pub(super) fn known_key(&self, at_sign: &AtSign) -> Option<PathBuf> {
        self.state.as_ref().map(|folder| folder.join("known_keys").join(format!("{at_sign}.pub")))
    }

    /// The identity key of a device (`gw-17@device.key`) or of a client's enrolment (`@alice.<enrolment>.key`).
    pub(super) fn identity_key(
        &self,
        at_sign: &AtSign,
        device: Option<&DeviceName>,
        enrollment: &str,
    ) -> Option<PathBuf> {
        let name = match device {
            Some(device) => format!("{device}{at_sign}.key"),
            None => format!("{at_sign}.{enrollment}.key"),
        };
        self.identities().map(|folder| folder.join(name))
    }
}

/// Reads a file of at most `limit` bytes; `None`: there is none.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<Option<Zeroizing<String>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut text = Zeroizing::new(String::new());
    file.take(limit + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
    }
    Ok(Some(text))
}

/// Whether others than its owner can read it.
#[cfg(unix)]
pub(super) fn is_exposed(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
pub(super) fn is_exposed(_: &Path) -> bool {
    false
}

/// Makes the folder of a file that is not for others, with what is above it.
pub(crate) fn make_private_folder(of: &Path) -> io::Result<()> {
    let Some(folder) = of.parent().filter(|folder| !folder.exists()) else { return Ok(()) };
    fs::create_dir_all(folder)?;
    set_mode(folder, 0o700)
}

/// Writes a secret where nothing is yet: 0600, whole or not at all. `false`: somebody was faster.
pub(super) fn create(path: &Path, text: &str) -> io::Result<bool> {
    let draft = draft_of(path);
    // A hard link fails when the name is taken; a rename would replace it.
    let written = write_new(&draft, text, 0o600).and_then(|()| fs::hard_link(&draft, path));
    let _ = fs::remove_file(&draft);
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a file whole or not at all, in the place of what was there. Follows a link, as those make who keep their
/// settings elsewhere.
pub(crate) fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let draft = draft_of(&target);
    let written = write_new(&draft, text, mode).and_then(|()| fs::rename(&draft, &target));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Holds other programs off a file that is about to be replaced, until it is dropped.
pub(super) fn lock(path: &Path) -> io::Result<File> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path.with_file_name(name))?;
    let deadline = Instant::now() + PINS_LOCK;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "another program holds its lock"));
            }
            // A file system without locks: the rename is atomic all the same.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}
