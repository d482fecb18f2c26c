//! `noop:⟨ms⟩`, `info`, `info:brief`.

use std::fmt;

use crate::{ErrorCode, ProtocolError};

/// Waits, then says `ok`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noop {
    /// At most 5000.
    pub ms: u32,
}

/// Version and uptime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Version and milliseconds only.
    pub brief: bool,
}

impl Noop {
    /// Longest wait in milliseconds. Source: reference.
    const MAX_MS: u32 = 5000;

    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        match args.trim().parse::<u32>() {
            Ok(ms) if ms <= Self::MAX_MS => Ok(Self { ms }),
            Ok(_) => Err(ProtocolError::new(ErrorCode::IllegalArguments, "noop waits at most 5000 milliseconds")),
            Err(_) => Err(ProtocolError::invalid_command()),
        }
    }
}

impl Info {
    pub(crate) fn parse(after: &str) -> Result<Self, ProtocolError> {
        match after.to_ascii_lowercase().as_str() {
            "" => Ok(Self { brief: false }),
            ":brief" => Ok(Self { brief: true }),
            _ => Err(ProtocolError::invalid_command()),
        }
    }
}

impl fmt::Display for Noop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "noop:{}", self.ms)
    }
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.brief { "info:brief" } else { "info" })
    }
}
