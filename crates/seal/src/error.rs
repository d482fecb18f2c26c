//! Why an end of a sealed session gives up.

use std::fmt;

use postern_identity::StatementError;

use crate::RecordError;

/// Why there is no sealed session, or no more. The texts are for users.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SealError {
    /// The handshake failed: somebody between the ends changed it, or the other end is no Postern.
    Handshake(String),
    /// An established session failed.
    Record(RecordError),
    /// The ClientHello in the request is none, or not one of ours.
    Hello,
    /// The first words of the other end are no statement.
    NoStatement,
    /// The statement of the other end is not its identity key's.
    Statement(StatementError),
    /// The reply answers another request than ours: it was replayed or swapped.
    OtherRequest,
    /// The statement is for another session, or another epoch of ours.
    OtherSession,
    /// Another machine than the one that signed the reply holds the other end of TLS.
    OtherCertificate,
    /// Another device answers than the one we asked.
    OtherDevice {
        /// What was asked for, `gw-17@device`.
        wanted: String,
        /// What the reply says.
        got: String,
    },
    /// The reply is for another client.
    OtherClient,
    /// A yes of another version, or none.
    NotConnected,
    /// The device's clock differs from ours by so many seconds; positive: it is behind.
    Clock {
        /// The difference.
        seconds: i64,
    },
    /// The proof belongs to another TLS session: somebody sits between the ends.
    OtherExporter,
    /// What we have to say does not fit: too many or too long ssh host keys.
    StatementTooLong,
    /// A cryptographic operation failed here.
    Crypto,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(why) => {
                write!(
                    f,
                    "the TLS handshake failed ({why}): somebody between the ends changed what was sent; try another relay"
                )
            }
            Self::Record(error) => error.fmt(f),
            Self::Hello => f.write_str("the request holds no ClientHello of a sealed session"),
            Self::NoStatement => f.write_str("the other end did not say who it is"),
            Self::Statement(StatementError::Signature) => f.write_str(
                "what the other end says is not signed by its identity key; if the device was set up anew, compare its \
                 fingerprint and accept its new key",
            ),
            Self::Statement(error) => write!(f, "what the other end says is not to be believed: {error}"),
            Self::OtherRequest => f.write_str("the reply answers another request: somebody replays replies"),
            Self::OtherSession => f.write_str("what the other end says is for another session"),
            Self::OtherCertificate => {
                f.write_str("somebody else than the device holds the other end of the connection; try another relay")
            }
            Self::OtherDevice { wanted, got } => write!(f, "{got} answers where {wanted} was asked"),
            Self::OtherClient => f.write_str("the reply is for another client"),
            Self::NotConnected => {
                f.write_str("the device's reply is not one that this version understands; update both ends")
            }
            Self::Clock { seconds } => {
                let (seconds, side) = (seconds.unsigned_abs(), if *seconds < 0 { "ahead of" } else { "behind" });
                write!(f, "the device's clock is {seconds} s {side} ours; set both clocks")
            }
            Self::OtherExporter => {
                f.write_str("the client's proof is for another TLS session: somebody sits between the ends")
            }
            Self::StatementTooLong => f.write_str("the device has too many ssh host keys to name them in a reply"),
            Self::Crypto => f.write_str("a cryptographic operation failed"),
        }
    }
}

impl std::error::Error for SealError {}

impl From<rustls::Error> for SealError {
    fn from(error: rustls::Error) -> Self {
        Self::Handshake(error.to_string())
    }
}

impl From<RecordError> for SealError {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}
