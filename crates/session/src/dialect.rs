//! Generations of programs. Ours speak the newest and understand all; told to, they behave as an
//! older one did, so that tests can put every pair of generations together.

use std::fmt;
use std::str::FromStr;

/// Whose habits a program has. Source: NoPorts features, versions, compatibility.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// Version 4 and the Python daemon: no features in heartbeats, no relay authentication, no
    /// encryption but that of ssh, an ephemeral ssh key in the reply, only `ssh_request`.
    V4,
    /// The C daemon of 2024: no ephemeral key, one session key, always encrypted, says nothing when
    /// it refuses, and reads exactly three fields in a control line.
    C2024,
    /// 5.6, of 2024: signed lines at the relay, one session key, ports by choice.
    V5_6,
    /// 5.11, of 2025: a key for each direction, heartbeats on the control channel.
    V5_11,
    /// This version.
    #[default]
    Current,
}

/// A text that names no dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadDialect(String);

impl Dialect {
    /// All, oldest first.
    pub const ALL: [Self; 5] = [Self::V4, Self::C2024, Self::V5_6, Self::V5_11, Self::Current];

    /// Knows `npt_request`, relay authentication and encryption.
    pub fn is_v5(self) -> bool {
        self > Self::V4
    }

    /// Knows a key for each direction and heartbeats on the control channel.
    pub fn has_twin_keys(self) -> bool {
        self >= Self::V5_11
    }

    /// Answers a relay's challenges (relay authentication mode `escr`).
    pub fn answers_challenges(self) -> bool {
        self >= Self::V5_11
    }

    /// Numbers its relay sockets, so that none is joined with another's.
    pub fn numbers_sockets(self) -> bool {
        self == Self::Current
    }

    /// Announces a connection on the control channel before its socket has authenticated, in a line without an end.
    pub fn announces_first(self) -> bool {
        self == Self::V5_6
    }

    /// Makes and sends an ephemeral ssh key with every ssh session, also when nobody uses it.
    pub fn always_makes_ssh_keys(self) -> bool {
        matches!(self, Self::V4 | Self::V5_6 | Self::V5_11)
    }

    /// Says why it refuses.
    pub fn tells_refusals(self) -> bool {
        self > Self::C2024
    }

    /// As the option takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::C2024 => "c2024",
            Self::V5_6 => "5.6",
            Self::V5_11 => "5.11",
            Self::Current => "current",
        }
    }
}

impl FromStr for Dialect {
    type Err = BadDialect;

    fn from_str(text: &str) -> Result<Self, BadDialect> {
        Self::ALL.into_iter().find(|dialect| dialect.as_str() == text).ok_or_else(|| BadDialect(text.to_owned()))
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for BadDialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no dialect: v4, c2024, 5.6, 5.11 or current", self.0)
    }
}

impl std::error::Error for BadDialect {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for dialect in Dialect::ALL {
            assert_eq!(dialect.to_string().parse(), Ok(dialect));
        }
        assert!("5.7".parse::<Dialect>().is_err());
    }
}
