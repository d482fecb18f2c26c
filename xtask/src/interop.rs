//! `cargo xtask interop`: published programs of others against ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};
use postern_testkit::say;

use crate::install;
use crate::steps::{build_postern, root, run as run_program};

/// Says which requirements an environment was made from; written last.
const STAMP: &str = "made-from.txt";

/// Installs what is missing, builds, runs the suite.
pub(crate) fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    install::install(&install::FOR_TESTS)?;
    let postern = build_postern(&["--quiet", "-p", "postern", "-p", "postern-interop"])?;
    let status = start(&postern, args)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The suite with programs that are built.
pub(crate) fn suite(postern: &Path, args: &[String]) -> anyhow::Result<()> {
    let status = start(postern, args)?;
    ensure!(status.success(), "the suite ended with {status}");
    Ok(())
}

fn start(postern: &Path, args: &[String]) -> anyhow::Result<std::process::ExitStatus> {
    install::install(&install::FOR_INTEROP)?;
    let environments = make_environments()?;
    let suite = postern.with_file_name("postern-interop");
    let mut command = Command::new(&suite);
    command.arg("--environments").arg(environments).args(args).env("POSTERN_BIN", postern);
    command.status().with_context(|| format!("cannot run {}", suite.display()))
}

/// One virtual environment for each file in `interop/requirements`, kept until the file changes.
fn make_environments() -> anyhow::Result<PathBuf> {
    let environments = root().join("target/interop");
    let requirements = root().join("interop/requirements");
    for entry in fs::read_dir(&requirements).with_context(|| format!("cannot read {}", requirements.display()))? {
        let file = entry?.path();
        let name = file.file_stem().context("a requirements file has a name")?;
        let wanted = fs::read_to_string(&file)?;
        let dir = environments.join(name);
        if fs::read_to_string(dir.join(STAMP)).is_ok_and(|made_from| made_from == wanted) {
            continue;
        }
        install::install_venv()?;
        say(format_args!("installing {} from the Python package index", name.to_string_lossy()));
        run_program(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
        let mut pip = Command::new(dir.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&file);
        run_program(&mut pip)?;
        fs::write(dir.join(STAMP), wanted)?;
    }
    Ok(environments)
}
