//! An ssh server for devices that have none: it serves one connection over any stream, and never listens.
//!
//! Who speaks at the other end is known before the first byte: the stream is one of a sealed session. So nobody shows a key
//! or types a password here; [`Access`] says which users this client may be, and what it may dial.
//!
//! ```text
//! daemon ── serve(stream, HostKey, Access) ── one task for each channel
//!                                              └─ this binary again, as login_main(): becomes the user, then
//!                                                 a shell, a command, or an sftp server
//! ```

mod account;
mod cut;
mod input;
mod key;
mod limits;
mod login;
mod program;
mod server;
mod sftp;
mod talk;
mod terminal;

pub use account::own_user;
pub use key::{HostKey, HostKeyError};
pub use login::main as login_main;
pub use server::{Access, Dial, serve};

/// The word behind the daemon's own name that starts [`login_main`].
pub const LOGIN_WORD: &str = "ssh-login";
