//! Times and sizes, each with its reason.

use std::time::Duration;

/// To reach the relay, or the target behind the device.
pub const DIAL: Duration = Duration::from_secs(10);
/// To hand the auth line to the kernel.
pub const AUTH_WRITE: Duration = Duration::from_secs(5);
/// Longest verdict of a relay on our proof, which is `ok` or some 20 characters.
pub const VERDICT_CHARS: usize = 64;
/// To reach a relay that is measured: who takes longer is not the nearest.
pub const KNOCK: Duration = Duration::from_secs(2);
/// Connections by which a relay is measured; the first may wait for a name to be resolved.
pub const KNOCKS: usize = 3;
/// First buffer of a direction that has something to say: an interactive session never needs more.
pub const FIRST_BUFFER: usize = 16 * 1024;
/// Largest buffer of a direction: fewer, larger system calls for bulk; two of them are held while data flows.
pub const LARGEST_BUFFER: usize = 512 * 1024;
/// Buffers kept for the next burst, per thread.
pub const SPARE_BUFFERS: usize = 8;
/// Connections of one session at the same time. Each costs the device two sockets.
pub const CONNECTIONS: usize = 256;
/// To hear of a device that opens its relay sockets in any order before it is given the next one to open: relays that
/// do not know numbers would join the wrong ones. Its dialling takes two round trips; a protocol in which the client
/// speaks first and says nothing costs the next connection this much.
pub const PAIRING: Duration = Duration::from_secs(1);
/// How often a client says something on the control channel, so that middle boxes keep it.
pub const CONTROL_HEARTBEAT: Duration = Duration::from_secs(300);
