//! `cargo xtask interop`: published programs of others against ours.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, ensure};

use crate::steps::{build_postern, root};
use crate::{install, python};

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
    let environments = root().join("target/interop");
    python::environments(&root().join("interop/requirements"), &environments)?;
    let suite = postern.with_file_name("postern-interop");
    let mut command = Command::new(&suite);
    command.arg("--environments").arg(environments).args(args).env("POSTERN_BIN", postern);
    command.status().with_context(|| format!("cannot run {}", suite.display()))
}
