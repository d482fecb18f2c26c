//! A second device of an atSign, from the passcode to the end of its rights, with the programs people run.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use postern_house::in_house;
use postern_testkit::limits::{COMMAND, READY, SESSION};
use postern_testkit::{Options, Output, Process, World, run};

/// `at_activate` for the client's atSign.
fn activate(world: &World, words: &[&str]) -> Command {
    let mut command = world.postern(World::CLIENT);
    command.arg("at_activate").args(words).args(["-a", World::CLIENT, "-r", &world.root()]);
    command
}

/// With the keys of the first device.
fn owner(world: &World, words: &[&str]) -> anyhow::Result<Output> {
    run(activate(world, words), COMMAND)
}

fn with_keys(world: &World, words: &[&str], keys: &Path) -> Command {
    let mut command = activate(world, words);
    command.arg("-k").arg(keys);
    command
}

/// Starts `enroll` on the second device; gives it with the id.
fn enroll(world: &World, device: &str, passcode: &str, keys: &Path) -> anyhow::Result<(Process, String)> {
    let words = ["enroll", "-s", passcode, "-p", "tunnel", "-d", device, "-n", "sshnp:rw,sshrvd:rw"];
    let mut process = Process::start(with_keys(world, &words, keys))?;
    let line = process.wait_for_stdout(READY, |text| text.contains("Enrollment ID: ") && text.ends_with('\n'))?;
    let id = line.lines().find_map(|line| line.strip_prefix("Enrollment ID: ")).context("no id")?.to_owned();
    Ok((process, id))
}

fn key_file(world: &World, device: &str) -> PathBuf {
    world.dir().join("second").join(format!("{device}.atKeys"))
}

#[test]
fn a_second_device_is_let_in_and_thrown_out() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let passcode = owner(world, &["otp", "-e", "10m"])?.success()?.text();
        ensure!(passcode.len() == 6 && passcode.bytes().all(|b| b.is_ascii_alphanumeric()), "{passcode:?}");
        let keys = key_file(world, "laptop");
        let (waiting, id) = enroll(world, "laptop", &passcode, &keys)?;

        let listed = owner(world, &["list", "-s", "pending"])?.success()?.text();
        let lines: Vec<&str> = listed.lines().collect();
        ensure!(lines.first() == Some(&"Found 1 matching enrollment records"), "{listed}");
        ensure!(
            lines.get(2)
                == Some(&&*format!(
                    r#"{id:<38}{:<10}{:<20}{:<38}{{"sshnp":"rw","sshrvd":"rw"}}"#,
                    "pending", "tunnel", "laptop"
                )),
            "{listed}"
        );
        let fetched = owner(world, &["fetch", "-i", &id])?.success()?.text();
        ensure!(fetched.starts_with("Fetched enrollment OK: "), "{fetched}");
        let approved = owner(world, &["approve", "-A", "tun.*", "-D", "laptop"])?.success()?.text();
        ensure!(approved.contains(&format!("Approving enrollmentId {id}")), "{approved}");
        ensure!(approved.contains("Server response: {") && approved.contains("approved"), "{approved}");

        let output = waiting.wait(SESSION)?.success()?;
        ensure!(output.stderr.contains("Waiting for approval; will check every 10 seconds"), "{}", output.stderr);
        ensure!(output.stderr.contains(&format!("[Success] Your .atKeys file saved at {}", keys.display())));
        ensure!(std::fs::metadata(&keys)?.permissions().mode() & 0o777 == 0o600, "the key file is not private");

        // The new keys open a session, for that is what they are for.
        let session = |world: &World| {
            let mut npt = world.postern(World::CLIENT);
            npt.args(["npt", "-f", World::CLIENT, "-t", World::DEVICE, "-d", World::DEVICE_NAME, "-r", World::RELAY]);
            npt.arg("-k").arg(&keys).args(["--root-domain", &world.root(), "-p", &world.ssh_port().to_string()]);
            npt
        };
        let (tunnel, _) = world.start_npt(session(world))?;
        tunnel.kill();
        // But nothing beyond: it sees itself alone, and what it may decide on is its own end, when it insists.
        let seen = run(with_keys(world, &["list"], &keys), COMMAND)?.success()?.text();
        ensure!(seen.starts_with("Found 1 matching"), "{seen}");
        let refused = run(with_keys(world, &["revoke", "-A", ".*"], &keys), COMMAND)?.exited(1)?;
        ensure!(refused.stderr.contains("AT0031"), "{}", refused.stderr);
        run(with_keys(world, &["spp", "-s", "abcdef"], &keys), COMMAND)?.exited(1)?;

        owner(world, &["revoke", "-i", &id])?.success()?;
        let output = run(with_keys(world, &["list"], &keys), COMMAND)?.exited(1)?;
        ensure!(output.stderr.contains("AT0027"), "{}", output.stderr);
        let again = owner(world, &["revoke", "-i", &id])?.exited(1)?;
        ensure!(again.stderr.contains("Cannot revoke a revoked enrollment"), "{}", again.stderr);
        owner(world, &["unrevoke", "-D", "laptop"])?.success()?;
        run(with_keys(world, &["list"], &keys), COMMAND)?.success()?;
        let early = owner(world, &["delete", "-i", &id])?.exited(1)?;
        ensure!(early.stderr.contains("Only denied or revoked"), "{}", early.stderr);
        owner(world, &["revoke", "-i", &id])?.success()?;
        owner(world, &["delete", "-i", &id])?.success()?;
        let gone = owner(world, &["fetch", "-i", &id])?.exited(1)?;
        ensure!(gone.stderr.contains(&format!("Enrollment ID {id} not found")), "{}", gone.stderr);
        let none = owner(world, &["approve", "-D", "laptop"])?.exited(1)?;
        ensure!(none.stderr.contains("No matching enrollment(s) found"), "{}", none.stderr);
        Ok(())
    })
}

#[test]
fn requests_are_denied_approved_by_themselves_and_never_cost_a_file() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let spp = owner(world, &["spp", "-s", "GateWay7"])?.success()?.text();
        ensure!(spp == "Server response: ok", "{spp}");

        let keys = key_file(world, "denied");
        let (waiting, id) = enroll(world, "denied", "gateway7", &keys)?;
        owner(world, &["deny", "-i", &id])?.success()?;
        let output = waiting.wait(SESSION)?.exited(1)?;
        ensure!(output.stderr.contains("was denied"), "{}", output.stderr);
        ensure!(!keys.exists(), "a denied request left a file");

        // Somebody else's file is never overwritten, and one that cannot be written is noticed before anybody is asked.
        std::fs::write(&keys, "precious")?;
        let words = ["enroll", "-s", "gateway7", "-p", "tunnel", "-d", "d2", "-n", "sshnp:rw"];
        let refused = run(with_keys(world, &words, &keys), COMMAND)?.exited(1)?;
        ensure!(refused.stderr.contains("never overwritten"), "{}", refused.stderr);
        ensure!(std::fs::read_to_string(&keys)? == "precious");
        let nowhere = Path::new("/proc/nowhere/x.atKeys");
        run(with_keys(world, &words, nowhere), COMMAND)?.exited(1)?;
        ensure!(owner(world, &["list", "-s", "pending"])?.success()?.text().starts_with("Found 0 "));

        let mut auto = Process::start(activate(world, &["auto", "-A", "tunnel", "-D", "pi[12]", "-L", "2"]))?;
        auto.wait_for_line(READY, |line| line.contains("Waiting for enrollment requests"))?;
        let (other, other_id) = enroll(world, "elsewhere", "gateway7", &key_file(world, "elsewhere"))?;
        for device in ["pi1", "pi2"] {
            let keys = key_file(world, device);
            let (waiting, _) = enroll(world, device, "gateway7", &keys)?;
            waiting.wait(SESSION)?.success()?;
            run(with_keys(world, &["list"], &keys), COMMAND)?.success()?;
        }
        auto.wait(COMMAND)?.success()?;
        let listed = owner(world, &["list", "-s", "pending"])?.success()?.text();
        ensure!(listed.contains(&other_id), "{listed}");
        other.kill();

        // A wrong passcode, and the words for it.
        let words = ["enroll", "-s", "WRONG1", "-p", "tunnel", "-d", "d3", "-n", "sshnp:rw"];
        let wrong = run(with_keys(world, &words, &key_file(world, "d3")), COMMAND)?.exited(1)?;
        ensure!(wrong.stderr.contains("invalid otp"), "{}", wrong.stderr);
        Ok(())
    })
}

#[test]
fn a_prompt_and_the_rules_of_the_command_line() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let mut shell = Process::start_with(activate(world, &["interactive"]), Stdio::piped())?;
        let mut typed = shell.stdin().context("no stdin")?;
        let mut tell = |line: &str| std::io::Write::write_all(&mut typed, format!("{line}\n").as_bytes());
        shell.wait_for_stdout(READY, |text| text == "$ ")?;
        tell("list -s approved")?;
        shell.wait_for_stdout(READY, |text| text.contains("firstApp") && text.ends_with("$ "))?;
        tell("no such command")?;
        tell("otp")?;
        shell.wait_for_stdout(READY, |text| text.matches("$ ").count() == 4)?;
        tell("exit")?;
        shell.wait(COMMAND)?.success()?;

        let bare = |words: &[&str]| {
            let mut command = world.postern(World::CLIENT);
            command.arg("at_activate").args(words);
            run(command, COMMAND)
        };
        let nothing = bare(&[])?.exited(1)?;
        ensure!(nothing.stderr.contains("Usage") && nothing.stdout.is_empty(), "{}", nothing.stderr);
        let unknown = bare(&["frobnicate"])?.exited(1)?;
        ensure!(unknown.stderr.contains("Usage"), "{}", unknown.stderr);
        // A flag first means onboard, which wants the secret: no registrar is asked.
        let onboard = bare(&["-a", "@newcomer", "-r", &world.root()])?.exited(1)?;
        ensure!(onboard.stderr.contains("at_activate onboard: give the CRAM secret"), "{}", onboard.stderr);
        let phrase = owner(world, &["list", "-P", "secret"])?.exited(1)?;
        ensure!(phrase.stderr.contains("pass phrase"), "{}", phrase.stderr);
        Ok(())
    })
}
