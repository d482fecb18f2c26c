//! SQLite's failures in the words of the promise. Its messages can name the file, so they stay here.

use postern_store::StoreError;
use rusqlite::{Error, ErrorCode};

pub(crate) type Result<T, E = StoreError> = std::result::Result<T, E>;

/// For `map_err`.
#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(crate) fn sql(error: Error) -> StoreError {
    match &error {
        Error::SqliteFailure(failure, _) | Error::SqlInputError { error: failure, .. } => match failure.code {
            ErrorCode::DiskFull => StoreError::Full,
            ErrorCode::DatabaseCorrupt => StoreError::Corrupt("SQLite finds the file damaged".into()),
            ErrorCode::NotADatabase => StoreError::Corrupt("the file is not an SQLite database".into()),
            _ => StoreError::Io(failure.to_string()),
        },
        Error::InvalidColumnType(..)
        | Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::Utf8Error(..) => unreadable("column"),
        _ => StoreError::Io("unexpected answer from SQLite".into()),
    }
}

/// A stored value that we would not have written.
pub(crate) fn unreadable(what: &str) -> StoreError {
    StoreError::Corrupt(format!("unreadable {what}"))
}
