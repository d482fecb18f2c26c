//! Deadlines and bounds of the tests, each with its reason.

use std::time::Duration;

/// A program of ours is ready after start. It takes tens of milliseconds; two busy cores and an
/// unoptimised build may stretch that a hundredfold.
pub const READY: Duration = Duration::from_secs(20);

/// A short command (`ip`, `ssh-keygen`, activation with its two RSA keys) has ended.
pub const COMMAND: Duration = Duration::from_secs(30);

/// One session from start to end. Above every timer a client has (20 s for a ping), so that a
/// failure is told by the client, in its own words, and not by our patience.
pub const SESSION: Duration = Duration::from_secs(60);

/// A new session works this long after the cause of a fault has ended. The promise of the house.
pub const RECOVERY: Duration = Duration::from_secs(10);

/// Pause between two looks at something that offers no event to wait for (`/proc`, a foreign port).
pub const POLL: Duration = Duration::from_millis(20);

/// Lines of a process kept for its obituary and for late waiters.
pub const KEPT_LINES: usize = 4000;

/// Lines of a process shown when it failed.
pub const SHOWN_LINES: usize = 40;

/// After a process has ended, its readers may wait this long for grandchildren that still hold the
/// pipe open (a detached helper inherits it).
pub const PIPE_GRACE: Duration = Duration::from_millis(500);

/// Memory of client, relay or daemon while a slow reader holds up a gigabyte: a few buffers per
/// stream, the program itself (about 15 MB unoptimised), nothing that grows with the stream.
pub const BOUNDED_MEMORY_KIB: u64 = 64 * 1024;
