//! `cargo xtask world`: the world in virtual time, for as many schedules as one likes.

use std::process::ExitCode;

use crate::steps::{cargo, run as run_program};

/// Builds and runs it.
pub(crate) fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    run_program(cargo().args(["run", "--quiet", "--package", "postern-world", "--"]).args(args))?;
    Ok(ExitCode::SUCCESS)
}
