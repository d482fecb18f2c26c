//! TCP services for tests to reach through a tunnel.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use anyhow::{Context as _, bail};

use crate::Place;

/// Bytes written at once; larger than any buffer on the way is not needed.
const CHUNK: usize = 64 * 1024;

/// Starts a service that answers each of `connections` connections in turn by `serve`, each on a
/// thread of its own. Returns where it listens; the handle ends when all have been served.
pub fn serve(
    place: &Place,
    port: u16,
    connections: usize,
    serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
) -> anyhow::Result<(SocketAddr, JoinHandle<()>)> {
    let address = SocketAddr::new(place.address(), port);
    let listener =
        place.within(|| Ok(TcpListener::bind(address)?)).with_context(|| format!("no service at {address}"))?;
    let address = listener.local_addr()?;
    let thread = std::thread::spawn(move || {
        std::thread::scope(|scope| {
            for stream in listener.incoming().take(connections).flatten() {
                // What a guest does wrong is seen at the other end of the tunnel.
                scope.spawn(|| serve(stream));
            }
        });
    });
    Ok((address, thread))
}

/// Reads a request to its end and sends it back: only a tunnel that keeps half-close passes it.
pub fn echo_after_end(mut stream: TcpStream) -> io::Result<()> {
    let mut request = Vec::new();
    stream.read_to_end(&mut request)?;
    stream.write_all(&request)
}

/// Sends `total` bytes of the [`pattern`].
pub fn pour(mut stream: TcpStream, total: u64) -> io::Result<()> {
    let mut at = 0;
    while at < total {
        let count = usize::try_from((total - at).min(CHUNK as u64)).unwrap_or(CHUNK);
        let chunk: Vec<u8> = (at..at + count as u64).map(pattern).collect();
        stream.write_all(&chunk)?;
        at += count as u64;
    }
    Ok(())
}

/// Reads `total` bytes of the [`pattern`] and the end behind them. `pause` is called with the
/// number of bytes read so far, after each piece.
pub fn drink(mut stream: TcpStream, total: u64, mut pause: impl FnMut(u64)) -> anyhow::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at: u64 = 0;
    loop {
        let count = stream.read(&mut buffer).with_context(|| format!("after {at} bytes"))?;
        if count == 0 {
            break;
        }
        for byte in buffer.iter().take(count) {
            if *byte != pattern(at) {
                bail!("byte {at} is {byte} and not {}", pattern(at));
            }
            at += 1;
        }
        pause(at);
    }
    if at != total {
        bail!("the stream ended after {at} bytes and not {total}");
    }
    Ok(())
}

/// The byte at this offset: a lost, doubled or moved chunk of any size shows.
#[expect(clippy::cast_possible_truncation, reason = "the low byte is what is wanted")]
pub fn pattern(offset: u64) -> u8 {
    (offset ^ (offset >> 8) ^ (offset >> 16) ^ (offset >> 24)) as u8
}
