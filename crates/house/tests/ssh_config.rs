//! The user's own ssh and scp over `postern connect`, with the block that `postern ssh-config` writes.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_house::in_house;
use postern_testkit::limits::SESSION;
use postern_testkit::{Options, Piece, World, run, say};

/// Enough for several records of every cipher on the way.
const COPIED: usize = 3_000_000;

/// Lays down the configuration of the clients and the block for ssh; gives a maker of ssh-like commands.
fn prepare(world: &World, host_key: &str) -> anyhow::Result<impl Fn(&World, &str, bool) -> Command + use<>> {
    let config = world.home_of(World::CLIENT).join("config.yaml");
    let yaml = format!(
        "from: \"{}\"\nto: \"{}\"\nrelay: \"{}\"\nroot: {}\nkey-file: {}\npatience: 4s\nhosts:\n  {}: {{host-keys: [\"{}\"]}}\n",
        World::CLIENT,
        World::DEVICE,
        World::RELAY,
        world.root(),
        world.key_file(World::CLIENT).display(),
        World::DEVICE_NAME,
        host_key.trim()
    );
    std::fs::write(&config, yaml)?;
    let mut block = world.postern(World::CLIENT);
    block.args(["ssh-config", "--config"]).arg(&config);
    let block = run(block, SESSION)?.success()?.text();
    ensure!(block.contains("StrictHostKeyChecking yes"), "{block}");
    let file = world.home_of(World::CLIENT).join("postern.conf");
    std::fs::write(&file, format!("{block}\n"))?;
    Ok(move |world: &World, program: &str, shared: bool| {
        let mut command = world.places().client.command(program);
        command.env("HOME", world.home_of(World::CLIENT)).env("POSTERN_CA_FILE", world.ca_file());
        command.env_remove("SSH_AUTH_SOCK").arg("-F").arg(&file).arg("-i").arg(world.identity());
        command.args(["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]);
        // The block keeps its sockets in the person's own home, which a test leaves alone.
        let socket = world.dir().join("%C").display().to_string();
        command.args(["-o", &format!("ControlPath={socket}"), "-o", "ControlPersist=3"]);
        if !shared {
            command.args(["-o", "ControlMaster=no", "-o", "ControlPath=none"]);
        }
        command
    })
}

fn host_key_of(world: &World) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(world.dir().join("ssh_host_ed25519_key.pub"))?;
    Ok(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

#[test]
fn ssh_and_scp_work_and_nothing_is_asked() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let ssh = prepare(world, &host_key_of(world)?)?;
        let host = format!("{}.np", World::DEVICE_NAME);
        for shared in [false, true] {
            let mut command = ssh(world, "ssh", shared);
            command.args([host.as_str(), "echo inside; cat; exit 7"]).stdin(std::process::Stdio::null());
            let output = run(command, SESSION)?.exited(7)?;
            ensure!(output.stdout == b"inside\n", "{:?}", output.text());
            let (from, to) = (world.dir().join("from"), world.dir().join(format!("to-{shared}")));
            let bytes: Vec<u8> = (0..COPIED).map(|n| u8::try_from(n * 31 % 251).unwrap_or_default()).collect();
            std::fs::write(&from, &bytes)?;
            let mut copy = ssh(world, "scp", shared);
            copy.arg("-q").arg(&from).arg(format!("{host}:{}", to.display()));
            run(copy, SESSION)?.success()?;
            ensure!(std::fs::read(&to)? == bytes, "the copy differs");
        }
        Ok(())
    })
}

#[test]
fn a_wrong_host_key_is_refused() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let wrong = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
        let ssh = prepare(world, wrong)?;
        let mut command = ssh(world, "ssh", false);
        command.args([&format!("{}.np", World::DEVICE_NAME), "echo inside"]);
        let output = run(command, SESSION)?.exited(255)?;
        ensure!(output.stdout.is_empty(), "{:?}", output.text());
        ensure!(output.stderr.contains("Host key verification failed"), "{}", output.stderr);
        Ok(())
    })
}

/// ssh throws away what its ProxyCommand says on stderr when connections are shared; what is said in its own protocol
/// it shows.
#[test]
fn an_offline_device_is_told_by_ssh_itself() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let ssh = prepare(world, &host_key_of(world)?)?;
        world.kill_piece(Piece::Device)?;
        for shared in [false, true] {
            let mut command = ssh(world, "ssh", shared);
            command.args([&format!("{}.np", World::DEVICE_NAME), "echo inside"]);
            let output = run(command, Duration::from_secs(30))?.exited(255)?;
            say(format_args!("shared {shared}: {}", output.stderr));
            let told = output.stderr.lines().find(|line| line.contains("Received disconnect"));
            let told = told.with_context(|| format!("ssh did not show it: {}", output.stderr))?;
            ensure!(told.contains(World::DEVICE_NAME), "{told}");
        }
        Ok(())
    })
}
