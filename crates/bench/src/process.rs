//! Starting programs under test: charged to an account, inside a namespace,
//! gone when their handle is dropped or the bench dies.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::cpu::Account;
use crate::limits::{POLL_PAUSE, READY_DEADLINE};

/// What `enter` does before it becomes the program: see [`enter`].
#[derive(Debug, Default, clap::Args)]
pub(crate) struct EnterArgs {
    /// Control group file to write our process id into
    #[arg(long)]
    procs: Option<PathBuf>,
    /// Network namespace file to move into
    #[arg(long)]
    netns: Option<PathBuf>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Becomes the given program, charged to a group and inside a namespace.
/// Done by our own binary between fork and program because nothing may run
/// between fork and exec in safe Rust. Returns only on failure.
pub(crate) fn enter(args: &EnterArgs) -> anyhow::Error {
    match prepare(args) {
        Ok(()) => {}
        Err(error) => return error,
    }
    let (program, rest) = args.command.split_first().expect("clap requires one");
    let error = Command::new(program).args(rest).exec();
    anyhow::Error::new(error).context(format!("failed to start {}", program.display()))
}

fn prepare(args: &EnterArgs) -> anyhow::Result<()> {
    // The bench may be killed; what it started must not outlive it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if let Some(procs) = &args.procs {
        std::fs::write(procs, std::process::id().to_string())
            .with_context(|| format!("failed to enter group {}", procs.display()))?;
    }
    if let Some(netns) = &args.netns {
        enter_netns(netns)?;
    }
    Ok(())
}

/// Moves the calling thread into a network namespace.
pub(crate) fn enter_netns(path: &std::path::Path) -> anyhow::Result<()> {
    use std::os::fd::AsFd;
    let file = std::fs::File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    rustix::thread::move_into_link_name_space(file.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network))
        .context("failed to enter the network namespace")
}

/// A program to be started. Its standard input is empty, its standard error
/// goes to `log` or is dropped.
#[derive(Debug)]
pub(crate) struct Spawn<'a> {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    account: Option<&'a Account>,
    netns: Option<PathBuf>,
    log: Option<PathBuf>,
    stdout: bool,
    stderr: bool,
}

impl<'a> Spawn<'a> {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            account: None,
            netns: None,
            log: None,
            stdout: false,
            stderr: false,
        }
    }

    /// One of this binary's own subcommands.
    pub(crate) fn own(subcommand: &str) -> anyhow::Result<Self> {
        Ok(Self::new(own_path()?).args([subcommand]))
    }

    pub(crate) fn args<I, S>(mut self, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// With this in its environment.
    pub(crate) fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Charged to this account from its first instruction.
    pub(crate) fn account(mut self, account: &'a Account) -> Self {
        self.account = Some(account);
        self
    }

    /// Inside this network namespace.
    pub(crate) fn netns(mut self, netns: Option<PathBuf>) -> Self {
        self.netns = netns;
        self
    }

    /// Standard error appended to this file.
    pub(crate) fn log(mut self, log: impl Into<PathBuf>) -> Self {
        self.log = Some(log.into());
        self
    }

    /// Standard output can be read from the started process.
    pub(crate) fn stdout(mut self) -> Self {
        self.stdout = true;
        self
    }

    /// Standard error can be read from the started process, and goes to no log.
    pub(crate) fn stderr(mut self) -> Self {
        self.stderr = true;
        self
    }

    pub(crate) fn start(self) -> anyhow::Result<Process> {
        let name = self.program.to_string_lossy().into_owned();
        let mut command = Command::new(own_path()?);
        command.arg("enter");
        if let Some(procs) = self.account.and_then(Account::entrance) {
            command.arg("--procs").arg(procs);
        }
        if let Some(netns) = self.netns {
            command.arg("--netns").arg(netns);
        }
        command.arg("--").arg(&self.program).args(&self.args).envs(self.envs);
        command.stdin(Stdio::null()).stdout(if self.stdout { Stdio::piped() } else { Stdio::null() });
        command.stderr(match &self.log {
            _ if self.stderr => Stdio::piped(),
            Some(log) => {
                let file = std::fs::File::options().create(true).append(true).open(log);
                file.with_context(|| format!("failed to open {}", log.display()))?.into()
            }
            None => Stdio::null(),
        });
        let mut child = command.spawn().with_context(|| format!("failed to start {name}"))?;
        let stderr = child.stderr.take().map(BufReader::new);
        if let Some(account) = self.account {
            account.started(child.id());
        }
        Ok(Process { name, child, stderr, log: self.log })
    }
}

/// A started program; killed and reaped on drop.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    stderr: Option<BufReader<ChildStderr>>,
    log: Option<PathBuf>,
}

impl Process {
    /// Process id: that of the program itself, `enter` having become it.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Next line of standard output, without its end; for ready lines.
    /// Reads byte by byte, so nothing behind the line is lost.
    pub(crate) fn line(&mut self) -> anyhow::Result<String> {
        let Some(stdout) = self.child.stdout.as_mut() else { bail!("{}: output is not piped", self.name) };
        let mut line = String::new();
        BufReader::with_capacity(1, stdout).read_line(&mut line)?;
        if line.is_empty() {
            bail!("{} ended before it was ready; {}", self.name, self.last_words());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Next line of standard error; `None` at its end.
    pub(crate) fn error_line(&mut self) -> anyhow::Result<Option<String>> {
        let Some(stderr) = self.stderr.as_mut() else { bail!("{}: errors are not piped", self.name) };
        let mut line = String::new();
        let got = stderr.read_line(&mut line)?;
        Ok((got > 0).then(|| line.trim_end().to_owned()))
    }

    /// Standard output to its end.
    pub(crate) fn output(&mut self) -> anyhow::Result<String> {
        let Some(stdout) = self.child.stdout.as_mut() else { bail!("{}: output is not piped", self.name) };
        let mut text = String::new();
        stdout.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Waits until a line of its log contains `what`; gives that line. The log
    /// must be this process's alone.
    pub(crate) fn wait_for_log(&mut self, what: &str) -> anyhow::Result<String> {
        let log = self.log.clone().with_context(|| format!("{} has no log", self.name))?;
        until(what, READY_DEADLINE, &mut [self], || {
            let text = std::fs::read_to_string(&log)?;
            let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            let line = lines.find(|line| line.contains(what)).map(|line| line.trim_end().to_owned());
            line.ok_or_else(|| io::Error::other("not said yet"))
        })
    }

    /// Waits for the first byte of standard output.
    pub(crate) fn first_byte(&mut self) -> anyhow::Result<u8> {
        let Some(stdout) = self.child.stdout.as_mut() else { bail!("{}: output is not piped", self.name) };
        let mut byte = [0];
        match stdout.read_exact(&mut byte) {
            Ok(()) => Ok(byte[0]),
            Err(_) => bail!("{} ended without a byte; {}", self.name, self.last_words()),
        }
    }

    /// Waits for the program's own end.
    ///
    /// # Errors
    /// It runs longer than `deadline`.
    pub(crate) fn wait(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        // A thread per wait would cost more than it measures; rustix has no
        // timed wait. The pause starts small so that a quick end is seen quickly.
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("{} still runs after {deadline:?}; {}", self.name, self.last_words());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    /// Waits for the program's own end, which must be a success.
    ///
    /// # Errors
    /// It runs longer than `deadline`, or fails; the text has its last words.
    pub(crate) fn succeed(&mut self, deadline: Duration) -> anyhow::Result<()> {
        let status = self.wait(deadline)?;
        if !status.success() {
            bail!("{} ended with {status}; {}", self.name, self.last_words());
        }
        Ok(())
    }

    /// Fails if the program has ended.
    pub(crate) fn check_alive(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}; {}", self.name, self.last_words());
        }
        Ok(())
    }

    /// The end of its log, for a message to a human.
    fn last_words(&self) -> String {
        let text = self.log.as_ref().and_then(|log| std::fs::read_to_string(log).ok()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        let lines: Vec<&str> = lines.into_iter().rev().collect();
        if lines.is_empty() { "it left no log".to_owned() } else { format!("its log ends: {}", lines.join(" | ")) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Calls `attempt` until it gives a value, a watched process ends, or the
/// deadline passes.
pub(crate) fn until<T>(
    what: &str,
    deadline: Duration,
    watched: &mut [&mut Process],
    mut attempt: impl FnMut() -> io::Result<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    loop {
        let error = match attempt() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        for process in watched.iter_mut() {
            process.check_alive()?;
        }
        if Instant::now() > end {
            return Err(anyhow::Error::new(error).context(format!("{what} not ready after {deadline:?}")));
        }
        std::thread::sleep(POLL_PAUSE);
    }
}

fn own_path() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("failed to find our own program")
}
