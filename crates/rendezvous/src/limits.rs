//! Numbers that a stranger can reach, each with its reason.

use std::time::Duration;

/// The signed line of a socket, without its newline. A line with an RSA-2048 signature and two 26-character nonces has
/// about 580 bytes; newer relays of NoPorts stop at 4096 as well.
pub const AUTH_LINE_BYTES: usize = 4096;

/// A request for ports or the relay's reply, whole. A request with several addresses of signing keys stays below 2 KiB.
pub const MESSAGE_BYTES: usize = 16 * 1024;

/// A session id. It becomes part of key names; every known client sends a UUID of 36 characters.
pub const SESSION_ID_BYTES: usize = 64;

/// A nonce. Known programs send a local time of 26 characters; twice signed and printed, 256 still fit the line.
pub const NONCE_BYTES: usize = 256;

/// An atSign: 55 characters by its own rules, four bytes each at most.
pub const ATSIGN_BYTES: usize = 224;

/// Addresses of signing keys in one request: one per side and algorithm is the most a client has use for.
pub const PRE_FETCH: usize = 8;

/// Text of a refusal that we show.
pub const NACK_CHARS: usize = 500;

/// The relay's address in a reply: a DNS name has at most 253 characters.
pub const HOST_BYTES: usize = 253;

/// A socket that must authenticate has this long for its line ("legacy payload" authentication of NoPorts).
pub const AUTH_WITHIN: Duration = Duration::from_secs(5);

/// The same where proofs take a question, an answer and a key fetched from elsewhere. Source: newer relays of NoPorts.
pub const PROVE_WITHIN: Duration = Duration::from_secs(10);

/// Who says nothing for this long wants to be asked; who knows only the signed line has sent it by then. Source: the
/// default of `--relay-auth-detect-window-ms`.
pub const DETECT_WINDOW: Duration = Duration::from_millis(500);

/// How often the keys that proved a session's sockets are looked at again. Source: the signing-key check interval of
/// NoPorts.
pub const KEY_RECHECK: Duration = Duration::from_secs(300);

/// Keys that may prove sockets of one session: an enrolment on either side, and a few that came and went.
pub const KEYS_PER_SESSION: usize = 8;

/// Relays that a client asks about at once: more than the network has.
pub const CANDIDATES: usize = 32;

/// From the opening of the ports: a session that has no live pair by then, or at any later moment, is over.
pub const GRACE: Duration = Duration::from_secs(30);

/// Sockets of one side that have not authenticated yet. The ports are open to the world; a real peer needs its place for one
/// round trip.
pub const UNAUTHENTICATED_PER_SIDE: usize = 32;

/// Authenticated sockets of one side that wait for the other side. A browser through `npt` opens six per host at once.
pub const WAITING_PER_SIDE: usize = 64;

/// Pairs of one session at the same time; further sockets wait. 512 pairs are 1024 sockets, a common soft limit of files.
pub const LIVE_PAIRS: usize = 512;
