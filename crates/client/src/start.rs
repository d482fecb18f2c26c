//! What every program does first: find its keys, log in.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postern_dialogue::comeback::Comeback;
use postern_net::backoff::Backoff;
use postern_net::tasks::Tasks;
use postern_proto::AtSign;

use crate::error::ClientError;
use crate::habits::{Habits, Network};
use crate::handle::{Client, Inbox};
use crate::keyfile::{KeyFile, KeyFileTrouble, default_key_file};
use crate::limits::{RECONNECT_FIRST, RECONNECT_LATER};
use crate::settings::{Identity, Settings};

/// Why a program could not even begin.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// Neither `HOME` nor `USERPROFILE` is set.
    NoHome,
    /// The key file.
    Keys(KeyFileTrouble),
}

/// The user's home directory.
pub fn home_dir() -> Result<PathBuf, StartError> {
    ["HOME", "USERPROFILE"]
        .into_iter()
        .find_map(|name| std::env::var_os(name).filter(|v| !v.is_empty()))
        .map(PathBuf::from)
        .ok_or(StartError::NoHome)
}

/// The user's login name; a service may have no `USER`, so the password file is asked too.
pub fn user_name() -> Option<String> {
    let from_env =
        ["USER", "LOGNAME", "USERNAME"].into_iter().find_map(|n| std::env::var(n).ok()).filter(|n| !n.is_empty());
    from_env.or_else(user_of_process)
}

#[cfg(unix)]
fn user_of_process() -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    // Files of our own process belong to its effective user.
    let uid = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

#[cfg(not(unix))]
fn user_of_process() -> Option<String> {
    None
}

/// Loads the keys of `at_sign` from `key_file` or their standard place.
pub fn identity(at_sign: &AtSign, key_file: Option<&Path>) -> Result<Identity, StartError> {
    let path = match key_file {
        Some(path) => path.to_owned(),
        None => default_key_file(&home_dir()?, at_sign),
    };
    let keys = KeyFile::load(&path).map_err(StartError::Keys)?;
    Ok(Identity { at_sign: at_sign.clone(), keys: Arc::new(keys) })
}

/// Logs in, trying again while the network or the server is away: a device may
/// boot before its modem. Refusals are returned at once, and so is being stopped.
pub async fn connect_patiently(
    identity: Identity,
    settings: Settings,
    tasks: &Tasks,
) -> Result<(Client, Inbox), ClientError> {
    let mut pause = Backoff::new(RECONNECT_FIRST, RECONNECT_LATER);
    let connect = || Client::connect(identity.clone(), settings.clone(), tasks);
    until_it_works(connect, |random| pause.next(random).max(Duration::from_millis(100)), tasks).await
}

/// The same for a device with these habits.
///
/// # Errors
/// A refusal, or being stopped.
pub async fn connect_as(
    identity: Identity,
    settings: Settings,
    habits: Habits,
    tasks: &Tasks,
) -> Result<(Client, Inbox), ClientError> {
    let mut comeback = Comeback::new(habits.on(Network::of_default_route()).pace);
    comeback.lost(Instant::now());
    let connect = || Client::connect_as(identity.clone(), settings.clone(), habits.clone(), tasks);
    comeback.trying(Instant::now());
    let pause = |random| {
        comeback.set_pace(habits.on(Network::of_default_route()).pace);
        let pause = comeback.pause(Instant::now(), random);
        comeback.trying(Instant::now() + pause);
        pause
    };
    until_it_works(connect, pause, tasks).await
}

async fn until_it_works<T, F: Future<Output = Result<T, ClientError>>>(
    connect: impl Fn() -> F,
    mut pause: impl FnMut(u32) -> Duration,
    tasks: &Tasks,
) -> Result<T, ClientError> {
    loop {
        let tried = tokio::select! {
            biased;
            () = tasks.token().cancelled() => return Err(ClientError::Stopped),
            tried = connect() => tried,
        };
        let error = match tried {
            Ok(connected) => return Ok(connected),
            Err(error) => error,
        };
        if !error.is_passing() {
            return Err(error);
        }
        let wait = pause(u32::from_ne_bytes(postern_crypto::random()));
        tracing::warn!(%error, "not connected yet; trying again");
        tokio::select! {
            biased;
            () = tasks.token().cancelled() => return Err(ClientError::Stopped),
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHome => f.write_str("HOME is not set; set it, or name the key file with -k"),
            Self::Keys(trouble) => trouble.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}
