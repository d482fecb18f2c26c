//! The relay's language and its mind.
//!
//! A client asks a relay for two ports ([`RelayRequest`]); the relay opens them and answers ([`RelayReply`]). Client and
//! device then dial one port each, send one signed line ([`AuthLine`]), and the relay joins their sockets by number, or in
//! order of arrival for programs that do not number them ([`Meeting`]). Newer programs answer a challenge instead
//! ([`escr`]); [`mode`] says when. Two Posterns ask for nothing before: each shows a [`Ticket`], which the relay checks by
//! itself, and [`Hall`] joins the two. This crate is pure: no sockets, no clock, no randomness; they are parameters. It
//! holds nothing of the keys between client and device.

pub mod auth;
pub mod escr;
pub mod hall;
pub mod hints;
pub mod limits;
pub mod meeting;
pub mod mode;
pub mod place;
pub mod refusal;
pub mod reply;
pub mod request;
pub mod ticket;

pub use auth::{AuthFailure, AuthLine, Expected, HashAlgo, SignedLine};
pub use escr::{Challenge, ChallengeSigner, Claim, EscrLine, EscrParties, EscrProver, Proven};
pub use hall::{Hall, HallAction, HallRules};
pub use meeting::{Action, Meeting, MeetingRules, Side, SocketId, Why};
pub use mode::{Detection, ModeRefused, ModeWish, Opening};
pub use place::{BadAddress, RelayAddress, RelayPlace, RelayRecord};
pub use postern_identity::AdvertisedKeys;
pub use refusal::{Refusal, RefusalCode};
pub use reply::{Nack, RelayReply, ReplyError};
pub use request::{AuthMode, RelayAuthKey, RelayRequest, RequestError};
pub use ticket::{Ticket, TicketClaim, TicketTo};

/// The namespace of all notifications between a relay and its guests.
pub const NAMESPACE: &str = "sshrvd";
