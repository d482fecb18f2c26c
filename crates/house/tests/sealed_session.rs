//! Sealed sessions between real programs: what becomes sealed by itself, what the second time costs, and that nothing
//! lesser is taken afterwards.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use postern_house::in_house;
use postern_testkit::limits::SESSION;
use postern_testkit::{Options, Output, World, run};

/// How `--verbose` begins the line that tells of the seal.
const SEALED: &str = "sealed session: X25519MLKEM768, TLS13_";

fn ssh_echo(world: &World, words: &[&str]) -> anyhow::Result<Output> {
    let mut sshnp = world.sshnp();
    sshnp.arg("--verbose").args(words).args(["--", "echo inside"]);
    run(sshnp, SESSION)
}

fn told(output: &Output) -> String {
    output.stderr.clone()
}

#[test]
fn two_posterns_seal_their_session_and_the_second_asks_nobody_first() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let first = ssh_echo(world, &[])?.success()?;
        ensure!(first.text().contains("inside"), "{}", told(&first));
        let words = told(&first);
        ensure!(words.contains(SEALED) && words.contains("device key SHA256:") && words.contains("(seen)"), "{words}");
        let second = ssh_echo(world, &[])?.success()?;
        let words = told(&second);
        ensure!(words.contains(SEALED), "{words}");
        for old in ["feature check", "relay request", "ephemeral key", "relay's address"] {
            ensure!(!words.contains(old), "the second session still waited for {old}: {words}");
        }
        let pins = std::fs::read_to_string(world.home_of(World::CLIENT).join(".config/postern/known_atsigns"))?;
        ensure!(pins.contains("gateway@device ed25519 SHA256:"), "{pins}");
        Ok(())
    })
}

#[test]
fn npt_and_connect_are_sealed_as_well() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let mut npt = world.npt(world.ssh_port());
        npt.arg("--verbose");
        let (npt, port) = world.start_npt(npt)?;
        let tail = npt.tail();
        ensure!(tail.contains(SEALED), "{tail}");
        // The same port serves one connection after the other.
        for _ in 0..3 {
            let mut scan = Command::new("ssh-keyscan");
            scan.args(["-t", "ed25519", "-p", &port.to_string(), "127.0.0.1"]).stderr(Stdio::null());
            let keys = run(scan, SESSION)?.success()?.text();
            ensure!(keys.contains("ssh-ed25519"), "{keys}");
        }
        npt.kill();
        Ok(())
    })
}

#[test]
fn an_older_client_still_has_its_session_and_a_known_device_is_not_asked_for_less() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let older = ssh_echo(world, &["--dialect", "5.11"])?.success()?;
        ensure!(!told(&older).contains("sealed session"), "{}", told(&older));
        let lesser = ssh_echo(world, &["--no-sealed"])?.success()?;
        ensure!(!told(&lesser).contains("sealed session"), "{}", told(&lesser));
        let sealed = ssh_echo(world, &["--min-security", "sealed"])?.success()?;
        ensure!(told(&sealed).contains(SEALED), "{}", told(&sealed));
        let lesser = told(&ssh_echo(world, &["--no-sealed"])?.exited(1)?);
        ensure!(lesser.contains("postern pin remove gateway@device"), "{lesser}");
        Ok(())
    })
}

/// A hostile directory could hide the record to get a session that it can read.
#[test]
fn a_known_device_is_not_reached_by_a_relay_that_cannot_seal() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        ssh_echo(world, &[])?.success().context("the first session")?;
        std::fs::remove_file(world.home_of(World::CLIENT).join(".cache/postern/relays"))?;
        let mut sshnp = world.sshnp();
        sshnp.args(["-r", "@client", "--", "true"]);
        let words = told(&run(sshnp, SESSION)?.exited(1)?);
        ensure!(words.contains("@client publishes no address"), "{words}");
        Ok(())
    })
}

#[test]
fn a_changed_device_key_is_refused_with_both_fingerprints() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        ssh_echo(world, &[])?.success().context("the first session")?;
        let file = world.home_of(World::CLIENT).join(".config/postern/known_atsigns");
        let pins = std::fs::read_to_string(&file)?;
        let other = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
        let changed: String = pins
            .lines()
            .map(|line| match line.split_once("ed25519 ") {
                Some((name, _)) => format!("{name}ed25519 {other} given\n"),
                None => format!("{line}\n"),
            })
            .collect();
        std::fs::write(&file, &changed)?;
        let words = told(&ssh_echo(world, &[])?.exited(1)?);
        ensure!(words.contains("the key of gateway@device has changed") && words.contains(other), "{words}");
        ensure!(words.contains("postern pin accept gateway@device SHA256:"), "{words}");
        ensure!(std::fs::read_to_string(&file)? == changed, "the pins were touched");
        Ok(())
    })
}
