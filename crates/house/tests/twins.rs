//! The copy of an SD card: two machines run with the same keys. And what the kernel keeps from the daemon.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_house::in_house;
use postern_testkit::limits::{READY, SESSION};
use postern_testkit::{Options, Piece, Process, World, run, say};

/// A look is two requests and a pause of two seconds.
const LOOK: Duration = Duration::from_secs(6);
/// Looks that are waited for.
const LOOKS: usize = 5;

/// The same command on a machine that was started another time.
fn on_another_machine(world: &World, command: &Command) -> anyhow::Result<Command> {
    let boot = world.dir().join("boot_id");
    std::fs::write(&boot, "00000000-0000-4000-8000-00000000c0de\n")?;
    let mut other = Command::new("unshare");
    let script = format!("mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"", boot.display());
    other.args(["--mount", "sh", "-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    Ok(other)
}

/// Makes a daemon look until it has seen it: the other one may not have written yet.
fn until_seen(process: &mut Process, text: &str) -> anyhow::Result<()> {
    let seen = |line: &str| line.contains(text);
    for _ in 0..LOOKS {
        let mut kill = Command::new("kill");
        kill.arg("-HUP").arg(process.id().to_string());
        run(kill, SESSION)?.success()?;
        if process.wait_for_line(LOOK, seen).is_ok() {
            return Ok(());
        }
    }
    process.wait_for_line(READY, seen).map(drop)
}

#[test]
fn the_copy_of_a_card_is_noticed_on_both_machines_and_told_to_clients() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let copy = on_another_machine(world, &world.sshnpd(World::DEVICE_NAME))?;
        let mut may_mount = Command::new("unshare");
        may_mount.args(["--mount", "true"]);
        if !run(may_mount, SESSION)?.status.success() {
            ensure!(std::env::var_os("CI").is_none(), "no mount namespaces here");
            say(format_args!("SKIPPED: no mount namespaces here"));
            return Ok(());
        }
        let mut copy = world.start_daemon(copy)?;
        // Looked at now, and not in a few hours. The later one wrote over the earlier one, who is the first to see it.
        let model = world.piece(Piece::Device)?;
        until_seen(model, "another machine runs with the keys of this device")?;
        until_seen(&mut copy, "another machine runs with the keys of this device")?;
        // Nothing is stopped.
        world.on_device(&["true"])?.success()?;
        let mut list = world.postern(World::CLIENT);
        list.args([
            "sshnp",
            "-f",
            World::CLIENT,
            "-t",
            World::DEVICE,
            "--list-devices",
            "--root-domain",
            &world.root(),
        ]);
        list.arg("-k").arg(world.key_file(World::CLIENT));
        let told = run(list, SESSION)?.success()?.stderr;
        ensure!(told.contains("two machines run with its keys"), "{told}");
        let mut doctor = world.sshnpd(World::DEVICE_NAME);
        doctor.arg("--doctor");
        let told = run(doctor, SESSION)?.exited(1)?.text();
        ensure!(told.contains("another machine runs as gateway@device"), "{told}");
        Ok(())
    })
}

#[test]
fn a_daemon_started_again_is_no_twin() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        world.kill_piece(Piece::Device)?;
        world.start_piece(Piece::Device)?;
        let mut beside = world.start_daemon(world.sshnpd(World::DEVICE_NAME))?;
        until_seen(world.piece(Piece::Device)?, "another daemon of this machine")?;
        until_seen(&mut beside, "another daemon of this machine")?;
        world.on_device(&["true"])?.success()?;
        for log in [world.piece(Piece::Device)?.tail(), beside.tail()] {
            ensure!(!log.contains("another machine"), "{log}");
        }
        Ok(())
    })
}

#[test]
fn a_daemon_in_its_sandbox_serves_and_has_given_up_the_rest() -> anyhow::Result<()> {
    let options =
        Options { device_words: vec!["--sandbox=require".into()], authorize_client: false, ..Options::default() };
    let mut world = match World::start(options) {
        Err(error) if format!("{error:#}").contains("--sandbox auto takes that") => {
            ensure!(std::env::var_os("CI").is_none(), "{error:#}");
            say(format_args!("SKIPPED: {error:#}"));
            return Ok(());
        }
        world => world?,
    };
    // A key is pushed into authorized_keys, by which ssh then comes in.
    let mut sshnp = world.sshnp();
    sshnp.args(["-s", "--", "echo inside"]);
    let output = run(sshnp, SESSION)?.success()?;
    ensure!(output.text().contains("inside"), "{output:?}");

    let pid = world.piece(Piece::Device)?.id();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
        ensure!(status.contains(line), "no {line:?} in\n{status}");
    }
    let mut shown = world.postern(World::DEVICE);
    shown.args(["sshnpd", "status", "--json"]);
    let shown = run(shown, SESSION)?.success()?.text();
    let ours = shown.lines().find(|line| line.contains(&format!("\"pid\":{pid},"))).context("no status of ours")?;
    ensure!(ours.contains("\"sandbox\":\"files yes, ports "), "{ours}");

    // Off means off.
    let mut open = world.sshnpd("open");
    open.args(["--sandbox", "off"]);
    let open = world.start_daemon(open)?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", open.id()))?;
    ensure!(status.contains("Seccomp:\t0"), "{status}");
    Ok(())
}
