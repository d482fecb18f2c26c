//! Sizes of this world, each with its reason.

use std::time::Duration;

/// Sessions that honest clients begin, at most: two to be confused with each other, a third beside them.
pub(super) const SESSIONS: usize = 3;
/// Steps while the attacker is there, at most: some beginnings, each disturbed some times. A handshake costs
/// milliseconds.
pub(super) const HOSTILE_STEPS: usize = 40;
/// Bytes of a socket that the attacker remembers: a whole flight.
pub(super) const RECORDED: usize = 16 * 1024;
/// Patience of a request.
pub(super) const PATIENCE_MS: u64 = 30_000;
/// The longest pause: beyond everything that is remembered, and back.
pub(super) const PAUSE: Duration = Duration::from_secs(500);
/// Rounds of a fair network in which everybody speaks and hears: a handshake needs four.
pub(super) const FAIR_ROUNDS: usize = 12;
