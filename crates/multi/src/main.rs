//! Reach machines that have no open port: one binary, many names.

mod applets;
#[cfg(feature = "doctor")]
mod doctor;

use std::process::ExitCode;

fn main() -> ExitCode {
    applets::run(std::env::args_os().collect())
}
