//! Numbers that say why.

use std::fmt;

/// Why a stream was not opened: the code of REFUSED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// The device's list or its policy does not let this client reach the target.
    NotPermitted,
    /// The target refused the connection.
    TargetRefused,
    /// The target did not answer.
    TargetUnreachable,
    /// The target's name is unknown at the device.
    NameUnknown,
    /// The session carries as many streams as it may.
    TooManyStreams,
    /// The name leads to an address that is never dialled unless it is listed: link-local, metadata, unspecified.
    ForbiddenAddress,
    /// The device cannot listen on the port: somebody else does.
    PortTaken,
    /// A code of a later version.
    Unknown(u16),
}

impl RefusalCode {
    /// As it is on the wire.
    #[must_use]
    pub fn to_u16(self) -> u16 {
        match self {
            Self::NotPermitted => 1,
            Self::TargetRefused => 2,
            Self::TargetUnreachable => 3,
            Self::NameUnknown => 4,
            Self::TooManyStreams => 5,
            Self::ForbiddenAddress => 6,
            Self::PortTaken => 7,
            Self::Unknown(code) => code,
        }
    }
}

impl From<u16> for RefusalCode {
    fn from(code: u16) -> Self {
        match code {
            1 => Self::NotPermitted,
            2 => Self::TargetRefused,
            3 => Self::TargetUnreachable,
            4 => Self::NameUnknown,
            5 => Self::TooManyStreams,
            6 => Self::ForbiddenAddress,
            7 => Self::PortTaken,
            other => Self::Unknown(other),
        }
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPermitted => f.write_str("not permitted"),
            Self::TargetRefused => f.write_str("the target refused the connection"),
            Self::TargetUnreachable => f.write_str("the target cannot be reached"),
            Self::NameUnknown => f.write_str("the device does not know the name"),
            Self::TooManyStreams => f.write_str("too many connections in this session"),
            Self::ForbiddenAddress => f.write_str("an address that this device never dials"),
            Self::PortTaken => f.write_str("the device cannot listen on the port"),
            Self::Unknown(code) => write!(f, "code {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_as_they_went() {
        for code in 0..20 {
            assert_eq!(RefusalCode::from(code).to_u16(), code);
        }
        assert_eq!(RefusalCode::from(6), RefusalCode::ForbiddenAddress);
    }
}
