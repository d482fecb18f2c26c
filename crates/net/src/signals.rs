//! SIGINT and SIGTERM: the first asks us to stop, the second makes us.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::tasks::spawn_for_life;

/// A token that is cancelled at the first SIGINT or SIGTERM. A second one ends the process at once, with the exit code
/// that shells expect: 130 after SIGINT, 143 after SIGTERM.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn shutdown_token() -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let stop = token.clone();
    spawn_for_life(async move {
        loop {
            let code = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            if stop.is_cancelled() {
                std::process::exit(code);
            }
            stop.cancel();
        }
    });
    Ok(token)
}

/// SIGHUP: read again what is written.
pub struct Hangups(Signal);

impl Hangups {
    /// From now on the signal does not end the process.
    ///
    /// # Errors
    /// When the handler cannot be installed.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Waits for the next one. Cancel-safe.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

/// SIGUSR1: tell what there is to tell.
pub struct Questions(Signal);

impl Questions {
    /// From now on the signal does not end the process.
    ///
    /// # Errors
    /// When the handler cannot be installed.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::user_defined1()).map(Self)
    }

    /// Waits for the next one. Cancel-safe.
    pub async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

impl std::fmt::Debug for Questions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Questions")
    }
}

impl std::fmt::Debug for Hangups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hangups")
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command, Stdio};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    /// Not a test: the process that the test below sends signals to. Never ends by itself.
    #[tokio::test]
    #[ignore = "started by another test"]
    async fn child_of_the_signal_test() {
        let token = shutdown_token().unwrap();
        println!("\nready");
        token.cancelled().await;
        println!("\nstopping");
        std::future::pending::<()>().await;
    }

    struct Process(Child);

    impl Drop for Process {
        fn drop(&mut self) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }

    #[test]
    fn the_first_asks_and_the_second_makes() {
        for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "--ignored", "--nocapture", "signals::tests::child_of_the_signal_test"]);
            let mut process = Process(command.stdout(Stdio::piped()).spawn().unwrap());
            let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines().map(Result::unwrap);
            let pid = Pid::from_child(&process.0);
            assert!(lines.any(|line| line == "ready"));
            kill_process(pid, signal).unwrap();
            assert!(lines.any(|line| line == "stopping"));
            kill_process(pid, signal).unwrap();
            let status = process.0.wait().unwrap();
            assert_eq!((status.code(), status.signal()), (Some(code), None));
        }
    }
}
