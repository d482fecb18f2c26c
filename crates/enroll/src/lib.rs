//! Activation of an atSign: `at_activate`.
//!
//! Keys are made here, at the edge; the server gets public halves and, encrypted
//! under a key that it never sees, what a later device of the same atSign needs.

mod cli;
mod onboard;
mod status;

use std::ffi::OsString;
use std::process::ExitCode;

use postern_observe::say;

use crate::cli::Command;

/// Runs `at_activate` with its arguments, the program name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let command = match cli::read(args) {
        Ok(command) => command,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(format_args!("at_activate: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match command {
        Command::Onboard(task) => match runtime.block_on(onboard::run(task)) {
            Ok(path) => {
                say(format_args!("[Success] Your .atKeys file saved at {}", path.display()));
                ExitCode::SUCCESS
            }
            Err(error) => {
                say(format_args!("[Error] {error}"));
                ExitCode::FAILURE
            }
        },
        Command::Status(task) => {
            let (status, text) = runtime.block_on(status::run(task));
            say(format_args!("returning {}: {text}", status as u8));
            ExitCode::from(status as u8)
        }
    }
}

/// The command line, for completions.
pub fn command() -> clap::Command {
    cli::command()
}
