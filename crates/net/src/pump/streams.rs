//! Joining streams that are not both plain sockets: through a buffer in user space.

use std::io;
use std::sync::atomic::Ordering;

use portable_atomic::AtomicU64;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio_util::sync::CancellationToken;

use super::{Carried, Pace};
use crate::limits::STREAM_COPY_BYTES;

/// Joins `a` and `b` until both directions have ended, one fails, or `cancel` is cancelled. The end of one direction is
/// passed on as a shutdown; the other goes on.
///
/// # Errors
/// The second value is the failure that ended the join, `Interrupted` after a cancel: then the caller resets both, so that
/// a cut stream is never taken for a finished one.
pub async fn join_streams<A, B>(
    a: &mut A,
    b: &mut B,
    cancel: &CancellationToken,
    pace: Option<&Pace>,
) -> (Carried, io::Result<()>)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (there, back) = (AtomicU64::new(0), AtomicU64::new(0));
    let outcome = {
        let ((from_a, to_a), (from_b, to_b)) = (split(a), split(b));
        tokio::select! {
            biased; // a cancel is heard even when both directions are always ready
            () = cancel.cancelled() => Err(io::ErrorKind::Interrupted.into()),
            outcome = async {
                tokio::try_join!(carry(from_a, to_b, &there, pace), carry(from_b, to_a, &back, pace)).map(drop)
            } => outcome,
        }
    };
    (Carried { a_to_b: there.into_inner(), b_to_a: back.into_inner() }, outcome)
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    carried: &AtomicU64,
    pace: Option<&Pace>,
) -> io::Result<()> {
    let mut buffer = vec![0; pace.map_or(STREAM_COPY_BYTES, |pace| pace.piece().min(STREAM_COPY_BYTES))];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        if let Some(pace) = pace {
            pace.pass(n).await;
        }
        to.write_all(&buffer[..n]).await?;
        to.flush().await?;
        carried.fetch_add(n as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn half_closes_are_passed_on_and_bytes_are_counted() {
        let (mut client, mut a) = tokio::io::duplex(8);
        let (mut device, mut b) = tokio::io::duplex(8);
        let cancel = CancellationToken::new();
        let talk = async {
            client.write_all(b"question that is long").await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let answers = async {
            let mut heard = Vec::new();
            device.read_to_end(&mut heard).await.unwrap();
            device.write_all(b"answer").await.unwrap();
            device.shutdown().await.unwrap();
            heard
        };
        let (answer, heard, (carried, outcome)) =
            tokio::join!(talk, answers, join_streams(&mut a, &mut b, &cancel, None));
        outcome.unwrap();
        assert_eq!((answer, heard), (b"answer".to_vec(), b"question that is long".to_vec()));
        assert_eq!(carried, Carried { a_to_b: 21, b_to_a: 6 });
    }

    #[tokio::test]
    async fn a_cancel_ends_it() {
        let (_client, mut a) = tokio::io::duplex(8);
        let (_device, mut b) = tokio::io::duplex(8);
        let cancel = CancellationToken::new();
        cancel.cancel();
        let (_, outcome) = join_streams(&mut a, &mut b, &cancel, None).await;
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::Interrupted);
    }
}
