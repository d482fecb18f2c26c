//! A socket while it is joined.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;

/// A non-blocking socket that the runtime watches only while somebody sleeps on it, and only for what he waits for.
///
/// A `TcpStream` is watched for reading and writing all its life: while one direction waits for room, every segment that
/// arrives for it would wake the relay for nothing. That was half of its wake-ups and a fifth of its CPU time.
pub(super) struct Socket {
    /// Read from, and waited on for bytes.
    pub(super) reads: std::net::TcpStream,
    /// The same socket under a second descriptor, for a descriptor can be watched for one thing only.
    pub(super) writes: std::net::TcpStream,
}

impl Socket {
    pub(super) fn new(socket: TcpStream) -> io::Result<Self> {
        let reads = socket.into_std()?;
        Ok(Self { writes: reads.try_clone()?, reads })
    }

    /// Sleeps until there may be something to read, or the end.
    pub(super) async fn readable(&self) -> io::Result<()> {
        sleep_on(self.reads.as_fd(), Interest::READABLE).await
    }

    /// Sleeps until there may be room to write.
    pub(super) async fn writable(&self) -> io::Result<()> {
        sleep_on(self.writes.as_fd(), Interest::WRITABLE).await
    }

    /// Sleeps until the socket has failed.
    pub(super) async fn failed(&self) -> io::Result<()> {
        sleep_on(self.reads.as_fd(), Interest::ERROR).await
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
