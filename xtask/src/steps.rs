//! Running programs one after another, on standard error only.

use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use postern_testkit::say;

/// Steps done, with their times.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<(String, Duration)>,
}

impl Steps {
    /// Does one step. The first that fails ends it all: the caller returns its error.
    pub(crate) fn step<T>(&mut self, name: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        say(format_args!("\n== {name}"));
        let start = Instant::now();
        let outcome = work().with_context(|| format!("step \"{name}\""));
        let took = start.elapsed();
        if outcome.is_err() {
            self.say_times();
            say(format_args!("{:>8.1} s  {name}  FAILED", took.as_secs_f64()));
        }
        self.done.push((name.to_owned(), took));
        if outcome.is_ok() {
            say(format_args!("-- {:.1} s, {:.1} s in all", took.as_secs_f64(), self.total().as_secs_f64()));
        }
        outcome
    }

    /// What was done and how long it took.
    pub(crate) fn say_times(&self) {
        say(format_args!("\ntime       step"));
        for (name, took) in &self.done {
            say(format_args!("{:>8.1} s  {name}", took.as_secs_f64()));
        }
    }

    /// Each step that was done and how long it took.
    pub(crate) fn done(&self) -> &[(String, Duration)] {
        &self.done
    }

    /// Everything so far.
    pub(crate) fn total(&self) -> Duration {
        self.done.iter().map(|(_, took)| *took).sum()
    }
}

/// The cargo that runs us, in the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Set for us by the outer cargo; a nested one would take it for its own and build things anew.
    command.env_remove("CARGO_MANIFEST_DIR");
    command
}

/// Runs a program to its successful end, its output on our standard error.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let line = line.join(" ");
    say(format_args!("$ {line}"));
    let status = command.stdout(stderr()?).status().with_context(|| format!("cannot run {line}"))?;
    if !status.success() {
        bail!("{line}: {status}");
    }
    Ok(())
}

/// Has cargo compile the workspace by clippy, which is the compiler with lints; a lint is an error. `cargo clippy` would
/// check everything before it is built, the libraries of others as well, and nothing of that is used again.
///
/// # Errors
/// There is no clippy beside the compiler.
pub(crate) fn linted(command: &mut Command) -> anyhow::Result<&mut Command> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).current_dir(root()).output()?;
    let sysroot = String::from_utf8(output.stdout)?;
    let clippy = Path::new(sysroot.trim()).join("bin/clippy-driver");
    ensure!(clippy.is_file(), "there is no {}: rustup component add clippy", clippy.display());
    // As `cargo clippy` does it; its words end with this mark.
    let words: String = ["-D", "warnings"].map(|word| format!("{word}__CLIPPY_HACKERY__")).concat();
    Ok(command.env("RUSTC_WORKSPACE_WRAPPER", clippy).env("CLIPPY_ARGS", words))
}

/// Builds `postern` as the tests use it and returns where it is.
pub(crate) fn build_postern(args: &[&str]) -> anyhow::Result<PathBuf> {
    run(cargo().arg("build").args(args))?;
    built_postern()
}

/// Where the build has left it.
///
/// # Errors
/// Nowhere.
pub(crate) fn built_postern() -> anyhow::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let path = target.join("debug/postern");
    path.canonicalize().with_context(|| format!("the build left no {}", path.display()))
}

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// Our standard error as somebody's standard output: ours is for data.
fn stderr() -> io::Result<Stdio> {
    Ok(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?))
}
