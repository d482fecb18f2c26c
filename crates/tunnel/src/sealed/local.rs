//! What stands at our end of the device's ssh server.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use postern_link::sealed::Local;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

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
