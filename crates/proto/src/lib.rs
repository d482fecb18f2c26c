//! The atProtocol as types: names, keys, metadata, requests, replies, pushes and the bounded line reader.
//!
//! A line of text is looked at once, here; behind this crate nobody matches on text.
//! Nothing in it opens a socket, reads a clock or knows a cipher.

mod atkey;
mod atsign;
mod directory;
mod error;
mod id;
mod line;
mod metadata;
mod notification;
mod params;
mod record;
mod reply;
mod request;
mod signing_key;
mod time;
pub mod verb;

pub use atkey::{AtKey, KeyError, MAX_KEY_CHARS, Visibility};
pub use atsign::{AtSign, AtSignError};
pub use directory::{DirectoryAnswer, DirectoryQuery, ServerAddress};
pub use error::{ErrorCode, ProtocolError};
pub use id::{NotificationId, Uuid};
pub use line::{LineReader, LineTooLong};
pub use metadata::{BadMetadata, Metadata, MetadataChange};
pub use notification::{MessageType, Notification, Operation, Priority, Routing, stats_line};
pub use record::Record;
pub use reply::{Detail, ErrorShape, Prompt, Reply, ServerLine, WireError};
pub use request::Request;
pub use signing_key::SigningKeyName;
pub use time::{Millis, day_start, parse_wire_date, wire_date};
