//! Times and lengths of the agent, each with its reason.

use std::time::Duration;

/// An agent that nobody has asked for anything for so long ends: its login costs a connection to the atServer.
pub(crate) const IDLE: Duration = Duration::from_secs(600);
/// A session without a stream is kept for so long: for the next command of a script, or of somebody who thinks. A device
/// shows it as somebody who is in.
pub(crate) const SPARE_SESSION: Duration = Duration::from_secs(180);
/// Between looks at what has ended or is not needed any more.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Longest line, in bytes: a wish with ten relays has some 1,000, a status of a hundred sessions some 30,000.
pub(crate) const LINE_BYTES: usize = 256 * 1024;
/// For a question to arrive whole: its sender is a program on the same machine.
pub(crate) const QUESTION: Duration = Duration::from_secs(5);
/// Connections at a time: Ansible's forks and an `npt` with a browser behind it, with room.
pub(crate) const CONNECTIONS: usize = 512;
/// For an agent that was just started to listen.
pub(crate) const START: Duration = Duration::from_secs(3);
/// For the agent's words on how a stream ended, once its bytes have.
pub(crate) const LAST_WORD: Duration = Duration::from_millis(500);
/// For the sessions of an agent that stops to say goodbye.
pub(crate) const GOODBYE: Duration = Duration::from_secs(2);
