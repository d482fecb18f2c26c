//! Lines on the agent's socket, one of them with a socket in its luggage.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;

use super::limits::LINE_BYTES;

/// Sends a line; the descriptor travels with its first byte.
///
/// # Errors
/// The other end is gone.
pub(crate) async fn send(
    stream: &mut UnixStream,
    line: &impl Serialize,
    luggage: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut sent = 0;
    if let Some(fd) = luggage {
        sent = stream.async_io(Interest::WRITABLE, || send_with(stream, &text, fd)).await?;
    }
    stream.write_all(text.get(sent..).unwrap_or_default()).await
}

fn send_with(stream: &UnixStream, text: &[u8], fd: BorrowedFd<'_>) -> io::Result<usize> {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut luggage = SendAncillaryBuffer::new(&mut space);
    if !luggage.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(text)], &mut luggage, SendFlags::NOSIGNAL)?)
}

/// Waits for a line and takes what came with it. Nothing may follow it.
///
/// # Errors
/// The other end is gone, says too much, or nonsense.
pub(crate) async fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<(T, Option<OwnedFd>)> {
    let (mut text, mut luggage) = (Vec::new(), None);
    while text.last() != Some(&b'\n') {
        let mut chunk = [0; 4096];
        let (n, fd) = stream.async_io(Interest::READABLE, || receive_with(stream, &mut chunk)).await?;
        luggage = luggage.or(fd);
        text.extend(chunk.get(..n).unwrap_or_default());
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if text.len() > LINE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end"));
        }
    }
    Ok((serde_json::from_slice(&text)?, luggage))
}

fn receive_with(stream: &UnixStream, chunk: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut luggage = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(stream.as_fd(), &mut [IoSliceMut::new(chunk)], &mut luggage, flags)?;
    let mut found = None;
    for message in luggage.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            // What is too much is closed by being dropped.
            found = fds.last().or(found);
        }
    }
    Ok((received.bytes, found))
}

/// The next line of a connection on which several come.
pub(crate) struct Lines {
    pub(crate) stream: UnixStream,
    read: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Waits for the next one. Cancel-safe.
    ///
    /// # Errors
    /// See [`receive`].
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line)?);
            }
            if self.read.len() > LINE_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end"));
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_long_line_arrives_with_its_luggage() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let (data, far) = UnixStream::pair().unwrap();
        let line = "x".repeat(10_000);
        let sending = async {
            send(&mut ours, &line, Some(far.as_fd())).await.unwrap();
            drop(far);
        };
        let ((), (got, fd)) = tokio::join!(sending, async { receive::<String>(&theirs).await.unwrap() });
        assert_eq!(got, line);
        let mut far = UnixStream::from_std(std::os::unix::net::UnixStream::from(fd.unwrap())).unwrap();
        far.write_all(b"through").await.unwrap();
        drop(far);
        let (mut data, mut text) = (data, String::new());
        data.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "through");
    }

    #[tokio::test]
    async fn endless_and_broken_lines_end_it() {
        for (bytes, kind) in [
            (vec![b'x'; LINE_BYTES + 5000], io::ErrorKind::InvalidData),
            (b"\"cut".to_vec(), io::ErrorKind::UnexpectedEof),
            (b"nonsense\n".to_vec(), io::ErrorKind::InvalidData),
        ] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            let writing = async {
                let _ = ours.write_all(&bytes).await;
                drop(ours);
            };
            let reading = async { receive::<String>(&theirs).await.unwrap_err().kind() };
            let reading = async {
                let kind = reading.await;
                theirs.readable().await.ok();
                kind
            };
            let (_, got) = tokio::join!(tokio::time::timeout(std::time::Duration::from_secs(1), writing), reading);
            assert_eq!(got, kind);
        }
    }
}
