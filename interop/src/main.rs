//! Programs of others against ours; `cargo xtask interop` installs what this needs and runs it.

mod agent;
mod case;
mod cases;
mod house;
mod limits;
mod subject;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Parser;
use postern_testkit::{LoneNetwork, say};
use serde_json::json;

use crate::case::{Cell, Verdict, table};
use crate::house::House;
use crate::subject::{FAMOUS, Subject};

/// Tries every case with every published program that it is meant for.
///
/// Exit status: 0 nothing unexpected, 1 a case is red or the suite could not run. The environment
/// variable SUBJECT says against what: `ours` (the default) or `reference`, see interop/README.md.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    /// Directory with one virtual environment a program.
    #[arg(long, value_name = "DIR")]
    environments: PathBuf,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Print the results as JSON instead of the table.
    #[arg(long)]
    json: bool,
    /// Run here, in the network as it is.
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = if args.inside || !wants_own_network() { run(&args) } else { run_in_own_network() };
    outcome.unwrap_or_else(|error| {
        say(format_args!("interop: {error:#}"));
        ExitCode::FAILURE
    })
}

/// A reference server is somewhere else.
fn wants_own_network() -> bool {
    std::env::var("SUBJECT").map_or(true, |subject| subject != "reference")
}

/// This program again, where `root.atsign.org` is ours and nothing leads out.
fn run_in_own_network() -> anyhow::Result<ExitCode> {
    let network = LoneNetwork::build(&[FAMOUS.0])?;
    let mut command = network.place().command(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).arg("--inside");
    let status = command.status().context("cannot run inside the namespace")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut house = House::new(Subject::from_environment()?, &args.environments)?;
    let mut cells: Vec<Cell> = Vec::new();
    for case in cases::all() {
        if args.only.as_ref().is_some_and(|text| !case.name.contains(text.as_str())) {
            continue;
        }
        for program in case.with {
            let cell = case.try_with(&mut house, *program);
            say(format_args!("{:>6.1} s  {}  {}: {}", cell.seconds, program.title(), case.name, short(&cell.verdict)));
            cells.push(cell);
        }
    }
    ensure!(!cells.is_empty(), "no case has this in its name");
    let red = cells.iter().filter(|cell| cell.verdict.is_red()).count();
    if red > 0 {
        say(format_args!("{}", house.subject.last_words()));
    }
    let report = if args.json {
        serde_json::to_string_pretty(&json!({ "red": red, "cells": cells }))? + "\n"
    } else {
        table(&cells)
    };
    std::io::stdout().write_all(report.as_bytes())?;
    Ok(if red == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn short(verdict: &Verdict) -> &str {
    match verdict {
        Verdict::Works => "ok",
        Verdict::Skipped(_) => "fails as known",
        Verdict::NotTried(_) => "not tried",
        Verdict::Fails(_) => "FAILS",
        Verdict::WorksUnexpectedly(_) => "WORKS, against its reason",
    }
}
