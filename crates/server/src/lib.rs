//! The atDirectory and any number of atServers in one process.
//!
//! A line goes one way: bytes → `proto` reads it → `dialogue` knows who speaks → a verb plans →
//! the store commits → the reply is printed. Pushes come from the same commits.

mod abroad;
mod accounts;
mod cli;
mod enrollments;
mod guesses;
mod guest;
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
pub use serve::{Config, RunningServer, Server};
