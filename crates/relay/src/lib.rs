//! The socket rendezvous: joins two outbound sockets, sees ciphertext only.
//!
//! [`engine`] opens two ports per session, lets in who proves itself, and joins sockets in order of arrival; [`limits`] says
//! how much of everything. Neither knows a verb of the atProtocol. `srvd` is the daemon around them: it hears requests and
//! answers with the ports.

mod cli;
pub mod engine;
mod keys;
pub mod limits;
mod srvd;

use std::ffi::OsString;
use std::process::ExitCode;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Runs `srvd` with its arguments, the program name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let config = match cli::read(args) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if let Some(parent) = config.end_with
        && let Err(why) = end_with(parent)
    {
        postern_observe::say(format_args!("srvd: {why}"));
        return ExitCode::FAILURE;
    }
    postern_observe::init(config.verbosity);
    postern_net::tasks::install_panic_hook();
    postern_net::tcp::raise_file_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            postern_observe::say(format_args!("srvd: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(srvd::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            postern_observe::say(format_args!("Error : {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Has the kernel ask this process to end when its parent does, even by `kill -9`.
fn end_with(parent: Pid) -> Result<(), String> {
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(|error| format!("--end-with: {error}"))?;
    // It may have ended before that; in a container it has a number that is ours too.
    if getppid() == Some(parent) { Ok(()) } else { Err(format!("--end-with: process {parent:?} is not the parent")) }
}

/// `srvd.yaml` with every option in comments.
pub const CONFIG_DEFAULT: &str = cli::CONFIG_DEFAULT;

/// Where `srvd.yaml` is looked for when no flag names it.
#[must_use]
pub fn config_path() -> std::path::PathBuf {
    cli::config_path()
}

/// Whether a file is as the relay wants it.
///
/// # Errors
/// What is wrong, for a person.
pub fn config_check(path: &std::path::Path) -> Result<(), String> {
    cli::config_check(path)
}

/// The command line, for completions.
pub fn command() -> clap::Command {
    cli::command()
}
