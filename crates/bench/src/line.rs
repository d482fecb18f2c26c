//! A line of the bench's own, for kernels without netem: three namespaces,
//! each with a TUN device as its only way out, and one process that carries
//! IP packets between them after a delay, losing some if told to.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::host::{Host, Site, left_behind};
use crate::limits::{LINE_DELAY, LINE_MTU, LINE_QUEUE, STALL};

/// Names of the three hosts, in the order of [`Line::addresses`].
const HOSTS: [&str; 3] = ["client", "server", "device"];

/// The line and its namespaces; both go on drop.
pub(crate) struct Line {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    namespaces: Vec<Namespace>,
}

struct Shared {
    ports: Vec<Port>,
    delay_us: AtomicU64,
    loss_ppm: AtomicU32,
    stop: AtomicBool,
    counts: Counts,
}

/// What went over the line.
#[derive(Default)]
struct Counts {
    packets: AtomicU64,
    lost: AtomicU64,
    overflowed: AtomicU64,
    /// TCP segments that carried bytes, by `from * 3 + to`.
    segments: [AtomicU64; 9],
}

struct Port {
    address: Ipv4Addr,
    device: SyncDevice,
    /// Packets on their way to this host, by due time.
    queue: Mutex<VecDeque<(Instant, Vec<u8>)>>,
    filled: Condvar,
}

impl Port {
    fn queue(&self) -> MutexGuard<'_, VecDeque<(Instant, Vec<u8>)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Makes the namespaces and starts carrying, `delay` one way, nothing lost.
    ///
    /// # Errors
    /// Needs the rights to make namespaces and TUN devices, and `ip`.
    pub(crate) fn start(delay: Duration) -> anyhow::Result<Self> {
        for name in left_behind(Path::new(NETNS_DIR), "pb") {
            drop(Namespace { name });
        }
        let mut namespaces = Vec::new();
        let mut ports = Vec::new();
        for (number, name) in (1_u8..).zip(HOSTS) {
            let namespace = Namespace::new(&format!("pb{}-{name}", std::process::id()))?;
            let address = Ipv4Addr::new(10, 77, number, 2);
            let interface = format!("pb{}n{number}", std::process::id());
            let device = DeviceBuilder::new()
                .name(&interface)
                .mtu(LINE_MTU)
                .enable(false)
                .build_sync()
                .context("failed to make a TUN device")?;
            ip(&["link", "set", &interface, "netns", &namespace.name])?;
            let inside = |args: &[&str]| ip(&[&["-n", &namespace.name], args].concat());
            inside(&["link", "set", "lo", "up"])?;
            inside(&["address", "add", &format!("{address}/32"), "dev", &interface])?;
            inside(&["link", "set", &interface, "up", "mtu", &LINE_MTU.to_string()])?;
            inside(&["route", "add", "default", "dev", &interface])?;
            device.set_nonblocking(true)?;
            ports.push(Port { address, device, queue: Mutex::default(), filled: Condvar::new() });
            namespaces.push(namespace);
        }
        let shared = Arc::new(Shared {
            ports,
            delay_us: AtomicU64::new(micros(delay)),
            loss_ppm: AtomicU32::new(0),
            stop: AtomicBool::new(false),
            counts: Counts::default(),
        });
        let mut threads = Vec::new();
        for port in 0..shared.ports.len() {
            let reader = Arc::clone(&shared);
            threads.push(std::thread::spawn(move || read(&reader, port)));
            let writer = Arc::clone(&shared);
            threads.push(std::thread::spawn(move || write(&writer, &writer.ports[port])));
        }
        Ok(Self { shared, threads, namespaces })
    }

    /// Loses so many packets of a million from now on, each way.
    pub(crate) fn set_loss(&self, ppm: u32) {
        self.shared.loss_ppm.store(ppm, Ordering::Relaxed);
    }

    /// Packets that come from now on take so long, one way.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.shared.delay_us.store(micros(delay), Ordering::Relaxed);
    }

    /// The hosts, with a directory for their files.
    pub(crate) fn site(&self, dir: &Path) -> Site {
        let host = |index: usize| Host {
            address: self.shared.ports[index].address,
            netns: Some(self.namespaces[index].path()),
        };
        Site { client: host(0), server: host(1), device: host(2), dir: dir.to_owned() }
    }

    /// TCP segments with bytes in them so far between client and server,
    /// server and device, client and device, both ways together.
    pub(crate) fn segments(&self) -> [u64; 3] {
        let between = |a: usize, b: usize| {
            self.shared.counts.segments[a * 3 + b].load(Ordering::Relaxed)
                + self.shared.counts.segments[b * 3 + a].load(Ordering::Relaxed)
        };
        [between(0, 1), between(1, 2), between(0, 2)]
    }

    /// Packets carried, lost on purpose, and dropped from a full queue.
    pub(crate) fn packets(&self) -> [u64; 3] {
        let counts = &self.shared.counts;
        [&counts.packets, &counts.lost, &counts.overflowed].map(|count| count.load(Ordering::Relaxed))
    }

    /// TCP connect and one byte there and back, from client to server: two
    /// round trips if the line keeps its promise.
    pub(crate) fn connect_and_echo(&self, dir: &Path) -> anyhow::Result<Duration> {
        let site = self.site(dir);
        let listener = site.server.within(|| Ok(TcpListener::bind(site.server.at(0))?))?;
        let address: SocketAddr = listener.local_addr()?;
        let echo = std::thread::spawn(move || -> std::io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            stream.write_all(&byte)
        });
        let took = site.client.within(|| {
            let start = Instant::now();
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(STALL))?;
            stream.write_all(b"!")?;
            stream.read_exact(&mut [0])?;
            Ok(start.elapsed())
        })?;
        ensure!(matches!(echo.join(), Ok(Ok(()))), "the echo failed");
        Ok(took)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for port in &self.shared.ports {
            port.filled.notify_all();
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Where `ip` keeps named namespaces.
const NETNS_DIR: &str = "/run/netns";

/// How often the threads look whether they should stop.
const STOP_LOOK: Duration = Duration::from_millis(200);

fn read(shared: &Shared, from: usize) {
    let device = &shared.ports[from].device;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    // Seeded by the port: the same packets are lost in the same order each run.
    let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(from as u64 + 1);
    let wait = Timespec::try_from(STOP_LOOK).expect("200 ms is a valid time");
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok(length) = device.recv(&mut buffer) else {
            let mut fds = [PollFd::from_borrowed_fd(device.as_fd(), PollFlags::IN)];
            let _ = poll(&mut fds, Some(&wait));
            continue;
        };
        let packet = &buffer[..length];
        let Some(to) = destination(packet).and_then(|address| shared.ports.iter().position(|p| p.address == address))
        else {
            continue;
        };
        shared.counts.packets.fetch_add(1, Ordering::Relaxed);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        if random % 1_000_000 < u64::from(shared.loss_ppm.load(Ordering::Relaxed)) {
            shared.counts.lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        if carries_bytes(packet) {
            shared.counts.segments[from * 3 + to].fetch_add(1, Ordering::Relaxed);
        }
        let port = &shared.ports[to];
        let mut queue = port.queue();
        if queue.len() >= LINE_QUEUE {
            shared.counts.overflowed.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        // The clock is read under the lock, so the queue is in order of time.
        queue.push_back((
            Instant::now() + Duration::from_micros(shared.delay_us.load(Ordering::Relaxed)),
            packet.to_vec(),
        ));
        drop(queue);
        port.filled.notify_one();
    }
}

fn write(shared: &Shared, port: &Port) {
    let mut queue = port.queue();
    while !shared.stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        let wait = match queue.front() {
            Some((due, _)) if *due <= now => {
                let Some((_, packet)) = queue.pop_front() else {
                    continue;
                };
                drop(queue);
                // A full device queue loses the packet, as a real one would.
                let _ = port.device.send(&packet);
                queue = port.queue();
                continue;
            }
            Some((due, _)) => *due - now,
            None => STOP_LOOK,
        };
        queue = match port.filled.wait_timeout(queue, wait) {
            Ok((queue, _)) => queue,
            Err(poisoned) => poisoned.into_inner().0,
        };
    }
}

/// Destination of an IPv4 packet; `None` for anything else.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    (packet[0] >> 4 == 4).then(|| Ipv4Addr::from(bytes))
}

/// Whether an IPv4 packet is a TCP segment with bytes in it.
fn carries_bytes(packet: &[u8]) -> bool {
    let header = usize::from(packet[0] & 15) * 4;
    let Some(offset) = packet.get(header + 12) else {
        return false;
    };
    packet[9] == 6 && packet.len() > header + usize::from(offset >> 4) * 4
}

fn micros(delay: Duration) -> u64 {
    u64::try_from(delay.as_micros()).unwrap_or(u64::MAX)
}

/// A named network namespace; deleted on drop.
#[derive(Debug)]
struct Namespace {
    name: String,
}

impl Namespace {
    fn new(name: &str) -> anyhow::Result<Self> {
        ip(&["netns", "add", name])?;
        Ok(Self { name: name.to_owned() })
    }

    fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(args).output().context("no ip: install iproute2")?;
    ensure!(output.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Options of the line when run by hand.
#[derive(Debug, clap::Args)]
pub(crate) struct LineArgs {
    /// One-way delay in milliseconds
    #[arg(long, default_value_t = u64::try_from(LINE_DELAY.as_millis()).unwrap_or(25))]
    delay_ms: u64,
    /// Packets lost of a million
    #[arg(long, default_value_t = 0)]
    loss_ppm: u32,
}

/// Keeps a line up until standard input ends, for experiments by hand.
pub(crate) fn by_hand(args: &LineArgs) -> anyhow::Result<()> {
    let line = Line::start(Duration::from_millis(args.delay_ms))?;
    line.set_loss(args.loss_ppm);
    for (namespace, port) in line.namespaces.iter().zip(&line.shared.ports) {
        crate::table::say(&format!("ip netns exec {} …   # {}", namespace.name, port.address));
    }
    let echo = line.connect_and_echo(Path::new("."))?;
    crate::table::say(&format!("connect and echo: {:.1} ms; ends with its input", echo.as_secs_f64() * 1e3));
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(payload: usize) -> Vec<u8> {
        let mut packet = vec![0; 40 + payload];
        packet[0] = 0x45;
        packet[9] = 6;
        packet[16..20].copy_from_slice(&[10, 77, 2, 2]);
        packet[32] = 5 << 4;
        packet
    }

    #[test]
    fn packets_are_read_for_address_and_payload() {
        assert_eq!(destination(&packet(0)), Some(Ipv4Addr::new(10, 77, 2, 2)));
        assert!(!carries_bytes(&packet(0)));
        assert!(carries_bytes(&packet(1)));
        assert_eq!(destination(&[0x60; 40]), None);
        assert_eq!(destination(&[0x45; 3]), None);
    }
}
