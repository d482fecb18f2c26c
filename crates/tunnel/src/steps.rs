//! What the user sees while a session is set up.

use std::cell::RefCell;
use std::time::Instant;

use postern_observe::{Verbosity, say};

/// Progress on stderr: plain lines by default, nothing when quiet, times and
/// round trips when verbose.
pub(crate) struct Steps {
    started: Instant,
    manner: Manner,
    done: RefCell<Vec<Done>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Quiet,
    Plain,
    Timed,
}

struct Done {
    what: &'static str,
    from_ms: f64,
    to_ms: f64,
    trips: u32,
    messages: u32,
}

impl Steps {
    pub(crate) fn new(quiet: bool, verbosity: Verbosity) -> Self {
        let manner = match (verbosity, quiet) {
            (Verbosity::Info | Verbosity::Debug, _) => Manner::Timed,
            (_, true) => Manner::Quiet,
            _ => Manner::Plain,
        };
        Self { started: Instant::now(), manner, done: RefCell::default() }
    }

    /// A line of progress.
    pub(crate) fn tell(&self, line: &str) {
        match self.manner {
            Manner::Quiet => {}
            Manner::Plain => say(line),
            Manner::Timed => say(format_args!("{:8.1} ms  {line}", self.now_ms())),
        }
    }

    /// Follows a step: `trips` round trips on its own path, `messages` notifications or requests.
    pub(crate) async fn follow<T>(
        &self,
        what: &'static str,
        trips: u32,
        messages: u32,
        work: impl Future<Output = T>,
    ) -> T {
        let from_ms = self.now_ms();
        let out = work.await;
        self.done.borrow_mut().push(Done { what, from_ms, to_ms: self.now_ms(), trips, messages });
        out
    }

    /// The table of steps, for `--verbose`.
    pub(crate) fn report(&self) {
        if self.manner != Manner::Timed {
            return;
        }
        say("step                                 from      to   took  round trips  messages");
        let (mut trips, mut messages) = (0, 0);
        for step in self.done.borrow().iter() {
            let Done { what, from_ms, to_ms, .. } = step;
            say(format_args!(
                "{what:<32} {from_ms:8.1} {to_ms:7.1} {:6.1}  {:11}  {:8}",
                to_ms - from_ms,
                step.trips,
                step.messages
            ));
            trips += step.trips;
            messages += step.messages;
        }
        say(format_args!(
            "{:<32} {:8.1} {:7.1} {:6.1}  {trips:11}  {messages:8}",
            "all (steps overlap)",
            0.0,
            self.now_ms(),
            self.now_ms()
        ));
    }

    fn now_ms(&self) -> f64 {
        self.started.elapsed().as_secs_f64() * 1000.0
    }
}
