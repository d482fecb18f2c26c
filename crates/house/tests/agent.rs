//! The agent: one login and one sealed session for many programs, for their own user alone, and gone when it is told to go.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use postern_house::in_house;
use postern_testkit::limits::SESSION;
use postern_testkit::{Options, Output, Piece, World, run};

/// Enough for several windows of a stream.
const COPIED: usize = 3_000_000;

/// Ends the agent that the programs have started.
struct Agent(Command);

impl Agent {
    fn of(world: &World) -> Self {
        Self(program(world, &["agent", "stop"]))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn program(world: &World, words: &[&str]) -> Command {
    let mut command = world.postern(World::CLIENT);
    command.args(words).env("XDG_RUNTIME_DIR", runtime_dir(world));
    command
}

fn runtime_dir(world: &World) -> PathBuf {
    world.dir().join("run")
}

fn config(world: &World) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(runtime_dir(world))?;
    let file = world.home_of(World::CLIENT).join("config.yaml");
    let host_key = std::fs::read_to_string(world.dir().join("ssh_host_ed25519_key.pub"))?;
    let host_key = host_key.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let yaml = format!(
        "from: \"{}\"\nto: \"{}\"\nrelay: \"{}\"\nroot: {}\nkey-file: {}\npatience: 4s\nagent: auto\nhosts:\n  {}: {{host-keys: [\"{host_key}\"]}}\n",
        World::CLIENT,
        World::DEVICE,
        World::RELAY,
        world.root(),
        world.key_file(World::CLIENT).display(),
        World::DEVICE_NAME,
    );
    std::fs::write(&file, yaml)?;
    Ok(file)
}

/// What the device's ssh says first, by `connect`.
fn connect(world: &World, port: u16) -> anyhow::Result<Output> {
    let mut connect = program(world, &["connect", "--stdio", "-v", "--config"]);
    connect.arg(config(world)?).args([World::DEVICE_NAME, &port.to_string()]).stdin(Stdio::null());
    run(connect, SESSION)
}

fn said(output: &Output) -> String {
    output.stderr.clone()
}

fn status(world: &World) -> anyhow::Result<serde_json::Value> {
    let output = run(program(world, &["agent", "status", "--json"]), SESSION)?.success()?;
    serde_json::from_str(&output.text()).context("the status is one object")
}

#[test]
fn the_second_program_uses_the_login_and_the_third_the_session() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let _agent = Agent::of(world);
        // Nobody is known yet: that is no matter for an agent.
        let first = connect(world, 22)?.success()?;
        ensure!(said(&first).contains("not known yet") && first.stdout.starts_with(b"SSH-2.0"), "{}", said(&first));
        let second = connect(world, 22)?.success()?;
        ensure!(said(&second).contains("by the agent: a new session"), "{}", said(&second));
        ensure!(said(&second).contains("sealed session: X25519MLKEM768"), "{}", said(&second));
        ensure!(second.stdout.starts_with(b"SSH-2.0"), "{}", second.text());
        // Another target of the same device goes through the same session.
        for port in [22, world.ssh_port()] {
            let third = connect(world, port)?.success()?;
            ensure!(said(&third).contains("by the agent: a live session"), "{}", said(&third));
            ensure!(third.stdout.starts_with(b"SSH-2.0"), "{}", third.text());
        }
        let held = status(world)?;
        let sessions = held["sessions"].as_array().context("sessions")?;
        ensure!(sessions.len() == 1 && sessions[0]["state"] == "live", "{held}");
        ensure!(sessions[0]["device"] == World::DEVICE_NAME, "{held}");
        run(program(world, &["agent", "close"]), SESSION)?.success()?;
        ensure!(status(world)?["sessions"] == serde_json::json!([]), "closed and still there");
        let again = connect(world, 22)?.success()?;
        ensure!(said(&again).contains("by the agent: a new session"), "{}", said(&again));
        run(program(world, &["agent", "stop"]), SESSION)?.success()?;
        run(program(world, &["agent", "status"]), SESSION)?.exited(1)?;
        ensure!(!runtime_dir(world).join("postern/agent.sock").exists(), "its socket is left");
        Ok(())
    })
}

#[test]
fn many_sshs_share_one_session_and_their_bytes_arrive() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let _agent = Agent::of(world);
        connect(world, 22)?.success()?;
        let mut block = program(world, &["ssh-config", "--config"]);
        let block = run(
            {
                block.arg(config(world)?);
                block
            },
            SESSION,
        )?
        .success()?
        .text();
        let file = world.home_of(World::CLIENT).join("postern.conf");
        std::fs::write(&file, format!("{block}\n"))?;
        let host = format!("{}.np", World::DEVICE_NAME);
        let ssh = |program: &str| {
            let mut command = world.places().client.command(program);
            command.env("HOME", world.home_of(World::CLIENT)).env("POSTERN_CA_FILE", world.ca_file());
            command.env("XDG_RUNTIME_DIR", runtime_dir(world)).env_remove("SSH_AUTH_SOCK");
            command.arg("-F").arg(&file).arg("-i").arg(world.identity());
            command.args(["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]);
            command.args(["-o", "ControlMaster=no", "-o", "ControlPath=none"]);
            command
        };
        let mut many = Vec::new();
        for n in 0..5 {
            let mut command = ssh("ssh");
            command.args([&host, &format!("echo inside {n}; exit {n}")]);
            many.push(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?);
        }
        for (n, mut child) in many.into_iter().enumerate() {
            let mut text = String::new();
            child.stdout.take().context("its output")?.read_to_string(&mut text)?;
            let output = child.wait()?;
            ensure!(text == format!("inside {n}\n"), "{text}");
            ensure!(output.code() == i32::try_from(n).ok(), "{output:?}");
        }
        let (from, to) = (world.dir().join("from"), world.dir().join("to"));
        let bytes: Vec<u8> = (0..COPIED).map(|n| u8::try_from(n * 31 % 251).unwrap_or_default()).collect();
        std::fs::write(&from, &bytes)?;
        let mut copy = ssh("scp");
        copy.arg("-q").arg(&from).arg(format!("{host}:{}", to.display()));
        run(copy, SESSION)?.success()?;
        ensure!(std::fs::read(&to)? == bytes, "the copy differs");
        let held = status(world)?;
        let sessions = held["sessions"].as_array().context("sessions")?;
        ensure!(sessions.len() == 1, "five and one programs, one session: {held}");
        ensure!(sessions[0]["bytesOut"].as_u64() > Some(3_000_000), "{held}");
        Ok(())
    })
}

#[test]
fn what_the_agent_cannot_do_is_told_to_ssh_and_what_it_may_not_is_done_without_it() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let _agent = Agent::of(world);
        connect(world, 22)?.success()?;
        connect(world, 22)?.success()?;
        let socket = runtime_dir(world).join("postern/agent.sock");
        let mode = std::fs::metadata(&socket)?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "{mode:o}");
        // A program that would do something else than the agent.
        let mut other = program(world, &["connect", "--stdio", "-v", "--config"]);
        other.arg(config(world)?).args([World::DEVICE_NAME, "22"]).env("SSL_CERT_DIR", world.dir());
        let other = run(
            {
                other.stdin(Stdio::null());
                other
            },
            SESSION,
        )?
        .success()?;
        ensure!(said(&other).contains("without the agent: it runs with another"), "{}", said(&other));
        ensure!(other.stdout.starts_with(b"SSH-2.0"), "{}", other.text());
        // A port that the device does not permit.
        let refused = connect(world, 9)?.exited(255)?;
        ensure!(said(&refused).contains("not permitted"), "{}", said(&refused));
        run(program(world, &["agent", "close"]), SESSION)?.success()?;
        world.kill_piece(Piece::Device)?;
        let away = connect(world, 22)?.exited(255)?;
        ensure!(said(&away).contains("postern: gateway"), "{}", said(&away));
        ensure!(away.stdout.starts_with(b"SSH-2.0-postern\r\n"), "ssh was not told: {:?}", away.text());
        Ok(())
    })
}

/// A session that waits for its device to come back would otherwise hold everybody up for as long as it may.
#[test]
fn a_device_that_went_away_is_told_soon_and_one_that_came_back_is_reached() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let _agent = Agent::of(world);
        connect(world, 22)?.success()?;
        connect(world, 22)?.success()?;
        world.kill_piece(Piece::Device)?;
        for _ in 0..2 {
            let begun = Instant::now();
            let away = connect(world, 22)?.exited(255)?;
            ensure!(away.stdout.starts_with(b"SSH-2.0-postern\r\n"), "ssh was not told: {:?}", away.text());
            // Twice the patience of the configuration: once for the session that was there, once for another.
            ensure!(begun.elapsed() < Duration::from_secs(15), "told after {:?}: {}", begun.elapsed(), said(&away));
        }
        world.start_piece(Piece::Device)?;
        let back = connect(world, 22)?.success()?;
        ensure!(back.stdout.starts_with(b"SSH-2.0"), "{}", said(&back));
        ensure!(said(&back).contains("by the agent: a new session"), "{}", said(&back));
        Ok(())
    })
}

#[test]
fn an_agent_that_nobody_needs_goes_by_itself() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        config(world)?;
        let agent = program(world, &["agent", "run", "--idle", "1"]);
        run(agent, Duration::from_secs(20))?.success()?;
        ensure!(!runtime_dir(world).join("postern/agent.sock").exists(), "its socket is left");
        Ok(())
    })
}
