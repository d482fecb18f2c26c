//! Times and counts, each with its reason.

use std::time::Duration;

/// To reach and log in to an atServer, from the first packet to the last reply. A phone in the woods takes 5 s.
pub const LOGIN: Duration = Duration::from_secs(15);
/// To reach one address while reconnecting. Short, so that the next try comes soon after the network does.
pub const RECONNECT: Duration = Duration::from_secs(5);
/// For a reply to a request, reconnecting included.
pub const REPLY: Duration = Duration::from_secs(15);
/// For the answer to a heartbeat, or one heartbeat if that is shorter: a dead link is noticed within two.
pub const HEARTBEAT_ANSWER: Duration = Duration::from_secs(8);
/// A link that is lost for less than this is on its way back, however short its heartbeats are.
pub const LATE_AT_LEAST: Duration = Duration::from_secs(10);
/// An answer about the time that took longer is worth nothing: half of it is the error.
pub const TIME_TRIP: Duration = Duration::from_secs(30);
/// For a write to be taken by the kernel: by then some 100 KiB are waiting.
pub const WRITE: Duration = Duration::from_secs(10);
/// First pause before a reconnect.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(100);
/// Longest pause while an outage is young: whoever waits for the device is still there.
pub const RECONNECT_SOON: Duration = Duration::from_secs(3);
/// Longest pause once an outage has lasted [`LONG_OUTAGE`]: ten thousand devices must not storm a server that starts.
pub const RECONNECT_LATER: Duration = Duration::from_secs(45);
/// When an outage counts as long.
pub const LONG_OUTAGE: Duration = Duration::from_secs(300);
/// Longest line taken from a server. Source: the reference's buffer.
pub const LINE_BYTES: usize = 10_240_000;
/// Notifications that wait for a slow reader; more are dropped and counted, for their senders ask again.
pub const INBOX: usize = 256;
/// Requests that wait for the connection.
pub const OUTBOX: usize = 256;
/// Notification ids remembered, so that a replay after a reconnect is not heard twice.
pub const REMEMBERED: usize = 512;
/// A public key is asked for again when it is older than this.
pub const PUBLIC_KEY_AGE: Duration = Duration::from_secs(60);
/// How long a notification waits for its receiver. Source: NoPorts substrate, one minute.
pub const NOTIFICATION_LIFE: Duration = Duration::from_secs(60);
/// Peers whose keys are remembered. A relay that serves everybody meets any number of them; 4096 cost some 8 MiB.
pub const PEERS: usize = 4096;
/// Longest record of a signing key that is believed. Its owner's atServer may answer with ten megabytes, and relays keep
/// a thousand of them; a key of any algorithm has a few kilobytes. Source: the reference's bound on what an enrolment publishes.
pub const SIGNING_KEY_BYTES: usize = 20 * 1024;
/// What a key file may need on disk, in bytes: one of two RSA keys has some 8 KiB.
pub const KEY_FILE_ROOM: usize = 16 * 1024;
/// Longest `known_atsigns` that is read. Ten thousand lines have about 1 MiB.
pub const PINS_BYTES: u64 = 4 * 1024 * 1024;
/// Names that are remembered at first contact without anybody's word; more are believed for the moment only.
pub const PINS_SEEN: usize = 10_000;
/// For the lock on `known_atsigns`: whoever holds it reads and writes one small file.
pub const PINS_LOCK: Duration = Duration::from_secs(3);
/// Longest identity key file, voucher or remembered public key that is read; real ones have at most 3 KiB.
pub const IDENTITY_FILE_BYTES: u64 = 16 * 1024;
/// A voucher is made anew when it is good for less than this: a device may be switched off for weeks.
pub const VOUCHER_RENEWAL_MS: u64 = 30 * 86_400_000;
/// Requests that wait are sent in one write up to this many bytes: more than that fill a window anyway.
pub const TOGETHER_BYTES: usize = 64 * 1024;
/// A remembered address that has not answered for this long gets company: the directory is asked as well.
pub const REMEMBERED_ADDRESS: Duration = Duration::from_millis(1500);
/// Longest file of remembered addresses, in bytes: some thousand lines.
pub const ADDRESSES_BYTES: u64 = 64 * 1024;
/// Addresses remembered on disk; the oldest go first. An integrator's laptop meets that many atSigns in a year.
pub const ADDRESSES: usize = 512;
/// Silence of a device whose bytes cost nothing. A month of it is some 7 MB.
pub const WIRED_SILENCE: Duration = Duration::from_secs(60);
/// First silence in profile auto: what common carriers' address translation survives, and one large carrier's rule
/// (no more than one keep-alive in five minutes).
pub const AUTO_FIRST: Duration = Duration::from_secs(300);
/// The shortest to which a network's deaths lead there.
pub const AUTO_LEAST: Duration = Duration::from_secs(60);
/// First silence of a metered device: half a megabyte a month.
pub const METERED_FIRST: Duration = Duration::from_secs(900);
/// The shortest there: a month of it is 1.4 MB, and no network that forgets sooner is worth more.
pub const METERED_LEAST: Duration = Duration::from_secs(300);
/// The longest silence: whoever looks for a dead device waits two of them.
pub const QUIET_LONGEST: Duration = Duration::from_secs(1500);
/// How long a sleepy device stays after something happened.
pub const SLEEPY_AWAKE: Duration = Duration::from_secs(120);
/// What a device sent is given up when it stays unacknowledged for this long: a carrier's radio wakes up within two seconds.
/// A link dead without notice is found out by anything that is sent, and another one made, within 15 s.
pub const UNACKNOWLEDGED: Duration = Duration::from_secs(9);
/// A link that ends within this time after a beat died of it.
pub const BEAT_FATE: Duration = Duration::from_secs(15);
/// Networks of which is remembered how long they bear silence.
pub const NETWORKS: usize = 8;
