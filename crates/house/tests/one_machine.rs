//! Server and relay by one command on one machine, `postern server run --relay @relay`, and all the way from there.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use postern_house::{in_house, programs_or_skip};
use postern_identity::{Activation, Anchor};
use postern_testkit::limits::{COMMAND, READY, SESSION};
use postern_testkit::{Options, Piece, Process, World, postern_bin, run};

/// A poll of what the kernel knows.
const LOOK: Duration = Duration::from_millis(50);

fn options() -> Options {
    Options { relay_beside_server: true, ..Options::default() }
}

/// The relay's process: the server's only child.
fn relay(world: &mut World) -> anyhow::Result<u32> {
    let server = world.piece(Piece::Server)?.id();
    for task in fs::read_dir(format!("/proc/{server}/task"))? {
        let children = fs::read_to_string(task?.path().join("children"))?;
        if let Some(first) = children.split_whitespace().next() {
            return Ok(first.parse()?);
        }
    }
    anyhow::bail!("the server has no child")
}

/// Waits until there is no such process, or it is only remembered by its parent.
fn gone(pid: u32) -> anyhow::Result<()> {
    let until = Instant::now() + READY;
    loop {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z")) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "process {pid} is still there: {stat}");
        std::thread::sleep(LOOK);
    }
}

fn works(world: &World) -> anyhow::Result<()> {
    let said = world.on_device(&["echo", "in"])?.success().with_context(|| world.last_words())?;
    ensure!(said.text() == "in", "{}", said.text());
    Ok(())
}

fn kill(pid: u32) -> anyhow::Result<()> {
    let mut command = Command::new("kill");
    command.args(["-9", &pid.to_string()]);
    run(command, COMMAND)?.success().map(drop)
}

#[test]
fn the_relay_is_made_once_comes_back_and_goes_with_its_server() -> anyhow::Result<()> {
    in_house(options(), |world| {
        let keys = world.dir().join("server/relay/@relay_key.atKeys");
        let made = fs::read(&keys)?;
        works(world)?;

        // It falls, and is there again.
        let first = relay(world)?;
        let mark = world.piece(Piece::Server)?.mark();
        kill(first)?;
        let server = world.piece(Piece::Server)?;
        server.wait_for_line_after(mark, READY, |line| line.contains("the relay @relay ended: signal: 9"))?;
        server.wait_for_line_after(mark, READY, |line| line.contains("monitor started for @relay"))?;
        works(world)?;

        // The server falls: nothing is left of either, and both come back with the keys that there are.
        let second = relay(world)?;
        world.kill_piece(Piece::Server)?;
        gone(second)?;
        world.start_piece(Piece::Server)?;
        world.piece(Piece::Server)?.wait_for_line(READY, |line| line.contains("monitor started for @relay"))?;
        works(world)?;
        ensure!(fs::read(&keys)? == made, "new keys were made");
        Ok(())
    })
}

#[test]
fn who_stops_the_server_stops_the_relay() -> anyhow::Result<()> {
    let (dir, mut server) = server_alone("@relay", |_, _| Ok(()))?;
    server.wait_for_line(READY, |line| line.contains("monitor started for @relay"))?;
    let ended = server.terminate(SESSION)?.success()?;
    ensure!(!ended.stderr.contains("[WARN]"), "{}", ended.stderr);
    drop(dir);
    Ok(())
}

/// Somebody else has its keys: that is said, nothing is made, and the server serves.
#[test]
fn an_at_sign_of_somebody_else_is_not_taken() -> anyhow::Result<()> {
    let (dir, mut server) = server_alone("@relay", |dir, root| {
        let mut first = postern(dir)?;
        first.args(["server", "add", "@relay", "--dir"]).arg(dir.join("server"));
        let secret = run(first, COMMAND)?.success()?.text();
        let mut plain = postern(dir)?;
        plain.args(["server", "run", "--listen", root, "--dir"]).arg(dir.join("server"));
        let mut server = Process::start(plain)?;
        server.wait_for_line(READY, |line| line.starts_with("listening on "))?;
        let mut onboard = postern(dir)?;
        onboard.args(["at_activate", "onboard", "-a", "@relay", "-c", &secret, "-r", root]);
        onboard.arg("-k").arg(dir.join("elsewhere.atKeys"));
        run(onboard, COMMAND)?.success()?;
        server.terminate(SESSION)?.success().map(drop)
    })?;
    let line = server.wait_for_line(READY, |line| line.contains("[WARN] the relay @relay"))?;
    ensure!(line.contains("is activated already, and its keys are not in"), "{line}");
    ensure!(!dir.path().join("server/relay/@relay_key.atKeys").exists());
    let mut health = postern(dir.path())?;
    health.args(["server", "health", "--dir"]).arg(dir.path().join("server"));
    run(health, COMMAND)?.success()?;
    server.terminate(SESSION)?.success().map(drop)
}

/// What the README's first screen says, and nothing else: a server, a workstation and a device that have nothing.
#[test]
fn from_nothing_to_a_shell() -> anyhow::Result<()> {
    if !programs_or_skip(&["ssh"])? {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let home = |name: &str| -> anyhow::Result<PathBuf> {
        let home = dir.path().join(name);
        fs::create_dir(&home)?;
        Ok(home)
    };
    let (door, laptop, device) = (home("door")?, home("laptop")?, home("device")?);
    let at = |home: &Path, words: &[&str]| -> anyhow::Result<Command> {
        let mut command = postern(home)?;
        command.env_remove("POSTERN_CA_FILE").args(words);
        Ok(command)
    };
    let data = door.join("data").display().to_string();
    let listen = format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
    let words = ["server", "run", "--host", "127.0.0.1", "--dir", &data, "--listen", &listen, "--relay", "@relay"];
    let mut server = Process::start(at(&door, &[&words[..], &["--relay-port", "0"]].concat())?)?;
    server.wait_for_line(READY, |line| line.contains("monitor started for @relay"))?;
    let line = run(at(&door, &["server", "add", "--line", "--dir", &data, "@me", "@gateways"])?, COMMAND)?.success()?;

    // A slip of the pen, and a server that is another one: nothing is left of either.
    let slip = run(at(&laptop, &["activate", &line.text()[..100]])?, COMMAND)?.exited(2)?;
    ensure!(slip.stderr.contains("mistyped"), "{}", slip.stderr);
    let mut other = Activation::parse(&line.text())?;
    other.anchor = Anchor::Key([7; 16]);
    let other = run(at(&laptop, &["activate", &other.print()])?, COMMAND)?.exited(5)?;
    ensure!(other.stderr.contains("does not show the key"), "{}", other.stderr);
    ensure!(fs::read_dir(&laptop)?.next().is_none(), "something was left behind");

    let done = run(at(&laptop, &["activate", &line.text()])?, SESSION)?.success()?;
    ensure!(done.stderr.contains("postern invite NAME"), "{}", done.stderr);
    let again = run(at(&laptop, &["activate", &line.text()])?, SESSION)?.success()?;
    ensure!(again.stderr.contains("has its keys already"), "{}", again.stderr);
    run(at(&laptop, &["config", "check"])?, COMMAND)?.success()?;
    // Somebody else with the same line comes too late.
    let late = run(at(&home("late")?, &["activate", &line.text()])?, SESSION)?.exited(1)?;
    ensure!(late.stderr.contains("@me is activated already"), "{}", late.stderr);

    run(at(&laptop, &["ssh-config", "--install"])?, COMMAND)?.success()?;
    let mut invite = Process::start(at(&laptop, &["invite", "gw-17", "--wait"])?)?;
    let invitation = invite.wait_for_stdout(READY, |text| text.ends_with('\n'))?;
    let config = device.join("sshnpd.yaml").display().to_string();
    let join = ["join", invitation.trim(), "--service", "none", "--config", &config];
    run(at(&device, &join)?, SESSION)?.success()?;
    invite.wait(SESSION)?.success()?;
    let mut daemon = Process::start(at(&device, &["sshnpd", "-v", "--config", &config, "--ssh-server", "builtin"])?)?;
    daemon.wait_for_line(READY, |line| line.contains("monitor started"))?;

    let mut ssh = Command::new("ssh");
    ssh.env("HOME", &laptop).env("XDG_RUNTIME_DIR", &laptop).env_remove("SSH_AUTH_SOCK");
    ssh.arg("-F").arg(laptop.join(".ssh/postern.conf"));
    // ssh takes the home of the password file for its sockets.
    ssh.args(["-o", "ControlPath=none", "-o", "BatchMode=yes", "gw-17.np", "echo in"]);
    let said = run(ssh, SESSION)?.success().with_context(|| daemon.tail())?;
    ensure!(said.text() == "in", "{}", said.text());
    daemon.terminate(SESSION)?.success()?;
    server.terminate(SESSION)?.success().map(drop)
}

fn postern(dir: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(postern_bin()?);
    command.env("HOME", dir).env("XDG_RUNTIME_DIR", dir).env("POSTERN_CA_FILE", dir.join("server/ca.pem"));
    Ok(command)
}

/// A server of its own with a relay beside it, after what is to be done in its directory.
fn server_alone(
    relay: &str,
    before: impl FnOnce(&Path, &str) -> anyhow::Result<()>,
) -> anyhow::Result<(tempfile::TempDir, Process)> {
    let dir = tempfile::tempdir()?;
    let root = format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
    let home: PathBuf = dir.path().join("server");
    let mut init = postern(dir.path())?;
    init.args(["server", "init", "--host", "127.0.0.1", "--listen", &root, "--dir"]).arg(&home);
    run(init, COMMAND)?.success()?;
    before(dir.path(), &root)?;
    let mut command = postern(dir.path())?;
    command.args(["server", "run", "--relay", relay, "--relay-port", "0", "--dir"]).arg(home);
    Ok((dir, Process::start(command)?))
}
