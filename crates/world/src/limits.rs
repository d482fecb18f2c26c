//! Sizes of a world, each with its reason.

use std::time::Duration;

/// Sessions at once: two to be spliced, a third that must not notice.
pub const SESSIONS: usize = 3;
/// Streams of a session, at most: one alone, and some that take turns.
pub const STREAMS: usize = 3;
/// Steps while the attacker is there, at most.
pub const HOSTILE_STEPS: usize = 160;
/// Rounds in the fair network before a session counts as stuck. A stalled one is noticed by the clock after some
/// twenty; a mebibyte through a window of 64 KiB takes some hundred.
pub const FAIR_ROUNDS: usize = 4000;
/// How long a lost connection may stay lost.
pub const RESUME: Duration = Duration::from_secs(600);
/// Bytes of each direction of a connection that the attacker remembers for a replay.
pub const RECORDED: usize = 16 * 1024;
/// Lines of the trace.
pub const TRACE: usize = 60;
