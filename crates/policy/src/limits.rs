//! Bounds, each with its reason.

use std::time::Duration;

/// Questions being answered at the same time. Each takes two notifications; more are not heard, and devices ask again.
pub(crate) const QUESTIONS: usize = 256;
/// Of one atSign at the same time: a daemon asks about one client at a time, a few about each device of many.
pub(crate) const QUESTIONS_PER_SENDER: usize = 32;
/// Silence after which the link to the atServer is tested.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(60);
/// How often a rule file is looked at. A device acts on an answer for 14 s: with this, a change holds everywhere within
/// 15 s.
pub(crate) const FILE_POLL: Duration = Duration::from_millis(500);
/// How long an entry of the log lives. Source: NoPorts policy, 1 h.
pub(crate) const LOG_LIFE: Duration = Duration::from_secs(3600);
/// Log entries in a minute; more are left out, so that nobody fills the atServer by asking.
pub(crate) const LOGS_PER_MINUTE: u32 = 600;
/// How long the word of a change waits for other programs under our name. They read everything when they start.
pub(crate) const CHANGE_LIFE: Duration = Duration::from_secs(60);
/// Changes of our own that we do not read again when we hear of them.
pub(crate) const OWN_CHANGES: usize = 256;
/// Records read at the same time.
pub(crate) const READS: usize = 64;
/// How long a manager waits for an answer: reading and writing records included.
pub(crate) const MANAGER_WAIT: Duration = Duration::from_secs(15);
/// Answers that are on their way end by themselves when the service is told to stop, within this time.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);
