//! Numbers that a stranger or a client can reach, each with its reason.

use std::time::Duration;

use postern_net::seats::SeatLimits;

/// From TCP connect to the end of the TLS handshake. A handshake is two round trips; ten seconds forgive a satellite
/// link that loses packets.
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(10);

/// For a health check to connect, and again to be greeted. Those who ask give up after some ten seconds themselves.
pub const HEALTH: Duration = Duration::from_secs(4);

/// An anonymous connection without a complete line is closed after this long. The reference waits ten minutes and
/// only looks when somebody else connects. Logging in takes a person's machine a second.
pub const ANONYMOUS_IDLE: Duration = Duration::from_secs(60);

/// The same in a directory conversation: some clients keep one connection for every question they will ever ask, and
/// spin when it ends. The seats take it back sooner when they are wanted.
pub const DIRECTORY_IDLE: Duration = Duration::from_secs(600);

/// Longest line before authentication. The largest a client sends then is an enrolment request with two RSA-wrapped
/// keys and one public key, about 3 KiB.
pub const ANONYMOUS_LINE_BYTES: usize = 16 * 1024;

/// Longest line of an owner. Source: the reference's buffer; its clients cap a value 10,000 bytes below.
pub const OWNER_LINE_BYTES: usize = 10_240_000;

/// Longest question to the directory. Source: the reference.
pub const DIRECTORY_LINE_BYTES: usize = 255;

/// Unfinished lines beyond [`FREE_LINE_BYTES`] that all connections of one household may hold together: six of the
/// longest at once.
pub const LARGE_LINES_BYTES: usize = 64 * 1024 * 1024;

/// An unfinished line up to this length is not counted: 20,000 connections hold 1.2 GiB of them at the very worst, and
/// real lines this long are rare.
pub const FREE_LINE_BYTES: usize = 64 * 1024;

/// One read from a socket, and the largest TLS record.
pub const READ_BYTES: usize = 16 * 1024;

/// A peer that does not take our bytes for this long is gone or hostile.
pub const WRITE_LIMIT: Duration = Duration::from_secs(20);

/// After the last word, how long and how much is still read and thrown away, so that the peer's kernel delivers that
/// word instead of a reset.
pub const FAREWELL: Duration = Duration::from_secs(1);
/// See [`FAREWELL`].
pub const FAREWELL_BYTES: usize = 4 * 1024 * 1024;

/// Pushes waiting for one monitor. A reader this far behind is closed and resumes by its last time stamp: nothing is
/// lost, for notifications are stored.
pub const QUEUED_PUSHES: usize = 256;

/// The same in bytes. One larger push is always accepted by an empty queue.
pub const QUEUED_PUSH_BYTES: usize = 4 * 1024 * 1024;

/// Notifications read from the store at once while replaying: bounds memory to a page of them.
pub const REPLAY_PAGE: usize = 32;

/// A notification pushed live within this time of the subscription may have been replayed too; those replayed are
/// remembered as long. A commit takes milliseconds, on a busy disk seconds.
pub const REPLAY_OVERLAP_MS: i64 = 60_000;

/// Authenticated connections of one household. The issue of fleets: one identity, thousands of devices, one or two
/// connections each.
pub const HOUSEHOLD_CONNECTIONS: u32 = 20_000;

/// Compiled size of a regular expression that a client sends, and of the automaton made while searching. The
/// expressions of real clients compile to about 10 KiB.
pub const REGEX_BYTES: usize = 64 * 1024;

/// Longest regular expression text: compiling is linear in it.
pub const REGEX_CHARS: usize = 1024;

/// Life of a notification when the sender names none. Source: the reference's shipped configuration.
pub const NOTIFICATION_LIFE_MS: i64 = 15 * 60 * 1000;

/// Longest life of a notification: a device that was off for a month needs no request of last month.
pub const NOTIFICATION_LIFE_MAX_MS: i64 = 30 * 24 * 3600 * 1000;

/// Bytes that one `notify:all` may store for all its recipients together: a value of 160 kB for a hundred of them.
pub const NOTIFY_ALL_BYTES: usize = 16 * 1024 * 1024;

/// Keys and values in one answer to `notify:list`. Source: what the reference puts into one page of `sync`.
pub const NOTIFY_LIST_BYTES: usize = 5 * 1000 * 1000;

/// Entries in one answer to `sync`. Source: the reference.
pub const SYNC_ENTRIES: usize = 25;

/// Bytes of one answer to `sync`, unless a single entry is longer. Source: the reference.
pub const SYNC_BYTES: usize = 5 * 1000 * 1000;

/// Entries of the commit log read from the store at once: about 10 kB.
pub const LOG_PAGE: usize = 100;

/// Longest block list: it is read whenever somebody else's request arrives.
pub const BLOCKED: usize = 1000;

/// Life of a one-time passcode. Source: the reference.
pub const OTP_LIFE_MS: i64 = 5 * 60 * 1000;

/// A request for an enrolment waits this long for a decision. Source: the reference.
pub const PENDING_ENROLLMENT_MS: i64 = 48 * 3600 * 1000;

/// Life of the message that tells of such a request. Source: the reference.
pub const ENROLLMENT_NEWS_MS: i64 = 24 * 3600 * 1000;

/// Requests of one household that wait at the same time. Whoever knows the lasting passcode could fill the store with
/// them otherwise; a fleet is enrolled in batches.
pub const PENDING_ENROLLMENTS: usize = 1_000;

/// Longest name of an app, a device or a namespace, in characters: three of them make a key of at most 248.
pub const ENROLLMENT_TEXT_CHARS: usize = 100;

/// Longest text that an enrolment publishes as its signing key. Source: the reference.
pub const SIGNING_KEY_BYTES: usize = 20 * 1024;

/// Namespaces of one enrolment. Real ones have two or three.
pub const ENROLLMENT_NAMESPACES: usize = 64;

/// Wrong passcodes that one address (IPv6: one /64) may try at once. A person reads six letters wrong twice.
pub const GUESSES_BURST: u32 = 5;

/// And then one each time this has passed. A passcode has 28 bits and lives five minutes: an address
/// that tries all the time hits one in 18 million.
pub const GUESS_EVERY: Duration = Duration::from_secs(30);

/// Wrong passcodes of one household, all addresses together and forgotten at the same pace each, above which every
/// address has only one. So a thousand addresses have a thousand guesses, and the owner's new device, which comes from
/// an address of its own, is still let in.
pub const HOUSEHOLD_GUESSES: u32 = 100;

/// Addresses and households whose wrong passcodes are remembered, 1 MiB each.
pub const GUESSERS: usize = 16_384;

/// Statistics to monitors that want them. Source: the reference; some clients take silence for death after 30 s.
pub const STATS_EVERY: Duration = Duration::from_secs(15);

/// The store forgets what expired this often; reads hide it sooner.
pub const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The list of households is read again this often, for another process may add one.
pub const ACCOUNTS_EVERY: Duration = Duration::from_secs(1);

/// Unknown names make us look at the store at most this often in a burst, and this often a second: whoever was just
/// added is found at once, and a flood of made-up names costs little.
pub const ACCOUNT_READS_BURST: u32 = 20;

/// Unknown names that one address may ask the directory without delay; then one a second.
pub const MISSES_BURST: u32 = 20;

/// Longest delay of an answer to an address that asks for too many unknown names. Some clients give up after three
/// seconds.
pub const MISS_DELAY_MAX: Duration = Duration::from_secs(10);

/// Addresses whose misses are remembered: 16,384 of about 64 bytes are 1 MiB.
pub const MISS_ADDRESSES: usize = 16_384;

/// A write that meets another write of the same record is planned again this often.
pub const PLAN_ATTEMPTS: u32 = 16;

/// From the name to the end of the TLS handshake with a server of another operator.
pub const PEER_CONNECT: Duration = Duration::from_secs(5);

/// One step of the handshake with it. Source: the reference.
pub const PEER_STEP: Duration = Duration::from_secs(3);

/// From `pol` to its answer: the other side finds us, connects and asks three times. The reference waits three seconds,
/// and then for nothing; on links over a satellite that is short.
pub const PEER_VERIFIES: Duration = Duration::from_secs(10);

/// The answer to a lookup. Source: the reference.
pub const PEER_LOOKUP: Duration = Duration::from_secs(5);

/// The answer to a delivered notification. Source: the reference.
pub const PEER_NOTIFY: Duration = Duration::from_secs(10);

/// Longest answer of a server before it has accepted us: a public key with its metadata has 1 KiB.
pub const PEER_SMALL_ANSWER_BYTES: usize = 16 * 1024;

/// Life of the signature that another server reads to believe us. Source: the reference.
pub const POL_COOKIE_LIFE_MS: i64 = 60_000;

/// A directory's answer, connecting included.
pub const DIRECTORY_ANSWER: Duration = Duration::from_secs(5);

/// Directory entries remembered, of about 200 bytes each.
pub const DIRECTORY_ENTRIES: usize = 10_000;

/// A server that moves is found after this time at the latest, and at once when the old one is gone. Clients of the
/// reference remember for an hour.
pub const DIRECTORY_ENTRY_LIFE: Duration = Duration::from_secs(600);

/// A name that was just registered is found after this time; a flood of made-up names asks the directory no more often.
pub const DIRECTORY_MISS_LIFE: Duration = Duration::from_secs(30);

/// Questions to directories at the same time.
pub const DIRECTORY_QUESTIONS: usize = 16;

/// Connections to servers of others. Source: the reference.
pub const OUTBOUND_CONNECTIONS: usize = 200;

/// One that was not used for this long is closed. Source: the reference.
pub const OUTBOUND_IDLE: Duration = Duration::from_secs(600);

/// How often that is looked at.
pub const OUTBOUND_TIDIED_EVERY: Duration = Duration::from_secs(60);

/// Questions to other servers that one household may have under way: a device asks one at a time.
pub const PEER_ASKS: u32 = 32;

/// Claims of other servers being checked at this moment, in all. Each holds one connection of ours for a few round
/// trips.
pub const VERIFYING: usize = 64;

/// The same of one address: a host of many atServers.
pub const VERIFYING_PER_ADDRESS: u32 = 8;

/// The same of one claimed atSign: a server opens one or two connections to us for each of our owners.
pub const VERIFYING_PER_ATSIGN: u32 = 8;

/// Connections of other servers that have proved whom they speak for.
pub const VISITORS: u32 = 2_000;

/// The same of one atSign.
pub const VISITORS_OF_ONE: u32 = 64;

/// A proved connection of another server that is silent for this long is closed; the reference closes its own after ten
/// minutes.
pub const VISITOR_IDLE: Duration = Duration::from_secs(1800);

/// Senders and recipients with notifications on their way, in memory: about 300 bytes each. More wait in the store.
pub const DELIVERY_LANES: usize = 10_000;

/// Deliveries at the same time. Source: the reference.
pub const DELIVERIES_UNDER_WAY: usize = 50;

/// The same of one sender, so that one whose recipients are slow leaves room for others.
pub const DELIVERIES_OF_ONE: usize = 25;

/// Notifications that a lane delivers before others have their turn.
pub const LANE_TURN: u32 = 64;

/// A recipient that is not reached is left alone for this long at first. Source: the reference.
pub const QUARANTINE: Duration = Duration::from_secs(10);

/// The same after some failures: who comes back after a long outage hears us a minute later.
pub const QUARANTINE_MAX: Duration = Duration::from_secs(60);

/// Failures in a row after which a notification is given up. Source: the reference.
pub const DELIVERY_TRIES: u32 = 30;

/// The queue in the store is looked at this often, in case something was not noticed.
pub const LOOK_AT_STORE_EVERY: Duration = Duration::from_secs(30);

/// A copy of a public record of another server counts this long when its owner says nothing. Source: the reference.
pub const PUBLIC_COPY_LIFE_MS: i64 = 24 * 3600 * 1000;

/// A copy that is the same is not written again within this time: every claim looks at a public key.
pub const SAME_COPY_MS: i64 = 60_000;

/// Batches handed to the store and not answered yet. The stores queue a thousand and run queued ones in order.
pub const COMMITS_UNDER_WAY: usize = 512;

/// Pause of the accept loop when there are no file descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections get this long to end when the server stops.
pub const DRAIN: Duration = Duration::from_secs(5);

/// The limits that tests and operators change.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Seats of the whole server.
    pub seats: SeatLimits,
    /// See [`ANONYMOUS_IDLE`].
    pub anonymous_idle: Duration,
    /// See [`HOUSEHOLD_CONNECTIONS`].
    pub household_connections: u32,
    /// See [`STATS_EVERY`].
    pub stats_every: Duration,
    /// See [`QUARANTINE`].
    pub quarantine: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            seats: SeatLimits::default(),
            anonymous_idle: ANONYMOUS_IDLE,
            household_connections: HOUSEHOLD_CONNECTIONS,
            stats_every: STATS_EVERY,
            quarantine: QUARANTINE,
        }
    }
}
