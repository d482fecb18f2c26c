//! Reach machines that have no open port: one binary, many names.

mod applets;
#[cfg(feature = "talk")]
mod completions;
#[cfg(feature = "talk")]
mod config;
#[cfg(feature = "doctor")]
mod doctor;
#[cfg(feature = "talk")]
mod man;
#[cfg(feature = "talk")]
mod status;

use std::process::ExitCode;

fn main() -> ExitCode {
    applets::run(std::env::args_os().collect())
}
