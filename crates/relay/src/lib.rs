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

/// The command line, for completions.
pub fn command() -> clap::Command {
    cli::command()
}
