//! What ssh says when `postern connect` cannot bring it to its host, with the block that `postern ssh-config` writes.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_house::{OwnTools, Sharing, Told, in_house};
use postern_testkit::{Options, Piece, World, say};

#[test]
fn a_wrong_host_key_is_refused() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let wrong = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
        let tools = OwnTools::prepare_with(world, Told { host_key: Some(wrong), ..Told::default() })?;
        let output = tools.on_device(world, Sharing::Alone, "echo inside")?.exited(255)?;
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
        let tools = OwnTools::prepare(world)?;
        world.kill_piece(Piece::Device)?;
        for sharing in Sharing::BOTH {
            let output = tools.on_device(world, sharing, "echo inside")?.exited(255)?;
            say(format_args!("{sharing:?}: {}", output.stderr));
            ensure!(output.took < Duration::from_secs(30), "it took {:?}", output.took);
            let told = output.stderr.lines().find(|line| line.contains("Received disconnect"));
            let told = told.with_context(|| format!("ssh did not show it: {}", output.stderr))?;
            ensure!(told.contains(World::DEVICE_NAME), "{told}");
        }
        Ok(())
    })
}
