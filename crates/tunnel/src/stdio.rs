//! Standard input and output as one end of a connection.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::{HALF_CLOSED, REFUSAL_READ};

/// Carries standard input to `socket` and back until both directions have ended. The end of one is passed on; when the
/// peer has ended its direction, ours may go on for [`HALF_CLOSED`].
pub(crate) async fn carry(socket: TcpStream) -> io::Result<()> {
    let _ = socket.set_nodelay(true);
    let (mut from_peer, mut to_peer) = socket.into_split();
    let out = async {
        copy(&mut tokio::io::stdin(), &mut to_peer).await?;
        to_peer.shutdown().await
    };
    let back = async {
        let mut stdout = tokio::io::stdout();
        copy(&mut from_peer, &mut stdout).await?;
        stdout.flush().await?;
        close_stdout();
        Ok(())
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
    let mut stdout = tokio::io::stdout();
    if stdout.write_all(bytes).await.is_err() || stdout.flush().await.is_err() {
        return;
    }
    let drain = async {
        let (mut stdin, mut chunk) = (tokio::io::stdin(), [0; 1024]);
        while stdin.read(&mut chunk).await.is_ok_and(|n| n > 0) {}
    };
    let _ = timeout(REFUSAL_READ, drain).await;
}

/// The reader sees the end at once, though our process goes on.
pub(crate) fn close_stdout() {
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
