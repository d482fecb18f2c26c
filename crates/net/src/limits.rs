//! Numbers that a stranger or a bad network can reach, each with its reason.

use std::time::Duration;

/// Pause before the next address is tried beside the one that has not answered yet ("Happy Eyeballs", RFC 8305
/// section 5 recommends 250 ms): a dead IPv6 route costs a quarter of a second, not a minute.
pub const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried. A name server may answer with hundreds; eight cover every real service and
/// bound the sockets that one call holds.
pub const ADDRESSES_TRIED: usize = 8;

/// Connections that the kernel keeps for us until we accept them: what Linux gives at most unless it is told otherwise
/// (`somaxconn`). A fleet that comes back fills it; the next waits a second until its kernel asks again.
pub const LISTEN_BACKLOG: i32 = 4096;

/// A connection that carries lines (not a session's bytes) is given up when what we sent stays unacknowledged for this
/// long: a gateway whose network changed reconnects after a minute instead of 15.
pub const UNACKNOWLEDGED_FOR: Duration = Duration::from_secs(60);

/// It is no earlier than this, in milliseconds since 1970: 1 November 2026, when the programs of this version were not made
/// yet; to be raised with each release.
pub const RELEASED: u64 = 1_793_491_200_000;

/// A clock that is so much later than what is known for sure is not believed. A gateway may run for years without an update;
/// one that remembers when it last knew the time may do so for ever, and for others the atServer's time counts then.
pub const CLOCK_BELIEVED_FOR: Duration = Duration::from_secs(5 * 365 * 86_400);

/// Clocks that differ by no more show the same: a fifth of what requests and relays tolerate, and more than a slow link
/// needs for the question and its answer.
pub const CLOCKS_AGREE: Duration = Duration::from_secs(60);

/// Beginnings of certificates by which a chain is judged where the clock is behind; real chains have three.
pub const CHAIN_CERTIFICATES: usize = 6;

/// Servers whose TLS tickets a process keeps in memory: its atServer, its directory, and those of its peers.
pub const SERVERS_REMEMBERED: usize = 32;

/// The largest PEM file that is read (certificates, keys, CA bundles). The Mozilla bundle is about 230 KB.
pub const PEM_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Sizes that a pipe is asked to have, the first that the kernel grants. A socket that is read late holds megabytes, so
/// one `splice` of 1 MiB does the work of four; but Linux gives an unprivileged user 64 MiB of pipes
/// (`pipe-user-pages-soft`: 16384 pages), and the smaller size lets 256 directions be busy within that.
pub const PIPE_SIZES: [usize; 2] = [1024 * 1024, 256 * 1024];

/// Empty pipes kept for the next busy direction: 32 pipes are 64 file descriptors and, being empty, no data pages.
pub const IDLE_PIPES: usize = 32;

/// Full pipes or buffers that a direction moves before it lets others on its thread have their turn: 16 MiB, some 5 ms.
pub const TURNS: u32 = 16;

/// Buffer of one direction that copies in user space: the size of a default pipe, and of one `read` that pays off.
pub const COPY_BYTES: usize = 64 * 1024;

/// Connections that have not said who they are yet, in all. A fleet of 5,000 comes back in one second when its server
/// has been restarted, and whoever is sent away then comes again, so that the work done for him is lost: with 4096 seats
/// and 256 an address, 5,000 monitors took 50,000 connections to be back. A TLS handshake holds about 30 KiB; only when
/// all of these are attackers in the middle of one does it come to 240 MiB.
pub const ANONYMOUS_SEATS: u32 = 8192;

/// The same from one address (IPv6: one /64): a whole fleet may stand behind one. Newcomers of other addresses find
/// the seats that are left, and after that the most crowded address gives way.
pub const ANONYMOUS_PER_ADDRESS: u32 = 6144;

/// Connections in all, authenticated ones included: the 100,000 idle devices that one server is planned for, and slack.
pub const TOTAL_SEATS: u32 = 120_000;

/// Life of a private certificate authority and of the server certificate made with it. A device in a field
/// is hard to visit; the private root is trusted by nobody but its owner's machines.
pub const PRIVATE_CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The certificates that a calling server may show, in bytes. A leaf and two intermediates have about 6 KiB; they are
/// kept as long as the connection.
pub const PEER_CHAIN_BYTES: usize = 16 * 1024;

/// What a proxy may answer before the connection is the other end's: a page that says why it refuses comes behind that.
pub const PROXY_ANSWER_BYTES: usize = 8 * 1024;

/// Buffer of one direction between streams that are not both plain sockets: a TLS record.
pub const STREAM_COPY_BYTES: usize = 16 * 1024;

/// Out of file descriptors, a direction that waits for room looks again after this long.
pub const NO_DESCRIPTOR_PAUSE: Duration = Duration::from_millis(20);

/// What a paced owner may have saved up while it was silent: a screen of text at modem speed, and not a download.
pub const PACE_BURST: Duration = Duration::from_millis(250);

/// Pieces in which a second's share is carried: each of 20 streams gets its first within a second.
pub const PACE_TURNS: u64 = 20;
/// Between two beats to the service manager, however short a time it gives.
pub const SHORTEST_BEAT: Duration = Duration::from_millis(100);
