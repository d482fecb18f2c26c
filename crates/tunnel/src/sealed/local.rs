//! What stands at our end of the device's ssh server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use postern_link::sealed::Local;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, Stdin, Stdout};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::stdio::close_stdout;

/// A socket that comes later: ssh is started when the session stands.
pub(crate) struct Late {
    coming: oneshot::Receiver<TcpStream>,
    here: Option<TcpStream>,
}

impl Late {
    /// The local end, and where to put its socket. Dropped: the connection has no end here.
    pub(crate) fn local() -> (oneshot::Sender<TcpStream>, Local) {
        let (comes, coming) = oneshot::channel();
        (comes, Local::new(Self { coming, here: None }))
    }

    fn poll_here(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut TcpStream>>> {
        if self.here.is_none() {
            let socket = ready!(Pin::new(&mut self.coming).poll(cx));
            self.here = Some(socket.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?);
        }
        match &mut self.here {
            Some(socket) => Poll::Ready(Ok(Pin::new(socket))),
            None => Poll::Pending,
        }
    }
}

impl AsyncRead for Late {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_here(cx))?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Late {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_here(cx))?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.here {
            Some(socket) => Pin::new(socket).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_here(cx))?.poll_shutdown(cx)
    }
}

/// Standard input and output as a local end, and what becomes of it.
pub(crate) fn stdio() -> (Local, Fate) {
    let fate = Fate::default();
    let stdio = Stdio { input: tokio::io::stdin(), output: tokio::io::stdout(), fate: fate.clone() };
    (Local::new(stdio), fate)
}

/// How standard output fared.
#[derive(Clone, Default)]
pub(crate) struct Fate {
    /// Something was written to it.
    pub(crate) flowed: Arc<AtomicBool>,
    /// The peer has ended its direction, and so has it.
    pub(crate) ended: CancellationToken,
}

struct Stdio {
    input: Stdin,
    output: Stdout,
    fate: Fate,
}

impl AsyncRead for Stdio {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.output).poll_write(cx, bytes))?;
        self.fate.flowed.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.output).poll_flush(cx))?;
        // The reader sees the end at once, though we go on.
        close_stdout();
        self.fate.ended.cancel();
        Poll::Ready(Ok(()))
    }
}
