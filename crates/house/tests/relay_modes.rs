//! R1 to R5: ssh through relays of three generations, each with every way to authenticate there, and what is refused
//! before anybody connects.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_house::{Matrix, in_house};
use postern_testkit::limits::SESSION;
use postern_testkit::{Options, Piece, Process, World, run, say};

/// What the relay must have seen by the time the command has run.
const SEEN: Duration = Duration::from_secs(2);
/// Who refuses because of what he knows does not wait for anything.
const AT_ONCE: Duration = Duration::from_secs(10);
/// A further relay.
const FAR: &str = "@far";

/// Daemons, by their dialects.
const DAEMONS: &[&str] = &["5.6", "5.11", "current"];

/// How a side's socket proved itself, as the relay tells.
#[derive(Clone, Copy)]
enum By {
    Line,
    Proof,
    ProofAtPortForAll,
}

impl By {
    fn text(self) -> &'static str {
        match self {
            Self::Line => "by=\"line\"",
            Self::Proof => "by=\"proof\"",
            Self::ProofAtPortForAll => "by=\"proof at the port for all\"",
        }
    }
}

#[test]
fn relay_of_2024() -> anyhow::Result<()> {
    with_relay("2024", &["--behave-as", "2024"], |world, matrix| {
        let always = |_: &str| None;
        matrix.row("R1 default, client current", always, |daemon| pass(world, daemon, "current", &[], [By::Line; 2]));
        matrix.row("R1 default, client 5.6", always, |daemon| pass(world, daemon, "5.6", &[], [By::Line; 2]));
        matrix.row("R1 payload", always, |daemon| pass(world, daemon, "current", PAYLOAD, [By::Line; 2]));
    })
}

#[test]
fn relay_of_5_11() -> anyhow::Result<()> {
    with_relay("5.11", &["--behave-as", "5.11", "--443", "--443-bind-port", "0"], |world, matrix| {
        let always = |_: &str| None;
        matrix.row("R1 default, client current", always, |daemon| pass(world, daemon, "current", &[], [By::Line; 2]));
        matrix.row("R2 payload", always, |daemon| pass(world, daemon, "current", PAYLOAD, [By::Line; 2]));
        for client in ["5.11", "current"] {
            let row = if client == "current" { "R3 escr, client current" } else { "R3 escr, client 5.11" };
            matrix.row(row, knows_escr, |daemon| pass(world, daemon, client, ESCR, [By::Proof; 2]));
            let row = if client == "current" { "R4 escr+443, client current" } else { "R4 escr+443, client 5.11" };
            matrix.row(row, knows_escr, |daemon| pass(world, daemon, client, ESCR_443, [By::ProofAtPortForAll; 2]));
        }
        matrix.row("R5 escr", refused_only_by_old, |daemon| {
            refused(world, daemon, ESCR, "does not support the 'escr' relay auth mode")
        });
        matrix.row("R5 443", refused_only_by_old, |daemon| refused(world, daemon, &["--443"], "--443"));
    })
}

#[test]
fn our_relay() -> anyhow::Result<()> {
    with_relay("current", &["--443", "--443-bind-port", "0"], |world, matrix| {
        let always = |_: &str| None;
        let side_b = |daemon: &str| if daemon == "5.6" { By::Line } else { By::Proof };
        matrix.row("R1 default, client current", always, |daemon| {
            pass(world, daemon, "current", &[], [By::Proof, side_b(daemon)])
        });
        matrix.row("R1 default, client 5.6", always, |daemon| pass(world, daemon, "5.6", &[], [By::Line; 2]));
        matrix.row("R1 default, client 5.11", always, |daemon| pass(world, daemon, "5.11", &[], [By::Line; 2]));
        matrix.row("R2 payload", always, |daemon| pass(world, daemon, "current", PAYLOAD, [By::Line; 2]));
        matrix.row("R3 escr, client current", always, |daemon| {
            pass(world, daemon, "current", ESCR, [By::Proof, side_b(daemon)])
        });
        matrix.row("R3 escr, client 5.11", knows_escr, |daemon| pass(world, daemon, "5.11", ESCR, [By::Proof; 2]));
        matrix.row("R4 escr+443", knows_escr, |daemon| {
            pass(world, daemon, "current", ESCR_443, [By::ProofAtPortForAll; 2])
        });
        matrix
            .row("R4 443", knows_escr, |daemon| pass(world, daemon, "current", &["--443"], [By::ProofAtPortForAll; 2]));
        matrix.row("R5 443", refused_only_by_old, |daemon| refused(world, daemon, &["--443"], "--443"));
    })
}

const PAYLOAD: &[&str] = &["--relay-auth-mode", "payload"];
const ESCR: &[&str] = &["--ram", "escr"];
const ESCR_443: &[&str] = &["--relay-auth-mode", "escr", "--443"];

fn knows_escr(daemon: &str) -> Option<&'static str> {
    (daemon == "5.6").then_some("daemons of 2024 do not know escr: see R5")
}

fn refused_only_by_old(daemon: &str) -> Option<&'static str> {
    (daemon != "5.6").then_some("it works: see R3 and R4")
}

fn with_relay(name: &str, words: &[&str], test: impl FnOnce(&mut World, &mut Matrix)) -> anyhow::Result<()> {
    let relay_words = ["--debug"].iter().chain(words).map(|&word| word.to_owned()).collect();
    in_house(Options { relay_words, ..Options::default() }, |world| {
        let mut daemons = Vec::new();
        for dialect in DAEMONS {
            let mut sshnpd = world.sshnpd(&device_of(dialect));
            sshnpd.args(["--dialect", dialect]);
            daemons.push(world.start_daemon(sshnpd)?);
        }
        let mut matrix = Matrix::new(&format!("(columns), relay {name}"), DAEMONS);
        test(world, &mut matrix);
        matrix.finish()
    })
}

/// Device names have no dots.
fn device_of(dialect: &str) -> String {
    format!("d_{}", dialect.replace('.', "_"))
}

fn sshnp(world: &World, daemon: &str, client: &str, words: &[&str]) -> Command {
    let mut command = world.sshnp();
    command
        .args(["-d", &device_of(daemon), "--dialect", client, "--no-sealed"])
        .args(words)
        .args(["--", "echo TEST PASSED"]);
    command
}

/// The command runs, and the relay has let each side in as it should.
fn pass(world: &mut World, daemon: &str, client: &str, words: &[&str], sides: [By; 2]) -> anyhow::Result<()> {
    let mark = world.piece(Piece::Relay)?.mark();
    let output = run(sshnp(world, daemon, client, words), SESSION)?.success()?;
    ensure!(output.text().contains("TEST PASSED"), "stdout: {:?}", output.text());
    for (side, by) in ["side=A", "side=B"].iter().zip(sides) {
        let wanted =
            |line: &str| line.contains("guest authenticated") && line.contains(side) && line.contains(by.text());
        let relay = world.piece(Piece::Relay)?;
        relay.wait_for_line_after(mark, SEEN, wanted).with_context(|| format!("{side} not let in {}", by.text()))?;
    }
    Ok(())
}

fn refused(world: &mut World, daemon: &str, words: &[&str], why: &str) -> anyhow::Result<()> {
    let output = run(sshnp(world, daemon, "current", words), SESSION)?.exited(1)?;
    ensure!(output.stderr.contains(why), "not told {why:?}:\n{}", output.stderr);
    ensure!(output.took < AT_ONCE, "it took {:?}", output.took);
    Ok(())
}

#[test]
fn a_relay_without_a_port_for_all_says_so() -> anyhow::Result<()> {
    let relay_words = ["--behave-as", "5.11"].map(str::to_owned).to_vec();
    in_house(Options { relay_words, ..Options::default() }, |world| {
        let mut sshnp = world.sshnp();
        sshnp.args(["--443", "--", "true"]);
        let output = run(sshnp, SESSION)?.exited(1)?;
        ensure!(output.stderr.contains("single port"), "{}", output.stderr);
        ensure!(output.took < AT_ONCE, "it took {:?}", output.took);
        Ok(())
    })
}

#[test]
fn many_connections_over_one_port_of_the_relay() -> anyhow::Result<()> {
    let relay_words = ["--443", "--443-bind-port", "0"].map(str::to_owned).to_vec();
    in_house(Options { relay_words, ..Options::default() }, |world| {
        let mut npt = world.npt(world.ssh_port());
        npt.args(["--443", "--no-sealed"]);
        let (npt, port) = world.start_npt(npt)?;
        let banner = || -> anyhow::Result<Vec<u8>> {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
            stream.set_read_timeout(Some(SESSION))?;
            let mut bytes = vec![0; 8];
            std::io::Read::read_exact(&mut stream, &mut bytes)?;
            Ok(bytes)
        };
        let banners: Vec<_> = std::thread::scope(|scope| {
            let guests: Vec<_> = (0..6).map(|_| scope.spawn(banner)).collect();
            guests.into_iter().map(|guest| guest.join().expect("a guest does not panic")).collect()
        });
        for banner in banners {
            ensure!(banner? == b"SSH-2.0-", "not what an ssh server says first");
        }
        drop(npt);
        Ok(())
    })
}

#[test]
fn the_nearest_of_several_relays_is_taken() -> anyhow::Result<()> {
    let strangers = vec![FAR.to_owned()];
    in_house(Options { strangers, ..Options::default() }, |world| {
        // It is so far that nobody can reach it, although it answers.
        let mut far = world.srvd(FAR);
        far.args(["-i", "192.0.2.1"]);
        let _far: Process = world.start_relay(far)?;
        let relays = format!("{FAR},{}", World::RELAY);
        let mut sshnp = world.sshnp();
        sshnp.args(["-r", &relays, "-v", "--", "echo TEST PASSED"]);
        let output = run(sshnp, SESSION)?.success()?;
        ensure!(output.text().contains("TEST PASSED"));
        say(format_args!("chosen among {relays} and in after {:.2?}", output.took));
        // Nobody there: the first that can be asked is taken.
        let mut sshnp = world.sshnp();
        sshnp.args(["-r", &format!("{},@nobody", World::RELAY), "--", "echo TEST PASSED"]);
        ensure!(run(sshnp, SESSION)?.success()?.text().contains("TEST PASSED"));
        Ok(())
    })
}
