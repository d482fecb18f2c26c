//! A gateway whose clock is wrong goes by its atServer's, and says so. The rule is [`postern_net::clock`]'s.

use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use postern_net::clock::{self, Standing};
use postern_session::NAMESPACE;
use tokio::time::{sleep, timeout};

use crate::daemon::Daemon;
use crate::limits::{CLOCK_ASKED, CLOCK_LOOKS, FIRST_RECORDS};

/// What was said last of this machine's clock, so that it is said once.
#[derive(Default)]
pub(crate) struct ClockTold {
    last: Mutex<Option<Discriminant<Standing>>>,
    /// Rung when that changes.
    pub(crate) bell: tokio::sync::Notify,
}

impl ClockTold {
    fn tell(&self, standing: Standing) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let before = last.replace(discriminant(&standing));
        if before == Some(discriminant(&standing)) || (before.is_none() && !standing.is_wrong()) {
            return;
        }
        if standing.is_wrong() {
            tracing::warn!("{standing}");
        } else {
            tracing::info!("{standing}");
        }
        self.bell.notify_one();
    }
}

impl Daemon {
    /// Asks the atServer what time it is. One that does not say so in time must not keep the device from serving.
    pub(crate) async fn ask_time(&self) {
        let name = format!("clock.{}.{NAMESPACE}", self.config.device);
        match timeout(FIRST_RECORDS, self.client.ask_time(&name)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the atServer does not say what time it is"),
            Err(_) => tracing::debug!("the atServer does not say in time what time it is"),
        }
        self.clock.tell(clock::look());
    }

    /// Looks now and then: a clock may be set by the network, or by somebody's mistake.
    pub(crate) async fn watch_clock(self: Arc<Self>) {
        let mut asked = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = self.tasks.token().cancelled() => return,
                () = sleep(CLOCK_LOOKS) => {}
            }
            let standing = clock::look();
            let is_known = self.clock.last.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
                == Some(&discriminant(&standing));
            let due = !is_known || standing == Standing::Impossible || asked.elapsed() >= CLOCK_ASKED;
            if standing.is_wrong() && due {
                asked = Instant::now();
                self.ask_time().await;
            } else {
                self.clock.tell(standing);
            }
        }
    }
}
