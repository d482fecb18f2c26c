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

/// Runs `srvd` with its arguments, the program name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let config = match cli::read(args) {
        Ok(config) => config,
        Err(code) => return code,
    };
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
