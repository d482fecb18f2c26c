//! A connected identity: directory, login, get, put, notify, monitor, reconnect.
//!
//! One TLS connection carries everything: requests, replies and pushed
//! notifications. A task of its own keeps it alive; callers hold a [`Client`].

mod driver;
mod error;
mod handle;
mod keyfile;
pub mod limits;
mod settings;
mod sharing;
mod signing_key;
mod start;
mod wire;

pub use error::ClientError;
pub use handle::{Client, Inbox};
pub use keyfile::{KeyFile, KeyFileTrouble, default_key_file};
pub use settings::{BadRoot, Identity, Settings, parse_root};
pub use start::{StartError, connect_patiently, home_dir, identity, user_name};
pub use wire::{Wire, find_server};
