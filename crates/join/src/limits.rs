//! Bounds, each with its reason.

use std::time::Duration;

/// For one handshake with the directory: gateways on a weak link take several seconds.
pub(crate) const CONNECT: Duration = Duration::from_secs(20);
/// Time for connections to end in order when all is done.
pub(crate) const FAREWELL: Duration = Duration::from_millis(500);
/// Silence after which the link to the atServer is tested while we wait.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(60);
/// First pause between questions whether it is approved: an inviter who waits approves within it.
#[cfg(feature = "join")]
pub(crate) const ASK_FIRST: Duration = Duration::from_millis(400);
/// Longest such pause; each question is a handshake and costs some 6 kB.
#[cfg(feature = "join")]
pub(crate) const ASK_LATER: Duration = Duration::from_secs(10);
/// How often in a row a server may refuse our key, after it has said that we wait, before we believe that it keeps another.
#[cfg(feature = "join")]
pub(crate) const KEY_REFUSALS: u32 = 4;
/// Tries to say that we are here; the inviter does without if need be.
#[cfg(feature = "join")]
pub(crate) const ARRIVAL_TRIES: u32 = 3;
/// For how long the server keeps what we say then: the inviter may be away over a holiday.
#[cfg(feature = "join")]
pub(crate) const ARRIVAL_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// Longest file with invitations, in bytes: a batch of a thousand has 250 kB.
#[cfg(feature = "join")]
pub(crate) const BATCH_FILE_BYTES: u64 = 1024 * 1024;
/// Invitations of one file that are tried: the server counts wrong passcodes and makes who guesses wait.
#[cfg(feature = "join")]
pub(crate) const BATCH_TRIES: usize = 4;
/// Longest of our own files that is read back, in bytes.
pub(crate) const OWN_FILE_BYTES: u64 = 64 * 1024;
/// Lines printed by one call: a pallet.
#[cfg(feature = "invite")]
pub(crate) const BATCH: u16 = 1000;
/// Longest life of an invitation: what lies in a drawer for longer is forgotten, and its secret with it.
#[cfg(feature = "invite")]
pub(crate) const LONGEST: Duration = Duration::from_secs(90 * 86_400);
/// How often an inviter who waits looks, beside what it is told.
#[cfg(feature = "invite")]
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);
