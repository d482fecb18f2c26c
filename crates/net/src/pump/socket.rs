//! A socket while it is joined.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

use crate::limits::NO_DESCRIPTOR_PAUSE;

/// A non-blocking socket that the runtime watches only while somebody sleeps on it, and only for what he waits for.
///
/// A `TcpStream` is watched for reading and writing all its life: while one direction waits for room, every segment that
/// arrives for it would wake the relay for nothing. That was half of its wake-ups and a fifth of its CPU time.
pub(super) struct Socket {
    pub(super) io: std::net::TcpStream,
}

impl Socket {
    pub(super) fn new(socket: TcpStream) -> io::Result<Self> {
        Ok(Self { io: socket.into_std()? })
    }

    /// Sleeps until there may be something to read, or the end.
    pub(super) async fn readable(&self) -> io::Result<()> {
        sleep_on(self.io.as_fd(), Interest::READABLE).await
    }

    /// Sleeps until there may be room to write. A descriptor can be watched for one thing only, and the other direction may
    /// sleep on this one: so it is a second one, for as long as the sleep. An idle socket has one.
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self.io.try_clone() {
            Ok(second) => sleep_on(second.as_fd(), Interest::WRITABLE).await,
            Err(_none_left) => {
                tokio::time::sleep(NO_DESCRIPTOR_PAUSE).await;
                Ok(())
            }
        }
    }

    /// Sleeps until the socket has failed.
    pub(super) async fn failed(&self) -> io::Result<()> {
        sleep_on(self.io.as_fd(), Interest::ERROR).await
    }
}

/// Watching begins here and ends with the sleep; what is ready already is reported at once.
#[expect(
    deprecated,
    reason = "its successor is unsafe; a borrowed descriptor is what it asks for: open for as long as it is watched"
)]
async fn sleep_on(socket: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
    AsyncFd::with_interest(socket, interest)?.ready(interest).await.map(drop)
}
