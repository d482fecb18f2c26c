//! SIGINT and SIGTERM: the first asks us to stop, the second makes us.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
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
