//! The policy service: answers devices who may come in, and lets managers change the rules.
//!
//! One service with three names. `npp_file` reads its rules from a file, `npp_atserver` from groups kept as records at its
//! own atServer; `npp` keeps tables, in records or a file, that managers change from afar. What is asked is held against
//! the real sender: a device learns about itself alone.

mod book;
mod call;
mod cli;
mod keep;
mod limits;
mod offline;
mod remote;
mod service;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cli::Task;

/// Runs `npp` with its arguments, the program name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    run("npp", cli::read_npp(args))
}

/// Runs `npp_file`.
pub fn file_main(args: Vec<OsString>) -> ExitCode {
    run("npp_file", cli::read_file(args))
}

/// Runs `npp_atserver`.
pub fn atserver_main(args: Vec<OsString>) -> ExitCode {
    run("npp_atserver", cli::read_atserver(args))
}

/// `npp.yaml` with every option in comments.
pub const CONFIG_DEFAULT: &str = cli::CONFIG_DEFAULT;

/// Where `npp.yaml` is looked for when no flag names it.
#[must_use]
pub fn config_path() -> std::path::PathBuf {
    cli::config_path()
}

/// Whether a file is as the service wants it.
///
/// # Errors
/// What is wrong, for a person.
pub fn config_check(path: &std::path::Path) -> Result<(), String> {
    cli::config_check(path)
}

/// The command line of `npp`, for completions.
pub fn command() -> clap::Command {
    cli::npp_command()
}

/// The command line of `npp_file`, for completions.
pub fn file_command() -> clap::Command {
    cli::file_command()
}

/// The command line of `npp_atserver`, for completions.
pub fn atserver_command() -> clap::Command {
    cli::atserver_command()
}

fn run(name: &str, task: Result<Task, ExitCode>) -> ExitCode {
    let (verbosity, task) = match task {
        Ok(task) => (task.verbosity(), task),
        Err(code) => return code,
    };
    postern_observe::init(verbosity);
    postern_net::tasks::install_panic_hook();
    let trouble = |why: &dyn std::fmt::Display| {
        postern_observe::say(format_args!("{name}: {why}"));
        ExitCode::FAILURE
    };
    // One thread: a question is a look into a map.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return trouble(&error),
    };
    match task {
        Task::Serve(config) => match runtime.block_on(service::run(name, *config)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => trouble(&error),
        },
        Task::Check(path) => offline::check(&path),
        Task::SimulateFile(path, query) => offline::simulate(&path, &query),
        Task::Remote(remote) => match runtime.block_on(remote::run(*remote)) {
            Ok(code) => code,
            Err(error) => trouble(&error),
        },
    }
}
