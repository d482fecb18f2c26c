//! Where identities and pins lie.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use postern_identity::DeviceName;
use postern_proto::AtSign;

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
