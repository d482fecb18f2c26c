//! One channel's program: started, fed, listened to, and ended with its channel.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::termios::Winsize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::LOGIN_WORD;
use crate::input::Input;
use crate::limits::{CHUNK, GRACE, LAST_OUTPUT};
use crate::login::{On, Program, arguments, own_program};
use crate::terminal::{Terminal, Wanted};

/// What the client asks of a program that runs.
pub(crate) enum Order {
    Resize(Winsize),
    Signal(Signal),
}

/// What is needed to run one.
pub(crate) struct Start {
    pub(crate) user: String,
    pub(crate) program: Program,
    pub(crate) terminal: Option<Wanted>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) channel: ChannelWriteHalf<Msg>,
    pub(crate) handle: Handle,
    pub(crate) input: Arc<Input>,
    pub(crate) orders: mpsc::Receiver<Order>,
    /// The channel is closed, or everything is over.
    pub(crate) over: CancellationToken,
}

/// Extended data of this type is standard error. Source: RFC 4254, 5.2.
const STDERR: u32 = 1;
/// As ssh itself says it when there is no program.
const FAILED: u32 = 255;

impl Start {
    /// From its start to the end of its channel.
    pub(crate) async fn run(mut self) {
        let status = match self.spawn() {
            Ok((child, ends)) => self.attend(child, ends).await,
            Err(error) => {
                let text = format!("the device cannot start a login: {error}\n");
                let mut stderr = pin!(self.channel.make_writer_ext(Some(STDERR)));
                let _ = stderr.write_all(text.as_bytes()).await;
                None
            }
        };
        self.input.close();
        if self.over.is_cancelled() {
            return;
        }
        // Who does not hear any of it is gone.
        let _ = match status.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) => self.channel.exit_status(u32::from(code.to_le_bytes()[0])).await.map_err(drop),
            Some((None, Some(signal))) => {
                let (id, name) = (self.channel.id(), signal_name(signal));
                self.handle.exit_signal_request(id, name, false, String::new(), String::new()).await
            }
            _ => self.channel.exit_status(FAILED).await.map_err(drop),
        };
        let _ = self.channel.eof().await;
        let _ = self.channel.close().await;
    }

    fn spawn(&self) -> io::Result<(Child, Ends)> {
        let on = if self.terminal.is_some() { On::Terminal } else { On::Pipes };
        let mut command = Command::new(own_program()?);
        command.arg0("sshnpd").arg(LOGIN_WORD).args(arguments(&self.user, on, &self.program));
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        let Some(wanted) = &self.terminal else {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn()?;
            let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
            let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
            let ends =
                Ends::Pipes(stdin.ok_or_else(missing)?, stdout.ok_or_else(missing)?, stderr.ok_or_else(missing)?);
            return Ok((child, ends));
        };
        let (ours, theirs) = Terminal::open(wanted)?;
        command.env("TERM", &wanted.name);
        command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs);
        let child = command.spawn()?;
        // `command` still holds the program's end, and must not outlive this function.
        Ok((child, Ends::Terminal(Arc::new(ours))))
    }

    /// `None`: it was ended with its channel.
    async fn attend(&mut self, mut child: Child, ends: Ends) -> Option<ExitStatus> {
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let terminal = match &ends {
            Ends::Terminal(terminal) => Some(Arc::clone(terminal)),
            Ends::Pipes(..) => None,
        };
        let exited = CancellationToken::new();
        let (feeding, hearing) = ends.pumps(&self.channel, &self.input, &exited);
        let (mut feeding, mut hearing) = (pin!(feeding), pin!(hearing));
        let (mut is_fed, mut is_heard, mut status) = (false, false, None);
        while status.is_none() || !is_heard {
            tokio::select! {
                biased;
                () = self.over.cancelled() => {
                    if status.is_none() {
                        hang_up(&mut child, pid).await;
                    }
                    return None;
                }
                Some(order) = self.orders.recv() => match (order, &terminal, pid) {
                    (Order::Resize(size), Some(terminal), _) => terminal.resize(size),
                    // A process that was waited for has no number any more.
                    (Order::Signal(signal), _, Some(pid)) if status.is_none() => {
                        let _ = kill_process_group(pid, signal);
                    }
                    _ => {}
                },
                outcome = child.wait(), if status.is_none() => {
                    status = Some(outcome.ok()?);
                    exited.cancel();
                }
                () = &mut hearing, if !is_heard => is_heard = true,
                () = &mut feeding, if !is_fed => is_fed = true,
            }
        }
        status
    }
}

/// Our ends of what the program reads and writes.
enum Ends {
    Pipes(tokio::process::ChildStdin, tokio::process::ChildStdout, tokio::process::ChildStderr),
    Terminal(Arc<Terminal>),
}

type Pump<'a> = std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl Ends {
    /// One that feeds the program until the client has no more, and one that hears it to its end.
    fn pumps<'a>(
        self,
        channel: &ChannelWriteHalf<Msg>,
        input: &'a Input,
        exited: &'a CancellationToken,
    ) -> (Pump<'a>, Pump<'a>) {
        let (out, err) = (channel.make_writer(), channel.make_writer_ext(Some(STDERR)));
        match self {
            Self::Pipes(stdin, stdout, stderr) => (
                Box::pin(feed(stdin, input)),
                Box::pin(async move {
                    tokio::join!(hear(stdout, out), hear(stderr, err));
                }),
            ),
            Self::Terminal(terminal) => {
                let theirs = Arc::clone(&terminal);
                let feeding = async move {
                    while let Some(bytes) = input.next().await {
                        if theirs.write_all(&bytes).await.is_err() {
                            break;
                        }
                    }
                    input.close();
                };
                (Box::pin(feeding), Box::pin(hear_terminal(terminal, out, exited)))
            }
        }
    }
}

async fn feed(mut stdin: impl AsyncWrite + Unpin, input: &Input) {
    while let Some(bytes) = input.next().await {
        if stdin.write_all(&bytes).await.is_err() {
            break;
        }
    }
    input.close();
}

async fn hear(mut from: impl AsyncRead + Unpin, to: impl AsyncWrite) {
    let (mut to, mut buffer) = (pin!(to), vec![0; CHUNK]);
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        if to.write_all(buffer.get(..n).unwrap_or_default()).await.is_err() {
            // Nobody listens: the program is told as a pipe tells it.
            break;
        }
    }
}

/// Others may go on holding the terminal when its program is over; what it said last is still there to be read.
async fn hear_terminal(terminal: Arc<Terminal>, to: impl AsyncWrite, exited: &CancellationToken) {
    let (mut to, mut buffer) = (pin!(to), vec![0; CHUNK]);
    loop {
        let read = if exited.is_cancelled() {
            match timeout(LAST_OUTPUT, terminal.read(&mut buffer)).await {
                Ok(read) => read,
                Err(_) => return,
            }
        } else {
            tokio::select! {
                biased;
                read = terminal.read(&mut buffer) => read,
                () = exited.cancelled() => continue,
            }
        };
        let Ok(n @ 1..) = read else { return };
        if to.write_all(buffer.get(..n).unwrap_or_default()).await.is_err() {
            return;
        }
    }
}

/// The client is gone, or may no longer be here: the program and what it started are told, and then not asked.
async fn hang_up(child: &mut Child, pid: Option<Pid>) {
    let Some(pid) = pid else { return };
    // Perhaps it has no session of its own yet.
    let _ = kill_process(pid, Signal::HUP);
    for member in members(pid) {
        // What is stopped hears nothing.
        let _ = kill_process(member, Signal::HUP);
        let _ = kill_process(member, Signal::CONT);
    }
    if timeout(GRACE, child.wait()).await.is_err() {
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = child.start_kill();
        let _ = child.wait().await;
    }
}

/// The processes of a session. Source: proc_pid_stat(5), field 6.
fn members(session: Pid) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return vec![session] };
    let is_member = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything.
        let of = stat.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse::<i32>().ok()?;
        (of == session.as_raw_nonzero().get()).then_some(pid)
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(is_member).filter_map(Pid::from_raw).collect()
}

/// The words of RFC 4254, 6.10.
const SIGNALS: [(&str, Signal); 12] = [
    ("ABRT", Signal::ABORT),
    ("ALRM", Signal::ALARM),
    ("FPE", Signal::FPE),
    ("HUP", Signal::HUP),
    ("ILL", Signal::ILL),
    ("INT", Signal::INT),
    ("KILL", Signal::KILL),
    ("PIPE", Signal::PIPE),
    ("QUIT", Signal::QUIT),
    ("SEGV", Signal::SEGV),
    ("TERM", Signal::TERM),
    ("USR1", Signal::USR1),
];

/// `None`: a signal that clients do not send.
pub(crate) fn signal(sig: &Sig) -> Option<Signal> {
    let name = match sig {
        Sig::Custom(name) if name == "USR2" => return Some(Signal::USR2),
        Sig::Custom(_) => return None,
        sig => format!("{sig:?}"),
    };
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, signal)| *signal)
}

fn signal_name(raw: i32) -> Sig {
    let known = SIGNALS.iter().find(|(_, signal)| signal.as_raw() == raw);
    match known.map(|(name, _)| *name) {
        Some("ABRT") => Sig::ABRT,
        Some("ALRM") => Sig::ALRM,
        Some("FPE") => Sig::FPE,
        Some("HUP") => Sig::HUP,
        Some("ILL") => Sig::ILL,
        Some("INT") => Sig::INT,
        Some("KILL") => Sig::KILL,
        Some("PIPE") => Sig::PIPE,
        Some("QUIT") => Sig::QUIT,
        Some("SEGV") => Sig::SEGV,
        Some("TERM") => Sig::TERM,
        Some("USR1") => Sig::USR1,
        _ if raw == Signal::USR2.as_raw() => Sig::Custom("USR2".into()),
        _ => Sig::Custom(format!("{raw}@postern")),
    }
}

/// A command as it came: bytes, but none that end a word of the kernel's.
pub(crate) fn command(bytes: &[u8]) -> Option<OsString> {
    use std::os::unix::ffi::OsStringExt as _;
    (bytes.len() <= crate::limits::COMMAND_BYTES && !bytes.contains(&0)).then(|| OsString::from_vec(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn signals_keep_their_names() {
        for (name, raw) in SIGNALS {
            let sig = signal_name(raw.as_raw());
            assert_eq!((format!("{sig:?}").as_str(), signal(&sig)), (name, Some(raw)));
        }
        assert_eq!(signal(&signal_name(Signal::USR2.as_raw())), Some(Signal::USR2));
        assert_eq!(signal(&Sig::Custom("STOP".into())), None);
    }

    #[test]
    fn the_processes_of_a_session_are_found() {
        // Of its own: this test's may have been started outside of its PID namespace.
        let mut child = std::process::Command::new("setsid").args(["sleep", "60"]).spawn().unwrap();
        let pid = Pid::from_child(&child);
        // Between fork and setsid(2) it is in ours.
        let start = Instant::now();
        while members(pid) != [pid] && start.elapsed() < Duration::from_secs(20) {
            std::thread::yield_now();
        }
        let found = members(pid);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, [pid]);
    }

    #[test]
    fn commands_are_bytes_without_nul_and_not_endless() {
        assert_eq!(command(b"echo \xff").unwrap().len(), 6);
        assert_eq!(command(b"a\0b"), None);
        assert_eq!(command(&vec![b'x'; crate::limits::COMMAND_BYTES + 1]), None);
    }
}
