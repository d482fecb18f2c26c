//! `at_activate`: what it makes, what it refuses, and the exit codes that scripts read.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::ensure;
use postern_house::in_house;
use postern_testkit::limits::COMMAND;
use postern_testkit::{Options, Output, Piece, World, run};

/// An atSign that is added here and activated by the tests.
const NEWCOMER: &str = "@newcomer";

fn add(world: &World, name: &str) -> anyhow::Result<String> {
    let mut add = world.postern(World::RELAY);
    add.args(["server", "add", name]).arg("--dir").arg(world.dir().join("server"));
    Ok(run(add, COMMAND)?.success()?.text())
}

fn onboard(world: &World, name: &str, secret: &str, file: &std::path::Path) -> anyhow::Result<Output> {
    let mut command = world.postern(World::CLIENT);
    command.args(["at_activate", "onboard", "-a", name, "-c", secret, "-r", &world.root(), "-k"]).arg(file);
    run(command, COMMAND)
}

fn status(world: &World, name: &str, root: &str) -> anyhow::Result<Output> {
    let mut command = world.postern(World::CLIENT);
    command.args(["at_activate", "status", "-a", name, "-r", root]);
    run(command, COMMAND)
}

#[test]
fn keys_are_made_once_and_never_overwritten() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let secret = add(world, NEWCOMER)?;
        let file = world.dir().join("client/keys/newcomer.atKeys");

        let output = onboard(world, NEWCOMER, "not the secret", &file)?.exited(1)?;
        ensure!(output.stderr.contains("CRAM secret is not the one of @newcomer"), "{}", output.stderr);
        ensure!(!file.exists(), "a failed activation left a file");

        onboard(world, NEWCOMER, &secret, &file)?.success()?;
        ensure!(std::fs::metadata(&file)?.permissions().mode() & 0o777 == 0o600, "the key file is not private");
        let keys = std::fs::read(&file)?;

        let output = onboard(world, NEWCOMER, &secret, &file)?.exited(1)?;
        ensure!(output.stderr.contains("never overwritten"), "{}", output.stderr);
        ensure!(std::fs::read(&file)? == keys, "the key file was touched");

        let other = world.dir().join("client/keys/other.atKeys");
        let output = onboard(world, NEWCOMER, &secret, &other)?.exited(1)?;
        ensure!(output.stderr.contains("activated already"), "{}", output.stderr);
        ensure!(!other.exists(), "a refused activation left a file");
        Ok(())
    })
}

#[test]
fn the_exit_codes_of_status() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        add(world, NEWCOMER)?;
        let root = world.root();
        status(world, World::CLIENT, &root)?.success()?;
        let output = status(world, NEWCOMER, &root)?.exited(1)?;
        ensure!(output.stderr.contains("returning 1: "), "{}", output.stderr);
        status(world, "@nobody", &root)?.exited(3)?;
        world.kill_piece(Piece::Server)?;
        status(world, World::CLIENT, &root)?.exited(4)?;
        Ok(())
    })
}
