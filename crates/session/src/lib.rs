//! What client and device say to each other: requests, replies, keys, streams, permit-open.
//!
//! Pure: bytes, text and `now` in, decisions out. The relay and the server never
//! see this crate; they carry what it makes.

mod control;
mod dialect;
mod door;
mod host_keys;
mod keys;
pub mod limits;
mod permit;
mod permit_listen;
mod ping;
mod replay;
mod reply;
mod request;
mod sealed;
mod span;
mod ssh_key;

pub use control::{ControlLine, ControlReader, ControlTooLong};
pub use dialect::{BadDialect, Dialect};
pub use door::{Admitted, Denied, Door, Guest, Knocked, LiveSession};
pub use host_keys::{HostKeys, HostKeysError};
pub use keys::{DirectionKey, EphemeralKey, SealedKeys, StreamKeys};
pub use permit::{BadPermit, HostPort, PermitOpen};
pub use permit_listen::PermitListen;
pub use ping::{Features, MissingFeature, PingResponse};
pub use postern_identity::{BadDeviceName, DeviceName, EnrollmentClaim, EnrollmentFault, Envelope, EnvelopeError};
pub use reply::{EphemeralSshKey, Reply, ReplyError};
pub use request::{NptRequest, RelayAuth, RelayEnd, SessionRequest, SshRequest};
pub use sealed::{
    AsksSealed, BadOffer, Digest, Offer, Proof, RefusalCode, Refused, RequestError, SealedOffer, SealedReply,
    SealedRequest, SignedRequest,
};
pub use span::{BadSpan, parse_span};
pub use ssh_key::{BadSshKey, SshPublicKey};

/// Namespace of everything between client and daemon.
pub const NAMESPACE: &str = "sshnp";
/// Namespace of everything between client and relay.
pub const RELAY_NAMESPACE: &str = "sshrvd";
