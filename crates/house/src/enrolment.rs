//! Enrolments of the client, made and ended with the programs that people use.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use postern_testkit::limits::SESSION;
use postern_testkit::{Process, World, run};

/// A further key file of the client, and the id of its enrolment.
///
/// # Errors
/// The server does not let it happen.
pub fn enrol(world: &World) -> anyhow::Result<(PathBuf, String)> {
    let mut otp = at_activate(world, "otp");
    otp.arg("-k").arg(world.key_file(World::CLIENT));
    let otp = run(otp, SESSION)?.success()?.text();
    let path = world.dir().join("client/laptop.atKeys");
    let mut enroll = at_activate(world, "enroll");
    enroll.args(["-s", &otp, "-p", "laptop", "-d", "test", "-n", "sshnp:rw,sshrvd:rw", "-k"]).arg(&path);
    let mut enroll = Process::start(enroll)?;
    let said = enroll.wait_for_stdout(SESSION, |text| text.contains("Enrollment ID: ") && text.ends_with('\n'))?;
    let id = said.split("Enrollment ID: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let id = id.context("no enrolment id")?.to_owned();
    decide(world, "approve", &id)?;
    enroll.wait(SESSION)?.success()?;
    Ok((path, id))
}

/// `approve` or `revoke`, by the client's own keys.
///
/// # Errors
/// The server does not let it happen.
pub fn decide(world: &World, what: &str, id: &str) -> anyhow::Result<()> {
    let mut command = at_activate(world, what);
    command.args(["-i", id, "-k"]).arg(world.key_file(World::CLIENT));
    run(command, SESSION)?.success()?;
    Ok(())
}

fn at_activate(world: &World, what: &str) -> Command {
    let mut command = world.postern(World::CLIENT);
    command.args(["at_activate", what, "-a", World::CLIENT, "-r", &world.root()]);
    command
}
