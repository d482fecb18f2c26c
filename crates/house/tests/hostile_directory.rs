//! A directory or atServer that shows other keys than those that are known, or lets somebody else in by a known name.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use postern_house::in_house;
use postern_house::liar::take_over;
use postern_net::tasks::Tasks;
use postern_testkit::limits::{COMMAND, SESSION};
use postern_testkit::{Options, Output, Piece, Process, World, run, say, user_name};

fn postern(world: &World, words: &[&str]) -> anyhow::Result<Output> {
    let mut command = world.postern(World::CLIENT);
    command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME").args(words);
    run(command, COMMAND)
}

/// The last word of the line that says what the server shows.
fn shown(line: &str) -> anyhow::Result<String> {
    let word = line.split_whitespace().nth(2).filter(|word| word.starts_with("SHA256:"));
    Ok(word.ok_or_else(|| anyhow::anyhow!("no fingerprint in {line:?}"))?.to_owned())
}

#[test]
fn a_server_that_shows_another_key_is_noticed_until_a_person_accepts_it() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let root = world.root();
        let ask = ["fingerprint", World::DEVICE, "-r", &root];
        let now = shown(&postern(world, &ask)?.success()?.text())?;
        let other = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
        postern(world, &["pin", "accept", World::DEVICE, other])?.success()?;
        let refused = postern(world, &ask)?.exited(3)?;
        ensure!(refused.stderr.contains(&format!("postern pin accept {} {now}", World::DEVICE)), "{}", refused.stderr);
        postern(world, &["pin", "accept", World::DEVICE, &now])?.success()?;
        postern(world, &ask)?.success()?;
        let list = postern(world, &["pin", "list", "--json"])?.success()?.text();
        ensure!(list.contains(&now) && !list.contains(other), "{list}");
        postern(world, &["pin", "remove", World::DEVICE])?.success()?;
        postern(world, &["pin", "remove", World::DEVICE])?.exited(1)?;
        postern(world, &["pin", "accept", "nobody", &now])?.exited(2)?;
        Ok(())
    })
}

fn taken_over(world: &World, at_sign: &str) -> anyhow::Result<PathBuf> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(take_over(world, at_sign, &Tasks::new()))
}

/// A daemon under the house's device's name, in a home of its own.
fn start_other_daemon(world: &World, keys: &Path, words: &[&str]) -> anyhow::Result<Process> {
    let home = world.dir().join("another-device");
    std::fs::create_dir_all(&home)?;
    let mut daemon = world.postern(World::DEVICE);
    daemon.env("HOME", home).args(["sshnpd", "-v", "-a", World::DEVICE, "-m", World::CLIENT]);
    daemon.args(["-d", World::DEVICE_NAME, "--root-domain", &world.root()]).arg("-k").arg(keys);
    let (port, permit) = (world.ssh_port().to_string(), format!("localhost:{}", world.ssh_port()));
    daemon.args(["--local-sshd-port", &port, "--permit-open", &permit]).args(words);
    world.start_daemon(daemon)
}

fn sshnp(world: &World) -> Command {
    let mut sshnp = world.sshnp();
    sshnp.args(["--verbose", "--daemon-ping-timeout", "8", "--", "echo inside"]);
    sshnp
}

fn first_session(world: &World) -> anyhow::Result<String> {
    let first = run(sshnp(world), SESSION)?.success()?;
    ensure!(first.text().contains("inside") && first.stderr.contains("sealed session"), "{}", first.stderr);
    Ok(std::fs::read_to_string(world.home_of(World::CLIENT).join(".config/postern/known_atsigns"))?)
}

/// The fingerprint in the line of a name.
fn pinned(pins: &str, name: &str) -> anyhow::Result<String> {
    let line = pins.lines().find(|line| line.split_whitespace().next() == Some(name));
    let shown = line.and_then(|line| line.split_whitespace().nth(2)).with_context(|| format!("{name} in {pins}"))?;
    Ok(shown.to_owned())
}

/// Refused, nothing ran, and these words stand in what the user is told.
fn is_refused(output: Output, words: &[&str]) -> anyhow::Result<()> {
    let output = output.exited(1)?;
    ensure!(!output.text().contains("inside"), "{}", output.text());
    let told = output.stderr;
    say(format_args!("{told}"));
    for word in words {
        ensure!(told.contains(word), "no {word:?} in: {told}");
    }
    Ok(())
}

/// Same atSign, same keys, another machine: as when a device was set up anew, or when another device of the atSign takes its
/// name.
#[test]
fn another_machine_by_the_device_s_name_is_refused_until_it_is_accepted() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let pins = first_session(world)?;
        world.kill_piece(Piece::Device)?;
        let _other = start_other_daemon(world, &world.key_file(World::DEVICE), &[])?;
        let name = format!("{}{}", World::DEVICE_NAME, World::DEVICE);
        let known = pinned(&pins, &name)?;
        let refused = run(sshnp(world), SESSION)?;
        let told = refused.stderr.clone();
        is_refused(
            refused,
            &[&format!("the key of {name} has changed"), &known, &format!("postern pin accept {name} SHA256:")],
        )?;
        // What it says to do, done.
        let accept = told.lines().find_map(|line| line.split_once("postern pin accept ")).context("nothing to do")?.1;
        let words: Vec<&str> = ["pin", "accept"].into_iter().chain(accept.split_whitespace()).collect();
        postern(world, &words)?.success()?;
        let again = run(sshnp(world), SESSION)?.success()?;
        ensure!(again.text().contains("inside"), "{}", again.stderr);
        Ok(())
    })
}

/// The server lets somebody in as the device and shows that one's public key as the device's.
#[test]
fn a_server_that_replaces_a_known_device_gets_no_session() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let pins = first_session(world)?;
        world.kill_piece(Piece::Device)?;
        let keys = taken_over(world, World::DEVICE)?;
        let _impostor = start_other_daemon(world, &keys, &[])?;
        let known = pinned(&pins, World::DEVICE)?;
        let refused = run(sshnp(world), SESSION)?;
        is_refused(refused, &["has changed", &known, "postern pin accept @device SHA256:"])?;
        let now = std::fs::read_to_string(world.home_of(World::CLIENT).join(".config/postern/known_atsigns"))?;
        ensure!(now == pins, "the pins were touched: {now}");
        Ok(())
    })
}

/// The same with the client: the device knows its manager's key.
#[test]
fn a_server_that_replaces_a_known_client_does_not_come_in() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        first_session(world)?;
        let keys = taken_over(world, World::CLIENT)?;
        // A relay that has seen the true key refuses already; one that has not believes the server.
        world.kill_piece(Piece::Relay)?;
        world.start_piece(Piece::Relay)?;
        let home = world.dir().join("another-client");
        std::fs::create_dir_all(&home)?;
        let mut other = world.postern(World::CLIENT);
        other.env("HOME", &home).args(["sshnp", "-f", World::CLIENT, "-t", World::DEVICE, "-d", World::DEVICE_NAME]);
        other.args(["-r", World::RELAY, "--root-domain", &world.root(), "--verbose"]).arg("-k").arg(&keys);
        other.arg("-i").arg(world.identity());
        for option in world.ssh_options() {
            other.args(["-o", &format!("-o {option}")]);
        }
        other.args(["-u", &user_name(), "--min-security", "sealed", "--daemon-ping-timeout", "8", "--", "echo inside"]);
        // What the device says of it is encrypted to the client that it knows: the other one cannot read it.
        is_refused(run(other, SESSION)?, &["No response from the device daemon"])?;
        let device = world.piece(Piece::Device)?;
        let told = device.wait_for_line(COMMAND, |line| line.contains("sealed session refused"))?;
        ensure!(told.contains("client=@client") && told.contains("was not signed by its atSign"), "{told}");
        Ok(())
    })
}

/// Whoever answers in the device's place says that it can do no better than the programs of 2024.
#[test]
fn a_known_device_that_claims_to_be_old_gets_no_old_session() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let pins = first_session(world)?;
        world.kill_piece(Piece::Device)?;
        let _old = start_other_daemon(world, &world.key_file(World::DEVICE), &["--dialect", "5.11"])?;
        is_refused(run(sshnp(world), SESSION)?, &["No response from the device daemon"])?;
        let now = std::fs::read_to_string(world.home_of(World::CLIENT).join(".config/postern/known_atsigns"))?;
        ensure!(now == pins, "the pins were touched: {now}");
        // Whose pin is removed by a person may be reached as it is.
        postern(world, &["pin", "remove", &format!("{}{}", World::DEVICE_NAME, World::DEVICE)])?.success()?;
        let lesser = run(sshnp(world), SESSION)?.success()?;
        ensure!(lesser.text().contains("inside") && !lesser.stderr.contains("sealed session"), "{}", lesser.stderr);
        Ok(())
    })
}
