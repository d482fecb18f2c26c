//! One direction through a buffer in user space.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::Failure;
use crate::limits::COPY_BYTES;

/// Copies until the end of `from`. The buffer exists only while there is something to read.
pub(super) async fn carry(from: &TcpStream, to: &TcpStream, carried: &AtomicU64) -> Result<(), Failure> {
    loop {
        from.readable().await.map_err(Failure::source)?;
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let n = match from.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::source(error)),
            };
            let mut rest = &buffer[..n];
            while !rest.is_empty() {
                let written = to.async_io(Interest::WRITABLE, || to_sink(to, rest)).await.map_err(Failure::sink)?;
                rest = &rest[written..];
                carried.fetch_add(written as u64, Ordering::Relaxed);
            }
        }
    }
}

fn to_sink(to: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    use std::io::Write;
    (&*socket2::SockRef::from(to)).write(bytes)
}
