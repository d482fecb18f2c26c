//! A link that dies without a word is noticed within two heartbeats.

use std::time::{Duration, Instant};

use anyhow::ensure;
use postern_house::in_house;
use postern_testkit::limits::READY;
use postern_testkit::{Options, Piece, Process, World, run, say};

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
            let mut kill = std::process::Command::new("kill");
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
