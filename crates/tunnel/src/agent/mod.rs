//! The agent: a program of the user's own that keeps logins and sealed sessions warm, so that the next `ssh` to a device
//! waits for one way there and back instead of four. `ControlMaster` in spirit, for all programs and devices at once.
//!
//! ```text
//! connect ──► unix socket, mode 0600 ──► agent ──► one login per atSign, one sealed session per device, many streams
//! ```
//!
//! Nothing needs it: a program that finds none, or one of another build, goes by itself. The agent has the rights of its
//! user and gives them to that user alone: it asks the system who is at the other end of its socket, as the programs do
//! before they trust it.

mod caller;
mod cli;
mod keeper;
mod limits;
mod place;
mod sessions;
mod warm;
mod wire;
mod words;

pub(crate) use caller::{AgentStream, Found, Manner, stream};
pub(crate) use cli::{command, main, status};
pub(crate) use words::Wish;
