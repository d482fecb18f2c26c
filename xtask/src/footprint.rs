//! `cargo xtask footprint`: what the device build takes of a gateway's flash and memory, beside what is promised.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use postern_testkit::{Options, Piece, World, postern_bin, say};

use crate::install;
use crate::small;
use crate::steps::build_postern;

const USAGE: &str = "\
cargo xtask footprint [--quick | --shipped BINARY]

Builds the device build for this machine, connects it to a server, and prints its size and its memory, idle and for each
session, beside its bounds and what is promised of the one that is shipped. Fails above the bounds. --quick takes the
build that is there. --shipped measures a device build of cargo xtask dist and holds it to the promise itself. POSTERN_BIN:
the server and the client, instead of the development build.";

/// The device build as it is shipped, in a gateway's flash. The smallest gateways have 16 MB for everything, firmware included.
const DEVICE_BYTES: u64 = 3_000_000;
/// The same for x86, where it is to be of the same class: the same code takes a tenth more bytes there. Gateways of this kind have
/// disks.
const DEVICE_BYTES_X86: u64 = 3_200_000;
/// Resident memory of the idle daemon, in KiB: 6 MB of a machine that has 64 or 128.
const IDLE_KIB: u64 = 6_000_000 / 1024;
/// What the one that is shipped keeps.
const SHIPPED: Bounds = Bounds { bytes: device_bytes(std::env::consts::ARCH), idle_kib: IDLE_KIB };
/// What the one built here keeps. The standard library is the one that comes with the compiler: it reads debug information
/// behind a panic (180 kB), and was compiled for speed. Pages of the system's C library count, although every program shares
/// them: 1.8 MB, by what the kernel maps around a fault a little more or less.
const HERE: Bounds = Bounds { bytes: 3_400_000, idle_kib: 6_144 };
/// Resident memory of one session more, in KiB: a TLS connection at each end, and its buffers.
const SESSION_KIB: u64 = 256;
/// What the daemon did at its start is over: keys, records, the first heartbeat.
const IDLE: Duration = Duration::from_secs(10);
/// Sessions at once; one alone would drown in the pages that the allocator takes at a time.
const SESSIONS: u64 = 8;
/// An answer of the device's ssh server.
const ANSWER: Duration = Duration::from_secs(30);

/// What the device build for a machine, by the first word of Rust's name of it, is to keep.
pub(crate) const fn device_bytes(machine: &str) -> u64 {
    if matches!(machine.as_bytes(), b"x86_64") { DEVICE_BYTES_X86 } else { DEVICE_BYTES }
}

/// Not to be exceeded.
struct Bounds {
    bytes: u64,
    idle_kib: u64,
}

/// One line of the table.
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) is: u64,
    /// Not to be exceeded; `None`: told, not promised.
    pub(crate) promised: Option<u64>,
    pub(crate) unit: &'static str,
}

/// Builds, measures, prints; fails when a bound is broken.
pub(crate) fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    let (device, shipped) = match args {
        [] => (small::build_for_this_machine(&small::host()?)?, false),
        [flag] if flag == "--quick" => (small::built(&small::host()?)?, false),
        [flag, binary] if flag == "--shipped" => (PathBuf::from(binary).canonicalize().context(binary.clone())?, true),
        _ => bail!("{USAGE}"),
    };
    install::install(&install::FOR_DEMO)?;
    let postern = match std::env::var_os("POSTERN_BIN") {
        Some(_) => postern_bin()?,
        None => build_postern(&["--quiet", "-p", "postern"])?,
    };
    let bounds = if shipped { SHIPPED } else { HERE };
    let size = size(&beside("device build", bounds.bytes, SHIPPED.bytes), &device, Some(bounds.bytes))?;
    table(&[size], &memory(&device, &postern, bounds.idle_kib)?)
}

/// Says what is promised of the shipped one where this is not it.
fn beside(what: &str, bound: u64, promised: u64) -> String {
    if bound == promised { what.to_owned() } else { format!("{what} (shipped: {promised})") }
}

/// Prints the figures; fails when a bound is broken.
fn table(sizes: &[Figure], memory: &[Figure]) -> anyhow::Result<ExitCode> {
    let all = || sizes.iter().chain(memory);
    for figure in all() {
        writeln!(std::io::stdout(), "{figure}")?;
    }
    let broken: Vec<&str> = all().filter(|figure| figure.is_broken()).map(|figure| figure.what.as_str()).collect();
    if !broken.is_empty() {
        bail!("more than allowed: {}", broken.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Bytes of a file.
pub(crate) fn size(what: &str, path: &Path, promised: Option<u64>) -> anyhow::Result<Figure> {
    let is = path.metadata().with_context(|| format!("there is no {}", path.display()))?.len();
    Ok(Figure { what: what.to_owned(), is, promised, unit: "bytes" })
}

impl Figure {
    pub(crate) fn is_broken(&self) -> bool {
        self.promised.is_some_and(|promised| self.is > promised)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<40} {:>10} {}", self.what, self.is, self.unit)?;
        match self.promised {
            Some(promised) => {
                write!(f, "  at most {promised}: {}", if self.is_broken() { "BROKEN" } else { "kept" })
            }
            None => Ok(()),
        }
    }
}

/// The daemon in a house of its own: idle, then with sessions.
fn memory(device: &Path, postern: &Path, idle_kib: u64) -> anyhow::Result<Vec<Figure>> {
    let program = device.to_str().context("the path is no text")?.to_owned();
    let options = Options { binary: Some(postern.to_owned()), device_program: vec![program], ..Options::default() };
    let mut world = World::start(options)?;
    let id = world.piece(Piece::Device)?.id();
    say(format_args!("the daemon is connected; it is left alone for {IDLE:?}"));
    std::thread::sleep(IDLE);
    let idle = Resident::of(id)?;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let (npt, port) = world.start_npt(world.npt(world.ssh_port()))?;
        sessions.push((npt, greeted(port).with_context(|| world.last_words())?));
    }
    let busy = Resident::of(id)?;
    let figure = |what: &str, is, promised| Figure { what: what.to_owned(), is, promised, unit: "KiB" };
    Ok(vec![
        figure(&beside("idle daemon, resident", idle_kib, IDLE_KIB), idle.resident, Some(idle_kib)),
        figure("idle daemon, its share of shared pages", idle.share, None),
        figure("idle daemon, anonymous", idle.anonymous, None),
        figure("each live session", busy.resident.saturating_sub(idle.resident) / SESSIONS, Some(SESSION_KIB)),
    ])
}

/// A connection through a session that has carried bytes both ways.
fn greeted(port: u16) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(b"SSH-2.0-footprint\r\n")?;
    let mut banner = [0; 4];
    stream.read_exact(&mut banner).context("the device's ssh server says nothing")?;
    Ok(stream)
}

/// Memory of a process in KiB, from the kernel's sum over its pages.
struct Resident {
    resident: u64,
    /// Pages that others have as well count in parts.
    share: u64,
    anonymous: u64,
}

impl Resident {
    fn of(id: u32) -> anyhow::Result<Self> {
        let path = PathBuf::from(format!("/proc/{id}/smaps_rollup"));
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} has no figures", path.display()))
    }

    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
            rest.trim().strip_suffix("kB")?.trim().parse().ok()
        };
        Some(Self { resident: field("Rss:")?, share: field("Pss:")?, anonymous: field("Anonymous:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_sum() -> anyhow::Result<()> {
        let text = "5581-7ffe ---p 00:00 0 [rollup]\nRss:                3560 kB\nPss:                1774 kB\nPss_Dirty:          300 kB\nAnonymous:           272 kB\n";
        let parsed = Resident::parse(text).context("parsed")?;
        assert_eq!((parsed.resident, parsed.share, parsed.anonymous), (3560, 1774, 272));
        assert!(Resident::parse("Rss: many kB\n").is_none());
        assert!(Resident::of(std::process::id())?.resident > 0);
        Ok(())
    }

    #[test]
    fn three_megabytes_but_for_x86() {
        assert_eq!(["aarch64", "x86_64"].map(device_bytes), [3_000_000, 3_200_000]);
    }

    #[test]
    fn above_the_promise_it_fails() {
        let figure = |is| Figure { what: "size".into(), is, promised: Some(10), unit: "bytes" };
        assert!(figure(10).to_string().ends_with("10 bytes  at most 10: kept"));
        assert!(table(&[figure(10)], &[]).is_ok());
        assert!(table(&[figure(11)], &[]).is_err_and(|error| error.to_string().contains("size")));
    }
}
