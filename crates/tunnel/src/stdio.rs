//! Standard input and output as one end of a connection.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, copy};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::limits::{HALF_CLOSED, REFUSAL_READ};

/// Standard input and output. Nothing that is written waits here, as it would in those of the standard library for the end of
/// a line.
pub(crate) struct Stdio {
    input: Box<dyn AsyncRead + Send + Unpin>,
    /// `None`: shut down.
    output: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    fate: Fate,
}

/// How standard output fared.
#[derive(Clone, Default)]
pub(crate) struct Fate {
    flowed: Arc<AtomicBool>,
    /// The peer has ended its direction, and so it was closed.
    pub(crate) ended: CancellationToken,
}

impl Fate {
    /// Whether something was written to it.
    pub(crate) fn flowed(&self) -> bool {
        self.flowed.load(Ordering::Relaxed)
    }
}

impl Stdio {
    /// Both, as they were given to us; and what will have become of the output.
    pub(crate) fn open() -> io::Result<(Self, Fate)> {
        let fate = Fate::default();
        Ok((Self { input: input()?, output: Some(output()?), fate: fate.clone() }, fate))
    }
}

/// ssh gives us pipes, whose ends nobody else has. What others may have is left as it is: a thread waits for it.
fn input() -> io::Result<Box<dyn AsyncRead + Send + Unpin>> {
    let file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    Ok(match pipe::Receiver::from_file(file.try_clone()?) {
        Ok(pipe) => Box::new(pipe),
        Err(_) => Box::new(tokio::fs::File::from_std(file)),
    })
}

fn output() -> io::Result<Box<dyn AsyncWrite + Send + Unpin>> {
    let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    Ok(match pipe::Sender::from_file(file.try_clone()?) {
        Ok(pipe) => Box::new(pipe),
        Err(_) => Box::new(tokio::fs::File::from_std(file)),
    })
}

impl AsyncRead for Stdio {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(output) = &mut self.output else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let written = ready!(Pin::new(output).poll_write(cx, bytes))?;
        self.fate.flowed.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.output {
            Some(output) => Pin::new(output).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(output) = &mut self.output {
            ready!(Pin::new(output).poll_flush(cx))?;
            self.output = None;
            close_stdout();
            self.fate.ended.cancel();
        }
        Poll::Ready(Ok(()))
    }
}

/// Carries `stdio` to `socket` and back until both directions have ended. The end of one is passed on; when the
/// peer has ended its direction, ours may go on for [`HALF_CLOSED`].
pub(crate) async fn carry(stdio: Stdio, socket: impl AsyncRead + AsyncWrite) -> io::Result<()> {
    let (mut from_peer, mut to_peer) = tokio::io::split(socket);
    let (mut stdin, mut stdout) = tokio::io::split(stdio);
    let out = async {
        copy(&mut stdin, &mut to_peer).await?;
        to_peer.shutdown().await
    };
    let back = async {
        copy(&mut from_peer, &mut stdout).await?;
        stdout.shutdown().await
    };
    tokio::pin!(out, back);
    tokio::select! {
        outcome = &mut back => {
            let _ = timeout(HALF_CLOSED, out).await;
            outcome
        }
        outcome = &mut out => match outcome {
            Ok(()) => back.await,
            // What the peer said before it closed still counts.
            Err(error) => back.await.and(Err(error)),
        },
    }
}

/// Writes the last bytes and waits until the reader has closed its end.
pub(crate) async fn last_words(bytes: &[u8]) {
    let Ok((mut stdio, _)) = Stdio::open() else { return };
    if stdio.write_all(bytes).await.is_err() || stdio.flush().await.is_err() {
        return;
    }
    let drain = async {
        let mut chunk = [0; 1024];
        while stdio.read(&mut chunk).await.is_ok_and(|n| n > 0) {}
    };
    let _ = timeout(REFUSAL_READ, drain).await;
}

/// The reader sees the end at once, though our process goes on.
fn close_stdout() {
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// Two ends of a connection that nobody else has.
pub(crate) async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let ours = TcpStream::connect(listener.local_addr()?).await?;
    let us = ours.local_addr()?;
    loop {
        let (theirs, peer) = listener.accept().await?;
        if peer == us {
            return Ok((ours, theirs));
        }
    }
}
