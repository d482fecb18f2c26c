//! Why another server could not be spoken to, and what our own client is told.

use postern_dialogue::peer::{ClaimError, passed_on};
use postern_net::tls::ConnectError;
use postern_proto::{AtSign, ErrorCode, ProtocolError, WireError};
use postern_store::StoreError;

/// One failure in speaking to another operator's server.
#[derive(Debug)]
pub(crate) enum PeerError {
    /// No directory knows the atSign, or what it says cannot be dialled.
    NotFound(AtSign),
    /// No directory answered, or the server cannot be reached, or it broke off.
    Unreachable(String),
    /// It did not answer in time.
    TooSlow(&'static str),
    /// All connections or all memory for such answers are in use.
    TooMany,
    /// It did not accept that we speak for our owner.
    Handshake(String),
    /// It answered with an error.
    Refused(WireError),
    /// It said what the protocol does not have.
    Nonsense,
    /// Our own store failed.
    Store(StoreError),
}

impl PeerError {
    /// Trying another notification of the same recipient now would end the same way.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self, Self::NotFound(_) | Self::Unreachable(_) | Self::TooSlow(_))
    }

    /// The same request on a fresh connection may do better.
    pub(super) fn is_lost_link(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }

    pub(crate) fn into_protocol(self) -> ProtocolError {
        let (code, text) = match self {
            Self::NotFound(who) => (ErrorCode::SecondaryNotFound, format!("no directory knows {who}")),
            Self::Unreachable(why) => (ErrorCode::UnableToConnect, why),
            Self::TooSlow(what) => (ErrorCode::Timeout, format!("{what} took too long")),
            Self::TooMany => (ErrorCode::OutboundLimit, "too many connections to other servers, try later".to_owned()),
            Self::Handshake(why) => (ErrorCode::Handshake, why),
            Self::Refused(error) => return passed_on(&error),
            Self::Nonsense => (ErrorCode::UnableToConnect, "the other server's answer makes no sense".to_owned()),
            Self::Store(_) => (ErrorCode::DataStore, "storage failed : nothing was stored".to_owned()),
        };
        ProtocolError::new(code, text)
    }
}

impl From<StoreError> for PeerError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ClaimError> for PeerError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Refused(error) => Self::Handshake(passed_on(&error).message),
            ClaimError::OutOfTurn => Self::Handshake("the other server's challenge has a wrong shape".to_owned()),
        }
    }
}

impl From<ConnectError> for PeerError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::TimedOut { .. } => Self::TooSlow("connecting to the other server"),
            error => Self::Unreachable(error.to_string()),
        }
    }
}
