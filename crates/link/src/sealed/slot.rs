//! The local end of one stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use postern_streams::{Chunk, StreamId};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::sync::oneshot;

use super::ended::StreamRefused;
use super::local::Io;
use crate::pump::Carried;

/// Told when a stream is over.
pub(crate) type Done = oneshot::Sender<Result<Carried, StreamRefused>>;
/// Called with what was carried, when a stream that carried something, or could have, is over.
pub(crate) type Report = Box<dyn FnOnce(Carried) + Send>;
/// Told when the other end has answered an opening.
pub(crate) type Answer = oneshot::Sender<Result<StreamId, StreamRefused>>;

pub(crate) struct Slot {
    /// `None`: not there yet, being dialled or waited for.
    io: Option<Box<dyn Io>>,
    waker: Waker,
    /// What came for it and is not written; the first `written` bytes are.
    pending: Vec<u8>,
    written: usize,
    /// What was written has perhaps not gone out: not every `Io` writes through, standard output gathers.
    unflushed: bool,
    /// The other end sends no more, and it was told so.
    over: bool,
    shut: bool,
    /// It sends no more.
    pub(crate) ended: bool,
    pub(crate) carried: Carried,
    pub(crate) done: Option<Done>,
    pub(crate) answer: Option<Answer>,
    /// Before the session is over, so that the books have their order.
    report: Option<Report>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(report) = self.report.take() {
            report(self.carried);
        }
    }
}

impl Slot {
    pub(crate) fn new(waker: Waker) -> Self {
        Self {
            io: None,
            waker,
            pending: Vec::new(),
            written: 0,
            unflushed: false,
            over: false,
            shut: false,
            ended: false,
            carried: Carried::default(),
            done: None,
            answer: None,
            report: None,
        }
    }

    /// Who is told what was carried, however the stream ends.
    pub(crate) fn over_with(&mut self, report: Report) {
        self.report = Some(report);
    }

    /// It never came to be: there is nothing to report.
    pub(crate) fn refused(&mut self, why: StreamRefused) {
        self.report = None;
        self.tell(Err(why));
    }

    pub(crate) fn attach(&mut self, io: Box<dyn Io>) {
        self.io = Some(io);
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.io.is_some()
    }

    /// Bytes of the other end. They are written by [`Self::write`].
    pub(crate) fn came(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The other end sends no more.
    pub(crate) fn over(&mut self) {
        self.over = true;
    }

    /// Everything that came is written, and the end passed on.
    pub(crate) fn is_done(&self) -> bool {
        self.ended && self.shut
    }

    /// Something waits to be written.
    pub(crate) fn waits(&self) -> bool {
        self.io.is_some() && (self.written < self.pending.len() || self.unflushed || self.over && !self.shut)
    }

    /// Writes what came as far as it goes now; returns how many bytes went.
    pub(crate) fn write(&mut self) -> io::Result<usize> {
        let Some(io) = self.io.as_mut() else { return Ok(0) };
        let mut cx = Context::from_waker(&self.waker);
        let mut went = 0;
        loop {
            let rest = self.pending.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                self.pending.clear();
                self.written = 0;
                break;
            }
            match Pin::new(&mut *io).poll_write(&mut cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => {
                    self.written += n;
                    went += n;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    // What is left moves to the front once it is the smaller part: nothing is moved twice.
                    if self.written >= self.pending.len() / 2 {
                        self.pending.drain(..self.written);
                        self.written = 0;
                    }
                    break;
                }
            }
        }
        self.unflushed |= went > 0;
        if self.pending.is_empty() && (self.unflushed || self.over && !self.shut) {
            match Pin::new(&mut *io).poll_flush(&mut cx) {
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(())) => self.unflushed = false,
                // Asked again when it wakes us.
                Poll::Pending => {}
            }
            if !self.unflushed && self.over && !self.shut {
                // Who is gone need not be told: an error is no matter.
                self.shut = Pin::new(io).poll_shutdown(&mut cx).is_ready();
            }
        }
        self.carried.back += went as u64;
        Ok(went)
    }

    /// Reads into `chunk`. `Pending`: nothing there; 0: it ended.
    pub(crate) fn read(&mut self, chunk: &mut Chunk, room: usize) -> Poll<io::Result<usize>> {
        let Some(io) = self.io.as_mut() else { return Poll::Pending };
        let mut buffer = ReadBuf::new(chunk.room(room));
        match Pin::new(io).poll_read(&mut Context::from_waker(&self.waker), &mut buffer) {
            Poll::Ready(Ok(())) => {
                let n = buffer.filled().len();
                chunk.fill(n);
                self.carried.out += n as u64;
                Poll::Ready(Ok(n))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whoever opened it does not wait for it any more.
    pub(crate) fn is_abandoned(&mut self) -> bool {
        let mut cx = Context::from_waker(&self.waker);
        let answer = self.answer.as_mut().is_some_and(|answer| answer.poll_closed(&mut cx).is_ready());
        answer || self.done.as_mut().is_some_and(|done| done.poll_closed(&mut cx).is_ready())
    }

    /// Says how it went. Later calls say nothing.
    pub(crate) fn tell(&mut self, outcome: Result<(), StreamRefused>) {
        if let Some(answer) = self.answer.take()
            && let Err(why) = &outcome
        {
            let _ = answer.send(Err(why.clone()));
        }
        if let Some(done) = self.done.take() {
            let _ = done.send(outcome.map(|()| self.carried));
        }
    }

    /// Lets go of an empty buffer.
    pub(crate) fn rest(&mut self) {
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gathers what is written, and needs two looks to let it go.
    #[derive(Default)]
    struct Gathers {
        held: Vec<u8>,
        looks: usize,
        out: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
    }

    impl tokio::io::AsyncRead for Gathers {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl tokio::io::AsyncWrite for Gathers {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.held.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.looks += 1;
            if self.looks % 2 == 1 {
                return Poll::Pending;
            }
            let held = std::mem::take(&mut self.held);
            self.out.lock().unwrap().extend(held);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            assert!(self.held.is_empty(), "it was shut before everything had gone out");
            Poll::Ready(Ok(()))
        }
    }

    /// ssh over `connect` waited for ever: the last bytes without a line's end stayed in standard output, which was still busy
    /// when it was asked to let them go, and was not asked again.
    #[test]
    fn what_standard_output_gathers_goes_out() {
        let mut slot = Slot::new(Waker::noop().clone());
        let gathers = Gathers::default();
        let out = std::sync::Arc::clone(&gathers.out);
        slot.attach(Box::new(gathers));
        slot.came(b"no end of line");
        assert_eq!(slot.write().unwrap(), 14);
        assert!(slot.waits(), "it is not asked again");
        assert_eq!(slot.write().unwrap(), 0);
        assert_eq!(*out.lock().unwrap(), b"no end of line");
        assert!(!slot.waits());
        slot.came(b"end");
        slot.over();
        slot.write().unwrap();
        assert!(slot.waits() && !slot.shut);
        slot.write().unwrap();
        assert!(slot.shut && !slot.waits());
    }
}
