//! Bytes that this process sent and received, by what they were for.
//!
//! Counted where they are given to the kernel and taken from it, TLS included. Headers are not seen there: they are
//! reckoned, and so is what acknowledges.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use portable_atomic::AtomicU64;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// The directory and the atServer.
    Control,
    /// Sessions: what goes through a relay.
    Data,
}

/// What went by on one plane since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes to others.
    pub sent: u64,
    /// Bytes from others.
    pub received: u64,
    /// Bytes of headers and acknowledgements, both directions, reckoned.
    pub headers: u64,
}

struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
    headers: AtomicU64,
}

static CONTROL: Counters = Counters::new();
static DATA: Counters = Counters::new();

/// IPv4 and TCP with time stamps.
const HEADER: u64 = 52;
/// Payload of a full segment on a common mobile link.
const SEGMENT: u64 = 1368;
/// SYN, its answer, and the end of a connection: seven packets.
const CONNECTION: u64 = 7 * HEADER + 16;

impl Counters {
    const fn new() -> Self {
        Self { sent: AtomicU64::new(0), received: AtomicU64::new(0), headers: AtomicU64::new(0) }
    }

    /// One write or read is as many segments as it fills, and every other one is acknowledged by itself; a lone one is, too.
    fn carried(&self, of: &AtomicU64, bytes: u64) {
        of.fetch_add(bytes, Ordering::Relaxed);
        let segments = bytes.div_ceil(SEGMENT);
        self.headers.fetch_add((segments + segments.div_ceil(2)) * HEADER, Ordering::Relaxed);
    }
}

fn counters(plane: Plane) -> &'static Counters {
    match plane {
        Plane::Control => &CONTROL,
        Plane::Data => &DATA,
    }
}

/// What went by so far.
#[must_use]
pub fn totals(plane: Plane) -> Totals {
    let counters = counters(plane);
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Totals { sent: read(&counters.sent), received: read(&counters.received), headers: read(&counters.headers) }
}

/// Counts a connection that moved its bytes by itself.
pub fn moved(plane: Plane, sent: u64, received: u64) {
    let counters = counters(plane);
    counters.headers.fetch_add(CONNECTION, Ordering::Relaxed);
    counters.carried(&counters.sent, sent);
    counters.carried(&counters.received, received);
}

/// A socket whose bytes are counted.
#[derive(Debug)]
pub struct Counted<S> {
    socket: S,
    plane: Plane,
}

impl<S> Counted<S> {
    /// Counts what passes from now on.
    pub fn new(socket: S, plane: Plane) -> Self {
        counters(plane).headers.fetch_add(CONNECTION, Ordering::Relaxed);
        Self { socket, plane }
    }

    /// The socket.
    pub fn get_ref(&self) -> &S {
        &self.socket
    }

    fn sent(&self, outcome: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = outcome {
            let counters = counters(self.plane);
            counters.carried(&counters.sent, *bytes as u64);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.socket).poll_read(cx, buf);
        if outcome.is_ready() {
            let counters = counters(self.plane);
            counters.carried(&counters.received, (buf.filled().len() - before) as u64);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.sent(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write_vectored(cx, parts);
        self.sent(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn what_passes_is_counted() {
        let (near, mut far) = tokio::io::duplex(8192);
        let before = totals(Plane::Data);
        let mut near = Counted::new(near, Plane::Data);
        near.write_all(&[1; 3000]).await.unwrap();
        far.write_all(&[2; 100]).await.unwrap();
        near.read_exact(&mut [0; 100]).await.unwrap();
        let now = totals(Plane::Data);
        // Other tests of this process may count on the same plane.
        assert!(now.sent - before.sent >= 3000 && now.received - before.received >= 100);
        assert!(now.headers - before.headers >= CONNECTION + (5 + 2) * HEADER);
    }
}
