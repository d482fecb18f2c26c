//! Bounds, each with its reason.

/// Longest control line in bytes: `connect:` with two keys and two IVs has 145.
pub(crate) const CONTROL_LINE_BYTES: usize = 512;

/// Session ids remembered against replays. A request lives 60 s in the queue of the atServer; at ten sessions a
/// second this covers it six times over, in about 300 KiB.
pub(crate) const REMEMBERED_SESSIONS: usize = 4096;

/// Longest ephemeral ssh private key: RSA-4096 has about 3,400 characters.
pub(crate) const PRIVATE_KEY_BYTES: usize = 16 * 1024;

/// Longest ssh public key line: RSA-16384 has about 2,800 characters.
pub(crate) const SSH_KEY_BYTES: usize = 8192;

/// Most entries in a permit-open list.
pub(crate) const PERMIT_ENTRIES: usize = 1024;
