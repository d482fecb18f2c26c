//! Starting a session, and the handle of a live one.

use std::time::Duration;

use postern_net::tasks::Tasks;

use super::end::{End, Facts, Knocking};
use super::ended::{Ended, Progress, StreamRefused};
use super::local::Local;
use super::plan::{ClientPlan, DevicePlan, DialError, RelayAddress, Target, Ticket};
use crate::pump::Carried;

/// A live session. Clones are handles of the same; when the last is dropped the session goes on until it ends, is closed
/// or its plan's `stop` is cancelled.
#[derive(Clone)]
pub struct Sealed(std::convert::Infallible);

/// Dials a relay, waits for the device's flight (`patience` at most), believes the reply, and starts the session on
/// `tasks`. May be dropped at any time: nothing is left behind. May run while the request is still on its way.
///
/// # Errors
/// See [`DialError`].
pub async fn dial<K: Knocking + 'static, E: End + 'static>(
    plan: ClientPlan<K, E>,
    patience: Duration,
    tasks: &Tasks,
) -> Result<Sealed, DialError> {
    let _ = (plan, patience, tasks);
    std::future::pending().await
}

/// Dials a relay, sends the reply and starts the session on `tasks`. The client has not shown itself yet: no stream is
/// dialled before it has (but for `ssh`, whose bytes flow to the client early).
///
/// # Errors
/// See [`DialError`].
pub async fn serve<E: End + 'static>(plan: DevicePlan<E>, tasks: &Tasks) -> Result<Sealed, DialError> {
    let _ = (plan, tasks);
    std::future::pending().await
}

impl Sealed {
    /// Client: opens a stream to `target` and carries bytes between it and `local` until both directions have ended.
    /// Dropping the future resets the stream.
    ///
    /// # Errors
    /// The device refused, or the session is over.
    pub async fn carry(&self, local: Local, target: Target) -> Result<Carried, StreamRefused> {
        let _ = (local.0, target);
        match self.0 {}
    }

    /// Client: like [`Self::carry`], in two steps for who has to tell its local program whether the target was reached
    /// (SOCKS, `SSH_MSG_DISCONNECT`) before it hands over the connection.
    ///
    /// # Errors
    /// The device refused, or the session is over.
    pub async fn open(&self, target: Target) -> Result<Opened, StreamRefused> {
        let _ = target;
        match self.0 {}
    }

    /// Client: waits until stream 1 (`ClientPlan::first`) is over.
    ///
    /// # Errors
    /// The device could not reach its ssh server, or the session is over.
    pub async fn first(&self) -> Result<Carried, StreamRefused> {
        match self.0 {}
    }

    /// Device: goes on with an accepted request of a higher epoch. Returns once the relay has been dialled and the reply
    /// sent; the old connection is let go.
    ///
    /// # Errors
    /// No relay could be reached, or the session is over; it goes on waiting for another request.
    pub async fn resume<E: End + 'static>(
        &self,
        end: E,
        relays: &[RelayAddress],
        ticket: &Ticket,
    ) -> Result<(), DialError> {
        let _ = (end, relays, ticket);
        match self.0 {}
    }

    /// What the handshake agreed on (the latest, when the session was resumed).
    #[must_use]
    pub fn facts(&self) -> Facts {
        match self.0 {}
    }

    /// How the session stands.
    #[must_use]
    pub fn progress(&self) -> Progress {
        match self.0 {}
    }

    /// Closes the session at both ends. `why` is told to the other end (256 characters at most).
    pub fn close(&self, why: &str) {
        let _ = why;
        match self.0 {}
    }

    /// Waits until the session is over. Can be called by many, and late.
    pub async fn ended(&self) -> Ended {
        match self.0 {}
    }
}

/// A stream that the device has accepted and that waits for its local end. Dropped: reset.
pub struct Opened(std::convert::Infallible);

impl Opened {
    /// Carries bytes until both directions have ended. Dropping the future resets the stream.
    ///
    /// # Errors
    /// The stream was reset, or the session ended.
    pub async fn carry(self, local: Local) -> Result<Carried, StreamRefused> {
        let _ = local.0;
        match self.0 {}
    }
}
