//! One real session with programs of another machine: the daemon emulated there, or server and relay; everything else of this
//! machine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_testkit::{Options, SshServer, World, quote_for_shell, say};

use super::Target;
use super::tools;
use crate::dist::Build;

/// An emulated daemon on a machine that has much to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `sshnp ... uname` through it, and where the daemon has an ssh server of its own once more through that; returns how it
/// was run.
pub(super) fn run(target: &Target, build: Build, binary: &Path, postern: &Path) -> anyhow::Result<String> {
    let mut program = Vec::new();
    if !target.is_native() {
        let (name, words) = target.emulator.split_first().context("the table names an emulator for each machine")?;
        program.push(tools::emulator(name).display().to_string());
        program.extend(words.iter().map(|word| (*word).to_owned()));
    }
    let how = if target.is_native() { "natively".to_owned() } else { format!("under {}", target.emulator.join(" ")) };
    program.push(binary.display().to_string());
    let dir = tempfile::tempdir()?;
    let device = || Options { binary: Some(postern.to_owned()), device_program: program.clone(), ..Options::default() };
    let mut sessions = match build {
        Build::Device | Build::DeviceFull | Build::Full => vec![("the daemon", device())],
        Build::Server => {
            let both = dir.path().join("postern");
            two_in_one(&both, &program, postern)?;
            vec![("server and relay", Options { binary: Some(both), ..Options::default() })]
        }
    };
    // It starts itself anew as the user who logs in; a program that is emulated cannot.
    if matches!(build, Build::DeviceFull | Build::Full) && target.is_native() {
        sessions.push(("the daemon's own ssh server", Options { ssh_server: SshServer::BuiltIn, ..device() }));
    }
    let mut told = Vec::new();
    for (what, options) in sessions {
        say(format_args!("one session with {what} for {}, {how}", target.name));
        let took = one(options)?;
        told.push(format!("{what}: one sealed session by ssh, {how}, {:.1} s", took.as_secs_f64()));
    }
    Ok(told.join("; "))
}

/// One session; how long it took.
fn one(options: Options) -> anyhow::Result<Duration> {
    let world = World::start(options)?;
    let mut sshnp = world.sshnp();
    sshnp.args(["--min-security", "sealed", "--", "uname", "-a"]);
    let output = postern_testkit::run(sshnp, PATIENCE)?;
    let here = Command::new("uname").arg("-a").output()?.stdout;
    ensure!(
        output.status.success() && output.stdout == here,
        "the session failed: {}\n{}\n{}",
        output.status,
        output.stderr,
        world.last_words()
    );
    Ok(output.took)
}

/// A program that is server and relay of the one binary, and everything else of the other.
fn two_in_one(path: &Path, servers: &[String], others: &Path) -> anyhow::Result<()> {
    let servers: Vec<String> = servers.iter().map(|word| quote_for_shell(word)).collect();
    let others = quote_for_shell(&others.display().to_string());
    let text = format!(
        "#!/bin/sh\ncase $1 in\nserver | srvd) exec {} \"$@\" ;;\n*) exec {others} \"$@\" ;;\nesac\n",
        servers.join(" ")
    );
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}
