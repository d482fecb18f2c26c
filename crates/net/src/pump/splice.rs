//! One direction through a pipe, without copying: `splice(2)`.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::socket::Socket;
use super::{Failure, copy};
use crate::limits::{IDLE_PIPES, PIPE_SIZES, TURNS};
use portable_atomic::AtomicU64;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Carries until the end of `from`.
///
/// The pipe is filled, then emptied, and only then filled again. So a "would block" while filling always means that the
/// socket is empty and never that the pipe is full, which is the classic trap of splice loops.
pub(super) async fn carry(from: &Socket, to: &Socket, carried: &AtomicU64) -> Result<(), Failure> {
    loop {
        let Ok(mut pipe) = Pipe::take() else {
            // Out of file descriptors: a buffer does the same work.
            return copy::carry(from, to, carried, None).await;
        };
        for turn in 1u32.. {
            match pipe.fill(&from.io) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A socket or kernel that cannot splice says so at once, before a byte has moved.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    return copy::carry(from, to, carried, None).await;
                }
                Err(error) => return Err(Failure::source(error)),
            }
            while pipe.holds > 0 {
                match pipe.drain(&to.io) {
                    Ok(moved) => {
                        carried.fetch_add(moved as u64, Ordering::Relaxed);
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
        // The pipe goes back to the pool here: an idle direction holds none.
        drop(pipe);
        from.readable().await.map_err(Failure::source)?;
    }
}

/// A pipe and the number of bytes in it.
struct Pipe {
    /// None only while it is being dropped.
    ends: Option<(OwnedFd, OwnedFd)>,
    holds: usize,
}

static IDLE: Mutex<Vec<(OwnedFd, OwnedFd)>> = Mutex::new(Vec::new());

fn idle() -> MutexGuard<'static, Vec<(OwnedFd, OwnedFd)>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pipe {
    fn take() -> io::Result<Self> {
        let pooled = idle().pop();
        let ends = match pooled {
            Some(ends) => ends,
            None => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
                // Beyond the user's share of pipe pages the kernel refuses; a small pipe is slower, not wrong.
                let _kept_small = PIPE_SIZES.iter().find(|size| fcntl_setpipe_size(&write, **size).is_ok());
                (read, write)
            }
        };
        Ok(Self { ends: Some(ends), holds: 0 })
    }

    /// Moves what the socket has into the pipe, which is empty. 0: the end of the stream.
    fn fill(&mut self, from: &TcpStream) -> io::Result<usize> {
        let (_, write) = self.ends.as_ref().expect("taken only by drop");
        let moved = splice(from, None, write, None, PIPE_SIZES[0], SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?;
        self.holds = moved;
        Ok(moved)
    }

    /// Moves what the pipe has into the socket. `SPLICE_F_MORE` is not set: it would hold back the last bytes of a burst
    /// for up to 200 ms, and inside one call the kernel knows by itself that more follows.
    fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
        let (read, _) = self.ends.as_ref().expect("taken only by drop");
        let moved = splice(read, None, to, None, self.holds, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?;
        if moved == 0 {
            return Err(io::ErrorKind::WriteZero.into()); // the kernel never does this; a loop would be worse
        }
        self.holds -= moved;
        Ok(moved)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        // A pipe with a stranger's bytes in it must never meet another session.
        if self.holds == 0 {
            let mut idle = idle();
            if idle.len() < IDLE_PIPES {
                idle.push(ends);
            }
        }
    }
}
