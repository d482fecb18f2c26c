//! Where the agent listens: a directory that is the user's alone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::host_keys::make_private_dir;

/// The agent's directory, checked.
#[derive(Clone, Debug)]
pub(crate) struct Place(PathBuf);

/// Variables by which one program would do something else than another of the same user.
const SURROUNDINGS: [&str; 15] = [
    "HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
    "STATE_DIRECTORY",
    "POSTERN_CA_FILE",
    "POSTERN_STRICT_PINS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];

/// A digest of this build and of the variables that count: an agent serves those programs alone that would have done the
/// same as it does.
pub(crate) fn surroundings() -> String {
    let mut text = format!("postern agent v1\0{}\0", env!("CARGO_PKG_VERSION")).into_bytes();
    for name in SURROUNDINGS {
        text.extend(name.as_bytes());
        if let Some(value) = std::env::var_os(name) {
            text.push(b'=');
            text.extend(value.as_encoded_bytes());
        }
        text.push(0);
    }
    postern_crypto::hex_lower(&postern_crypto::sha256(&text))
}

impl Place {
    /// `$XDG_RUNTIME_DIR/postern`, or `~/.local/state/postern/agent` where there is none.
    ///
    /// # Errors
    /// There is no home either; the directory cannot be made; others could reach into it.
    pub(crate) fn usual() -> io::Result<Self> {
        let dir = match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute()) {
            Some(dir) => dir.join("postern"),
            None => {
                let state = postern_observe::state_dir();
                state.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "HOME is not set"))?.join("agent")
            }
        };
        Self::at(dir)
    }

    /// This directory.
    ///
    /// # Errors
    /// See [`Self::usual`].
    pub(crate) fn at(dir: PathBuf) -> io::Result<Self> {
        make_private_dir(&dir)?;
        let found = fs::symlink_metadata(&dir)?;
        let ours = found.uid() == us() && found.is_dir();
        if !ours || found.permissions().mode() & 0o077 != 0 {
            let why = format!("{} must be a directory of ours with mode 0700", dir.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(Self(dir))
    }

    /// The socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("agent.sock")
    }

    /// Connects to the agent, which must run as we do.
    ///
    /// # Errors
    /// Nobody listens; somebody else does.
    pub(crate) async fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(self.socket()).await?;
        is_ours(&stream)?;
        Ok(stream)
    }

    /// Listens. `None`: another agent does, or is about to.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(crate) fn listen(&self) -> io::Result<Option<Listening>> {
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(self.0.join("agent.lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        let socket = self.socket();
        // Whoever held it does not live any more, or it would hold the lock.
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&socket)?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))?;
        Ok(Some(Listening { listener, socket, _lock: lock }))
    }
}

/// The agent's socket; removed when it is dropped.
pub(crate) struct Listening {
    pub(crate) listener: UnixListener,
    socket: PathBuf,
    _lock: File,
}

impl Listening {
    /// Whether its file is there: a runtime directory may be swept.
    pub(crate) fn is_there(&self) -> bool {
        Path::exists(&self.socket)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.socket);
    }
}

/// That the other end runs as the same user.
///
/// # Errors
/// It does not, or the system does not say.
pub(crate) fn is_ours(stream: &UnixStream) -> io::Result<()> {
    if stream.peer_cred()?.uid() == us() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "the other end of the agent's socket is another user"))
}

fn us() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_agent_listens_and_its_socket_is_ours_alone() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::at(dir.path().join("postern")).unwrap();
        assert!(place.connect().await.is_err(), "nobody listens yet");
        let first = place.listen().unwrap().unwrap();
        assert!(place.listen().unwrap().is_none(), "a second one");
        place.connect().await.unwrap();
        let mode = fs::metadata(place.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(first);
        assert!(!place.socket().exists());
        // What an agent left that was killed is in nobody's way.
        fs::write(place.socket(), "").unwrap();
        place.listen().unwrap().unwrap();
    }

    #[test]
    fn a_directory_that_others_can_reach_into_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(Place::at(open).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        Place::at(real.clone()).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(Place::at(link).is_err(), "somebody else may have laid it");
    }
}
