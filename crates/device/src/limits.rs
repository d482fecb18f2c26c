//! Bounds, each with its reason.

use std::time::Duration;

/// Sessions at the same time. Each holds at least two sockets; a gateway's default limit is 1024 files.
pub(crate) const SESSIONS: usize = 128;
/// Requests being looked at at the same time; more wait in the inbox.
pub(crate) const REQUESTS: usize = 32;
/// How often `device_info` is written again where bytes cost nothing.
pub(crate) const REPUBLISH: Duration = Duration::from_secs(3600);
/// The same elsewhere: the record lives for thirty days, and writing it costs kilobytes for each manager.
pub(crate) const REPUBLISH_SPARINGLY: Duration = Duration::from_secs(86_400);
/// How often is looked whether it is time for that, or for what failed.
pub(crate) const REPUBLISH_LOOKS: Duration = Duration::from_secs(900);
/// The longest silence or sleep that can be asked for: a year.
pub(crate) const FARTHEST: Duration = Duration::from_secs(365 * 86_400);
/// For the first records to be written before the daemon says that it is ready; a slow server must not delay it further.
pub(crate) const FIRST_RECORDS: Duration = Duration::from_secs(5);
/// Life of `device_info`: 30 days.
pub(crate) const DEVICE_INFO_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// Life of what a reply speaks of. Source: NoPorts messages, 10 s.
pub(crate) const REPLY_LIFE: Duration = Duration::from_secs(10);
/// Life of an ephemeral ssh key in authorized_keys. Source: NoPorts timers.
pub(crate) const EPHEMERAL_KEY: Duration = Duration::from_secs(15);
/// How long a session's request belongs to the instance that took it first. Source: NoPorts timers.
pub(crate) const MUTEX: Duration = Duration::from_secs(30);
/// Sessions that end by themselves when the daemon is told to stop get this long.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);
/// Longest line or file of `authorized_keys` that is read: 1 MiB is thousands of keys.
pub(crate) const AUTHORIZED_KEYS_BYTES: u64 = 1024 * 1024;
/// How often the policy service is told that the device is there. Source: NoPorts policy heartbeat, 5 min.
pub(crate) const POLICY_HEARTBEAT: Duration = Duration::from_secs(300);
/// The same in profile auto and where it is metered: a month of five minutes is 8 MB. Its light goes out in between.
pub(crate) const POLICY_HEARTBEAT_SPARINGLY: [Duration; 2] = [Duration::from_secs(3600), Duration::from_secs(6 * 3600)];
/// Clients that policy is asked about, or that are served on its word, at the same time. More are not heard: whoever may
/// come in asks again, and strangers must not fill the memory.
pub(crate) const POLICY_SEATS: usize = 64;
/// Notifications of one client that wait for the same answer: a ping, a key and a request are three.
pub(crate) const WAITING_PER_CLIENT: usize = 8;
/// Pauses between tries to send a question. Source: NoPorts policy, the RPC transport.
pub(crate) const ASK_PAUSES: [Duration; 3] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)];
/// Refusals a minute to those whose requests are not believed; a manager who mistypes needs few, and more say nothing new.
pub(crate) const DOUBTS_A_MINUTE: u32 = 30;
/// A request that goes on with a session is refused by an instance without it only after the one that has it had the time
/// to say so.
pub(crate) const NOT_MINE: Duration = Duration::from_secs(1);
/// A target's name is looked up, and its addresses dialled.
pub(crate) const TARGET: Duration = Duration::from_secs(10);
/// Words of a session that ends, before it is cut.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often an `npt` session is looked at for connections, at most and at least.
pub(crate) const IDLE_LOOKS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];
/// How often a list of managers that may change or end is looked at while sessions run, in bounds of the 10 s in which a
/// session ends.
pub(crate) const LIST_LOOKS: Duration = Duration::from_secs(2);
/// Targets remembered of one session. One that reaches more ends when policy narrows it, whatever they were.
pub(crate) const TARGETS: usize = 64;
/// Ports that the device listens on for one session: each holds two descriptors and a task.
pub(crate) const LISTENS: usize = 16;
/// How often the status is written while sessions run: two writes to memory in five seconds.
pub(crate) const STATUS_EVERY: Duration = Duration::from_millis(2500);
/// How long the daemon has for its answer when it is asked for its bytes: it is one write to memory.
pub(crate) const ASK_DAEMON: Duration = Duration::from_secs(3);
/// The same where no answer means that something is wrong: a health check has ten seconds.
pub(crate) const ASK_HEALTH: Duration = Duration::from_secs(6);
/// How often is looked for it.
pub(crate) const ASK_LOOKS: Duration = Duration::from_millis(20);
/// How often what was counted is put on its day.
pub(crate) const USAGE_EVERY: Duration = Duration::from_secs(600);
/// How often it is written down: flash wears out.
pub(crate) const USAGE_WRITTEN_EVERY: Duration = Duration::from_secs(86_400);
/// Days that are kept: this month and the last.
pub(crate) const USAGE_DAYS: usize = 62;
/// From this age on a daemon that has no whole day yet reckons with what it has.
pub(crate) const USAGE_PROJECTED_FROM: Duration = Duration::from_secs(600);
/// Longest file of bytes: 62 days of 60 bytes.
pub(crate) const USAGE_BYTES: u64 = 64 * 1024;
/// Longest status: 128 sessions with 64 targets of 100 bytes each.
pub(crate) const STATUS_BYTES: u64 = 1024 * 1024;
/// Between a stream and the built-in ssh server, either way: two of its packets.
#[cfg(feature = "sshd")]
pub(crate) const BUILTIN_BUFFER: usize = 64 * 1024;
/// Longest public key file or `sshd_config` that is read.
pub(crate) const KEY_FILE_BYTES: u64 = 64 * 1024;
/// Host keys in a reply, in bytes together: with voucher and the rest they fit into its frame of 8 KiB.
pub(crate) const HOST_KEYS_BYTES: usize = 4 * 1024;
/// How often it is looked whether the machine's clock is right.
pub(crate) const CLOCK_LOOKS: Duration = Duration::from_secs(900);
/// How often the atServer is asked for the time while it is not: a hundred bytes, and a cheap crystal is 10 s off by then.
pub(crate) const CLOCK_ASKED: Duration = Duration::from_secs(86_400);
/// How often it is looked whether another machine runs with our keys: four small requests a day.
pub(crate) const TWIN_CHECK: Duration = Duration::from_secs(6 * 3600);
/// Between two such looks that requests cause.
pub(crate) const TWIN_PAUSE: Duration = Duration::from_secs(2);
/// Between two such looks of whoever takes the requests.
pub(crate) const TWIN_WON: Duration = Duration::from_secs(600);
/// Longest record of who runs; ours has 120 bytes.
pub(crate) const TWIN_BYTES: usize = 1024;
/// Relays that are dialled ahead of the answer whether their guest may come in: more than a client offers.
pub(crate) const USUAL_RELAYS: usize = 8;
