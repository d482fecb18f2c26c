//! Who listens in a place, sampled for as long as a test runs.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, bail};

use crate::Place;
use crate::limits::POLL;

/// State of a listening TCP socket in the kernel's tables.
const TCP_LISTEN: &str = "0A";
/// State of a UDP socket with no peer: it takes datagrams from anybody.
const UDP_OPEN: &str = "07";

/// A socket that takes what strangers send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    udp: bool,
    address: SocketAddr,
}

/// Looks at a place's sockets until asked for the answer.
#[derive(Debug)]
pub struct ListenerWatch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    samples: AtomicU64,
    seen: Mutex<BTreeSet<Listener>>,
    failure: Mutex<Option<String>>,
}

impl Listener {
    /// A TCP listener at this address.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { udp: false, address }
    }

    /// All listeners of a place now.
    pub fn all(place: &Place) -> anyhow::Result<BTreeSet<Self>> {
        place.within(look)
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.udp { "udp" } else { "tcp" }, self.address)
    }
}

impl ListenerWatch {
    /// Starts looking, some fifty times a second.
    pub fn start(place: &Place) -> Self {
        let shared = Arc::new(Shared::default());
        let (theirs, place) = (Arc::clone(&shared), place.clone());
        let thread = std::thread::spawn(move || {
            let outcome = place.within(|| {
                while !theirs.stop.load(Ordering::Relaxed) {
                    let now = look()?;
                    theirs.seen.lock().unwrap_or_else(PoisonError::into_inner).extend(now);
                    theirs.samples.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(POLL);
                }
                Ok(())
            });
            if let Err(error) = outcome {
                *theirs.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{error:#}"));
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Stops looking. Returns the number of looks and all listeners ever seen.
    ///
    /// # Errors
    /// It could not look.
    pub fn finish(mut self) -> anyhow::Result<(u64, BTreeSet<Listener>)> {
        self.stop();
        if let Some(failure) = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bail!("failed to watch sockets: {failure}");
        }
        let seen = std::mem::take(&mut *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((self.shared.samples.load(Ordering::Relaxed), seen))
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for ListenerWatch {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The listeners of the namespace this thread is in.
fn look() -> anyhow::Result<BTreeSet<Listener>> {
    let mut seen = BTreeSet::new();
    for (table, udp, state) in
        [("tcp", false, TCP_LISTEN), ("tcp6", false, TCP_LISTEN), ("udp", true, UDP_OPEN), ("udp6", true, UDP_OPEN)]
    {
        // `self` would be the process's first thread, which has not moved.
        let path = format!("/proc/thread-self/net/{table}");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            // A kernel without IPv6.
            Err(_) if table.ends_with('6') => continue,
            Err(error) => return Err(error).with_context(|| format!("failed to read {path}")),
        };
        let sockets = text.lines().skip(1).filter_map(parse);
        seen.extend(sockets.filter(|(_, is)| is == state).map(|(address, _)| Listener { udp, address }));
    }
    Ok(seen)
}

/// Local address and state of one row.
fn parse(row: &str) -> Option<(SocketAddr, String)> {
    let mut fields = row.split_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    let state = fields.nth(1)?.to_owned();
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of four bytes in the machine's own order.
    let words = address
        .as_bytes()
        .chunks(8)
        .map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok().map(u32::to_ne_bytes));
    let words: Vec<[u8; 4]> = words.collect::<Option<_>>()?;
    let ip = match words.as_slice() {
        [v4] => IpAddr::V4(Ipv4Addr::from(*v4)),
        [..] => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?)),
    };
    Some((SocketAddr::new(ip, port), state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_seen_and_a_connection_is_not() -> anyhow::Result<()> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let client = std::net::TcpStream::connect(address)?;
        let seen = Listener::all(&Place::here())?;
        assert!(seen.contains(&Listener::tcp(address)), "{seen:?}");
        assert!(!seen.contains(&Listener::tcp(client.local_addr()?)));
        Ok(())
    }

    #[test]
    fn a_short_lived_listener_does_not_escape_the_watch() -> anyhow::Result<()> {
        let watch = ListenerWatch::start(&Place::here());
        let v6 = std::net::TcpListener::bind("[::1]:0").or_else(|_| std::net::TcpListener::bind("127.0.0.1:0"))?;
        let address = v6.local_addr()?;
        // Long enough for several looks; there is no event that says "looked".
        std::thread::sleep(POLL * 10);
        drop(v6);
        let (samples, seen) = watch.finish()?;
        assert!(samples > 1 && seen.contains(&Listener::tcp(address)), "{samples} {seen:?}");
        Ok(())
    }
}
