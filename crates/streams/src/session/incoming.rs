//! What comes in: each frame by the rules of its kind.

use std::time::Duration;

use super::{Streams, Way};
use crate::code::RefusalCode;
use crate::event::{Broken, Event, StreamId};
use crate::frame::{Header, Kind, words};
use crate::inbox::Piece;
use crate::limits::{ACK_WITHIN, FIRST_WINDOW, STREAMS};
use crate::stream::{Opening, Stream};

impl Streams {
    /// Takes bytes of the other end. Events come out in order; the rest of `bytes` is not looked at after an error.
    ///
    /// # Errors
    /// The other end broke a rule.
    pub fn receive(&mut self, mut bytes: &[u8], now: Duration, event: &mut dyn FnMut(Event<'_>)) -> Result<(), Broken> {
        self.liveness.heard(now);
        // Moved out, so that a piece may be looked at while the rest of us changes.
        let mut inbox = std::mem::take(&mut self.inbox);
        let outcome = loop {
            match inbox.next(&mut bytes) {
                Ok(Some(piece)) => {
                    if let Err(broken) = self.piece(&piece, now, event) {
                        break Err(broken);
                    }
                }
                Ok(None) => break Ok(()),
                Err(_) => break Err(Broken::NoFrame),
            }
        };
        self.inbox = inbox;
        outcome?;
        if self.outbox.flooded() { Err(Broken::Flood) } else { Ok(()) }
    }

    pub(super) fn piece(
        &mut self,
        piece: &Piece<'_>,
        now: Duration,
        event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Broken> {
        match (self.way, piece) {
            (Way::Over { flush: false }, _) => return Err(Broken::AfterGoodbye),
            (Way::Resuming, Piece::Frame(Header { kind: Kind::Position, .. }, body)) => {
                if !self.outbox.acknowledged(u64_of(body)) {
                    return Err(Broken::Position);
                }
                self.outbox.again();
                self.way = Way::Open;
                event(Event::Resumed);
                return Ok(());
            }
            (Way::Resuming | Way::Lost { .. }, _) => return Err(Broken::OutOfPlace),
            (Way::Open | Way::Over { flush: true }, _) => {}
        }
        match *piece {
            Piece::Data { stream, bytes, last } => {
                self.came(stream, bytes, now, event)?;
                self.untold += bytes.len();
                if last {
                    self.count(now);
                }
            }
            Piece::Frame(header, body) => {
                self.frame(header, body, event)?;
                match header.kind {
                    Kind::Pong => self.liveness.answered(u64_of(body), now),
                    kind if kind.counted() => self.count(now),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    pub(super) fn count(&mut self, now: Duration) {
        self.received += 1;
        self.counted = Some(now);
        if !self.resume.is_zero() {
            self.tell_by.get_or_insert(now + ACK_WITHIN);
        }
    }

    pub(super) fn came(
        &mut self,
        id: u32,
        bytes: &[u8],
        now: Duration,
        event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Broken> {
        if bytes.is_empty() {
            return Ok(());
        }
        if let Some(number) = self.liveness.measure(now) {
            self.outbox.urgent(Kind::Ping, &[&number.to_be_bytes()]);
        }
        let Some(stream) = self.stream(id)? else { return Ok(()) };
        if stream.over || stream.opening == Opening::Asked {
            return Err(Broken::OutOfPlace);
        }
        if !stream.window.take(bytes.len(), now) {
            return Err(Broken::Window);
        }
        event(Event::Data(StreamId(id), bytes));
        Ok(())
    }

    pub(super) fn frame(
        &mut self,
        header: Header,
        body: &[u8],
        event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Broken> {
        let (id, number) = (StreamId(header.stream), body.get(..4).map_or(0, u32_of));
        match header.kind {
            // Data is handed on piece by piece; a position is said once, at the start.
            Kind::Data | Kind::Position => return Err(Broken::OutOfPlace),
            Kind::Ack => {
                if !self.outbox.acknowledged(u64_of(body)) {
                    return Err(Broken::Position);
                }
                // There may be room again for those who waited.
            }
            Kind::Ping => self.outbox.urgent(Kind::Pong, &[body]),
            Kind::Pong => {}
            Kind::Goodbye => {
                let (code, text) = code_and_words(body);
                self.way = Way::Over { flush: false };
                event(Event::Goodbye(code, text));
            }
            Kind::Open => {
                let target = std::str::from_utf8(body.get(4..).unwrap_or_default()).map_err(|_| Broken::NoFrame)?;
                self.opened(id, number, target, event)?;
            }
            Kind::Accepted => {
                let Some(stream) = self.stream(id.0)? else { return Ok(()) };
                let more = number.checked_sub(FIRST_WINDOW).ok_or(Broken::Window)?;
                if stream.opening != Opening::Asked {
                    return Err(Broken::OutOfPlace);
                }
                stream.opening = Opening::Open;
                stream.credit += u64::from(more);
                event(Event::Accepted(id));
                self.queue(id.0);
            }
            Kind::Refused => {
                let Some(stream) = self.stream(id.0)? else { return Ok(()) };
                if stream.opening != Opening::Asked {
                    return Err(Broken::OutOfPlace);
                }
                self.remove(id.0);
                let (code, text) = code_and_words(body);
                event(Event::Refused(id, code.into(), text));
            }
            Kind::Window => {
                let Some(stream) = self.stream(id.0)? else { return Ok(()) };
                stream.credit += u64::from(number);
                if stream.credit > u64::from(u32::MAX) {
                    return Err(Broken::Window);
                }
                self.queue(id.0);
            }
            Kind::End => {
                let Some(stream) = self.stream(id.0)? else { return Ok(()) };
                if stream.over || stream.opening == Opening::Asked {
                    return Err(Broken::OutOfPlace);
                }
                stream.over = true;
                let done = stream.ended;
                event(Event::Ended(id));
                if done {
                    self.remove(id.0);
                }
            }
            Kind::Reset => {
                if self.stream(id.0)?.is_some() {
                    self.remove(id.0);
                    event(Event::Reset(id));
                }
            }
        }
        Ok(())
    }

    pub(super) fn opened(
        &mut self,
        id: StreamId,
        window: u32,
        target: &str,
        event: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Broken> {
        if self.is_ours(id.0) || id.0 <= self.theirs {
            return Err(Broken::Number);
        }
        self.theirs = id.0;
        if self.streams.len() >= STREAMS {
            let code = RefusalCode::TooManyStreams.to_u16().to_be_bytes();
            self.outbox.push(Kind::Refused, id.0, &[&code]);
            return Ok(());
        }
        self.insert(id.0, Stream::new(Opening::Knocked, window, FIRST_WINDOW));
        event(Event::Opened(id, target));
        Ok(())
    }

    /// The stream of a frame. `None`: it was and is gone; frames that crossed with our END or RESET mean nothing.
    pub(super) fn stream(&mut self, id: u32) -> Result<Option<&mut Stream>, Broken> {
        let known = if self.is_ours(id) { id < self.next } else { id <= self.theirs };
        if known { Ok(self.streams.get_mut(&id)) } else { Err(Broken::OutOfPlace) }
    }
}

fn u64_of(body: &[u8]) -> u64 {
    body.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn u32_of(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn code_and_words(body: &[u8]) -> (u16, String) {
    let code = body.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
    (code, words(body.get(2..).unwrap_or_default()))
}
