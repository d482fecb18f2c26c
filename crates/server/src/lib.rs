//! The atDirectory and any number of atServers in one process.
//!
//! A line goes one way: bytes → `proto` reads it → `dialogue` knows who speaks → a verb plans →
//! the store commits → the reply is printed. Pushes come from the same commits.

mod abroad;
mod accounts;
mod beside;
mod cli;
#[cfg(feature = "doctor")]
mod doctor;
mod enrollments;
mod guesses;
mod guest;
mod health;
mod home;
mod hub;
pub mod limits;
mod misses;
mod pattern;
mod serve;
mod verbs;
mod wire;

pub use abroad::{CertificateCheck, Peers};
pub use cli::{command, main};
pub use home::{AddError, Home, HomeError, Settings, Wanted};
pub use limits::Limits;
/// Runs `doctor server` with its arguments, the program name first.
#[cfg(feature = "doctor")]
pub fn doctor_main(args: Vec<std::ffi::OsString>) -> std::process::ExitCode {
    doctor::main(args)
}

pub use serve::{Config, RunningServer, Server};
