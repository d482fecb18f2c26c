//! Times, each with its reason. Source of the first three: NoPorts timers.

use std::time::Duration;

/// For the heartbeat that answers a ping.
pub(crate) const PING: Duration = Duration::from_secs(20);
/// For the relay's answer.
pub(crate) const RELAY: Duration = Duration::from_secs(20);
/// For relays to say where they are. Source: NoPorts, 10 s.
pub(crate) const DISCOVER: Duration = Duration::from_secs(10);
/// For the others, once one has: a relay that answers so late is not the nearest.
pub(crate) const DISCOVER_REST: Duration = Duration::from_secs(2);
/// For the device's times to the relays: three connections of 2 s at most, and the way there and back.
pub(crate) const LATENCY: Duration = Duration::from_secs(8);
/// For the device's answer to the session request.
pub(crate) const REPLY: Duration = Duration::from_secs(15);
/// Life of what our notifications speak of.
pub(crate) const REQUEST_LIFE: Duration = Duration::from_secs(10);
/// Silence of the device after which a person is told what it probably means.
pub(crate) const HINT: Duration = Duration::from_millis(2500);
/// Silence after which the link to the atServer is tested.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(30);
/// For the ssh tunnel of a session that is not encrypted to stand. Source: NoPorts timers.
pub(crate) const SSH_TUNNEL: Duration = Duration::from_secs(10);
/// What a tunnel that fails says is read for this long, and to this length.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);
/// Of ssh's last words, in bytes: a changed host key takes some 800.
pub(crate) const LAST_WORDS_BYTES: u64 = 4096;
/// For the devices of a listing to answer. Source: NoPorts timers.
pub(crate) const LISTING: Duration = Duration::from_secs(10);
/// Devices of one listing: each costs a notification and a look-up, which ten seconds must hold.
pub(crate) const LISTED_DEVICES: usize = 1000;
/// Silence after which ssh asks whether the other end is there, with `--ssh-client dart`. Source: NoPorts, 15 s.
pub(crate) const SSH_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Pause of `npt -K` before it tries again.
pub(crate) const KEEP_ALIVE_PAUSE: Duration = Duration::from_secs(5);
/// Bytes under way when ssh has ended get this long to arrive.
pub(crate) const DRAIN: Duration = Duration::from_millis(300);
/// For a device to answer `connect` before it counts as offline: below the 10 s that Ansible gives a connection, so that the
/// reason is still heard.
pub(crate) const PATIENCE: Duration = Duration::from_secs(9);
/// Longest host name without `.np`, in bytes: a label of DNS, so that ssh takes it anywhere.
pub(crate) const HOST_NAME_BYTES: usize = 63;
/// Longest public host key in bytes: one of RSA-16384 has about 2,800 characters.
pub(crate) const HOST_KEY_BYTES: usize = 4096;
/// Of a reason in the ssh protocol, in characters: ssh prints 400. Both fingerprints of a key that has changed fit, and what
/// to do about it.
pub(crate) const REFUSAL_CHARS: usize = 390;
/// ssh has read the reason when it closes its end; one that never does is not waited for longer.
pub(crate) const REFUSAL_READ: Duration = Duration::from_secs(3);
/// The other end has closed its direction: ours may still have something to say for this long.
pub(crate) const HALF_CLOSED: Duration = Duration::from_secs(5);
/// For a request to go out by the login that is there, when a sealed session has lost its way; then a new one is made.
pub(crate) const AGAIN: Duration = Duration::from_secs(3);
/// Relays remembered: a user has a few.
pub(crate) const RELAY_BOOK: usize = 64;
/// Of their file, in bytes: so many relays with a handful of addresses each.
pub(crate) const RELAY_BOOK_BYTES: u64 = 128 * 1024;
/// When no connection can be accepted: out of file descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A stream that was opened before anybody connected is kept so long: some targets give up on who says nothing.
pub(crate) const WARM: Duration = Duration::from_secs(5);
/// For a program at the SOCKS port to say where it wants to go.
pub(crate) const SOCKS: Duration = Duration::from_secs(30);
/// For a target of `-R` to be found and reached from here.
pub(crate) const OWN_TARGET: Duration = Duration::from_secs(10);
/// Ports that a device is asked to listen on: as many as it does for one session.
pub(crate) const REVERSES: usize = 16;
/// Local ports of one session: each holds a file descriptor and a task.
pub(crate) const FORWARDS: usize = 64;
/// For relays to be reached when several are named: who takes longer is not the nearest.
pub(crate) const RELAY_ANSWER: Duration = Duration::from_secs(2);
/// Relays that differ by less are equally near: the user's order counts.
pub(crate) const RELAY_NEAR: Duration = Duration::from_millis(15);
