//! What programs and their agent say to each other: lines of JSON on a unix socket.
//!
//! Both are the same user's, and of the same build: what one does not understand the other has not sent. There is one
//! question on each connection. A question for a stream brings one end of a socket pair with it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A question, and where it comes from.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// Of the two programs' build and surroundings: see [`super::place::surroundings`].
    pub(crate) surroundings: String,
    pub(crate) ask: Ask,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// Carry the socket that comes with the question to this target.
    Stream(Box<Wish>),
    Status,
    /// Close all sessions; the logins stay.
    Close,
    /// End, with all sessions.
    Stop,
}

/// One connection to something a device reaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) device: String,
    pub(crate) relays: Vec<String>,
    /// The atDirectory.
    pub(crate) root: String,
    pub(crate) key_file: Option<PathBuf>,
    /// Host and port; `None`: the device's ssh server.
    pub(crate) target: Option<(String, u16)>,
    /// For the device to answer.
    pub(crate) patience: Duration,
    /// How long a lost connection may stay lost; zero: not at all.
    pub(crate) resume: Duration,
    /// Only keys that a person gave count.
    pub(crate) strict: bool,
    /// The steps of the set-up are to be told.
    pub(crate) verbose: bool,
}

/// An answer; a stream has two: at its beginning and at its end.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// The stream is on its way; what is written goes out.
    Begun {
        /// The session was there already.
        live: bool,
        /// Lines for whoever wants to know more.
        told: Vec<String>,
    },
    /// The stream has ended.
    Ended,
    /// It could not be had, or broke; text for the user.
    Failed {
        why: String,
        /// Somebody decided against us.
        refusal: bool,
    },
    /// The agent is not for this program: it is to go by itself.
    GoAlone {
        why: String,
    },
    Status(Box<Status>),
    /// It ends as soon as its sessions are closed.
    Stopping,
}

/// What the agent holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Status {
    pub(crate) pid: u32,
    pub(crate) uptime_seconds: u64,
    /// Seconds until it ends if nobody asks for anything; 0 while streams are open.
    pub(crate) ends_in_seconds: u64,
    pub(crate) sessions: Vec<SessionStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SessionStatus {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) device: String,
    /// `live`, `resuming`.
    pub(crate) state: String,
    pub(crate) seconds: u64,
    /// Open at the moment.
    pub(crate) streams: usize,
    pub(crate) bytes_out: u64,
    pub(crate) bytes_back: u64,
    pub(crate) key_exchange: String,
    pub(crate) cipher: String,
}
