//! A connected identity: directory, login, records, notifications, enrolments, reconnect.
//!
//! One TLS connection carries everything: requests, replies and pushed
//! notifications. A task of its own keeps it alive; callers hold a [`Client`].
//!
//! ```no_run
//! use postern_client::{Client, RecordOptions, Settings, identity, parse_root};
//! use postern_net::tasks::Tasks;
//! use postern_net::tls::Trust;
//! use postern_proto::AtSign;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let (me, friend) = (AtSign::parse("@me")?, AtSign::parse("@friend")?);
//! let settings = Settings {
//!     root: parse_root("door.example.org")?,
//!     trust: Trust::load()?,
//!     heartbeat: std::time::Duration::from_secs(60),
//!     monitor: Some(r"\.notes@".into()), // hear of what is called ….notes
//! };
//! let tasks = Tasks::new(); // stopping them ends the connection
//! let (client, mut inbox) = Client::connect(identity(&me, None)?, settings, &tasks).await?;
//! client.put_own("list.notes", "milk", RecordOptions::default()).await?;
//! client.put_shared_with(&friend, "hello.notes", "for you alone", RecordOptions::default()).await?;
//! client.notify(&friend, "ping.notes", "look at hello", None).await?;
//! while let Some(push) = inbox.next().await {
//!     println!("{}: {}", push.from, *client.open(&push).await?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | to do | call |
//! |---|---|
//! | keep something for all devices of one's own atSign | [`Client::put_own`], [`Client::get_own`] |
//! | share it with one other atSign | [`Client::put_shared_with`], [`Client::get_shared`], [`Client::get_sent`] |
//! | publish it, signed | [`Client::put_public`], [`Client::get_public`] |
//! | list, delete | [`Client::scan`], [`Client::scan_of`], [`Client::delete`] |
//! | tell somebody something now | [`Client::notify`]; [`Inbox::next`], [`Client::open`] |
//! | speak for oneself, know others again | [`trust::OwnIdentity`], [`trust::KnownKeys`] |
//! | let a further device in | [`PendingEnrollment`] there; [`Client::one_time_passcode`], [`Client::enrollments`], [`Client::approve`] here |
//! | anything else | [`Client::request`] with a verb of `postern_proto` |
//!
//! After a lost link the client comes back by itself and asks for the notifications that it missed; requests under way
//! are sent again. A value that another atSign shares is decrypted with the key that came with it, or the one that its
//! owner left for us. There is no tag on what the atProtocol encrypts: the servers in between can change it, and what
//! must not be changed has to be signed.

mod addresses;
mod driver;
mod enrollments;
mod error;
mod fan;
pub mod files;
mod habits;
mod handle;
mod keyfile;
pub mod limits;
mod link;
mod mutex;
mod newcomer;
mod own;
mod records;
mod settings;
mod sharing;
mod signing_key;
mod start;
mod time;
pub mod trust;
mod wire;

pub use addresses::AddressBook;
pub use enrollments::{EnrollmentInfo, EnrollmentStatus};
pub use error::ClientError;
pub use fan::Fan;
pub use habits::{Habits, Network, Profile};
pub use handle::{Client, Inbox, Login};
pub use keyfile::{KeyFile, KeyFileTrouble, default_key_file};
pub use link::{Link, LinkState};
pub use newcomer::{Decision, EnrollmentRequest, PendingEnrollment};
pub use records::{Copies, RecordOptions};
pub use settings::{BadRoot, Identity, Settings, parse_root};
pub use start::{StartError, connect_as, connect_patiently, home_dir, identity, user_name};
pub use wire::{Wire, find_server};
