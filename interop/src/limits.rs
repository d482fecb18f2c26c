//! Deadlines of the suite, each with its reason.

use std::time::Duration;

/// An answer of a Python program to one question. The slowest makes two RSA key pairs, a second each on a busy machine;
/// the import of its libraries takes another.
pub(crate) const ANSWER: Duration = Duration::from_secs(45);

/// A notification is on its monitor. It takes milliseconds; a replay after a restart a reconnect more.
pub(crate) const HEARD_SECONDS: u64 = 15;

/// `atsdk` looks every five seconds whether its monitor still runs; and some for the rest.
pub(crate) const SDK_RESTARTS_MONITOR_SECONDS: u64 = 8;

/// What expires after a second is gone by then.
pub(crate) const EXPIRED: Duration = Duration::from_secs(10);

/// Between two looks at something that offers no event.
pub(crate) const POLL: Duration = Duration::from_millis(100);

/// The Python daemon is up: an import, a login, a record, a monitor.
pub(crate) const DAEMON_READY: Duration = Duration::from_secs(30);

/// One ssh session through it, longer than any timer of the client.
pub(crate) const SESSION: Duration = Duration::from_secs(60);

/// The same where it is known that it cannot be: ten times what a session takes.
pub(crate) const SOON: Duration = Duration::from_secs(9);
