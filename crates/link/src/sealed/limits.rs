//! Times and sizes of sealed sessions, each with its reason.

use std::time::Duration;

/// Bytes read from the relay at a time, and bytes gathered before they are written to it, once there are so many: fewer,
/// larger system calls wake the other processes less often. A busy session holds two such buffers, an idle one none.
pub(crate) const BATCH: usize = 512 * 1024;
/// Where reading begins: an interactive session never needs more.
pub(crate) const FIRST_BATCH: usize = 16 * 1024;
/// After so much quiet the buffers are let go.
pub(crate) const REST_AFTER: Duration = Duration::from_secs(2);
/// A relay's refusal: a word and some text.
pub(crate) const REFUSAL_LINE: usize = 512;
/// Bytes of the device's first flight that wait to be taken: two TLS records.
pub(crate) const FLIGHT: usize = 2 * 16 * 1024 + 1024;
/// The client's proof, from the moment the device stands at the relay: its 30 s for the other side, and a handshake.
pub(crate) const PROOF_WITHIN: Duration = Duration::from_secs(45);
/// To hand the ticket to the kernel, and the last words of a session.
pub(crate) const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// What came before a GOODBYE is still handed to local programs, so long.
pub(crate) const LINGER: Duration = Duration::from_secs(5);
/// The device's answer to a request that resumes: through two servers and back through the relay.
pub(crate) const RESUME_TRY: Duration = Duration::from_secs(15);
/// While nobody has come to one relay for so long, the client waits at the next as well: two trips of a slow network, so that
/// a device which is on its way to the first costs no other relay anything.
pub(crate) const NEXT_RELAY: Duration = Duration::from_secs(2);
/// Between tries to resume: the network that comes back is found quickly, the server is not stormed.
pub(crate) const RESUME_PAUSE: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(5)];
/// Between tries to reach a relay that was away a moment ago: one that is started again is back in a second.
pub(crate) const DIAL_AGAIN: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(1)];
/// Orders of the handle that wait for the driver; who has more waits.
pub(crate) const ORDERS: usize = 16;
/// Small frames share a TLS record; larger ones are not copied for that.
pub(crate) const SMALL: usize = 2048;
/// Bytes that wait in the kernel to be sent to the relay: what is typed stands behind them, and what is kept for a
/// resumption is not less than they are. What is on its way and not acknowledged by TCP does not count.
pub(crate) const UNSENT: u32 = 1024 * 1024;
/// When no connection can be accepted: out of file descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
