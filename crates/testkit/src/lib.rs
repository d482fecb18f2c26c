//! Real processes, namespaces and strategies for tests; never shipped.
//!
//! [`World`] is a whole house in a temporary directory: server, relay, daemon and the device's ssh
//! server, each a real process that can be killed and started again. [`NatNetwork`] puts client and
//! device behind address translation, in network namespaces of their own.

mod binary;
mod dropbear;
#[cfg(feature = "fuzz")]
pub mod fuzz;
pub mod limits;
mod lone;
mod memory;
mod nat;
mod place;
mod process;
mod say;
mod shell;
mod sockets;
mod sshd;
mod star;
pub mod tcp;
mod world;

pub use binary::postern_bin;
pub use lone::LoneNetwork;
pub use memory::{Memory, MemoryWatch};
pub use nat::NatNetwork;
pub use place::Place;
pub use process::{Mark, Output, Process, kill_all_started, run};
pub use say::say;
pub use shell::{quote_for_shell, shell_line};
pub use sockets::{Listener, ListenerWatch};
pub use sshd::end_sessions;
pub use star::StarNetwork;
pub use world::{Options, Piece, Places, SshServer, World, user_name};
