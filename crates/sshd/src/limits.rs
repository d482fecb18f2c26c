//! Bounds, each with its reason.

use std::time::Duration;

/// Channels of one connection at the same time: a person's shells, copies and forwarded ports, multiplexed by their client.
pub(crate) const CHANNELS: usize = 64;
/// From the first byte to the login. Key exchange and login are five round trips; the slowest way that people bear with has
/// two seconds each.
pub(crate) const LOGIN: Duration = Duration::from_secs(30);
/// For the reason to reach a client that is about to be cut off.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);
/// Tries to log in. Each would name another user; a client makes one.
pub(crate) const TRIES: usize = 6;
/// What a client may send on a channel ahead of its reader, as the server says it (RFC 4254, window). Throughput is at most
/// this per round trip: 512 KiB at 100 ms are 40 Mbit/s.
pub(crate) const WINDOW: u32 = 512 * 1024;
/// Bytes that wait for a program which does not read. From here on the client is given [`TRICKLE`] at a time.
pub(crate) const WAITING: usize = 512 * 1024;
/// The window of a client whose program does not read: few bytes, at long intervals, so that what comes next shows when it
/// reads again. The library opens windows only when data comes, and must not be kept from reading: the client's own window
/// may be what the program waits for.
pub(crate) const TRICKLE: u32 = 16;
/// Between two trickles: 16 bytes in 20 ms are 3 MiB an hour.
pub(crate) const TRICKLE_PAUSE: Duration = Duration::from_millis(20);
/// More than this waits only where a client ignores its window, or trickles for hours: the connection ends.
pub(crate) const WAITING_MOST: usize = 4 * 1024 * 1024;
/// Longest data packet that we ask for, and send. Source: RFC 4253, 6.1.
pub(crate) const PACKET: u32 = 32 * 1024;
/// Longest command. The kernel takes 128 KiB in one word; build tools come near a tenth of it.
pub(crate) const COMMAND_BYTES: usize = 64 * 1024;
/// Variables of one channel. `LANG` and the thirteen `LC_*`, and some.
pub(crate) const VARIABLES: usize = 24;
/// Name and value of one variable together. A locale's name is short.
pub(crate) const VARIABLE_BYTES: usize = 256;
/// Longest name of a user. Source: useradd(8), 32 characters.
pub(crate) const USER_BYTES: usize = 32;
/// Longest name of a terminal. Source: terminfo's names are at most 128.
pub(crate) const TERMINAL_BYTES: usize = 128;
/// Signals and window changes that wait for one program; a window that is dragged sends many, and the last counts.
pub(crate) const ORDERS: usize = 32;
/// Between the hang-up and the kill, when a session ends. Less than the daemon gives its sessions when it stops itself.
pub(crate) const GRACE: Duration = Duration::from_millis(1500);
/// A terminal's program is over, others hold the terminal: how long they may be silent before the channel ends.
pub(crate) const LAST_OUTPUT: Duration = Duration::from_millis(200);
/// What is read from a program at once.
pub(crate) const CHUNK: usize = 32 * 1024;
/// Longest host key file. An ed25519 key has 400 bytes.
pub(crate) const KEY_FILE_BYTES: u64 = 4096;
/// Open files and directories of one sftp session. `scp -r` and rsync hold one or two, mounts (sshfs) some dozens.
pub(crate) const SFTP_HANDLES: usize = 128;
/// Longest sftp request, and most bytes that one reads. OpenSSH asks for at most 256 KiB.
pub(crate) const SFTP_PACKET: u32 = 256 * 1024 + 1024;
/// Most bytes of a file in one answer.
pub(crate) const SFTP_READ: u32 = 256 * 1024;
/// Names in one answer to READDIR: 100 names of 255 bytes, twice each, are 60 KiB.
pub(crate) const SFTP_NAMES: usize = 100;
