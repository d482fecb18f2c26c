//! What is wrong, why, and what to do: checks of the machine and of the way to directory, atServers and relays.
//!
//! A room (`sshnpd --doctor`, `postern doctor client|server`) knows its configuration; it says what is to be looked at and
//! gets [`Finding`]s, adds its own, and shows a [`Report`]. Checks change nothing.

mod certificate;
mod finding;
pub mod limits;
mod link;
mod machine;
mod report;
mod ssh;
mod way;

pub use certificate::Certificate;
pub use finding::{Finding, Level};
pub use link::link;
pub use machine::{clock, folder, key_file};
pub use report::Report;
pub use ssh::{SshServer, ssh_server};
pub use way::{Server, Subject, Way, certificate, dns, fit, proxy_of_environment, reach, relay};

use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, in milliseconds since 1970; before that, 0.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What comes from elsewhere, fit for a terminal: one line, no control characters, not too long.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(limits::TEXT_CHARS).collect()
}

/// A time for people: `2026-11-23T10:00:00Z`.
pub(crate) fn date(ms: i64) -> String {
    jiff::Timestamp::from_second(ms.div_euclid(1000)).map_or_else(|_| format!("{ms} ms"), |time| time.to_string())
}
