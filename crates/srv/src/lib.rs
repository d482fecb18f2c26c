//! `srv`: one end of a relay session as a program of its own.
//!
//! Daemons and clients of NoPorts start it, hand it secrets in the environment, and wait for [`STARTED`] in what it says.
//! Ours carry their sessions themselves; this is for those who replace the program only. It starts no children, so nobody
//! inherits the secrets.

mod cli;
mod log;
mod run;
mod secrets;

use std::ffi::OsString;
use std::process::ExitCode;

/// What the parent waits for. Source: the contract of `srv`.
pub const STARTED: &str = "rv started successfully";

/// What tells the parent that it waits in vain.
pub const FAILED: &str = "Exception running srv";

/// Something went wrong after the arguments were found good.
const UNHANDLED: u8 = 200;

/// Runs `srv` with its arguments, the program name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let config = match cli::read(args) {
        Ok(config) => config,
        Err(code) => return code,
    };
    postern_observe::init(config.verbosity);
    postern_net::tasks::install_panic_hook();
    postern_net::tcp::raise_file_limit();
    let mut log = log::Log::open(&std::env::temp_dir());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run::run(config, &mut log)),
        Err(error) => Err(run::SrvError::Runtime(error)),
    };
    match outcome {
        Ok(()) => {
            log.remove();
            ExitCode::SUCCESS
        }
        Err(error) => {
            log.say(&format!("{FAILED} : {error}"));
            ExitCode::from(UNHANDLED)
        }
    }
}

/// The command line, for completions.
pub fn command() -> clap::Command {
    cli::command()
}
