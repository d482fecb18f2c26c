//! What a person at a terminal sees while a program waits: one line with the step it is at, there while it lasts and gone
//! when it is over.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::limits::{NARROWEST, PATIENT, TICK, USUAL_WIDTH};

/// Back to the first column, and what stood there is gone. Source: ECMA-48, CR and EL.
const ERASE: &[u8] = b"\r\x1b[K";

/// What the line begins with.
const WORDS: &str = "waiting for ";

/// Whether the line stands on the terminal. There is one of them: so is what is said in between.
static STANDS: Mutex<bool> = Mutex::new(false);

/// A line on standard error for as long as something is waited for; only where a person looks, and only when it takes long.
#[derive(Debug, Default)]
pub struct Waiting(Option<Painter>);

#[derive(Debug)]
struct Painter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    what: Option<(String, Instant)>,
    is_over: bool,
}

impl Waiting {
    /// For a person, if there is one: standard error is a terminal that can erase a line.
    #[must_use]
    pub fn on_terminal() -> Self {
        let is_able = std::env::var_os("TERM").is_some_and(|kind| !kind.is_empty() && kind != "dumb");
        if !is_able || !io::stderr().is_terminal() {
            return Self::silent();
        }
        let shared = Arc::new(Shared::default());
        let painted = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("waiting".to_owned()).spawn(move || painted.paint());
        // Who cannot have a thread has other troubles, and hears of them.
        Self(thread.ok().map(|thread| Painter { shared, thread: Some(thread) }))
    }

    /// For nobody.
    #[must_use]
    pub fn silent() -> Self {
        Self(None)
    }

    /// What is waited for now. The seconds shown are counted from the first word after silence.
    pub fn on(&self, what: impl Into<String>) {
        if let Some(Painter { shared, .. }) = &self.0 {
            let what = what.into();
            let mut state = shared.lock();
            let begun = state.what.as_ref().map_or_else(Instant::now, |(_, begun)| *begun);
            state.what = Some((what, begun));
            shared.changed.notify_all();
        }
    }

    /// Nothing is waited for: the line is gone when this returns.
    pub fn off(&self) {
        if let Some(Painter { shared, .. }) = &self.0 {
            shared.lock().what = None;
            shared.changed.notify_all();
            between(&mut io::stderr(), |_| Ok(()));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(Painter { shared, thread }) = &mut self.0 {
            shared.lock().is_over = true;
            shared.changed.notify_all();
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until it is over.
    fn paint(&self) {
        let mut state = self.lock();
        while !state.is_over {
            let pause = match &state.what {
                None => None,
                Some((what, begun)) => match PATIENT.checked_sub(begun.elapsed()) {
                    Some(early) if !early.is_zero() => Some(early),
                    // Painted with the state held: nobody turns it off in between.
                    _ => {
                        paint(what, begun.elapsed());
                        Some(TICK)
                    }
                },
            };
            state = match pause {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(pause) => self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        between(&mut io::stderr(), |_| Ok(()));
    }
}

fn paint(what: &str, waited: Duration) {
    let stderr = io::stderr();
    // In the background the terminal is somebody else's.
    if rustix::termios::tcgetpgrp(&stderr).ok() != Some(rustix::process::getpgrp()) {
        return;
    }
    let width = rustix::termios::tcgetwinsize(&stderr).map_or(0, |size| usize::from(size.ws_col));
    let line = line(what, waited, if width == 0 { USUAL_WIDTH } else { width });
    let mut stands = STANDS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut out = stderr.lock();
    // Written over in place, so that it does not flicker.
    let _ = out.write_all(format!("\r{line}\x1b[K").as_bytes()).and_then(|()| out.flush());
    *stands = true;
}

/// `waiting for gw-17@shed: login ... 3 s`, in less than `width` columns: a line that wraps cannot be erased.
fn line(what: &str, waited: Duration, width: usize) -> String {
    let tail = format!(" ... {} s", waited.as_secs());
    let room = width.max(NARROWEST).saturating_sub(tail.len() + 1);
    let what = format!("{WORDS}{what}");
    let mut line: String = what.chars().filter(|c| !c.is_control()).take(room).collect();
    line.push_str(&tail);
    line
}

/// Writes where the line stands, or stood.
pub(crate) fn between<W: Write>(out: &mut W, write: impl FnOnce(&mut W) -> io::Result<()>) {
    let _ = in_its_place(out, write);
}

fn in_its_place<W: Write, T>(out: &mut W, write: impl FnOnce(&mut W) -> io::Result<T>) -> io::Result<T> {
    let mut stands = STANDS.lock().unwrap_or_else(PoisonError::into_inner);
    if std::mem::take(&mut *stands) {
        let _ = out.write_all(ERASE);
    }
    write(out)
}

/// Standard error for log lines, which come whole.
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        in_its_place(&mut io::stderr(), |out| out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_never_wraps_and_carries_nothing_but_text() {
        assert_eq!(line("gw-17 to join", Duration::from_millis(3999), 80), "waiting for gw-17 to join ... 3 s");
        for width in [1, 24, 40, 80] {
            let line = line(&"x".repeat(500), Duration::from_secs(86_400), width);
            assert!(line.chars().count() < width.max(NARROWEST), "{width}: {line}");
            assert!(line.ends_with(" ... 86400 s"), "{line}");
        }
        assert_eq!(line("a\x1b[31m\nb", Duration::ZERO, 80), "waiting for a[31mb ... 0 s");
    }

    #[test]
    fn what_is_said_takes_the_place_of_the_line_once() {
        *STANDS.lock().unwrap() = true;
        let mut out = Vec::new();
        between(&mut out, |out| out.write_all(b"one\n"));
        between(&mut out, |out| out.write_all(b"two\n"));
        assert_eq!(out, b"\r\x1b[Kone\ntwo\n");
    }

    #[test]
    fn without_a_terminal_there_is_nothing() {
        let waiting = Waiting::silent();
        waiting.on("x");
        waiting.off();
        assert!(waiting.0.is_none());
    }
}
