//! How our connection is, for whoever looks from outside.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::handle::Client;
use crate::limits::LATE_AT_LEAST;

/// Silences after which a link that nothing was heard from is no good: every third beat asks, and each may be a tenth longer.
const SILENCES: u32 = 4;

/// Whether we are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Logged in, as far as is known.
    Connected,
    /// Not connected, on purpose, until the next time.
    Asleep,
    /// Not connected; tried again.
    Lost,
}

/// A connection as it is.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Whether we are connected.
    pub state: LinkState,
    /// Since when.
    pub since: Instant,
    /// When the server was last heard.
    pub heard: Instant,
    /// The silence that is kept on this network.
    pub heartbeat: Duration,
}

impl Link {
    pub(crate) fn new() -> watch::Sender<Self> {
        let now = Instant::now();
        watch::Sender::new(Self { state: LinkState::Lost, since: now, heard: now, heartbeat: Duration::ZERO })
    }

    /// How long the link may be lost, or connected and unheard, before something is wrong: four heartbeats, at least
    /// [`LATE_AT_LEAST`].
    #[must_use]
    pub fn patience(&self) -> Duration {
        (self.heartbeat * SILENCES).max(LATE_AT_LEAST)
    }

    /// Nothing is wrong, or not for long enough to be told.
    #[must_use]
    pub fn is_well(&self, now: Instant) -> bool {
        let since = match self.state {
            LinkState::Asleep => return true,
            LinkState::Connected => self.heard,
            LinkState::Lost => self.since,
        };
        now.saturating_duration_since(since) <= self.patience()
    }
}

impl Client {
    /// How the connection is; whoever waits for changes is not woken by what is heard.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.inner.link.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_is_later_than_four_heartbeats() {
        let now = Instant::now();
        let link = |state, heartbeat| Link { state, since: now, heard: now, heartbeat: Duration::from_secs(heartbeat) };
        let is_well = |link: Link, seconds| link.is_well(now + Duration::from_secs(seconds));
        for state in [LinkState::Connected, LinkState::Lost] {
            assert!(is_well(link(state, 300), 1200) && !is_well(link(state, 300), 1201));
            assert!(is_well(link(state, 1), 10) && !is_well(link(state, 1), 11));
        }
        assert!(is_well(link(LinkState::Asleep, 1), 86_400));
    }
}
