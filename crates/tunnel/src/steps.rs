//! What the user sees while a session is set up.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use postern_observe::{Verbosity, Waiting, say};

use crate::session::Common;

/// Progress on stderr: plain lines by default, nothing when quiet, times and
/// round trips when verbose.
pub(crate) struct Steps {
    started: Instant,
    manner: Manner,
    done: Mutex<Vec<Done>>,
    /// Before that nothing that was asked could travel, milliseconds.
    open_ms: Mutex<f64>,
    /// Lines for somebody else's stderr.
    kept: Option<Mutex<Vec<String>>>,
    /// For a person: who is asked, and for what at the moment.
    waiting: Waiting,
    whom: String,
    running: Mutex<Vec<&'static str>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Quiet,
    Plain,
    Timed,
}

/// Two moments closer than this are one: a task wakes, and then the next.
const SAME_MS: f64 = 0.5;

#[derive(Clone, Debug, PartialEq)]
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
        Self {
            started: Instant::now(),
            manner,
            done: Mutex::default(),
            open_ms: Mutex::default(),
            kept: None,
            waiting: Waiting::silent(),
            whom: String::new(),
            running: Mutex::default(),
        }
    }

    /// As the user of a command line wants it.
    pub(crate) fn of(common: &Common) -> Self {
        let steps = Self::new(common.quiet, common.verbosity);
        if common.quiet { steps } else { steps.with_line(common) }
    }

    /// With a line on the terminal for as long as it takes; who gets lines with times needs none.
    pub(crate) fn with_line(self, common: &Common) -> Self {
        let waiting = if self.manner == Manner::Timed { Waiting::silent() } else { Waiting::on_terminal() };
        Self { waiting, whom: format!("{}{}", common.device, common.to), ..self }
    }

    /// The same for a program that is not this one: it gets the lines at the end.
    pub(crate) fn kept(verbosity: Verbosity) -> Self {
        Self { kept: Some(Mutex::default()), ..Self::new(true, verbosity) }
    }

    /// What [`Self::kept`] has kept.
    pub(crate) fn into_lines(self) -> Vec<String> {
        self.kept.map(|kept| kept.into_inner().unwrap_or_else(PoisonError::into_inner)).unwrap_or_default()
    }

    fn say(&self, line: impl Display) {
        match &self.kept {
            Some(kept) => lock(kept).push(line.to_string()),
            None => say(line),
        }
    }

    /// A line of progress.
    pub(crate) fn tell(&self, line: &str) {
        match self.manner {
            Manner::Quiet => {}
            Manner::Plain => self.say(line),
            Manner::Timed => self.say(format_args!("{:8.1} ms  {line}", self.now_ms())),
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
        let running = self.run(what);
        let out = work.await;
        drop(running);
        // What waited for the atServer to be reached has begun when it was.
        let from_ms = if messages > 0 { from_ms.max(*lock(&self.open_ms)) } else { from_ms };
        lock(&self.done).push(Done { what, from_ms, to_ms: self.now_ms(), trips, messages });
        out
    }

    fn run(&self, what: &'static str) -> Running<'_> {
        lock(&self.running).push(what);
        self.waiting.on(format!("{}: {what}", self.whom));
        Running { steps: self, what }
    }

    /// The atServer is reached: what was to be sent to it travels from now on.
    pub(crate) fn nothing_before_now(&self) {
        *lock(&self.open_ms) = self.now_ms();
    }

    /// Nothing is waited for any more. The table of steps and the critical path, for `--verbose`.
    pub(crate) fn report(&self) {
        self.waiting.off();
        if self.manner != Manner::Timed {
            return;
        }
        self.say("step                                 from      to   took  round trips  messages");
        let (mut trips, mut messages) = (0, 0);
        let done = lock(&self.done);
        for step in done.iter() {
            let Done { what, from_ms, to_ms, .. } = step;
            self.say(format_args!(
                "{what:<32} {from_ms:8.1} {to_ms:7.1} {:6.1}  {:11}  {:8}",
                to_ms - from_ms,
                step.trips,
                step.messages
            ));
            trips += step.trips;
            messages += step.messages;
        }
        self.say(format_args!(
            "{:<32} {:8.1} {:7.1} {:6.1}  {trips:11}  {messages:8}",
            "all (steps overlap)",
            0.0,
            self.now_ms(),
            self.now_ms()
        ));
        let end = self.now_ms();
        let path = critical_path(&done, end);
        self.say("critical path: what the first byte waited for");
        let (mut trips, mut waited) = (0, 0.0);
        for step in &path {
            let took = step.to_ms - step.from_ms;
            self.say(format_args!("{took:8.1} ms  {:>2} round trips  {}", step.trips, step.what));
            trips += step.trips;
            waited += took;
        }
        self.say(format_args!("{:8.1} ms                  work of our own between them", end - waited));
        self.say(format_args!("{end:8.1} ms  {trips:>2} round trips  from the start"));
    }

    fn now_ms(&self) -> f64 {
        self.started.elapsed().as_secs_f64() * 1000.0
    }
}

/// A step that is being done, or was given up.
struct Running<'a> {
    steps: &'a Steps,
    what: &'static str,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Self { steps, what } = self;
        let mut running = lock(&steps.running);
        if let Some(at) = running.iter().rposition(|one| one == what) {
            running.remove(at);
        }
        // Of those side by side the one that was begun last.
        if let Some(last) = running.last() {
            steps.waiting.on(format!("{}: {last}", steps.whom));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The chain of steps that ended at `end`: each began when the one before it was done. Of steps side by side it holds the
/// one that the next waited for, which is the last to end.
fn critical_path(done: &[Done], end: f64) -> Vec<Done> {
    let mut path = Vec::new();
    let mut cursor = end;
    while let Some(step) = done
        .iter()
        .filter(|step| step.to_ms <= cursor + SAME_MS && step.from_ms + SAME_MS < cursor)
        .max_by(|a, b| a.to_ms.total_cmp(&b.to_ms))
    {
        cursor = step.from_ms;
        // Steps may touch: what is counted once is not counted again.
        let to_ms = path.last().map_or(step.to_ms, |next: &Done| step.to_ms.min(next.from_ms));
        path.push(Done { to_ms, ..step.clone() });
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(what: &'static str, from_ms: f64, to_ms: f64, trips: u32) -> Done {
        Done { what, from_ms, to_ms, trips, messages: trips }
    }

    #[test]
    fn the_critical_path_is_the_chain_of_those_that_were_waited_for() {
        let done = [
            step("key of ours", 0.0, 80.0, 0),
            step("reach", 1.0, 151.0, 3),
            step("login", 151.0, 201.0, 1),
            step("signing key", 151.0, 201.2, 1),
            step("user name", 151.0, 251.0, 1),
            step("relay", 201.3, 301.0, 2),
            step("dial", 301.1, 352.0, 1),
            step("request", 302.0, 455.0, 3),
        ];
        let names = |end| critical_path(&done, end).iter().map(|step| step.what).collect::<Vec<_>>();
        assert_eq!(names(456.0), ["reach", "signing key", "relay", "request"]);
        assert_eq!(names(252.0), ["reach", "user name"]);
        assert_eq!(names(0.0), [""; 0]);
    }

    #[test]
    fn no_stretch_of_time_is_counted_twice_and_every_chain_ends() {
        let done =
            [step("a", 0.0, 10.2, 1), step("b", 10.0, 20.3, 1), step("c", 20.0, 30.0, 1), step("c", 20.0, 30.0, 1)];
        let path = critical_path(&done, 30.0);
        assert_eq!(path.iter().map(|step| step.what).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(path.iter().map(|step| step.to_ms - step.from_ms).sum::<f64>() <= 30.0);
        assert_eq!(critical_path(&[step("no time at all", 5.0, 5.0, 1)], 5.0), []);
    }

    #[tokio::test]
    async fn what_waited_for_the_server_begins_when_it_was_reached() {
        let steps = Steps::new(true, Verbosity::Quiet);
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let asked = steps.follow("asked", 1, 1, told);
        let dialled = steps.follow("dialled", 1, 0, std::future::ready(()));
        let reached = async {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            steps.nothing_before_now();
            let _ = tell.send(());
        };
        let _ = tokio::join!(asked, dialled, reached);
        let done = lock(&steps.done);
        let from = |what| done.iter().find(|step| step.what == what).map(|step| step.from_ms).unwrap_or(-1.0);
        assert!(from("asked") >= 5.0 && from("dialled") < 5.0, "{done:?}");
    }
}
