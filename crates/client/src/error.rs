//! What can go wrong between us and an atServer, told so that a user can act.

use std::fmt;

use postern_net::tls::ConnectError;
use postern_proto::{AtSign, ErrorCode, ServerAddress, WireError};

/// Why a request did not succeed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The directory cannot be reached.
    Directory(ConnectError),
    /// The directory answered something that is no address.
    DirectoryNonsense(ServerAddress),
    /// The directory does not know this atSign.
    NotInDirectory(AtSign, ServerAddress),
    /// The atServer cannot be reached.
    Connect(ConnectError),
    /// The atServer refused our proof.
    LoginRefused(AtSign, WireError),
    /// The atServer sent something else than a challenge.
    Challenge,
    /// The link was lost before the answer came.
    LinkLost,
    /// No answer in time.
    TimedOut(&'static str),
    /// The server's error reply.
    Server(WireError),
    /// The value is not what it should be.
    Malformed(&'static str),
    /// The record is there, but not born yet or expired.
    Inactive,
    /// Decryption or signing failed.
    Crypto(&'static str),
    /// The client is shut down.
    Stopped,
}

impl ClientError {
    /// The server says that there is no such key.
    pub fn is_no_such_key(&self) -> bool {
        matches!(self, Self::Server(error) if error.code == Some(ErrorCode::KeyNotFound))
    }

    /// Errors that time may heal. A certificate that we do not trust is not one of them.
    pub fn is_passing(&self) -> bool {
        match self {
            // A clock that is ahead may be set by the network yet.
            Self::Directory(error) | Self::Connect(error) => !error.is_certificate() || error.is_date(),
            Self::LinkLost | Self::TimedOut(_) => true,
            _ => false,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(error) => write!(f, "the atDirectory: {error}"),
            Self::DirectoryNonsense(root) => {
                write!(f, "{root} does not answer like an atDirectory; is --root-domain right?")
            }
            Self::NotInDirectory(who, root) => {
                write!(f, "{who} is not known to the atDirectory at {root}; is the name right, and --root-domain?")
            }
            Self::Connect(error) => write!(f, "the atServer: {error}"),
            Self::LoginRefused(who, error) => write!(
                f,
                "the atServer of {who} refused our keys ({error}); is the key file the right one, and is its enrolment still valid?"
            ),
            Self::Challenge => {
                f.write_str("the atServer sent something else than a challenge; is --root-domain right?")
            }
            Self::LinkLost => f.write_str("the connection to the atServer was lost"),
            Self::TimedOut(what) => write!(f, "timed out waiting for {what}"),
            Self::Server(error) => write!(f, "the atServer answered: {error}"),
            Self::Malformed(what) => write!(f, "{what} is malformed"),
            Self::Inactive => f.write_str("the record is not born yet or has expired"),
            Self::Crypto(what) => write!(f, "cannot decrypt or sign {what}"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<std::io::Error> for ClientError {
    fn from(_: std::io::Error) -> Self {
        Self::LinkLost
    }
}
