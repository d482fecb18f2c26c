//! Sizes, counts and times that the other end can reach, each with its reason.

use std::time::Duration;

/// Header of a frame: kind, a zero, length of the body, stream.
pub const HEADER: usize = 8;
/// Body of a DATA frame as we make it: with its header exactly four TLS records of 16 KiB.
pub const CHUNK: usize = 64 * 1024 - HEADER;
/// What a stream may send in one turn while no other waits for one: reads of the local socket as large as pay off.
pub const BURST: usize = 8 * CHUNK;
/// The least that a turn is: a quarter of the smallest window, so that the next turn finds credit.
pub const SHORT_TURN: usize = 16 * 1024;
/// What may be sent on a stream before it is accepted, and the least that an end grants.
pub const FIRST_WINDOW: u32 = 65_536;
/// What we grant at the start while there is room: two doublings less for a stream over a long path.
pub const GENEROUS_WINDOW: u32 = 256 * 1024;
/// Largest window of a stream: 100 ms at 160 MB/s.
pub const LARGEST_WINDOW: u32 = 16 * 1024 * 1024;
/// All windows of a client's session together: two streams at full speed over a long path. A window is a promise and no
/// memory; only what a local program does not take is held.
pub const CLIENT_WINDOWS: usize = 64 * 1024 * 1024;
/// The same of a device, which is smaller. At 256 KiB each, half of it is 64 streams; the rest begin with [`FIRST_WINDOW`].
pub const DEVICE_WINDOWS: usize = 32 * 1024 * 1024;
/// Streams of a session at the same time. A browser behind SOCKS opens some hundred; each costs the device a socket.
pub const STREAMS: usize = 1024;
/// Frames kept for a resumption, in bytes of memory. As much as is on its way over a long path at full speed.
pub const KEPT_BYTES: usize = 16 * 1024 * 1024;
/// The same in frames, where they are small: a program that writes single bytes waits for acknowledgements after so many.
pub const KEPT_FRAMES: usize = 8 * 1024;
/// Frames on their way out, kept ones included, after which the other end is held to be hostile: it makes us answer and
/// neither reads nor acknowledges. An honest one is far below: it acknowledges after [`ACK_FRAMES`].
pub const QUEUED_FRAMES: usize = 4 * KEPT_FRAMES;
/// Frames received after which we acknowledge at once.
pub const ACK_FRAMES: u64 = 32;
/// Bytes received after which we acknowledge at once: an acknowledgement costs a TLS record, this is a two-hundredth of it.
pub const ACK_BYTES: usize = 512 * 1024;
/// Otherwise an acknowledgement waits so long for a frame to travel with.
pub const ACK_WITHIN: Duration = Duration::from_millis(200);
/// Target text of OPEN: a host name of 253 characters, a colon, five digits, and brackets of an IPv6 address.
pub const TARGET_BYTES: usize = 264;
/// Words of REFUSED and GOODBYE.
pub const WORDS_BYTES: usize = 512;
/// Round trips below this are taken for it, so that windows on a fast network grow despite busy processors.
pub const SHORTEST_ROUND_TRIP: Duration = Duration::from_millis(5);
/// And above for this: a PING that waited behind a full line says little about the path.
pub const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(2);
/// How often a round trip is measured while data comes in.
pub const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// Silence of the other end before it is asked, while something is on its way to it: a person who types notices.
pub const ASK_WHEN_BUSY: Duration = Duration::from_secs(3);
/// What came so long ago counts as coming: a download that stops is asked about as soon as an upload, a prompt once.
pub const ACTIVE_FOR: Duration = Duration::from_secs(5);
/// The same when nothing is: three PINGs a minute keep the mapping of every NAT.
pub const ASK_WHEN_IDLE: Duration = Duration::from_secs(20);
/// An unanswered PING means that the way is lost, when it can be resumed. Slow mobile links stall for some seconds.
pub const LOST_AFTER: Duration = Duration::from_secs(8);
/// The same when a loss ends the session: as patient as TCP's own keep-alive usually is.
pub const LOST_FOR_GOOD_AFTER: Duration = Duration::from_secs(240);
/// Chunks kept for the next turn.
pub const SPARE_CHUNKS: usize = 8;
