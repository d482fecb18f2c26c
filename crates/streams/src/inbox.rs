//! Bytes to frames, piece by piece: bodies of DATA are handed on as they come.

use crate::frame::{Header, Kind};
use crate::limits::HEADER;

/// A piece of what came.
pub(crate) enum Piece<'a> {
    /// A whole frame that is no DATA.
    Frame(Header, &'a [u8]),
    /// Bytes of a DATA frame that were not handed out before; `last`: the frame is whole.
    Data { stream: u32, bytes: &'a [u8], last: bool },
}

/// Where we are in the sequence of frames.
#[derive(Default)]
pub(crate) struct Inbox {
    head: [u8; HEADER],
    have: usize,
    state: State,
    body: Vec<u8>,
    /// The DATA frame in the middle of which the connection was lost: it comes again.
    cut: Option<Cut>,
}

#[derive(Default)]
enum State {
    #[default]
    Head,
    Body(Header),
    Data(Data),
}

#[derive(Clone, Copy)]
struct Data {
    header: Header,
    /// Bytes of the body that have come.
    come: usize,
    /// The first so many were handed out on an earlier connection.
    known: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Cut {
    header: Header,
    handed: usize,
}

/// A header that breaks a rule, or a frame that is not the one that was cut.
#[derive(Debug)]
pub(crate) struct BadFrame;

impl Inbox {
    /// Takes the next piece off the front of `bytes`. `None`: all was taken and no piece is ready.
    pub(crate) fn next<'a, 'b: 'a>(&'a mut self, bytes: &mut &'b [u8]) -> Result<Option<Piece<'a>>, BadFrame> {
        loop {
            match self.state {
                State::Head => {
                    let take = bytes.len().min(HEADER - self.have);
                    let (head, rest) = bytes.split_at(take);
                    if let Some(place) = self.head.get_mut(self.have..self.have + take) {
                        place.copy_from_slice(head);
                    }
                    *bytes = rest;
                    self.have += take;
                    if self.have < HEADER {
                        return Ok(None);
                    }
                    self.have = 0;
                    let header = Header::parse(self.head).ok_or(BadFrame)?;
                    self.state = self.begin(header)?;
                }
                State::Body(header) => {
                    if self.body.is_empty() && bytes.len() >= header.length {
                        let (body, rest) = bytes.split_at(header.length);
                        *bytes = rest;
                        self.state = State::Head;
                        return Ok(Some(Piece::Frame(header, body)));
                    }
                    let take = bytes.len().min(header.length - self.body.len());
                    let (part, rest) = bytes.split_at(take);
                    self.body.extend_from_slice(part);
                    *bytes = rest;
                    if self.body.len() < header.length {
                        return Ok(None);
                    }
                    self.state = State::Head;
                    return Ok(Some(Piece::Frame(header, &self.body)));
                }
                State::Data(mut data) => {
                    if bytes.is_empty() {
                        return Ok(None);
                    }
                    let take = bytes.len().min(data.header.length - data.come);
                    let (part, rest) = bytes.split_at(take);
                    *bytes = rest;
                    let part = part.get(data.known.saturating_sub(data.come).min(take)..).unwrap_or_default();
                    data.come += take;
                    let last = data.come == data.header.length;
                    self.state = if last { State::Head } else { State::Data(data) };
                    if last || !part.is_empty() {
                        return Ok(Some(Piece::Data { stream: data.header.stream, bytes: part, last }));
                    }
                }
            }
        }
    }

    fn begin(&mut self, header: Header) -> Result<State, BadFrame> {
        self.body.clear();
        let cut = if header.kind.counted() { self.cut.take() } else { None };
        if cut.is_some_and(|cut| cut.header != header) {
            return Err(BadFrame);
        }
        Ok(match header.kind {
            Kind::Data => State::Data(Data { header, come: 0, known: cut.map_or(0, |cut| cut.handed) }),
            _ => State::Body(header),
        })
    }

    /// The connection was lost: the next byte is the first of a frame.
    pub(crate) fn restart(&mut self) {
        if let State::Data(data) = self.state {
            let handed = data.come.max(data.known);
            self.cut = Some(Cut { header: data.header, handed });
        }
        self.state = State::Head;
        self.have = 0;
        self.body.clear();
    }

    /// Lets go of memory.
    pub(crate) fn rest(&mut self) {
        if self.body.capacity() > 64 && !matches!(self.state, State::Body(_)) {
            self.body = Vec::new();
        }
    }
}
