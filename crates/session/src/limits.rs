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

/// Longest ClientHello record: with X25519MLKEM768 and X25519 ours has about 1.5 KiB.
pub const HELLO_BYTES: usize = 4 * 1024;

/// Most relays in one request: each is tried in turn, and a try may take seconds.
pub const OFFERED_RELAYS: usize = 4;

/// Longest life of a sealed request in milliseconds: an atServer holds it for a minute.
pub const REQUEST_LIFE_MS: u64 = 60_000;

/// Longest time in seconds that a sealed session may wait for its connection to come back: a night with the lid closed.
pub const RESUME_SECONDS: u32 = 24 * 3600;

/// Sealed requests remembered for one client. Each counts for at most 11 minutes (its life, and the clocks' tolerance on
/// both sides): six a second, in about 700 KiB.
pub const REMEMBERED_OF_CLIENT: usize = 4096;

/// Clients with remembered sealed requests: each is a manager, or somebody whom policy let in.
pub const REMEMBERED_CLIENTS: usize = 256;

/// Most ssh host keys in a reply: a usual server has three.
pub const HOST_KEYS: usize = 16;

/// Longest time in milliseconds for which published host keys are good: a device writes them again every hour.
pub const HOST_KEYS_LIFE_MS: u64 = 30 * 86_400_000;
