//! How much a relay gives to one session, to one atSign and to everybody, each with its reason.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use postern_net::seats::SeatLimits;
use postern_rendezvous::HallRules;
use postern_rendezvous::limits::{
    AUTH_WITHIN, DETECT_WINDOW, GRACE, KEY_RECHECK, LIVE_PAIRS, PROVE_WITHIN, UNAUTHENTICATED_PER_SIDE,
    WAITING_PER_SIDE,
};

/// Sessions at the same time. Each holds two ports, of about 28,000 that Linux has for this purpose, and two listening sockets.
pub const SESSIONS: usize = 1024;

/// Sessions at the same time of one atSign that asks. An integrator who works on a set of gateways opens one per gateway.
pub const SESSIONS_PER_ATSIGN: usize = 64;

/// Sockets of guests in all sessions, joined or not: 8192 pairs. A busy direction has two descriptors more for its pipe, and
/// one while it waits for room; an idle socket has 16 KiB of kernel memory.
pub const SOCKETS: u32 = 16_384;

/// Sockets of guests that have not authenticated, in all sessions.
pub const STRANGERS: u32 = 2048;

/// The same from one address: NATs are real, and one round trip is all that a peer needs.
pub const STRANGERS_PER_ADDRESS: u32 = 256;

/// To ask an atServer for the key that a proof names; the socket that waits for it has [`PROVE_WITHIN`] in all.
pub const KEY_FETCH: Duration = Duration::from_secs(8);

/// A signing key is believed for this long. An enrolment that is revoked can prove new sockets for a minute more; its
/// sessions are cut at the next look.
pub const KEY_AGE: Duration = Duration::from_secs(60);

/// Keys of strangers remembered, of each kind: some 400 bytes each, 80 MiB in all when strangers publish the longest that
/// is believed.
pub const KEPT_KEYS: usize = 4096;

/// Clients that a relay may be kept for by name.
pub const MANAGERS: usize = 256;

/// The port for all with `--443`, when no other is named: what gets through most firewalls.
pub const SINGLE_PORT: u16 = 443;

/// A longer wait for who speaks first would leave no time for a proof.
pub const LONGEST_DETECT_WINDOW: Duration = Duration::from_secs(3);

/// Life of the record by which one of several instances takes a request: longer than a request lives. Source: NoPorts.
pub const MUTEX_LIFE: Duration = Duration::from_secs(30);

/// Sockets from the port for all that may be under way to one session.
pub const ADMISSIONS: usize = 16;

/// Guests with tickets that may be on their way into the hall.
pub const ARRIVALS: usize = 256;

/// Of its bucket, what a ticket costs the address it comes from: reading it and one Ed25519 signature, some 50 µs.
pub const TICKET_COST: u32 = 1;

/// What a voucher costs besides that was not seen in the last minute: two RSA signatures and questions to two atServers.
pub const VOUCHER_COST: u32 = 16;

/// What a TLS handshake costs: a signature of the relay's, and the agreement on a key, half a millisecond in all.
pub const TLS_COST: u32 = 8;

/// What flows into the bucket of an address each second: 2000 tickets, a tenth of a core; or 117 new vouchers.
pub const CHECKS_PER_SECOND: u32 = 2000;

/// What the bucket holds: a fleet of 235 gateways behind one address after the relay's restart.
pub const CHECKS_AT_ONCE: u32 = 4000;

/// Addresses (IPv6: /64) with a bucket that is not full: 32 bytes each.
pub const BUDGETED_ADDRESSES: usize = 16_384;

/// Tickets whose keys are being asked for; more wait. An atServer that does not answer takes a place for [`KEY_FETCH`].
pub const KEY_FETCHES: usize = 256;

/// Vouchers remembered that were believed in the last minute, by whoever has an atSign: 400 bytes each.
pub const KEPT_VOUCHERS: usize = 16_384;

/// What a guest behind TLS may send before the other side has come: the first flight of a device has some 6 KiB.
pub const LEFTOVER_BYTES: usize = 16 * 1024;

/// How often the certificate is read anew: who renews it every two months need not restart the relay.
pub const TLS_RELOAD: Duration = Duration::from_secs(3600);

/// The slowest pace of a client's sessions: a key exchange of ssh takes some 5 KB.
pub const LEAST_RATE: u64 = 1024;

/// A guest that is refused has this long to read why.
pub const FAREWELL: Duration = Duration::from_secs(1);

/// What it may still send meanwhile: the first flight of a TLS handshake has 5 KiB.
pub const FAREWELL_BYTES: u64 = 64 * 1024;

/// How often the relay says anew where it is reached. The record lies at the atServer of the relay; nobody else writes it.
pub const REPUBLISH: Duration = Duration::from_secs(6 * 3600);

/// The same while it could not be said: at first, and longer each time.
pub const PUBLISH_AGAIN: Duration = Duration::from_secs(5);

/// A record that is not acknowledged by then is written again later; the relay can serve meanwhile.
pub const PUBLISH_WITHIN: Duration = Duration::from_secs(10);

/// The port for all, when no other is named: no privilege is needed for it.
pub const PORT: u16 = 4443;

/// News from guests to their session that may be under way; a guest with more to tell waits.
pub const EVENTS: usize = 64;

/// After a failed `accept` (no file descriptors left) the session waits this long before it tries again.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Requests being answered at the same time; more wait in the inbox.
pub const REQUESTS: usize = 64;

/// Silence after which the link to the atServer is tested. A relay has no data plan to spare.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// Sessions that end by themselves when the relay is told to stop get this long.
pub const DRAIN: Duration = Duration::from_secs(2);

/// What one relay allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayLimits {
    /// The address that session ports are bound to. `[::]` takes IPv4 as well.
    pub bind: IpAddr,
    /// See [`SESSIONS`].
    pub sessions: usize,
    /// See [`SESSIONS_PER_ATSIGN`].
    pub sessions_per_atsign: usize,
    /// See [`SOCKETS`], [`STRANGERS`], [`STRANGERS_PER_ADDRESS`].
    pub seats: SeatLimits,
    /// Time for a socket to authenticate by a signed line.
    pub auth_within: Duration,
    /// Time for a socket to authenticate where it may be asked for a proof.
    pub prove_within: Duration,
    /// Who says nothing for this long is asked for a proof.
    pub detect_window: Duration,
    /// How often the keys behind a session's proofs are looked at again.
    pub key_recheck: Duration,
    /// Time after which a session without live pairs is over.
    pub grace: Duration,
    /// Sockets of one side of one session that may be busy authenticating.
    pub unauthenticated_per_side: usize,
    /// Sockets of one side of one session that may wait for the other side.
    pub waiting_per_side: usize,
    /// Pairs of one session.
    pub live_pairs: usize,
    /// Bytes in a second that all sessions of one client's atSign may carry together, both directions; no bound.
    pub max_rate: Option<u64>,
    /// Of sessions by ticket.
    pub tickets: HallRules,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            bind: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            sessions: SESSIONS,
            sessions_per_atsign: SESSIONS_PER_ATSIGN,
            seats: SeatLimits { total: SOCKETS, anonymous: STRANGERS, per_address: STRANGERS_PER_ADDRESS },
            auth_within: AUTH_WITHIN,
            prove_within: PROVE_WITHIN,
            detect_window: DETECT_WINDOW,
            key_recheck: KEY_RECHECK,
            grace: GRACE,
            unauthenticated_per_side: UNAUTHENTICATED_PER_SIDE,
            waiting_per_side: WAITING_PER_SIDE,
            live_pairs: LIVE_PAIRS,
            max_rate: None,
            tickets: HallRules::default(),
        }
    }
}
