//! `cargo xtask idle`: what a device costs that nobody uses, beside others that keep a way open.
//!
//! Each subject has a wire of its own to one server. Counted is what passes it for some real minutes, in which the daemons'
//! clocks run faster (`--hasten`): two minutes are a day and a quarter of a quiet one, with the hours in which it finds out
//! how long it may be silent, and its daily records. The month is: the start once, what passed in the window for thirty days,
//! and one reconnect a day, which is measured too: the server is killed and started again.

mod subjects;
mod wire;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use postern_testkit::{Options, Piece, Places, StarNetwork, World, postern_bin, say};

use crate::install;
use crate::steps::build_postern;
use subjects::{Running, SUBJECTS, Subject};
use wire::{Kind, Tally, Wire};

/// Seconds of thirty days.
const MONTH: f64 = 30.0 * 86_400.0;
/// Reconnects in a month: a mobile network hands out a new address about once a day.
const RECONNECTS: f64 = 30.0;
/// What is still on its way after a start or a reconnect has this long; then the connection counts as idle.
const SETTLED: Duration = Duration::from_millis(2500);
/// How long is looked unless it is said.
const WINDOW: Duration = Duration::from_secs(120);

/// What one subject cost.
struct Cost {
    start: Tally,
    window: Tally,
    reconnect: Option<Tally>,
    /// Seconds of its own time that the window stands for.
    stands_for: f64,
}

impl Cost {
    /// Bytes of a month, by kind.
    fn month(&self, kind: Kind) -> f64 {
        let bytes = |tally: &Tally| tally.of(kind) as f64;
        let idle = bytes(&self.window) * MONTH / self.stands_for;
        bytes(&self.start) + idle + self.reconnect.as_ref().map_or(0.0, |tally| bytes(tally) * RECONNECTS)
    }

    fn whole_month(&self) -> f64 {
        Kind::ALL.iter().map(|kind| self.month(*kind)).sum()
    }
}

/// Runs all subjects at once; fails when one costs more than is promised.
pub(crate) fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    let window = match args {
        [] => WINDOW,
        [flag, minutes] if flag == "--minutes" => {
            let minutes: f64 = minutes.parse().context("--minutes N")?;
            anyhow::ensure!((0.1..=10_000.0).contains(&minutes), "--minutes from 0.1 to 10000");
            Duration::from_secs_f64(minutes * 60.0)
        }
        _ => bail!("cargo xtask idle [--minutes N]"),
    };
    install::install(&install::FOR_TESTS)?;
    let binary = match std::env::var_os("POSTERN_BIN") {
        Some(_) => postern_bin()?,
        None => build_postern(&["--quiet", "-p", "postern"])?,
    };
    // The client's host is the first, without anybody in it.
    let links: Vec<&str> = std::iter::once("eth0").chain(SUBJECTS.iter().map(|subject| subject.link)).collect();
    let Some(network) = StarNetwork::build_or_skip(&links)? else { return Ok(ExitCode::SUCCESS) };
    let client = network.device(0);
    let places = Places { client: client.clone(), server: network.server(), device: client };
    let mut world = World::start(Options { binary: Some(binary), places, own_daemon: false, ..Options::default() })?;
    let costs = measure(&network, &mut world, window)?;
    let too_much = report(&costs, window);
    Ok(if too_much { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn measure(network: &StarNetwork, world: &mut World, window: Duration) -> anyhow::Result<Vec<Cost>> {
    let mut running: Vec<(Wire, Running)> = Vec::new();
    for (i, subject) in (1..).zip(&SUBJECTS) {
        let place = network.device(i);
        let wire = Wire::watch(&place)?;
        let started = subject.start(world, &network.server(), &place).with_context(|| subject.name)?;
        running.push((wire, started));
    }
    std::thread::sleep(SETTLED);
    let tallies = |running: &[(Wire, Running)]| running.iter().map(|(wire, _)| wire.tally()).collect::<Vec<_>>();
    let started = tallies(&running);
    say(format_args!("{} subjects run; looking at their wires for {window:.0?}", SUBJECTS.len()));
    std::thread::sleep(window);
    let idle = tallies(&running);
    say(format_args!("the server goes and comes back"));
    let marks: Vec<_> = running.iter().map(|(_, subject)| subject.marks()).collect();
    world.kill_piece(Piece::Server)?;
    world.start_piece(Piece::Server)?;
    for ((_, subject), marks) in running.iter_mut().zip(marks) {
        subject.wait_until_back(&marks)?;
    }
    std::thread::sleep(SETTLED);
    let back = tallies(&running);
    let mut costs = Vec::new();
    for (i, subject) in SUBJECTS.iter().enumerate() {
        let (Some(start), Some(idle), Some(back)) = (started.get(i), idle.get(i), back.get(i)) else { continue };
        costs.push(Cost {
            start: start.clone(),
            window: idle.since(start),
            reconnect: subject.is_ours().then(|| back.since(idle)),
            stands_for: window.as_secs_f64() * subject.hastened,
        });
    }
    Ok(costs)
}

/// Prints the table; true when a promise is broken.
fn report(costs: &[Cost], window: Duration) -> bool {
    let megabytes = |bytes: f64| format!("{:.3}", bytes / 1e6);
    print(&format!(
        "bytes on each device's wire from the IP header on, both directions; month = start + window x (30 days / its time) + \
         {RECONNECTS} reconnects\nwindow: {} s of real time\n",
        window.as_secs()
    ));
    let mut head =
        format!("{:<26}{:>10}{:>9}{:>12}{:>11}", "MB a month", "own time", "beats", "B per beat", "reconnect");
    for kind in Kind::ALL {
        head.push_str(&format!("{:>16}", kind.name()));
    }
    print(&format!("{head}{:>10}{:>10}{:>10}", "headers", "sum", "promise"));
    let mut broken = false;
    for (Subject { name, promise, .. }, cost) in SUBJECTS.iter().zip(costs) {
        let beats = cost.window.beats;
        let beat_bytes = cost.window.of(Kind::Heartbeat) + cost.window.of(Kind::Probe);
        let each = beat_bytes.checked_div(beats).map_or_else(String::new, |each| each.to_string());
        let reconnect = cost.reconnect.as_ref().map_or_else(String::new, |tally| tally.total().to_string());
        let own = format!("{:.1} h", cost.stands_for / 3600.0);
        let mut line = format!("{name:<26}{own:>10}{beats:>9}{each:>12}{reconnect:>11}");
        for kind in Kind::ALL {
            line.push_str(&format!("{:>16}", megabytes(cost.month(kind))));
        }
        let sum = cost.whole_month();
        let headers = cost.window.headers as f64 / (cost.window.total().max(1)) as f64;
        let kept = promise.is_none_or(|promise| sum <= promise);
        broken |= !kept;
        let promised = promise.map_or_else(String::new, megabytes);
        let word = if kept { "" } else { "  BROKEN" };
        print(&format!("{line}{:>9.0}%{:>10}{promised:>10}{word}", headers * 100.0, megabytes(sum)));
    }
    broken
}

#[expect(clippy::print_stdout, reason = "the table is data")]
fn print(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_start_window_and_reconnects() {
        let tally = |kind, bytes| Tally { bytes: [(kind, bytes)].into(), ..Tally::default() };
        let cost = Cost {
            start: tally(Kind::Connecting, 5000),
            window: tally(Kind::Heartbeat, 200),
            reconnect: Some(tally(Kind::Connecting, 1000)),
            stands_for: MONTH / 100.0,
        };
        assert_eq!(cost.month(Kind::Heartbeat).round(), 20_000.0);
        assert_eq!(cost.month(Kind::Connecting).round(), 35_000.0);
        assert_eq!(cost.whole_month().round(), 55_000.0);
    }
}
