//! The traffic: a source and a sink that agree on what is sent and check it.
//!
//! The one who connects (the app at the client) says which way and how much;
//! the one who listens (the service at the device) answers one byte. So a
//! tunnel is known to be open end to end before the clock or any account is
//! looked at. The receiver of the bulk takes the time, from its first byte to
//! its last.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::limits::{LOAD_BUFFER, STALL};

/// Which way the bulk goes, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Direction {
    /// Client to device.
    Up,
    /// Device to client.
    Down,
}

/// The service at the device: serves until the process ends.
#[derive(Debug)]
pub(crate) struct Sink {
    address: SocketAddr,
}

impl Sink {
    /// Listens, and serves every connection on a thread of its own.
    pub(crate) fn start(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A tunnel that is torn down mid-way ends its connection; nobody to tell.
                std::thread::spawn(move || serve(stream));
            }
        });
        Ok(Self { address })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn serve(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))?;
    let mut request = [0; 9];
    stream.read_exact(&mut request)?;
    let bytes = u64::from_be_bytes(request[1..].try_into().expect("nine bytes less one"));
    stream.write_all(b"!")?;
    match request[0] {
        b'U' => {
            let nanos = u64::try_from(receive(&mut stream, bytes)?.as_nanos())?;
            stream.write_all(&nanos.to_be_bytes())?;
        }
        b'D' => {
            stream.read_exact(&mut [0])?;
            send(&mut stream, bytes)?;
        }
        b'E' => {
            let mut byte = [0];
            while stream.read(&mut byte)? > 0 {
                stream.write_all(&byte)?;
            }
        }
        other => bail!("unknown request {other}"),
    }
    stream.shutdown(Shutdown::Write)?;
    // Closed by the other side, so that a tunnel is never asked to carry a reset.
    let _ = stream.read(&mut [0]);
    Ok(())
}

/// An open connection through a tunnel, answered by the sink and not yet used.
#[derive(Debug)]
pub(crate) struct Transfer {
    stream: TcpStream,
    direction: Direction,
    bytes: u64,
}

impl Transfer {
    /// Asks for a transfer over a connected stream; returns when the sink has answered.
    pub(crate) fn open(mut stream: TcpStream, direction: Direction, bytes: u64) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STALL))?;
        stream.set_write_timeout(Some(STALL))?;
        let mut request = [0; 9];
        request[0] = if direction == Direction::Up { b'U' } else { b'D' };
        request[1..].copy_from_slice(&bytes.to_be_bytes());
        stream.write_all(&request)?;
        stream.read_exact(&mut [0]).context("the sink did not answer through the tunnel")?;
        Ok(Self { stream, direction, bytes })
    }

    /// Moves the bytes; gives the receiver's time from first to last.
    pub(crate) fn run(mut self) -> anyhow::Result<Duration> {
        match self.direction {
            Direction::Up => {
                send(&mut self.stream, self.bytes)?;
                let mut nanos = [0; 8];
                self.stream.read_exact(&mut nanos).context("the sink did not confirm")?;
                Ok(Duration::from_nanos(u64::from_be_bytes(nanos)))
            }
            Direction::Down => {
                self.stream.write_all(b"!")?;
                receive(&mut self.stream, self.bytes)
            }
        }
    }
}

/// Opens an echo through a tunnel.
pub(crate) fn open_echo(mut stream: TcpStream) -> anyhow::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(STALL))?;
    stream.write_all(&[b'E', 0, 0, 0, 0, 0, 0, 0, 0])?;
    stream.read_exact(&mut [0]).context("the sink did not answer through the tunnel")?;
    Ok(stream)
}

/// Asks for bytes without end, for who reads them as fast or slowly as it likes.
pub(crate) fn open_flood(stream: TcpStream) -> anyhow::Result<TcpStream> {
    let Transfer { mut stream, .. } = Transfer::open(stream, Direction::Down, 1 << 50)?;
    stream.write_all(b"!")?;
    Ok(stream)
}

fn send(stream: &mut TcpStream, bytes: u64) -> anyhow::Result<()> {
    let mut buffer = vec![0x5a; LOAD_BUFFER];
    let mut sent = 0;
    while sent < bytes {
        let now = LOAD_BUFFER.min(usize::try_from(bytes - sent).unwrap_or(LOAD_BUFFER));
        // Marks the position, so that lost, doubled or swapped buffers show.
        buffer[..8].copy_from_slice(&sent.to_be_bytes());
        stream.write_all(&buffer[..now])?;
        sent += now as u64;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, bytes: u64) -> anyhow::Result<Duration> {
    let mut buffer = vec![0; LOAD_BUFFER];
    let mut first = None;
    let mut got = 0;
    while got < bytes {
        let left = usize::try_from(bytes - got).unwrap_or(LOAD_BUFFER).min(LOAD_BUFFER);
        let now = stream.read(&mut buffer[..left])?;
        if now == 0 {
            bail!("ended after {got} of {bytes} bytes");
        }
        first.get_or_insert_with(Instant::now);
        check(&buffer[..now], got)?;
        got += now as u64;
    }
    Ok(first.map_or(Duration::ZERO, |first| first.elapsed()))
}

/// Checks the position marks that lie wholly within what was read at `at`.
fn check(read: &[u8], at: u64) -> anyhow::Result<()> {
    let step = LOAD_BUFFER as u64;
    let mut mark = at.next_multiple_of(step);
    while mark + 8 <= at + read.len() as u64 {
        let offset = usize::try_from(mark - at)?;
        if read[offset..offset + 8] != mark.to_be_bytes() {
            bail!("wrong bytes at {mark}");
        }
        mark += step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_over_a_bare_socket() {
        let sink = Sink::start(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        for direction in [Direction::Up, Direction::Down] {
            let stream = TcpStream::connect(sink.address()).unwrap();
            let took = Transfer::open(stream, direction, 3_000_001).unwrap().run().unwrap();
            assert!(took > Duration::ZERO);
        }
    }

    #[test]
    fn a_swapped_buffer_is_noticed() {
        let mut read = vec![0; LOAD_BUFFER + 8];
        read[LOAD_BUFFER..].copy_from_slice(&(LOAD_BUFFER as u64).to_be_bytes());
        check(&read, 0).unwrap();
        assert!(check(&read, LOAD_BUFFER as u64).is_err());
    }
}
