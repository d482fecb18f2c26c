//! Error codes and errors as the wire names them.

use std::fmt;

/// The atProtocol's error codes, with the reference's description of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// AT0002: storage failed.
    DataStore,
    /// AT0003: unknown verb, grammar mismatch.
    InvalidSyntax,
    /// AT0005: request too long; the connection closes.
    BufferLimit,
    /// AT0006: too many connections to other atServers.
    OutboundLimit,
    /// AT0007: the directory does not know the other atSign.
    SecondaryNotFound,
    /// AT0008: the other atServer did not accept us, or we not it.
    Handshake,
    /// AT0009: not allowed on this connection.
    Unauthorized,
    /// AT0010: our own fault.
    Internal,
    /// AT0011: enrolment, throttling, requests out of turn.
    InternalException,
    /// AT0012: no seat; the connection closes.
    InboundLimit,
    /// AT0013: blocked or refused; the connection closes.
    Connection,
    /// AT0015: no such key.
    KeyNotFound,
    /// AT0016: wrong owner, wrong key type, key too long.
    InvalidKey,
    /// AT0021: the other atServer cannot be reached.
    UnableToConnect,
    /// AT0022: bad argument.
    IllegalArguments,
    /// AT0023: the other atServer was too slow.
    Timeout,
    /// AT0025: enrolment denied.
    EnrollmentDenied,
    /// AT0026: enrolment pending.
    EnrollmentPending,
    /// AT0027: enrolment revoked.
    EnrollmentRevoked,
    /// AT0028: enrolment expired or unknown.
    EnrollmentExpired,
    /// AT0031: revoking one's own enrolment without `force`.
    SelfRevocation,
    /// AT0401: authentication failed or missing.
    Authentication,
}

const TABLE: [(ErrorCode, &str, &str); 22] = [
    (ErrorCode::DataStore, "AT0002", "DataStore exception"),
    (ErrorCode::InvalidSyntax, "AT0003", "Invalid syntax"),
    (ErrorCode::BufferLimit, "AT0005", "Buffer limit exceeded"),
    (ErrorCode::OutboundLimit, "AT0006", "Outbound connection limit exceeded"),
    (ErrorCode::SecondaryNotFound, "AT0007", "Secondary server not found"),
    (ErrorCode::Handshake, "AT0008", "Handshake failure"),
    (ErrorCode::Unauthorized, "AT0009", "UnAuthorized client in request"),
    (ErrorCode::Internal, "AT0010", "Internal server error"),
    (ErrorCode::InternalException, "AT0011", "Internal server exception"),
    (ErrorCode::InboundLimit, "AT0012", "Inbound connection limit exceeded"),
    (ErrorCode::Connection, "AT0013", "Connection Exception"),
    (ErrorCode::KeyNotFound, "AT0015", "key not found"),
    (ErrorCode::InvalidKey, "AT0016", "Invalid key"),
    (ErrorCode::UnableToConnect, "AT0021", "Unable to connect to secondary"),
    (ErrorCode::IllegalArguments, "AT0022", "Illegal arguments"),
    (ErrorCode::Timeout, "AT0023", "Timeout waiting for response"),
    (ErrorCode::EnrollmentDenied, "AT0025", "Apkam Auth Denied"),
    (ErrorCode::EnrollmentPending, "AT0026", "Apkam Auth Failed"),
    (ErrorCode::EnrollmentRevoked, "AT0027", "Apkam Access Revoked"),
    (ErrorCode::EnrollmentExpired, "AT0028", "Too Many Requests"),
    (ErrorCode::SelfRevocation, "AT0031", "Cannot revoke self enrollment"),
    (ErrorCode::Authentication, "AT0401", "Client authentication failed"),
];

impl ErrorCode {
    fn row(self) -> &'static (Self, &'static str, &'static str) {
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[7])
    }

    /// `AT0015` and so on.
    pub fn code(self) -> &'static str {
        self.row().1
    }

    /// The reference's standard description.
    pub fn description(self) -> &'static str {
        self.row().2
    }

    /// Finds the code by its text; `None` for codes we never act on.
    pub fn from_code(text: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == text).map(|row| row.0)
    }
}

/// An error with the words that go on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    /// What kind.
    pub code: ErrorCode,
    /// What exactly; never a secret, never a path.
    pub message: String,
    /// The reference reports enrolment states with a colon and never as JSON.
    pub colon_shape: bool,
}

impl ProtocolError {
    /// An ordinary error.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), colon_shape: false }
    }

    /// `error:AT0003-Exception: invalid command`: what the reference answers to anything it cannot read.
    pub fn invalid_command() -> Self {
        Self::new(ErrorCode::InvalidSyntax, "invalid command")
    }

    /// The colon shape of enrolment states: `error:AT0026:enrollment_id: 12 is pending`.
    pub fn enrollment(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), colon_shape: true }
    }

    /// `AT0401 … Command cannot be executed without auth`.
    pub fn needs_auth() -> Self {
        Self::new(ErrorCode::Authentication, "Command cannot be executed without auth")
    }

    /// `AT0015 ⟨key⟩ does not exist in keystore`.
    pub fn no_such_key(key: impl fmt::Display) -> Self {
        Self::new(ErrorCode::KeyNotFound, format!("{key} does not exist in keystore"))
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.code.code(), self.code.description(), self.message)
    }
}

impl std::error::Error for ProtocolError {}
