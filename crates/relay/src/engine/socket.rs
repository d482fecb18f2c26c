//! A guest's socket, plain or behind TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use postern_net::pump::{self, Carried, Pace};
use postern_net::tcp;
use postern_net::tls::ServerStream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::limits::LEFTOVER_BYTES;

pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<ServerStream>),
}

impl Socket {
    /// The TCP socket below.
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.tcp(),
        }
    }

    /// Waits until a socket that nobody reads is dead: it has ended without having sent anything, or it was reset.
    /// One that has sent bytes and then its end is alive: it wants its answer. Behind TLS the bytes are read into
    /// `leftover`, up to [`LEFTOVER_BYTES`], for its end can be seen in no other way.
    pub(super) async fn died(&mut self, leftover: &mut Vec<u8>) {
        match self {
            Self::Plain(tcp) => {
                let has_sent = !leftover.is_empty() || matches!(tcp.peek(&mut [0]).await, Ok(1));
                if has_sent {
                    drop(tcp.ready(Interest::ERROR).await);
                }
            }
            Self::Tls(tls) => {
                while leftover.len() < LEFTOVER_BYTES {
                    let room = LEFTOVER_BYTES - leftover.len();
                    match tls.take(room as u64).read_buf(leftover).await {
                        Ok(0) if leftover.is_empty() => return,
                        Ok(0) => break,
                        Ok(_) => {}
                        Err(_) => return,
                    }
                }
                drop(tls.tcp().ready(Interest::ERROR).await);
            }
        }
    }
}

/// Joins two sockets to the end; bytes are counted whatever it is.
pub(super) async fn join(
    a: Socket,
    b: Socket,
    stop: CancellationToken,
    pace: Option<&Pace>,
) -> (Carried, io::Result<()>) {
    match (a, b, pace) {
        (Socket::Plain(a), Socket::Plain(b), None) => pump::join(a, b, stop).await,
        (Socket::Plain(a), Socket::Plain(b), Some(pace)) => pump::join_paced(a, b, stop, pace).await,
        (mut a, mut b, pace) => {
            let (carried, outcome) = pump::join_streams(&mut a, &mut b, &stop, pace).await;
            if outcome.is_err() {
                for socket in [&a, &b] {
                    drop(tcp::reset_when_closed(socket.tcp()));
                }
            }
            (carried, outcome)
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
