//! `cargo xtask fuzz`: discovery. The committed corpus is replayed by the ordinary tests.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use postern_testkit::say;

use crate::install::is_there;
use crate::steps::{self, cargo, root};

/// How long a search lasts when nobody says.
const SECONDS: u32 = 60;

fn search(target: &str, seconds: u32) -> anyhow::Result<()> {
    let corpus = root().join("fuzz/corpus").join(target);
    if !corpus.is_dir() {
        bail!("no target is called {target}; there are: {}", targets()?.join(", "));
    }
    if !is_there("cargo-fuzz") {
        bail!(
            "cargo-fuzz is not here; get it and its compiler with\n  cargo install --locked cargo-fuzz\n  rustup toolchain install nightly"
        );
    }
    // New inputs go to a directory of their own; what is worth keeping is committed by hand.
    let found = root().join("fuzz/target/found").join(target);
    std::fs::create_dir_all(&found)?;
    let limit = format!("-max_total_time={seconds}");
    let mut command = cargo();
    command.env("RUSTUP_TOOLCHAIN", "nightly").args(["fuzz", "run", target]);
    steps::run(command.arg(found).arg(corpus).args(["--", &limit, "-max_len=16384"]))
}

/// Lists the targets, or searches with one.
pub(crate) fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    match args {
        [] => say(format_args!("{}", targets()?.join("\n"))),
        [target] => search(target, SECONDS)?,
        [target, seconds] => search(target, seconds.parse().context("SECONDS is a number")?)?,
        _ => bail!("cargo xtask fuzz [TARGET [SECONDS]]"),
    }
    Ok(ExitCode::SUCCESS)
}

fn targets() -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(root().join("fuzz/corpus")).context("no corpus")?;
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}
