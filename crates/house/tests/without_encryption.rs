//! Sessions whose relay sockets carry plain bytes: an ssh of our own goes around the user's, let in by
//! an ephemeral key. Daemons of version 4 know no other way.

use std::time::{Duration, Instant};

use anyhow::ensure;
use postern_house::in_house;
use postern_testkit::limits::{POLL, SESSION};
use postern_testkit::{Options, Piece, World, run, say};

/// An ephemeral key is good for 15 s; some more for a busy machine.
const KEY_IS_GONE: Duration = Duration::from_secs(25);

fn legacy_sshnp(world: &World) -> std::process::Command {
    let mut sshnp = world.sshnp();
    sshnp.args(["--no-ac", "--no-ad", "--no-et", "--remote-sshd-port", &world.ssh_port().to_string()]);
    sshnp
}

fn ephemeral_lines(world: &World) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(world.authorized_keys())?;
    Ok(text.lines().filter(|line| line.contains("sshnp_ephemeral_")).map(str::to_owned).collect())
}

#[test]
fn the_ephemeral_key_opens_a_tunnel_and_is_gone_soon() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let start = Instant::now();
        for number in 0..2 {
            let mut sshnp = legacy_sshnp(world);
            sshnp.args(["-u", &postern_testkit::user_name(), "--", &format!("echo inside {number}; exit 7")]);
            let output = run(sshnp, SESSION)?.exited(7)?;
            ensure!(output.text() == format!("inside {number}"), "{:?}", output.text());
            ensure!(output.stderr.contains("Starting tunnel session"), "no tunnel:\n{}", output.stderr);
        }
        let lines = ephemeral_lines(world)?;
        say(format_args!("two sessions without encryption in {:.2?}; let in: {lines:?}", start.elapsed()));
        ensure!(lines.len() == 2, "not one line for each session: {lines:?}");
        let bound = format!("PermitOpen=\"localhost:{}\"", world.ssh_port());
        ensure!(lines.iter().all(|line| line.starts_with("command=") && line.contains(&bound)), "{lines:?}");
        let left: Vec<_> =
            std::fs::read_dir(world.dir().join("client/.sshnp"))?.flatten().map(|e| e.file_name()).collect();
        ensure!(left == ["known_hosts"], "the client keeps {left:?}");
        let end = Instant::now() + KEY_IS_GONE;
        while !ephemeral_lines(world)?.is_empty() {
            ensure!(Instant::now() < end, "still there: {:?}", ephemeral_lines(world)?);
            std::thread::sleep(POLL);
        }
        let client = std::fs::read_to_string(world.identity().with_extension("pub"))?;
        ensure!(std::fs::read_to_string(world.authorized_keys())? == client, "something else is gone too");
        Ok(())
    })
}

#[test]
fn a_killed_daemon_leaves_no_key_behind_when_it_is_back() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let mut sshnp = legacy_sshnp(world);
        sshnp.args(["--", "true"]);
        run(sshnp, SESSION)?.success()?;
        world.kill_piece(Piece::Device)?;
        ensure!(ephemeral_lines(world)?.len() == 1, "the key went with the daemon");
        world.start_piece(Piece::Device)?;
        ensure!(ephemeral_lines(world)?.is_empty(), "left behind: {:?}", ephemeral_lines(world)?);
        Ok(())
    })
}

#[test]
fn a_daemon_of_version_4_is_reached_and_prints_its_command() -> anyhow::Result<()> {
    let device_words = ["--dialect", "v4"].map(str::to_owned).to_vec();
    in_house(Options { device_words, ..Options::default() }, |world| {
        let mut sshnp = legacy_sshnp(world);
        sshnp.arg("-x");
        let printed = run(sshnp, SESSION)?.success()?.text();
        ensure!(printed.lines().count() == 1 && printed.starts_with("ssh -p "), "not one command: {printed:?}");
        // The tunnel carries any number of connections.
        for number in 0..3 {
            let mut ssh = std::process::Command::new("sh");
            ssh.args(["-c", &format!("{printed} echo TEST PASSED {number}")]);
            let output = run(ssh, SESSION)?.success()?;
            ensure!(output.text() == format!("TEST PASSED {number}"), "{:?}", output.text());
        }
        // Asked for what it does not know, it says so through its heartbeat.
        let refused = run(world.sshnp(), SESSION)?.exited(1)?;
        let words = "This device daemon does not authenticate to the socket rendezvous";
        ensure!(refused.stderr.contains(words), "{}", refused.stderr);
        Ok(())
    })
}
