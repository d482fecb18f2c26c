//! Many connections in one sealed session: whether they share fairly, what a stalled one costs the others, how soon an
//! echo comes, and what a long path carries.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;

use crate::bulk::{Floor, FloorRelay, Running, Tunnel, listening, mib};
use crate::cpu::{Accounts, Role};
use crate::floor::Cipher;
use crate::host::Site;
use crate::limits::{
    ECHOES, ECHOES_BESIDE_BULK, FAIR_RAMP, FAIR_SPAN, FAIR_STREAMS, LINE_DELAY, LOAD_BUFFER, LONG_PATH_BYTES,
    LONG_PATH_ROUNDS, STALLED_BYTES,
};
use crate::line::Line;
use crate::load::{Direction, Sink, Transfer, open_echo, open_flood};
use crate::process::{Process, Spawn};
use crate::sealed::SealedTunnel;
use crate::table::{Check, Samples, Table, progress, say};

/// What came out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Jain's index over bytes of the streams, and slowest over fastest.
    jain: f64,
    least_over_most: f64,
    streams: usize,
    /// MiB/s beside a stalled stream over MiB/s without.
    beside_stalled: Samples,
    /// Microseconds, medians of each round.
    echo: Samples,
    echo_floor: Samples,
    echo_ratio: Samples,
    /// The same while another stream carries as much as it can.
    echo_beside_bulk: Samples,
    /// MiB/s over a path of 100 ms, and over what plain spliced sockets carry there in the same round.
    long: Samples,
    long_plain: Samples,
    long_ratio: Samples,
    long_note: Option<String>,
}

const SEALED: SealedTunnel = SealedTunnel { cipher: Cipher::Aes, resume: true };
const FLOOR: Floor = Floor { relay: FloorRelay::Splice, cipher: Cipher::Aes };

/// Measures all of it.
pub(crate) fn run(accounts: &Accounts, site: &Site, quick: bool) -> anyhow::Result<Figures> {
    let mut figures = Figures { streams: FAIR_STREAMS, ..Figures::default() };
    let sink = Sink::start(site.device.at(0))?;
    progress("streams: 200 at once");
    fairness(accounts, site, &sink, &mut figures)?;
    let rounds = if quick { 1 } else { LONG_PATH_ROUNDS };
    for _ in 0..rounds {
        progress("streams: beside a stalled one; echoes");
        let running = SEALED.start(accounts, site, sink.address())?;
        let free = rate(connect(site, &running)?, STALLED_BYTES)?;
        let stalled = open_flood(connect(site, &running)?)?;
        let beside = rate(connect(site, &running)?, STALLED_BYTES)?;
        drop(stalled);
        figures.echo_beside_bulk.push(echo_beside_bulk(&running, site)?);
        figures.beside_stalled.push(beside / free);
        drop(running);
        let sealed = echo(&SEALED, accounts, site, &sink)?;
        let floor = echo(&FLOOR, accounts, site, &sink)?;
        figures.echo.push(sealed);
        figures.echo_floor.push(floor);
        figures.echo_ratio.push(sealed / floor);
    }
    if let Err(error) = long_path(accounts, site, rounds, &mut figures) {
        let note = format!("{error:#}");
        progress(&format!("streams: long path: {note}"));
        figures.long_note = Some(note);
    }
    Ok(figures)
}

fn connect(site: &Site, running: &Running) -> anyhow::Result<TcpStream> {
    site.client.wait_for_port(running.entry, "the tunnel's entry", &mut [])
}

fn rate(stream: TcpStream, bytes: u64) -> anyhow::Result<f64> {
    Ok(mib(bytes) / Transfer::open(stream, Direction::Down, bytes)?.run()?.as_secs_f64())
}

/// All streams at once, as fast as they go; each counts what it got between ramp and end.
fn fairness(accounts: &Accounts, site: &Site, sink: &Sink, figures: &mut Figures) -> anyhow::Result<()> {
    let running = SEALED.start(accounts, site, sink.address())?;
    let streams: Vec<TcpStream> =
        (0..FAIR_STREAMS).map(|_| open_flood(connect(site, &running)?)).collect::<anyhow::Result<_>>()?;
    let counts: Vec<AtomicU64> = streams.iter().map(|_| AtomicU64::new(0)).collect();
    let start = Barrier::new(streams.len());
    std::thread::scope(|scope| {
        for (mut stream, count) in streams.into_iter().zip(&counts) {
            let start = &start;
            scope.spawn(move || {
                let mut buffer = vec![0; LOAD_BUFFER / 4];
                start.wait();
                let begun = Instant::now();
                while begun.elapsed() < FAIR_RAMP + FAIR_SPAN {
                    match stream.read(&mut buffer) {
                        Ok(n) if n > 0 && begun.elapsed() > FAIR_RAMP => {
                            count.fetch_add(n as u64, Ordering::Relaxed);
                        }
                        Ok(n) if n > 0 => {}
                        _ => return,
                    }
                }
            });
        }
    });
    #[expect(clippy::cast_precision_loss, reason = "byte counts here are far below 2^52")]
    let got: Vec<f64> = counts.iter().map(|count| count.load(Ordering::Relaxed) as f64).collect();
    let (sum, squares) = (got.iter().sum::<f64>(), got.iter().map(|x| x * x).sum::<f64>());
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let number = got.len() as f64;
    figures.jain = sum * sum / (number * squares);
    figures.least_over_most =
        got.iter().copied().fold(f64::NAN, f64::min) / got.iter().copied().fold(f64::NAN, f64::max);
    Ok(())
}

/// Median of single bytes there and back, in microseconds.
fn echo(tunnel: &dyn Tunnel, accounts: &Accounts, site: &Site, sink: &Sink) -> anyhow::Result<f64> {
    let running = tunnel.start(accounts, site, sink.address())?;
    echoes(connect(site, &running)?, ECHOES)
}

fn echo_beside_bulk(running: &Running, site: &Site) -> anyhow::Result<f64> {
    let mut flood = open_flood(connect(site, running)?)?;
    let stop = flood.try_clone()?;
    let echo = connect(site, running)?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut buffer = vec![0; LOAD_BUFFER];
            while matches!(flood.read(&mut buffer), Ok(n) if n > 0) {}
        });
        let median = echoes(echo, ECHOES_BESIDE_BULK);
        stop.shutdown(Shutdown::Both)?;
        median
    })
}

fn echoes(stream: TcpStream, number: usize) -> anyhow::Result<f64> {
    let mut stream = open_echo(stream)?;
    let mut times = Samples::default();
    for _ in 0..number {
        let begun = Instant::now();
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times.median())
}

/// Client to relay and relay to device 50 ms there and back each.
fn long_path(accounts: &Accounts, site: &Site, rounds: usize, figures: &mut Figures) -> anyhow::Result<()> {
    let line = Line::start(LINE_DELAY)?;
    let site = line.site(&site.dir);
    let sink = site.device.within(|| Ok(Sink::start(site.device.at(0))?))?;
    for round in 0..rounds {
        let plain = over_long_path(&Plain, accounts, &site, sink.address())?;
        let sealed = over_long_path(&SEALED, accounts, &site, sink.address())?;
        progress(&format!("streams: 100 ms path, round {}: plain {plain:.1}, sealed {sealed:.1} MiB/s", round + 1));
        figures.long_plain.push(plain);
        figures.long.push(sealed);
        figures.long_ratio.push(sealed / plain);
    }
    Ok(())
}

fn over_long_path(tunnel: &dyn Tunnel, accounts: &Accounts, site: &Site, target: SocketAddr) -> anyhow::Result<f64> {
    let mut running = tunnel.start(accounts, site, target)?;
    let mut watched: Vec<&mut Process> = running.processes.iter_mut().collect();
    let stream = site.client.wait_for_port(running.entry, "the tunnel's entry", &mut watched)?;
    rate(stream, LONG_PATH_BYTES)
}

/// Two plain sockets and a relay that splices: no tunnel at all.
struct Plain;

impl Tunnel for Plain {
    fn name(&self) -> String {
        "plain sockets, spliced".into()
    }

    fn start(&self, accounts: &Accounts, site: &Site, target: SocketAddr) -> anyhow::Result<Running> {
        let account = accounts.account(Role::Relay);
        let mut relay = Spawn::own("floor-relay")?
            .args(["--pump", "--listen", &site.server.at(0).to_string(), "--to", &target.to_string()])
            .account(&account)
            .netns(site.server.netns.clone())
            .stdout()
            .start()?;
        let entry = listening(&mut relay)?;
        Ok(Running { entry, processes: vec![relay], accounts: vec![account] })
    }
}

impl Figures {
    /// The bounds.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let stalled = "throughput beside a stalled stream over that without";
        let long = "100 ms path: throughput over plain spliced sockets'";
        vec![
            Check::at_least(format!("{} streams: Jain's index", self.streams), self.jain, 0.95, ""),
            Check::at_least(stalled, self.beside_stalled.median(), 0.9, "x"),
            Check::at_most("echo of a byte: p50 over the floor's", self.echo_ratio.median(), 1.2, "x"),
            Check::at_least(long, self.long_ratio.median(), 0.9, "x"),
        ]
    }

    /// For people.
    pub(crate) fn print(&self) {
        let mut table = Table::new(&["streams of one sealed session", "figure"]);
        table.row(vec![format!("{} streams: Jain's index", self.streams), format!("{:.4}", self.jain)]);
        table.row(vec!["the slowest over the fastest".into(), format!("{:.2}", self.least_over_most)]);
        table.row(vec!["beside a stalled one, x".into(), self.beside_stalled.show(2)]);
        table.row(vec!["echo p50, µs".into(), self.echo.show(0)]);
        table.row(vec!["echo p50 of the floor, µs".into(), self.echo_floor.show(0)]);
        table.row(vec!["echo p50 beside bulk, µs".into(), self.echo_beside_bulk.show(0)]);
        table.row(vec!["100 ms path, MiB/s".into(), self.long.show(1)]);
        table.row(vec!["100 ms path, plain sockets, MiB/s".into(), self.long_plain.show(1)]);
        table.print("Streams: medians (range) over rounds");
        if let Some(note) = &self.long_note {
            say(&format!("100 ms path: {note}"));
        }
    }
}
