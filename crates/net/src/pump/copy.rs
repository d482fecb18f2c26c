//! One direction through a buffer in user space.

use std::io::{self, Read as _, Write as _};
use std::sync::atomic::Ordering;

use portable_atomic::AtomicU64;

use super::Failure;
use super::pace::Pace;
use super::socket::Socket;
use crate::limits::{COPY_BYTES, TURNS};

/// Copies until the end of `from`. The buffer exists only while there is something to read.
pub(super) async fn carry(from: &Socket, to: &Socket, carried: &AtomicU64, pace: Option<&Pace>) -> Result<(), Failure> {
    loop {
        let mut buffer = vec![0; pace.map_or(COPY_BYTES, Pace::piece)];
        for turn in 1u32.. {
            let n = match (&from.io).read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::source(error)),
            };
            if let Some(pace) = pace {
                pace.pass(n).await;
            }
            let mut rest = &buffer[..n];
            while !rest.is_empty() {
                match (&to.io).write(rest) {
                    Ok(written) => {
                        rest = &rest[written..];
                        carried.fetch_add(written as u64, Ordering::Relaxed);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        to.writable().await.map_err(Failure::sink)?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Failure::sink(error)),
                }
            }
            if turn.is_multiple_of(TURNS) {
                tokio::task::yield_now().await;
            }
        }
        drop(buffer);
        from.readable().await.map_err(Failure::source)?;
    }
}
