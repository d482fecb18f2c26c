//! One real session with a daemon of another machine: emulated there, everything else of this machine.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_testkit::{Options, World, say};

use super::Target;
use super::tools;

/// An emulated daemon on a machine that has much to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `sshnp ... uname` through it; returns how it was run.
pub(super) fn run(target: &Target, binary: &Path, postern: &Path) -> anyhow::Result<String> {
    let mut program = Vec::new();
    if !target.is_native() {
        let (name, words) = target.emulator.split_first().context("the table names an emulator for each machine")?;
        program.push(tools::emulator(name).display().to_string());
        program.extend(words.iter().map(|word| (*word).to_owned()));
    }
    let how = if target.is_native() { "natively".to_owned() } else { format!("under {}", target.emulator.join(" ")) };
    program.push(binary.display().to_string());
    say(format_args!("one session with the daemon for {}, {how}", target.name));
    let options = Options { binary: Some(postern.to_owned()), device_program: program, ..Options::default() };
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
    Ok(format!("one sealed session by ssh, {how}, {:.1} s", output.took.as_secs_f64()))
}
