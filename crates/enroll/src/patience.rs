//! Reaching servers that may be away for a moment.

use std::time::Duration;

use postern_client::ClientError;
use postern_observe::say;

use crate::cli::Target;

/// Pause between tries. Source: the reference.
const PAUSE: Duration = Duration::from_secs(3);

/// Tries until it works, the error is one that time does not heal, or the user's patience ends.
pub(crate) async fn patiently<T>(
    target: &Target,
    mut attempt: impl AsyncFnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        if !error.is_passing() || tries >= target.tries {
            return Err(error);
        }
        say(format_args!("{error}; trying again in {} s ({tries} of {})", PAUSE.as_secs(), target.tries));
        tokio::time::sleep(PAUSE).await;
    }
}
