//! Packets as they pass a wire, counted as a mobile network bills them: from the IP header on.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use postern_testkit::Place;
use socket2::{Domain, Protocol, Socket, Type};

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The first second of a connection: TCP and TLS handshakes, login, and at the start the first records.
    Connecting,
    /// Small records, one at a time, and what acknowledges them.
    Heartbeat,
    /// Probes of the kernel and their answers.
    Probe,
    /// Larger records: notifications, requests, replies.
    Records,
    /// Names, time, errors of the network.
    Other,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Connecting, Self::Heartbeat, Self::Probe, Self::Records, Self::Other];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Heartbeat => "heartbeats",
            Self::Probe => "tcp keep-alive",
            Self::Records => "records",
            Self::Other => "other",
        }
    }
}

/// What passed so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) bytes: BTreeMap<Kind, u64>,
    pub(crate) packets: BTreeMap<Kind, u64>,
    /// Bytes of IP and TCP headers among all.
    pub(crate) headers: u64,
    /// Packets with a small record from the device.
    pub(crate) beats: u64,
    /// Connections begun.
    pub(crate) connections: u64,
}

impl Tally {
    pub(crate) fn total(&self) -> u64 {
        self.bytes.values().sum()
    }

    pub(crate) fn of(&self, kind: Kind) -> u64 {
        self.bytes.get(&kind).copied().unwrap_or(0)
    }

    /// What passed since an earlier look.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let less = |now: &BTreeMap<Kind, u64>, then: &BTreeMap<Kind, u64>| {
            now.iter().map(|(kind, n)| (*kind, n - then.get(kind).copied().unwrap_or(0))).collect()
        };
        Self {
            bytes: less(&self.bytes, &before.bytes),
            packets: less(&self.packets, &before.packets),
            headers: self.headers - before.headers,
            beats: self.beats - before.beats,
            connections: self.connections - before.connections,
        }
    }
}

/// A look at everything that passes a host's interfaces, loopback apart; ends when dropped.
pub(crate) struct Wire {
    counted: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

/// How often the reader looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(200);
/// `ETH_P_ALL`.
const EVERYTHING: u16 = 0x0003;
/// How long a connection counts as connecting.
const YOUNG: Duration = Duration::from_secs(1);
/// Largest payload of a heartbeat in either direction: a record of eight bytes; ssh's keep-alive has some more.
const SMALL: usize = 100;

impl Wire {
    pub(crate) fn watch(place: &Place) -> anyhow::Result<Self> {
        let socket = place.within(|| {
            let all = Protocol::from(i32::from(EVERYTHING.to_be()));
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(all)).context("cannot listen on the wire")?;
            socket.set_read_timeout(Some(LOOK))?;
            Ok(socket)
        })?;
        let (counted, stop) = (Arc::<Mutex<Tally>>::default(), Arc::<AtomicBool>::default());
        let (tally, ended, device) = (Arc::clone(&counted), Arc::clone(&stop), place.address());
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            let mut flows = Flows { device, flows: BTreeMap::new() };
            while !ended.load(Ordering::Relaxed) {
                let Ok(n) = (&socket).read(&mut buffer) else { continue };
                if let Some(packet) = Packet::parse(buffer.get(..n).unwrap_or_default()) {
                    flows.count(&packet, Instant::now(), &mut tally.lock().unwrap_or_else(PoisonError::into_inner));
                }
            }
        });
        Ok(Self { counted, stop, reader: Some(reader) })
    }

    pub(crate) fn tally(&self) -> Tally {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// The little of a packet that counts.
#[derive(Debug, PartialEq, Eq)]
struct Packet {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    bytes: usize,
    tcp: Option<Tcp>,
}

#[derive(Debug, PartialEq, Eq)]
struct Tcp {
    seq: u32,
    syn: bool,
    payload: usize,
}

impl Packet {
    /// `None`: neither IPv4 nor IPv6 (the radio knows no ARP), loopback, or what an Ethernet says to all.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let half = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let (header, length, protocol, from, to) = match bytes.first()? >> 4 {
            4 => {
                let address = |at: usize| {
                    let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
                    Some(IpAddr::V4(Ipv4Addr::from(four)))
                };
                let header = usize::from(bytes.first()? & 15) * 4;
                (header, usize::from(half(2)?), *bytes.get(9)?, address(12)?, address(16)?)
            }
            6 => {
                let address = |at: usize| {
                    let sixteen: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
                    Some(IpAddr::V6(Ipv6Addr::from(sixteen)))
                };
                (40, usize::from(half(4)?) + 40, *bytes.get(6)?, address(8)?, address(24)?)
            }
            _ => return None,
        };
        if from.is_loopback() || to.is_multicast() {
            return None;
        }
        let ported = matches!(protocol, 6 | 17);
        let port = |at: usize| if ported { half(at) } else { Some(0) };
        let (from, to) = ((from, port(header)?), (to, port(header + 2)?));
        let tcp = if protocol == 6 {
            let seq: [u8; 4] = bytes.get(header + 4..header + 8)?.try_into().ok()?;
            let offset = usize::from(bytes.get(header + 12)? >> 4) * 4;
            let syn = bytes.get(header + 13)? & 2 != 0;
            Some(Tcp { seq: u32::from_be_bytes(seq), syn, payload: length.saturating_sub(header + offset) })
        } else {
            None
        };
        Some(Self { from, to, bytes: length, tcp })
    }
}

/// Connections seen, by the device's port and the other end.
struct Flows {
    device: IpAddr,
    flows: BTreeMap<(u16, (IpAddr, u16)), Flow>,
}

struct Flow {
    since: Instant,
    /// What the last packet that was no bare acknowledgement was.
    last: Kind,
    /// The next byte expected from the device and from the other.
    next: [Option<u32>; 2],
}

impl Flows {
    fn count(&mut self, packet: &Packet, now: Instant, tally: &mut Tally) {
        let outward = packet.from.0 == self.device;
        let kind = match &packet.tcp {
            None => Kind::Other,
            Some(tcp) => {
                tally.headers += (packet.bytes - tcp.payload) as u64;
                let key = if outward { (packet.from.1, packet.to) } else { (packet.to.1, packet.from) };
                let begun = tcp.syn && outward;
                let fresh = Flow { since: now, last: Kind::Connecting, next: [None, None] };
                if begun && self.flows.get(&key).is_none_or(|flow| now - flow.since > YOUNG) {
                    tally.connections += 1;
                    self.flows.remove(&key);
                }
                let flow = self.flows.entry(key).or_insert(fresh);
                let kind = flow.kind(tcp, usize::from(!outward), now);
                tally.beats += u64::from(kind == Kind::Heartbeat && outward && tcp.payload > 0);
                kind
            }
        };
        *tally.bytes.entry(kind).or_default() += packet.bytes as u64;
        *tally.packets.entry(kind).or_default() += 1;
    }
}

impl Flow {
    fn kind(&mut self, tcp: &Tcp, side: usize, now: Instant) -> Kind {
        let next = self.next.get(side).copied().flatten();
        let end = tcp.seq.wrapping_add(u32::try_from(tcp.payload).unwrap_or(0)).wrapping_add(u32::from(tcp.syn));
        if let Some(slot) = self.next.get_mut(side) {
            *slot = Some(end);
        }
        let kind = if now - self.since < YOUNG {
            Kind::Connecting
        } else if tcp.payload == 0 && next.is_some_and(|next| tcp.seq.wrapping_add(1) == next) {
            // The kernel asks by repeating a byte that was acknowledged.
            if let Some(slot) = self.next.get_mut(side) {
                *slot = next;
            }
            Kind::Probe
        } else if tcp.payload == 0 {
            self.last
        } else if tcp.payload <= SMALL {
            Kind::Heartbeat
        } else {
            Kind::Records
        };
        self.last = kind;
        kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(outward: bool, seq: u32, payload: usize, syn: bool) -> Packet {
        let (device, server) = ((IpAddr::from([10, 0, 0, 2]), 40_000), (IpAddr::from([192, 0, 2, 1]), 64));
        let (from, to) = if outward { (device, server) } else { (server, device) };
        Packet { from, to, bytes: 52 + payload, tcp: Some(Tcp { seq, syn, payload }) }
    }

    #[test]
    fn packets_are_told_apart() {
        let mut flows = Flows { device: IpAddr::from([10, 0, 0, 2]), flows: BTreeMap::new() };
        let mut tally = Tally::default();
        let start = Instant::now();
        flows.count(&packet(true, 0, 0, true), start, &mut tally);
        flows.count(&packet(false, 100, 0, true), start, &mut tally);
        flows.count(&packet(true, 1, 500, false), start, &mut tally);
        let later = start + Duration::from_secs(10);
        flows.count(&packet(true, 501, 29, false), later, &mut tally); // a heartbeat,
        flows.count(&packet(false, 101, 30, false), later, &mut tally); // its answer,
        flows.count(&packet(true, 530, 0, false), later, &mut tally); // and what acknowledges it
        flows.count(&packet(true, 529, 0, false), later, &mut tally); // the kernel asks
        flows.count(&packet(false, 131, 0, false), later, &mut tally);
        flows.count(&packet(false, 131, 400, false), later, &mut tally);
        assert_eq!(tally.of(Kind::Connecting), 52 * 3 + 500);
        assert_eq!((tally.of(Kind::Heartbeat), tally.beats), (52 * 3 + 59, 1));
        assert_eq!(tally.of(Kind::Probe), 104);
        assert_eq!(tally.of(Kind::Records), 452);
        assert_eq!((tally.connections, tally.headers), (1, 52 * 9));
    }

    #[test]
    fn headers_are_read() {
        let mut bytes = vec![0; 60];
        bytes[..4].copy_from_slice(&[0x45, 0, 0, 60]);
        bytes[9] = 6;
        bytes[12..20].copy_from_slice(&[10, 0, 0, 2, 192, 0, 2, 1]);
        bytes[20..24].copy_from_slice(&[0, 64, 0, 65]);
        bytes[24..28].copy_from_slice(&7_u32.to_be_bytes());
        bytes[32] = 0x80;
        bytes[33] = 2;
        let read = Packet::parse(&bytes).unwrap();
        assert_eq!((read.from.1, read.to.1, read.bytes), (64, 65, 60));
        assert_eq!(read.tcp, Some(Tcp { seq: 7, syn: true, payload: 8 }));
        assert_eq!(Packet::parse(&[0x10; 40]), None);
        assert_eq!(Packet::parse(&[0x45, 0]), None);
    }
}
