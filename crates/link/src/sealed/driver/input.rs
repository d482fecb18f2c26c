//! What comes from the other end: TLS records, then frames, then events.

use std::pin::Pin;
use std::task::{Context, Poll};

use postern_session::HostPort;
use postern_streams::{Ask, Event, RefusalCode, StreamId};
use tokio::io::{AsyncRead as _, ReadBuf};

use super::Driver;
use super::way::BROKEN;
use crate::sealed::ended::{StreamRefused, Why};
use crate::sealed::limits::{BATCH, FIRST_BATCH};
use crate::sealed::meet::{is_refusal, is_whole, refusal};
use crate::sealed::plan::Target;
use crate::sealed::slot::Slot;

impl Driver {
    pub(super) fn read_relay(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        // What came with the handshake is looked at before more is read.
        if self.link.as_mut().is_some_and(|link| std::mem::take(&mut link.unseen)) {
            busy = true;
            self.take_input();
        }
        while let Some(link) = self.link.as_mut() {
            if link.have == link.input.len() {
                if link.have >= BATCH {
                    self.over = Some(Why::Broken("it sent a record that does not end".into()));
                    return true;
                }
                link.input.resize((2 * link.have).clamp(FIRST_BATCH, BATCH), 0);
            }
            let mut buffer = ReadBuf::new(link.input.get_mut(link.have..).unwrap_or_default());
            let read = match Pin::new(&mut link.socket).poll_read(cx, &mut buffer) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => buffer.filled().len(),
                Poll::Ready(Err(_)) => 0,
            };
            busy = true;
            if read == 0 {
                self.ended_by_relay();
                break;
            }
            link.have += read;
            let full = link.have == link.input.len();
            if full {
                link.input.resize((2 * link.have).min(BATCH), 0);
            }
            self.used = Some(self.start.elapsed());
            self.take_input();
            if !full {
                // The rest of the kernel's buffer, if any, comes with the next round: others have their turn.
                break;
            }
        }
        busy
    }

    pub(super) fn ended_by_relay(&mut self) {
        let Some(link) = &self.link else { return };
        let refused = refusal(link.input.get(..link.have).unwrap_or_default()).filter(|_| link.fresh);
        let why = match refused {
            Some(refusal) => Why::Relay(format!("{} ({})", refusal.text, refusal.code)),
            None => Why::Lost,
        };
        self.lost(why);
    }

    pub(super) fn take_input(&mut self) {
        let now = self.start.elapsed();
        let Some(link) = self.link.as_mut() else { return };
        let come = link.input.get(..link.have).unwrap_or_default();
        if link.fresh && is_refusal(come) {
            if is_whole(come) {
                self.ended_by_relay();
            }
            return;
        }
        link.fresh = false;
        let Some(input) = link.input.get_mut(..link.have) else { return };
        let (streams, slots, dirty, ready) = (&mut self.streams, &mut self.slots, &mut self.dirty, &self.ready);
        let deaf = self.leaving.as_ref().is_some_and(|leaving| leaving.ours);
        let mut broken = None;
        let mut later = Vec::new();
        let outcome = link.end.read(input, &mut |plain| {
            if deaf || broken.is_some() {
                return;
            }
            let received = streams.receive(plain, now, &mut |event| match event {
                Event::Data(stream, bytes) => {
                    if let Some(slot) = slots.get_mut(&stream) {
                        slot.came(bytes);
                        if dirty.last() != Some(&stream) {
                            dirty.push(stream);
                        }
                    }
                }
                Event::Ended(stream) => {
                    if let Some(slot) = slots.get_mut(&stream) {
                        slot.over();
                        dirty.push(stream);
                    }
                }
                Event::Accepted(stream) => {
                    if let Some(slot) = slots.get_mut(&stream)
                        && let Some(answer) = slot.answer.take()
                    {
                        let _ = answer.send(Ok(stream));
                    }
                }
                Event::Refused(stream, code, text) => {
                    if let Some(mut slot) = slots.remove(&stream) {
                        slot.refused(StreamRefused::Refused(code, text));
                    }
                }
                Event::Reset(stream) => {
                    if let Some(mut slot) = slots.remove(&stream) {
                        slot.tell(Err(StreamRefused::Reset));
                    }
                }
                Event::Opened(stream, target) => {
                    // At once: its first bytes may stand right behind.
                    slots.insert(stream, Slot::new(ready.waker(stream)));
                    later.push(Later::of(stream, target));
                }
                Event::Goodbye(_, text) => later.push(Later::Goodbye(text)),
                Event::Resumed => {}
            });
            broken = received.err();
        });
        match outcome {
            Ok(taken) => {
                link.input.copy_within(taken.min(link.have)..link.have, 0);
                link.have = link.have.saturating_sub(taken);
            }
            Err(fault) => {
                self.link = None;
                self.over = Some(Why::Broken(fault.to_string()));
                return;
            }
        }
        if link.prove_by.is_some() && link.end.proven() {
            link.prove_by = None;
            self.proven = true;
        }
        for later in later {
            match later {
                Later::Dial(stream, target) if self.is_device() => self.dial(stream, target),
                Later::Listen(stream, port) if self.is_device() => self.listen(stream, port),
                Later::Back(stream, control) if !self.is_device() => self.come_in(stream, control),
                Later::Dial(stream, _) | Later::Listen(stream, _) | Later::Back(stream, _) | Later::No(stream) => {
                    self.slots.remove(&stream);
                    self.streams.refuse(stream, RefusalCode::NotPermitted, "");
                }
                Later::Goodbye(text) => self.left(Why::ClosedByPeer(text)),
            }
        }
        if let Some(broken) = broken {
            self.leave(Why::Broken(broken.to_string()), BROKEN);
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.drain(..).for_each(|stream| self.write_local(stream));
        self.dirty = dirty;
    }
}

enum Later {
    Dial(StreamId, Target),
    Listen(StreamId, u16),
    Back(StreamId, StreamId),
    No(StreamId),
    Goodbye(String),
}

impl Later {
    fn of(stream: StreamId, text: &str) -> Self {
        let later = match Ask::parse(text) {
            Some(Ask::Ssh) => Some(Self::Dial(stream, Target::Ssh)),
            Some(Ask::Target(text)) => parse_target(text).map(|target| Self::Dial(stream, target)),
            Some(Ask::Listen(port)) => Some(Self::Listen(stream, port)),
            Some(Ask::Back(control)) => Some(Self::Back(stream, control)),
            None => None,
        };
        later.unwrap_or(Self::No(stream))
    }
}

fn parse_target(text: &str) -> Option<Target> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0 && !text.contains("+"))?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_lowercase();
    let fine = !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic());
    fine.then_some(Target::HostPort(HostPort { host, port }))
}
