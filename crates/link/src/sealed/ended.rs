//! How streams and sessions come to an end, and how they are meanwhile.

use std::fmt;
use std::time::Duration;

use postern_streams::RefusalCode;

use crate::pump::Carried;

/// A session that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub why: Why,
    /// Bytes of all streams together, as programs read and wrote them.
    pub carried: Carried,
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// This end closed it.
    Closed(String),
    /// The other end closed it, with its words (at most 256 characters, printable).
    ClosedByPeer(String),
    /// The way to the other end was lost, and resumption is off.
    Lost,
    /// The way was lost and did not come back within the time agreed on.
    NotResumed(Duration),
    /// The device refused to resume it.
    Refused(String),
    /// The relay refused to go on.
    Relay(String),
    /// The other end broke a rule, or somebody in between changed something.
    Broken(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(why) => f.write_str(why),
            Self::ClosedByPeer(why) => write!(f, "the other end closed the session: {why}"),
            Self::Lost => f.write_str("the connection to the other end was lost"),
            Self::NotResumed(limit) => {
                write!(f, "the connection to the other end was lost and did not come back within {} s", limit.as_secs())
            }
            Self::Refused(why) => write!(f, "the device did not resume the session: {why}"),
            Self::Relay(why) => write!(f, "the relay ended the session: {why}"),
            Self::Broken(why) => write!(f, "the session was broken: {why}"),
        }
    }
}

/// A live session, as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How it stands.
    pub state: State,
    /// Bytes so far.
    pub carried: Carried,
    /// Streams that are open.
    pub streams: usize,
    /// 0, and one more after each resumption.
    pub epoch: u32,
}

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Both ends are connected.
    Live,
    /// The way is lost; what is under way is kept.
    Suspended,
    /// Over.
    Over,
}

/// Why a stream was not opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamRefused {
    /// The other end said no, with its words (at most 256 characters, printable).
    Refused(RefusalCode, String),
    /// The session was or came to its end.
    Over(Why),
    /// More streams than a session has.
    TooMany,
    /// The stream was open and one of its ends failed: a reset.
    Reset,
}

impl fmt::Display for StreamRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code, text) if text.is_empty() => write!(f, "the device refused: {code}"),
            Self::Refused(code, text) => write!(f, "the device refused: {code}: {text}"),
            Self::Over(why) => why.fmt(f),
            Self::TooMany => f.write_str("this session carries as many connections as it can"),
            Self::Reset => f.write_str("the connection was reset"),
        }
    }
}

impl std::error::Error for StreamRefused {}
