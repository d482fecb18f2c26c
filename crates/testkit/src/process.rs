//! A started program: heard line by line, waited for with a deadline, gone with its handle.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::limits::{KEPT_LINES, PIPE_GRACE, POLL, SHOWN_LINES};

/// Ids of all processes started and not yet reaped, for [`kill_all_started`].
static STARTED: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// A program under test. Dropping it kills it by its handle and reaps it; should the test itself be
/// killed, the kernel kills the program (`setpriv --pdeathsig`).
///
/// The death signal is tied to the *thread* that started the program: start long-lived programs on
/// a thread that outlives them.
pub struct Process {
    name: String,
    child: Child,
    heard: Arc<Heard>,
    started: Instant,
}

/// A place in what a process said, to wait for something said later.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

/// How a finished program ended and what it said.
#[derive(Debug)]
pub struct Output {
    /// As the kernel reported it.
    pub status: ExitStatus,
    /// Everything on standard output.
    pub stdout: Vec<u8>,
    /// The last lines of standard error.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

#[derive(Default)]
struct Heard {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Standard error by lines, the newest [`KEPT_LINES`].
    lines: VecDeque<String>,
    /// Number of lines that fell out at the front.
    dropped: usize,
    stdout: Vec<u8>,
    /// Pipes that have not ended.
    open: u8,
}

impl Process {
    /// Starts a program whose output is heard. Its standard input is empty unless `command` says
    /// otherwise.
    pub fn start(command: Command) -> anyhow::Result<Self> {
        Self::start_with(command, Stdio::null())
    }

    /// Like [`Self::start`], with something to read.
    pub fn start_with(command: Command, stdin: Stdio) -> anyhow::Result<Self> {
        let name = name_of(&command);
        let mut child = dying_with_us(&command)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {name}"))?;
        started().push(child.id());
        let heard = Arc::new(Heard::default());
        heard.lock().open = 2;
        let stdout = child.stdout.take().context("standard output was asked for")?;
        let stderr = child.stderr.take().context("standard error was asked for")?;
        let (out, err) = (Arc::clone(&heard), Arc::clone(&heard));
        std::thread::spawn(move || out.take_bytes(stdout));
        std::thread::spawn(move || err.take_lines(stderr));
        Ok(Self { name, child, heard, started: Instant::now() })
    }

    /// Process id; wrappers become the program, so it is the program's own.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The standard input asked for at the start, once.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Where its standard error is now.
    pub fn mark(&self) -> Mark {
        let state = self.heard.lock();
        Mark(state.dropped + state.lines.len())
    }

    /// Waits for a line of standard error, also one said before.
    ///
    /// # Errors
    /// The process ended or the deadline passed without it; the message has its last lines.
    pub fn wait_for_line(&mut self, deadline: Duration, wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        self.wait_for_line_after(Mark(0), deadline, wanted)
    }

    /// Waits for a line of standard error said after `mark`.
    pub fn wait_for_line_after(
        &mut self,
        mark: Mark,
        deadline: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<String> {
        let end = Instant::now() + deadline;
        let mut next = mark.0;
        let mut state = self.heard.lock();
        loop {
            let skip = next.saturating_sub(state.dropped);
            if let Some(line) = state.lines.iter().skip(skip).find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            next = state.dropped + state.lines.len();
            let left = end.saturating_duration_since(Instant::now());
            if state.open == 0 || left.is_zero() {
                let why = if state.open == 0 { "ended" } else { "did not say it" };
                drop(state);
                bail!("waited {deadline:?} for a line of {}: it {why}\n{}", self.name, self.tail());
            }
            state = self.heard.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until standard output, all of it so far, is as wanted; returns it.
    pub fn wait_for_stdout(&mut self, deadline: Duration, wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let end = Instant::now() + deadline;
        let mut state = self.heard.lock();
        loop {
            let text = String::from_utf8_lossy(&state.stdout).into_owned();
            if wanted(&text) {
                return Ok(text);
            }
            let left = end.saturating_duration_since(Instant::now());
            if state.open == 0 || left.is_zero() {
                drop(state);
                bail!("{} did not print what was wanted within {deadline:?}, but {text:?}\n{}", self.name, self.tail());
            }
            state = self.heard.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How it ended, if it has.
    pub fn try_wait(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.try_wait(), Ok(None))
    }

    /// Waits for its own end.
    ///
    /// # Errors
    /// It runs longer than `deadline`: it is killed and its last lines are in the message.
    pub fn wait(mut self, deadline: Duration) -> anyhow::Result<Output> {
        let end = self.started + deadline;
        // There is no safe wait with a deadline; a thread per wait would cost more than it tells.
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > end {
                let _ = self.child.kill();
                bail!("{} still ran after {deadline:?}\n{}", self.name, self.tail());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = self.started.elapsed();
        let grace = Instant::now() + PIPE_GRACE;
        let mut state = self.heard.lock();
        while state.open > 0 && Instant::now() < grace {
            state = self.heard.changed.wait_timeout(state, POLL).unwrap_or_else(PoisonError::into_inner).0;
        }
        let stdout = std::mem::take(&mut state.stdout);
        let lines: Vec<String> = state.lines.drain(..).collect();
        drop(state);
        Ok(Output { status, stdout, stderr: lines.join("\n"), took })
    }

    /// `kill -9`, reaped.
    pub fn kill(mut self) {
        self.end();
    }

    /// Asks it to stop (`SIGTERM`) and waits for that.
    pub fn terminate(self, deadline: Duration) -> anyhow::Result<Output> {
        let asked = self.started.elapsed();
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("no such process id")?;
        kill_process(pid, Signal::TERM).with_context(|| format!("failed to stop {}", self.name))?;
        self.wait(asked + deadline)
    }

    /// The last lines of standard error, for a message to a human.
    pub fn tail(&self) -> String {
        let state = self.heard.lock();
        let skip = state.lines.len().saturating_sub(SHOWN_LINES);
        let lines: Vec<&str> = state.lines.iter().skip(skip).map(String::as_str).collect();
        format!("--- last lines of {} ---\n{}\n---", self.name, lines.join("\n"))
    }

    fn end(&mut self) {
        let id = self.child.id();
        // Under the lock, so that nobody signals an id that has been reaped and given to another.
        let mut started = started();
        let _ = self.child.kill();
        let _ = self.child.wait();
        started.retain(|other| *other != id);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

impl Output {
    /// Standard output as text, without space around it.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }

    /// Itself, if the program ended with status 0.
    pub fn success(self) -> anyhow::Result<Self> {
        self.exited(0)
    }

    /// Itself, if the program ended with this status.
    pub fn exited(self, code: i32) -> anyhow::Result<Self> {
        if self.status.code() != Some(code) {
            bail!("ended with {} and not {code}\nstdout: {}\nstderr: {}", self.status, self.text(), self.stderr);
        }
        Ok(self)
    }
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_bytes(&self, mut from: impl Read) {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            self.lock().stdout.extend_from_slice(buffer.get(..count).unwrap_or_default());
            self.changed.notify_all();
        }
        self.ended();
    }

    fn take_lines(&self, from: impl Read) {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        // A terminal's progress line ends in \r only; it stays part of the next line.
        while let Ok(1..) = from.read_until(b'\n', &mut line) {
            let mut state = self.lock();
            if state.lines.len() == KEPT_LINES {
                state.lines.pop_front();
                state.dropped += 1;
            }
            state.lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
            drop(state);
            self.changed.notify_all();
            line.clear();
        }
        self.ended();
    }

    fn ended(&self) {
        self.lock().open -= 1;
        self.changed.notify_all();
    }
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be started or runs longer than `deadline`. Its exit status is not looked at.
pub fn run(command: Command, deadline: Duration) -> anyhow::Result<Output> {
    Process::start(command)?.wait(deadline)
}

/// Kills everything started through this module: for a signal handler that is about to leave.
pub fn kill_all_started() {
    for id in started().iter() {
        if let Some(pid) = i32::try_from(*id).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Runs a program of the system to its successful end and returns its output.
pub(crate) fn system<S: AsRef<OsStr>>(program: &str, args: &[S]) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    let output = run(command, crate::limits::COMMAND)?.success().with_context(|| {
        let args: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
        format!("{program} {}", args.join(" "))
    })?;
    Ok(output.text())
}

/// Runs a program of the system that reads `input`.
pub(crate) fn system_with_input(mut command: Command, input: &str) -> anyhow::Result<()> {
    command.stdin(Stdio::piped());
    let name = name_of(&command);
    let mut process = Process::start_with(command, Stdio::piped())?;
    let mut stdin = process.stdin().context("standard input was asked for")?;
    stdin.write_all(input.as_bytes()).with_context(|| format!("{name} does not read"))?;
    drop(stdin);
    process.wait(crate::limits::COMMAND)?.success().with_context(|| format!("{name} with input:\n{input}"))?;
    Ok(())
}

fn started() -> MutexGuard<'static, Vec<u32>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The same command behind `setpriv --pdeathsig KILL`, which becomes it: nothing safe can be run
/// between fork and exec, so another program says it to the kernel.
fn dying_with_us(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    // Not in our group: Ctrl-C at a terminal is ours to answer, in our order.
    std::os::unix::process::CommandExt::process_group(&mut wrapped, 0);
    wrapped
}

/// Program and first words, for messages.
fn name_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.take(8).map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_status_are_kept_apart() {
        let output = run(sh("echo data; echo talk >&2; exit 7"), Duration::from_secs(10)).unwrap();
        assert_eq!(output.text(), "data");
        assert_eq!(output.stderr, "talk");
        assert_eq!(output.exited(7).unwrap().status.code(), Some(7));
    }

    #[test]
    fn a_line_is_waited_for_and_an_early_end_is_told() {
        let mut process = Process::start(sh("echo one >&2; echo two >&2; sleep 30")).unwrap();
        let line = process.wait_for_line(Duration::from_secs(10), |line| line.contains("two")).unwrap();
        assert_eq!(line, "two");
        let mut short = Process::start(sh("echo last words >&2")).unwrap();
        let error = short.wait_for_line(Duration::from_secs(10), |line| line.contains("never")).unwrap_err();
        assert!(error.to_string().contains("last words"), "{error}");
    }

    #[test]
    fn a_dropped_handle_is_a_dead_process() {
        let process = Process::start(sh("exec sleep 30")).unwrap();
        let id = process.id();
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn a_program_that_runs_too_long_is_ended() {
        let error = run(sh("echo busy >&2; exec sleep 30"), Duration::from_millis(300)).unwrap_err();
        assert!(error.to_string().contains("busy"), "{error}");
    }
}
