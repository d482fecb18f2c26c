//! `cargo xtask bench`

use std::process::ExitCode;

use crate::install;
use crate::steps;

/// Builds what is measured as it is shipped and runs the figures.
pub(crate) fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    install::install(&install::FOR_TESTS)?;
    steps::run(steps::cargo().args(["build", "--release", "-p", "postern", "-p", "postern-bench"]))?;
    // The table is data: it goes where our own standard output goes.
    let mut bench = steps::cargo();
    bench.args(["run", "--quiet", "--release", "-p", "postern-bench", "--"]).args(args);
    let status = bench.status()?;
    anyhow::ensure!(status.success(), "the bench ended with {status}");
    Ok(ExitCode::SUCCESS)
}
