//! A link that dies without a word is noticed within two heartbeats; who waits for an answer is told so.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use postern_house::{at_terminal, in_house, programs_or_skip};
use postern_testkit::limits::{READY, SESSION};
use postern_testkit::{Options, Piece, Process, World, quote_for_shell, run, say, shell_line};

/// The daemon's heartbeat in this test.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// What the machine may add.
const SLACK: Duration = Duration::from_secs(1);

#[test]
fn a_server_that_answers_nothing_is_given_up_and_found_again() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let mut daemon = world.postern(World::DEVICE);
        daemon.args(["sshnpd", "-v", "-a", World::DEVICE, "-m", World::CLIENT, "-d", "second", "--hide"]);
        daemon.arg("-k").arg(world.key_file(World::DEVICE)).args(["--root-domain", &world.root()]);
        daemon.args(["--keep-alive", "2s"]);
        let mut daemon = Process::start(daemon)?;
        daemon.wait_for_line(READY, |line| line.contains("monitor started"))?;

        // Stopped, it keeps its connections and answers nothing: to the daemon that is a dead link.
        let server = world.piece(Piece::Server)?.id().to_string();
        let signal = |name: &str| {
            let mut kill = Command::new("kill");
            kill.args([name, &server]);
            run(kill, READY)?.success()
        };
        signal("-STOP")?;
        let start = Instant::now();
        let noticed = daemon.wait_for_line(HEARTBEAT * 2 + SLACK, |line| line.contains("connection lost"));
        let took = start.elapsed();
        signal("-CONT")?;
        noticed?;
        say(format_args!("noticed after {took:.2?}, heartbeat {HEARTBEAT:?}"));
        ensure!(took <= HEARTBEAT * 2 + SLACK, "too late");
        daemon.wait_for_line(READY, |line| line.contains("connection available"))?;
        Ok(())
    })
}

/// The device is stopped, so that three sessions wait: for a person, for a person who wants silence, and for a program.
#[test]
fn who_waits_at_a_terminal_sees_for_what_and_nobody_else_does() -> anyhow::Result<()> {
    if !programs_or_skip(&["script"])? {
        return Ok(());
    }
    in_house(Options::default(), |world| {
        let device = world.piece(Piece::Device)?.id().to_string();
        let signal = |name: &str| {
            let mut kill = Command::new("kill");
            kill.args([name, &device]);
            run(kill, READY)?.success()
        };
        let data = world.dir().join("data");
        let session = |words: &[&str], to: &str| {
            let mut sshnp = world.sshnp();
            sshnp.args(words).args(["--", "echo", "done"]);
            let mut shell = Command::new("sh");
            shell.args(["-c", &format!("{} {to}", shell_line(&sshnp))]);
            for (name, value) in sshnp.get_envs() {
                match value {
                    Some(value) => shell.env(name, value),
                    None => shell.env_remove(name),
                };
            }
            shell
        };
        signal("-STOP")?;
        let waited = (|| {
            let quiet = Process::start(at_terminal(&session(&["-q"], ""), "xterm"))?;
            let piped = Process::start(session(&[], ""))?;
            let to_file = format!("> {}", quote_for_shell(&data.display().to_string()));
            let mut seen = Process::start(at_terminal(&session(&[], &to_file), "xterm"))?;
            let screen = seen.wait_for_stdout(READY, |screen| screen.contains("waiting for gateway@device: "))?;
            say(format_args!("on the screen: {:?}", screen.lines().last()));
            Ok::<_, anyhow::Error>((quiet, piped, seen))
        })();
        signal("-CONT")?;
        let (quiet, piped, seen) = waited?;
        let seen = seen.wait(SESSION)?.success()?.text();
        let (_, after) = seen.rsplit_once("waiting for ").context("the line was there")?;
        ensure!(after.contains("\r\u{1b}[K"), "the line is still there: {seen:?}");
        ensure!(std::fs::read_to_string(&data)? == "done\n", "{:?}", std::fs::read_to_string(&data));
        let quiet = quiet.wait(SESSION)?.success()?.text();
        ensure!(quiet.trim() == "done", "{quiet:?}");
        let piped = piped.wait(SESSION)?.success()?;
        ensure!(piped.text() == "done" && !piped.stderr.contains("waiting for "), "{}", piped.stderr);
        Ok(())
    })
}
