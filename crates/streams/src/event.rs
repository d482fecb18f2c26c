//! What comes out of a session, and what a program asks of it.

use std::fmt;

use crate::code::RefusalCode;

/// Number of a stream: odd ones are the client's, even ones the device's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub(crate) u32);

impl StreamId {
    /// The stream to the device's ssh server that is open from the start of an `ssh_request`.
    pub const SSH: Self = Self(1);
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something the other end said.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// It opens a stream for this, text of a stranger: see [`Ask`](crate::Ask). Answer with `accept` or `refuse`.
    Opened(StreamId, &'a str),
    /// It accepted our stream.
    Accepted(StreamId),
    /// It refused our stream; its words are printable, at most 256 characters. The stream is gone.
    Refused(StreamId, RefusalCode, String),
    /// Bytes. They count against the window until `consumed` says that they were handed out.
    Data(StreamId, &'a [u8]),
    /// No more bytes will come on this stream.
    Ended(StreamId),
    /// The stream is gone in the middle.
    Reset(StreamId),
    /// It leaves; its words are printable, at most 256 characters.
    Goodbye(u16, String),
    /// A resumed session goes on from here.
    Resumed,
}

/// How the other end broke the rules. The session cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Bytes that are no frame of ours.
    NoFrame,
    /// A frame out of place.
    OutOfPlace,
    /// More bytes than the window had room for, or a window beyond all measure.
    Window,
    /// An opening with a number that is not its own next.
    Number,
    /// It acknowledges or asks again for frames that it cannot.
    Position,
    /// It makes us answer and does not read.
    Flood,
    /// A frame after GOODBYE.
    AfterGoodbye,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFrame => "it sent bytes that are no frame",
            Self::OutOfPlace => "it sent a frame out of place",
            Self::Window => "it did not keep to the window of a stream",
            Self::Number => "it opened a stream with a number that is not its next",
            Self::Position => "it acknowledged frames that were not sent",
            Self::Flood => "it made us answer without reading",
            Self::AfterGoodbye => "it went on after its goodbye",
        })
    }
}

impl std::error::Error for Broken {}

/// What the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Nothing to do but to transmit.
    Nothing,
    /// The other end is silent for too long: the way is lost.
    Silent,
    /// The way was lost and did not come back in time.
    NotResumed,
}

/// A stream whose turn it is to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Which.
    pub stream: StreamId,
    /// How many bytes at most; at least one.
    pub room: usize,
}
