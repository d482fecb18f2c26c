//! Why something could not be done, by whose move is next.

use std::fmt;
use std::process::ExitCode;

/// A sentence on what is wrong and what to do, and the exit code.
#[derive(Debug)]
pub(crate) struct Fail {
    kind: Kind,
    why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Network, disk, rights: run it again when that is mended.
    World = 1,
    /// What was typed.
    Usage = 2,
    /// Another invitation is needed.
    Invitation = 3,
    /// Something is there already that is not ours to replace.
    Taken = 4,
    /// Somebody is not who the invitation says.
    Impostor = 5,
}

impl Fail {
    pub(crate) fn new(kind: Kind, why: impl fmt::Display) -> Self {
        Self { kind, why: why.to_string() }
    }

    /// Network, disk, rights.
    pub(crate) fn world(why: impl fmt::Display) -> Self {
        Self::new(Kind::World, why)
    }

    pub(crate) fn usage(why: impl fmt::Display) -> Self {
        Self::new(Kind::Usage, why)
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }

    #[cfg(feature = "join")]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}
