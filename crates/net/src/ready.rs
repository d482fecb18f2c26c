//! Telling the service manager how we are (systemd's `Type=notify` and `WatchdogSec=`). Source: sd_notify(3).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::limits::SHORTEST_BEAT;

/// What the manager tells us with. A child that has it could speak in our name, or be taken for us.
const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Sends `READY=1` to the socket that `NOTIFY_SOCKET` names. Without that variable there is nobody to tell, and nothing
/// happens; a failure is worth a line at DEBUG only, because the service works without it.
pub fn notify_ready() {
    notify("READY=1");
}

/// Sends `STOPPING=1`: the manager then knows that the end is wanted.
pub fn notify_stopping() {
    notify("STOPPING=1");
}

/// Sends `WATCHDOG=1`: we are well. See [`Watchdog`].
pub fn notify_alive() {
    notify("WATCHDOG=1");
}

/// Sends `STATUS=`, one line that `systemctl status` shows. What follows a line break is left out.
pub fn notify_status(text: &str) {
    let line = text.lines().next().unwrap_or_default();
    notify(&format!("STATUS={line}"));
}

/// Takes what the service manager told us out of the environment of a child.
pub fn keep_from_child(command: &mut Command) -> &mut Command {
    VARIABLES.iter().fold(command, |command, name| command.env_remove(name))
}

/// Tells the service manager that the loop still turns in which [`Watchdog::beat`] is waited for.
#[derive(Debug)]
pub struct Watchdog(Option<Interval>);

impl Watchdog {
    /// Beats twice in the time that the manager gives us, if it watches us at all. To be made on a runtime.
    #[must_use]
    pub fn of_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        Self::every(period(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id()))
    }

    fn every(period: Option<Duration>) -> Self {
        Self(period.map(|period| {
            let mut beats = interval(period);
            // A loop that was late has nothing to make up for.
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            beats
        }))
    }

    /// Waits until the next beat is due, and sends `WATCHDOG=1`. Does not end when nobody watches. Cancel-safe.
    pub async fn beat(&mut self) {
        self.due().await;
        notify_alive();
    }

    /// Waits until the next beat is due, for those who look first whether they are well. Cancel-safe.
    pub async fn due(&mut self) {
        match &mut self.0 {
            Some(beats) => drop(beats.tick().await),
            None => std::future::pending().await,
        }
    }
}

/// Half of what the manager waits for. `None`: it does not watch this process.
fn period(micros: Option<String>, pid: Option<String>, own_pid: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own_pid)) {
        return None;
    }
    let micros: u64 = micros?.parse().ok()?;
    // Shorter than any sensible setting: a mistake must not make us busy.
    (micros > 0).then(|| Duration::from_micros(micros / 2).max(SHORTEST_BEAT))
}

fn notify(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&name, state) {
        tracing::debug!(%error, state, "service manager not told");
    }
}

fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    match name.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            socket.send_to_addr(state.as_bytes(), &address)?;
        }
        _ => {
            socket.send_to(state.as_bytes(), name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        let mut text = [0; 32];
        let n = manager.recv(&mut text).unwrap();
        assert_eq!(&text[..n], b"READY=1");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_name_is_told() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("postern-ready-test-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), "READY=1").unwrap();
        let mut text = [0; 32];
        let n = manager.recv(&mut text).unwrap();
        assert_eq!(&text[..n], b"READY=1");
    }

    #[test]
    fn nobody_there_is_an_error_and_no_panic() {
        assert!(send(OsStr::new("/nonexistent/notify"), "READY=1").is_err());
    }

    #[test]
    fn beats_come_twice_in_the_time_that_is_given() {
        let own = Some("7".to_owned());
        let given = |text: &str| Some(text.to_owned());
        assert_eq!(period(given("30000000"), own.clone(), 7), Some(Duration::from_secs(15)));
        assert_eq!(period(given("30000000"), None, 7), Some(Duration::from_secs(15)));
        assert_eq!(period(given("1"), None, 7), Some(SHORTEST_BEAT));
        for (micros, pid) in [(None, None), (given("0"), None), (given("x"), None), (given("30000000"), given("8"))] {
            assert_eq!(period(micros, pid, 7), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_watched_never_beats() {
        let none = tokio::time::timeout(Duration::from_secs(3600), Watchdog::every(None).due()).await;
        assert!(none.is_err());
        let mut watched = Watchdog::every(Some(Duration::from_secs(15)));
        watched.due().await;
        assert!(tokio::time::timeout(Duration::from_secs(14), watched.due()).await.is_err());
        assert!(tokio::time::timeout(Duration::from_secs(2), watched.due()).await.is_ok());
    }

    #[test]
    fn a_child_does_not_inherit_what_the_manager_told_us() {
        let mut command = Command::new("true");
        keep_from_child(&mut command);
        let removed: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
        assert_eq!(removed.len(), VARIABLES.len());
    }
}
