//! `monitor[:strict][:selfNotifications][:multiplexed][:⟨epochMillis⟩][ ⟨regex⟩]`

use std::fmt;

use crate::{Millis, ProtocolError};

/// Turns the connection into a stream of notifications.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Monitor {
    /// Nothing that does not match, statistics included.
    pub strict: bool,
    /// What the server tells its own owner, too.
    pub self_notifications: bool,
    /// Replay what arrived after this moment.
    pub since: Option<Millis>,
    /// Searched in the key and in the sender without `@`.
    pub regex: Option<String>,
}

impl Monitor {
    /// `after`: everything behind the word `monitor`.
    pub(crate) fn parse(after: &str) -> Result<Self, ProtocolError> {
        let (head, regex) = after.split_once(' ').unwrap_or((after, ""));
        let mut monitor = Self::default();
        for piece in head.split(':').filter(|piece| !piece.is_empty()) {
            match piece.to_ascii_lowercase().as_str() {
                "strict" => monitor.strict = true,
                "selfnotifications" => monitor.self_notifications = true,
                "multiplexed" => {}
                ms => monitor.since = Some(ms.parse().map_err(|_| ProtocolError::invalid_command())?),
            }
        }
        monitor.regex = Some(regex.trim()).filter(|r| !r.is_empty()).map(str::to_owned);
        Ok(monitor)
    }
}

impl fmt::Display for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("monitor")?;
        if self.strict {
            f.write_str(":strict")?;
        }
        if self.self_notifications {
            f.write_str(":selfNotifications")?;
        }
        if let Some(since) = self.since {
            write!(f, ":{since}")?;
        }
        match &self.regex {
            Some(regex) => write!(f, " {regex}"),
            None => Ok(()),
        }
    }
}
