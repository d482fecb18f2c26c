//! A connected identity: directory, login, get, put, notify, monitor, reconnect.
//!
//! One TLS connection carries everything: requests, replies and pushed
//! notifications. A task of its own keeps it alive; callers hold a [`Client`].

mod driver;
mod enrollments;
mod error;
mod handle;
mod keyfile;
pub mod limits;
mod newcomer;
mod records;
mod settings;
mod sharing;
mod signing_key;
mod start;
mod wire;

pub use enrollments::{EnrollmentInfo, EnrollmentStatus};
pub use error::ClientError;
pub use handle::{Client, Inbox};
pub use keyfile::{KeyFile, KeyFileTrouble, default_key_file};
pub use newcomer::{EnrollmentRequest, PendingEnrollment};
pub use records::{Copies, RecordOptions};
pub use settings::{BadRoot, Identity, Settings, parse_root};
pub use start::{StartError, connect_patiently, home_dir, identity, user_name};
pub use wire::{Wire, find_server};
