//! Why the store said no.

use std::fmt;

/// Failure of a read or a write. The texts name no path and no content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// An assert did not hold, an account was missing, or one to be added existed.
    Conflict,
    /// No space left.
    Full,
    /// What is stored cannot be read.
    Corrupt(String),
    /// Written by a newer program than this one.
    TooNew {
        /// Schema version found.
        found: i64,
        /// Newest schema version this program knows.
        known: i64,
    },
    /// The world failed: disk, permission, a writer that is gone.
    Io(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict => f.write_str("stored state differs from what the change expects"),
            Self::Full => f.write_str("no space left in the store"),
            Self::Corrupt(what) => write!(f, "stored data is damaged: {what}"),
            Self::TooNew { found, known } => {
                write!(f, "stored data has schema version {found}, this program knows up to {known}; upgrade it")
            }
            Self::Io(what) => write!(f, "store failed: {what}"),
        }
    }
}

impl std::error::Error for StoreError {}
