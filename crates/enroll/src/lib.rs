//! Activation of an atSign, and of its further devices: `at_activate`.
//!
//! Keys are made here, at the edge; the server gets public halves and, encrypted
//! under a key that it never sees, what a later device of the same atSign needs.

mod cli;
mod device;
mod interactive;
mod manage;
mod onboard;
mod patience;
mod span;
mod status;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use postern_net::tasks::Tasks;
use postern_observe::say;

use crate::cli::{Command, Manage, Task};
use crate::manage::Desk;

/// Time for connections to end in order when all is done.
const FAREWELL: Duration = Duration::from_millis(500);

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
    let code = runtime.block_on(run(command));
    // A key that is still being made for nothing is not waited for.
    runtime.shutdown_background();
    code
}

async fn run(command: Command) -> ExitCode {
    let Command { word, target, task } = command;
    let tasks = Tasks::new();
    let outcome = match task {
        Task::Status => {
            let (status, text) = status::run(target).await;
            say(format_args!("returning {}: {text}", status as u8));
            return ExitCode::from(status as u8);
        }
        Task::Nothing => {
            say(format_args!("{} has its keys already: {}", target.at_sign, target.key_file.display()));
            Ok(())
        }
        Task::Onboard(secret) => onboard::run(&target, &secret).await.map_err(|error| error.to_string()),
        Task::Enroll(task) => device::run(&target, task).await,
        Task::Interactive => interactive::run(&target, &tasks).await,
        Task::Manage(task) => {
            let listening = matches!(task, Manage::Auto { .. });
            match Desk::open(&target, listening, &tasks).await {
                Ok(mut desk) => desk.perform(task).await,
                Err(error) => Err(error),
            }
        }
    };
    tasks.close_and_wait(FAREWELL).await;
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(format_args!("[Error] {why}"));
            tracing::debug!(word, "failed");
            ExitCode::FAILURE
        }
    }
}

/// The command line, for completions.
pub fn command() -> clap::Command {
    cli::command()
}
