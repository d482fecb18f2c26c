//! A network that is not there yet: modems take their time.

use std::fmt;
use std::time::{Duration, Instant};

use postern_client::ClientError;
use postern_net::tls::ConnectError;
use postern_observe::say;

/// Pause between tries.
const PAUSE: Duration = Duration::from_secs(2);

/// What time may heal.
pub(crate) trait Passing: fmt::Display {
    fn is_passing(&self) -> bool;
}

impl Passing for ClientError {
    fn is_passing(&self) -> bool {
        Self::is_passing(self)
    }
}

impl Passing for ConnectError {
    fn is_passing(&self) -> bool {
        !self.is_certificate()
    }
}

/// Tries until it works, time does not heal it, or there is no more patience.
pub(crate) async fn patiently<T, E: Passing>(
    patience: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, E> {
    let (begun, mut told) = (Instant::now(), false);
    loop {
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if !error.is_passing() || begun.elapsed() >= patience {
            return Err(error);
        }
        if !told {
            say(format_args!("{error}; trying again for {} s", patience.as_secs()));
            told = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
