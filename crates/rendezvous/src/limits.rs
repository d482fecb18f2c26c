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

/// A ticket's life from `iat` to `exp`, in milliseconds: the time of a request, for it is made when the relay is dialled.
pub const TICKET_LIFE_MS: u64 = 60_000;

/// A refusal that a relay answers a ticket with, its newline included; the text is cut to fit.
pub const REFUSAL_BYTES: usize = 512;

/// Addresses in a relay's record, and relays in a request: IPv4, IPv6 and TLS of a few hosts.
pub const ADDRESSES: usize = 16;

/// The record with a relay's addresses: [`ADDRESSES`] of 300 bytes.
pub const RECORD_BYTES: usize = 8 * 1024;

/// Tickets that are remembered so that none is good twice, 24 bytes each: those of 360 seconds, which is their life and
/// the tolerance, at 600 a second, which is two for each of 300 sessions.
pub const REMEMBERED_TICKETS: usize = 262_144;

/// Sessions by ticket at the same time: two sockets each, [`LIVE_PAIRS`] of old sessions are as many.
pub const TICKET_SESSIONS: usize = 8192;

/// The same of one client's atSign: a fleet of a thousand gateways, each reached at once.
pub const TICKET_SESSIONS_PER_ATSIGN: usize = 1024;

/// Devices of one atSign that wait for their clients.
pub const DEVICES_WAITING_PER_ATSIGN: usize = 1024;
