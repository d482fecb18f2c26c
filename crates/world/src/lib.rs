//! The world in virtual time. Both ends of several sessions run the code that ships; between them everything belongs to
//! an attacker, who drops, delays, cuts, duplicates, replays, changes bytes and joins sockets that do not belong together.
//! A seed makes a schedule, the same each time.
//!
//! After each step a simple reference is asked ([`Violation`] says what it can find): each payload byte is tagged by
//! session, stream, direction and place, so that a byte in the wrong hands, twice, or out of order is seen at once; and when the
//! attacker has gone, every session that he has not ended comes to its end with all its bytes.
//!
//! A [`Traitor`] is a side with one of its guards taken away. The world has to notice: that shows that the guard bites,
//! and that the attacker is worth something.
//!
//! This is a session's life, with keys that are given; [`opening`] is how it begins.

mod attack;
mod campaign;
mod channel;
mod dice;
mod end;
pub mod limits;
pub mod opening;
mod schedule;
mod tag;

pub use campaign::{Campaign, Outcome};
pub use dice::Dice;
pub use schedule::{Told, run};

use std::fmt;

/// A guard that is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traitor {
    /// The client takes bytes as they come: no record is checked.
    ClientReadsUnsealed,
    /// The device does.
    DeviceReadsUnsealed,
    /// All sessions have the same keys, as if nothing bound them to the session.
    SharedKeys,
    /// Every epoch of a session has the keys of its first.
    KeysOfTheFirstEpoch,
    /// The device dials what is not on its list.
    DeviceSkipsPermit,
    /// The device begins anew when a session goes on: what came before is forgotten.
    DeviceForgetsPosition,
    /// The client takes the loss of a connection for the end of what the other side had to say.
    ClientTakesLossForEnd,
}

impl Traitor {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ClientReadsUnsealed,
        Self::DeviceReadsUnsealed,
        Self::SharedKeys,
        Self::KeysOfTheFirstEpoch,
        Self::DeviceSkipsPermit,
        Self::DeviceForgetsPosition,
        Self::ClientTakesLossForEnd,
    ];
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broke {
    /// A byte that was meant for somebody else, or changed, or out of its order, or twice.
    WrongByte,
    /// An end of a stream in the middle of its bytes.
    CutShort,
    /// A stream to a target that the device's list does not name.
    Forbidden,
    /// Two honest ends take each other for liars.
    Misunderstanding,
    /// In a fair network a session did not come to its end.
    NotCompleted,
    /// A session ended though nobody had touched it.
    EndedForNothing,
    /// More than a bound allows.
    Bound,
    /// A request acted twice.
    Twice,
    /// Somebody obeyed a request that its sender did not make.
    Forged,
    /// Words or deeds for somebody who was not meant.
    WrongParty,
}

/// What went wrong, and how to see it again.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which promise.
    pub broke: Broke,
    /// Details.
    pub what: String,
    /// The seed of the schedule.
    pub seed: u64,
    /// Which world: an argument, or nothing.
    pub again: &'static str,
    /// The last things that happened.
    pub trace: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}: {}", self.broke, self.what)?;
        for line in &self.trace {
            writeln!(f, "    {line}")?;
        }
        write!(f, "again with: cargo xtask world {}--runs 1 --seed {}", self.again, self.seed)
    }
}

impl std::error::Error for Violation {}
