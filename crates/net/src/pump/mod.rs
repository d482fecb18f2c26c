//! Joining two TCP sockets: bytes flow both ways until both sides have finished, and no faster than the slower side reads.
//!
//! On Linux the bytes go from socket to socket through a pipe by `splice(2)` and never reach user space. An idle
//! direction holds neither a pipe nor a buffer, so ten thousand quiet sessions cost twenty thousand sockets and
//! little else.

mod copy;
mod pace;
mod socket;
#[cfg(target_os = "linux")]
mod splice;
mod streams;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portable_atomic::AtomicU64;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

pub use self::pace::Pace;
use self::socket::Socket;
pub use self::streams::join_streams;

/// Bytes that were handed to the kernel for each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Carried {
    /// From the first socket to the second.
    pub a_to_b: u64,
    /// From the second socket to the first.
    pub b_to_a: u64,
}

/// Joins `a` and `b` until both directions have ended, one fails, or `cancel` is cancelled.
///
/// The end of one direction is passed on as a half-close (`shutdown(write)`); the other direction goes on. A failure or a
/// cancel resets both sockets, so that a cut stream is never taken for a finished one. `SIGPIPE` must be ignored, as
/// Rust programs do unless they say otherwise.
///
/// # Errors
/// The second value is the failure that ended the join, `Interrupted` after a cancel. Bytes are counted either way.
pub async fn join(a: TcpStream, b: TcpStream, cancel: CancellationToken) -> (Carried, io::Result<()>) {
    join_by(a, b, cancel, Way::Best, None).await
}

/// Like [`join`], no faster than `pace` allows to all who share it. The bytes are copied.
///
/// # Errors
/// Like [`join`].
pub async fn join_paced(
    a: TcpStream,
    b: TcpStream,
    cancel: CancellationToken,
    pace: &Pace,
) -> (Carried, io::Result<()>) {
    join_by(a, b, cancel, Way::Copy, Some(pace)).await
}

/// Like [`join`], through a buffer of [`COPY_BYTES`](crate::limits::COPY_BYTES) in user space: the way on other systems
/// than Linux, and the measure that [`join`] has to beat.
///
/// # Errors
/// Like [`join`].
pub async fn join_by_copy(a: TcpStream, b: TcpStream, cancel: CancellationToken) -> (Carried, io::Result<()>) {
    join_by(a, b, cancel, Way::Copy, None).await
}

#[derive(Clone, Copy)]
enum Way {
    Best,
    Copy,
}

async fn join_by(
    a: TcpStream,
    b: TcpStream,
    cancel: CancellationToken,
    way: Way,
    pace: Option<&Pace>,
) -> (Carried, io::Result<()>) {
    let (a, b) = match (Socket::new(a), Socket::new(b)) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(error), _) | (_, Err(error)) => return (Carried::default(), Err(error)),
    };
    let (there, back) = (Direction::default(), Direction::default());
    let outcome = tokio::select! {
        biased; // a cancel is heard even when both directions are always ready
        () = cancel.cancelled() => Err(Failure { error: io::ErrorKind::Interrupted.into(), on: On::Source }),
        outcome = async {
            tokio::try_join!(there.run(&a, &b, way, pace, &back), back.run(&b, &a, way, pace, &there)).map(drop)
        } => outcome,
    };
    let carried = Carried { a_to_b: there.carried(), b_to_a: back.carried() };
    let Err(Failure { error, on }) = outcome else {
        return (carried, Ok(()));
    };
    // A side that had sent its end may well refuse what still comes; what it sent before must not be lost by a reset.
    let had_its_say = there.ended.is_cancelled() || back.ended.is_cancelled();
    if !(had_its_say && matches!(on, On::Sink)) {
        for socket in [&a, &b] {
            let _gone_already = SockRef::from(&socket.io).set_linger(Some(Duration::ZERO));
        }
    }
    (carried, Err(error))
}

/// One of the two directions.
#[derive(Default)]
struct Direction {
    carried: AtomicU64,
    ended: CancellationToken,
}

/// Which socket failed.
#[derive(Debug, Clone, Copy)]
enum On {
    Source,
    Sink,
}

#[derive(Debug)]
struct Failure {
    error: io::Error,
    on: On,
}

impl Failure {
    fn source(error: io::Error) -> Self {
        Self { error, on: On::Source }
    }

    fn sink(error: io::Error) -> Self {
        Self { error, on: On::Sink }
    }
}

impl Direction {
    /// Carries bytes until the end of `from`, passes the end on, and stays on the watch until the other direction ends
    /// too: a peer that closed for good (and not only its sending half) shows it by a reset, which nobody else waits for.
    async fn run(
        &self,
        from: &Socket,
        to: &Socket,
        way: Way,
        pace: Option<&Pace>,
        other: &Self,
    ) -> Result<(), Failure> {
        match way {
            #[cfg(target_os = "linux")]
            Way::Best => splice::carry(from, to, &self.carried).await?,
            #[cfg(not(target_os = "linux"))]
            Way::Best => copy::carry(from, to, &self.carried, pace).await?,
            Way::Copy => copy::carry(from, to, &self.carried, pace).await?,
        }
        match SockRef::from(&to.io).shutdown(std::net::Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => {
                return Err(Failure::sink(error));
            }
            _ => {}
        }
        self.ended.cancel();
        tokio::select! {
            biased; // the regular end wins
            () = other.ended.cancelled() => Ok(()),
            _ = from.failed() => {
                let error = from.io.take_error().ok().flatten();
                Err(Failure::sink(error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())))
            }
        }
    }

    fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}
