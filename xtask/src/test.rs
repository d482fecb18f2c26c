//! `cargo xtask test`: everything CI runs, the cheapest first; the first failure ends it.

use std::process::ExitCode;

use anyhow::{bail, ensure};
use postern_testkit::say;

use crate::steps::{Steps, built_postern, cargo, linted, run as run_program};
use crate::{arrows, install, interop};

/// Runs all steps.
pub(crate) fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    if let Some(odd) = args.first() {
        bail!("cargo xtask test takes no arguments, not {odd}; for some tests: cargo nextest run -p CRATE");
    }
    let mut steps = Steps::default();
    steps.step("install what is missing", install::for_tests)?;
    steps.step("format", || run_program(cargo().args(["fmt", "--all", "--check", "--", "-l"])))?;
    steps.step("arrows between crates", || arrows::check_workspace().map(drop))?;
    // One build for all that follows: the same packages, profile and features as nextest's own, so
    // that nothing is compiled twice, not even for the lints.
    let postern = steps.step("build, with lints", || {
        run_program(linted(&mut cargo())?.args(["build", "--quiet", "--workspace", "--all-targets"]))?;
        built_postern()
    })?;
    steps.step("tests, fuzz corpus among them", || {
        run_program(linted(&mut cargo())?.args(["nextest", "run", "--workspace"]).env("POSTERN_BIN", &postern))
    })?;
    steps.step("programs of others", || interop::suite(&postern, &[]))?;
    steps.step("examples in the documentation", || {
        run_program(linted(&mut cargo())?.args(["test", "--quiet", "--workspace", "--doc"]))
    })?;
    steps.step("demo", || {
        for more in [&[][..], &["--builtin-ssh"]] {
            // Not `current_exe`: the builds above may have put a new xtask in the place of the one that runs.
            let mut demo = std::process::Command::new("/proc/self/exe");
            demo.env("POSTERN_BIN", &postern).args(["demo", "--verbose"]).args(more);
            let output = demo.args(["--", "sh", "-c", "echo inside; exit 7"]).output()?;
            let told = String::from_utf8_lossy(&output.stderr);
            say(format_args!("{told}"));
            ensure!(told.contains("sealed session: X25519MLKEM768, TLS13_"), "the session was not sealed");
            ensure!(output.stdout == b"inside\n", "it printed {:?}", String::from_utf8_lossy(&output.stdout));
            ensure!(output.status.code() == Some(7), "it ended with {}", output.status);
        }
        Ok(())
    })?;
    steps.step("what an idle device costs", || {
        let mut idle = std::process::Command::new("/proc/self/exe");
        // Enough for the promises: a silence that still grows costs more than a month of it.
        idle.args(["idle", "--minutes", "0.6"]).env("POSTERN_BIN", &postern);
        run_program(&mut idle)
    })?;
    steps.step("size and memory of the device build", || {
        run_program(std::process::Command::new("/proc/self/exe").arg("footprint").env("POSTERN_BIN", &postern))
    })?;
    steps.say_times();
    say(format_args!("{:>8.1} s  all\n\ngreen", steps.total().as_secs_f64()));
    Ok(ExitCode::SUCCESS)
}
