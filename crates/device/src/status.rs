//! Who is in: what the daemon writes down while sessions run, and `sshnpd status`, which shows it.
//!
//! One file for each daemon, with a lock that the daemon holds: what lies there unlocked is of a daemon that is gone.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use jiff::{Timestamp, Unit};
use postern_client::{Link, LinkState};
use postern_link::sealed::State;
use postern_net::clock;
use postern_net::signals::Questions;
use postern_observe::{print, runtime_dir, say, state_dir};
use postern_proto::Uuid;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

#[cfg(feature = "doctor")]
use crate::cli::Config;
use crate::daemon::Daemon;
use crate::limits::{ASK_HEALTH, ASK_LOOKS, STATUS_BYTES, STATUS_EVERY};
use crate::live::Session;
use crate::usage::Usage;

/// Shows who is in: since when, by which rule, to what, how many bytes. And whether the daemon is connected: it is asked.
///
/// Exit status: 0 a daemon runs, 1 none does (or arguments), 3 one is not connected for longer than four of its heartbeats
/// (at least 10 s), or does not answer.
#[derive(Parser)]
#[command(name = "sshnpd status", version, max_term_width = 100)]
struct Flags {
    /// Only the daemon of this device name.
    #[arg(short = 'd', long, value_name = "NAME")]
    device: Option<String>,
    /// Print JSON: one object a line, one line a daemon.
    #[arg(long)]
    json: bool,
}

/// The exit code where a daemon runs that cannot be reached.
const NOT_WELL: u8 = 3;

/// What a daemon writes. Times are RFC 3339, UTC.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    v: u32,
    pid: u32,
    at_sign: String,
    device: String,
    /// The atDirectory: elsewhere the same name is another's.
    #[serde(default)]
    root: String,
    version: String,
    started: String,
    written: String,
    /// Bytes of this device, as they were when this was written.
    #[serde(default)]
    usage: Option<Usage>,
    /// What the kernel keeps from the daemon; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sandbox: Option<String>,
    /// Another machine was seen to run with the same keys.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    twin: bool,
    /// How the daemon is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<LinkShown>,
    /// What is wrong with the machine's clock; `None`: nothing that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clock: Option<String>,
    sessions: Vec<Guest>,
}

/// The connection to the atServer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LinkShown {
    /// `connected`, `asleep` (on purpose) or `lost`.
    state: String,
    since: String,
    /// The same where it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connected_since: Option<String>,
    /// When the atServer was last heard.
    last_heard: String,
    /// How long it may be lost, or say nothing, before that counts as a failure.
    late_after_seconds: u64,
    /// False: it is late.
    well: bool,
}

impl LinkShown {
    fn of(link: &Link) -> Self {
        let now = Instant::now();
        // By the best clock there is, which may have been set meanwhile.
        let text = |at: Instant| {
            let ago = u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX);
            text(SystemTime::UNIX_EPOCH + Duration::from_millis(clock::now_ms().saturating_sub(ago)))
        };
        let since = text(link.since);
        Self {
            state: match link.state {
                LinkState::Connected => "connected",
                LinkState::Asleep => "asleep",
                LinkState::Lost => "lost",
            }
            .to_owned(),
            connected_since: (link.state == LinkState::Connected).then(|| since.clone()),
            since,
            last_heard: text(link.heard),
            late_after_seconds: link.patience().as_secs(),
            well: link.is_well(now),
        }
    }

    fn in_words(&self) -> String {
        let Self { state, since, last_heard, late_after_seconds, well, .. } = self;
        match (state.as_str(), well) {
            ("connected", true) => format!("connected since {since}, atServer last heard {last_heard}"),
            ("connected", false) => format!(
                "connected since {since}, but the atServer has said nothing since {last_heard}, which is longer than {late_after_seconds} s"
            ),
            ("asleep", _) => format!("asleep since {since}, as its profile says"),
            (_, true) => format!("not connected since {since}; it tries again"),
            (_, false) => format!(
                "NOT CONNECTED since {since}, for more than {late_after_seconds} s; it tries again. Is the network up, and the atServer? sshnpd --doctor says more"
            ),
        }
    }
}

/// A session that runs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Guest {
    session: String,
    who: String,
    /// The record of the key of the client's enrolment, where its signature was checked.
    enrollment: Option<String>,
    /// `manager` or `policy`.
    rule: String,
    /// False: a session of 2024.
    sealed: bool,
    since: String,
    /// What was dialled, as it was asked for; at most as many as are remembered.
    targets: Vec<String>,
    /// Sealed sessions tell the rest. `live` or `suspended`: waiting for its connection to come back.
    state: Option<String>,
    /// Since when it is connected as it is now.
    connected: Option<String>,
    /// How often it went on over another connection.
    epoch: Option<u32>,
    /// Connections inside it.
    streams: Option<usize>,
    /// Bytes to the client.
    sent: Option<u64>,
    /// Bytes from the client.
    received: Option<u64>,
}

/// Our file, for as long as we live.
struct Board {
    path: PathBuf,
    _lock: File,
}

impl Daemon {
    /// Writes down who is in, whenever that changes and every few seconds while sessions run.
    pub(crate) async fn keep_status(self: Arc<Self>) {
        let board = match Board::open(self.config.device.as_str(), self.config.at_sign.as_str()) {
            Ok(Some(board)) => board,
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "no status is kept"),
        };
        let (started, mut count) = (SystemTime::now(), self.live.count());
        let mut questions = match Questions::listen() {
            Ok(questions) => questions,
            Err(error) => return tracing::debug!(%error, "no status is kept"),
        };
        let (mut asked, mut link) = (false, self.client.link());
        loop {
            link.mark_unchanged();
            count.mark_unchanged();
            if let Err(error) = board.write(&self.status(started, asked)) {
                tracing::debug!(%error, "the status cannot be written");
            }
            asked = false;
            tokio::select! {
                () = self.tasks.token().cancelled() => return,
                () = questions.next() => asked = true,
                _ = count.changed() => {}
                () = self.clock.bell.notified() => {}
                _ = link.changed() => {}
                () = async {
                    self.live.some().await;
                    tokio::time::sleep(STATUS_EVERY).await;
                } => {}
            }
        }
    }

    fn status(&self, started: SystemTime, asked: bool) -> Status {
        Status {
            v: 1,
            pid: std::process::id(),
            at_sign: self.config.at_sign.to_string(),
            device: self.config.device.to_string(),
            root: self.config.root.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: text(started),
            written: text(SystemTime::now()),
            usage: Some(self.meter.show(asked)),
            sandbox: self.sandbox(),
            twin: self.twins.found(),
            link: Some(LinkShown::of(&self.client.link().borrow())),
            clock: Some(clock::look()).filter(|standing| standing.is_wrong()).map(|standing| standing.to_string()),
            sessions: self.live.all().iter().map(|(id, session)| Guest::of(id, session)).collect(),
        }
    }
}

impl Daemon {
    /// What the kernel keeps from us, in words.
    fn sandbox(&self) -> Option<String> {
        #[cfg(feature = "sandbox")]
        return self.config.got.map(|got| got.to_string());
        #[cfg(not(feature = "sandbox"))]
        None
    }
}

impl Guest {
    fn of(id: &Uuid, session: &Session) -> Self {
        let sealed = session.sealed.as_ref();
        let progress = sealed.and_then(|sealed| sealed.handle.as_ref()).map(|handle| handle.progress());
        Self {
            session: id.to_string(),
            who: session.guest.at_sign().to_string(),
            enrollment: session.enrollment.as_ref().map(ToString::to_string),
            rule: session.guest.rule().to_owned(),
            sealed: sealed.is_some(),
            since: text(session.since),
            targets: {
                let listens = session.listens.iter().map(|port| format!("listen:{port}"));
                session.targets.iter().map(ToString::to_string).chain(listens).collect()
            },
            state: progress.as_ref().map(|progress| {
                match progress.state {
                    State::Live => "live",
                    State::Suspended => "suspended",
                    State::Over => "over",
                }
                .to_owned()
            }),
            connected: sealed.map(|sealed| text(sealed.connected)),
            epoch: sealed.map(|sealed| sealed.epoch),
            streams: progress.as_ref().map(|progress| progress.streams),
            sent: progress.as_ref().map(|progress| progress.carried.out),
            received: progress.as_ref().map(|progress| progress.carried.back),
        }
    }
}

impl Board {
    /// `None`: there is no place for it.
    fn open(device: &str, at_sign: &str) -> io::Result<Option<Self>> {
        let Some(dir) = places().into_iter().next() else { return Ok(None) };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        for path in files(&dir) {
            if !is_live(&path) {
                let _ = fs::remove_file(lock_of(&path));
                let _ = fs::remove_file(path);
            }
        }
        let path = dir.join(format!("sshnpd.{device}{at_sign}.{}.json", std::process::id()));
        let lock = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(lock_of(&path))?;
        lock.try_lock().map_err(|_| io::Error::from(io::ErrorKind::WouldBlock))?;
        Ok(Some(Self { path, _lock: lock }))
    }

    /// Readers see the old one or the new one.
    fn write(&self, status: &Status) -> io::Result<()> {
        let draft = self.path.with_extension("new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
        serde_json::to_writer(&mut file, status)?;
        file.write_all(b"\n")?;
        fs::rename(&draft, &self.path)
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(lock_of(&self.path));
    }
}

/// Process numbers of the daemons of this user (or of the system's service) that run under a name, and which of them saw
/// another machine with their keys.
#[cfg(feature = "doctor")]
pub(crate) fn running(config: &Config) -> Vec<(u32, bool)> {
    let paths = places().into_iter().flat_map(|dir| files(&dir)).filter(|path| is_live(path));
    let found = paths.filter_map(|path| read(&path));
    let (root, at_sign, device) = (config.root.to_string(), config.at_sign.as_str(), config.device.as_str());
    let of_name = found.filter(|status| (&*status.at_sign, &*status.device, &status.root) == (at_sign, device, &root));
    let mut running: Vec<(u32, bool)> = of_name.map(|status| (status.pid, status.twin)).collect();
    running.sort_unstable();
    running.dedup_by_key(|(pid, _)| *pid);
    running
}

/// Where a daemon of this user writes its status.
#[cfg(feature = "sandbox")]
pub(crate) fn place() -> Option<PathBuf> {
    places().into_iter().next()
}

/// Where status files may lie; a daemon writes to the first.
fn places() -> Vec<PathBuf> {
    let own = runtime_dir().or_else(|| state_dir().map(|dir| dir.join("run")));
    // A service of the system writes there, whoever asks.
    let service = PathBuf::from("/run/postern");
    own.into_iter().chain([service]).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let named = |name: &str| name.starts_with("sshnpd.") && name.ends_with(".json");
    let ours = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(named));
    let mut paths: Vec<PathBuf> = ours.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn lock_of(path: &Path) -> PathBuf {
    path.with_extension("lock")
}

/// Whether the daemon that wrote it lives: it holds the lock.
fn is_live(path: &Path) -> bool {
    File::open(lock_of(path)).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn read(path: &Path) -> Option<Status> {
    let file = File::open(path).ok()?;
    serde_json::from_reader(io::Read::take(file, STATUS_BYTES)).ok()
}

fn text(time: SystemTime) -> String {
    let time = Timestamp::try_from(time).and_then(|time| time.round(Unit::Second));
    time.map(|time| time.to_string()).unwrap_or_default()
}

fn found() -> Vec<Status> {
    let mut paths: Vec<PathBuf> = places().iter().flat_map(|dir| files(dir)).filter(|path| is_live(path)).collect();
    paths.sort();
    paths.dedup();
    paths.iter().filter_map(|path| read(path)).collect()
}

/// What the daemons here say of themselves, for people and as JSON.
pub(crate) fn all() -> Vec<(Vec<String>, String)> {
    found().iter().map(|status| (shown(status), serde_json::to_string(status).unwrap_or_default())).collect()
}

/// Asks the daemons of this user for their bytes: a signal, and the file that follows it. One that does not answer within
/// `limit` is shown as it was.
pub(crate) fn ask(device: Option<&str>, limit: Duration) -> Vec<(String, Usage)> {
    let told = |(status, _): (Status, Answer)| {
        let name = format!("{}{}", status.device, status.at_sign);
        status.usage.map(|usage| (name, usage))
    };
    ask_all(device, limit).into_iter().filter_map(told).collect()
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The status is of now.
    Now,
    /// It could not be asked: another user's, or an older one that does not know the question.
    NotAsked,
    /// There was none in time.
    None,
}

fn ask_all(device: Option<&str>, limit: Duration) -> Vec<(Status, Answer)> {
    let mut paths: Vec<PathBuf> = places().iter().flat_map(|dir| files(dir)).filter(|path| is_live(path)).collect();
    paths.sort();
    paths.dedup();
    let known = paths.iter().filter_map(|path| Some((path, read(path)?)));
    let wanted = known.filter(|(_, status)| device.is_none_or(|device| device == status.device));
    let mut found = Vec::new();
    for (path, status) in wanted {
        // A daemon that says nothing of bytes does not know the signal, and would end.
        let Some(before) = status.usage.clone() else {
            found.push((status, Answer::NotAsked));
            continue;
        };
        let pid = i32::try_from(status.pid).ok().and_then(Pid::from_raw);
        if pid.is_none_or(|pid| kill_process(pid, Signal::USR1).is_err()) {
            found.push((status, Answer::NotAsked));
            continue;
        }
        let begun = Instant::now();
        let answers = |status: &Status| status.usage.as_ref().is_some_and(|now| now.is_answer_after(&before));
        let answer = loop {
            if let Some(now) = read(path).filter(answers) {
                break Some(now);
            }
            if begun.elapsed() >= limit {
                break None;
            }
            std::thread::sleep(ASK_LOOKS);
        };
        // One that has just ended is not there any more.
        match answer {
            Some(now) => found.push((now, Answer::Now)),
            None if is_live(path) => found.push((status, Answer::None)),
            None => {}
        }
    }
    found
}

/// Tells where a daemon was looked for.
pub(crate) fn say_none() {
    let dirs: Vec<String> = places().iter().map(|dir| dir.display().to_string()).collect();
    say(format_args!(
        "sshnpd: no daemon of this user runs here (looked in {}). Run this as the user that runs the daemon.",
        dirs.join(", ")
    ));
}

/// Runs `sshnpd status`; the first word is the program's name.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let flags = match Flags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let found = ask_all(flags.device.as_deref(), ASK_HEALTH);
    if found.is_empty() {
        say_none();
        return ExitCode::FAILURE;
    }
    let is_well = |(status, answer): &(Status, Answer)| {
        *answer != Answer::None && status.link.as_ref().is_none_or(|link| link.well)
    };
    let code = if found.iter().all(is_well) { ExitCode::SUCCESS } else { ExitCode::from(NOT_WELL) };
    for (status, answer) in &found {
        if *answer == Answer::None {
            say(format_args!(
                "sshnpd: the daemon of {}{} (pid {}) does not answer: what follows is of {}. Its log says more",
                status.device, status.at_sign, status.pid, status.written
            ));
        }
        if flags.json {
            print(serde_json::to_string(status).unwrap_or_default());
        } else {
            print(shown(status).join("\n"));
        }
    }
    code
}

/// For people: the daemon, and a line or two for each session.
fn shown(status: &Status) -> Vec<String> {
    let Status { pid, at_sign, device, version, started, sessions, .. } = status;
    let count = match sessions.len() {
        0 => "nobody is in".to_owned(),
        1 => "1 session".to_owned(),
        n => format!("{n} sessions"),
    };
    let mut lines = vec![format!("{device}{at_sign}: {count} (pid {pid}, version {version}, since {started})")];
    lines.extend(status.sandbox.as_ref().map(|got| format!("  sandbox: {got}")));
    lines.extend(status.link.as_ref().map(|link| format!("  {}", link.in_words())));
    lines.extend(status.clock.as_ref().map(|clock| format!("  {clock}")));
    if status.twin {
        lines.push(
            "  another machine runs with the same keys: is one a copy of the other's disk or SD card?".to_owned(),
        );
    }
    for guest in sessions {
        let kind = if guest.sealed { "sealed" } else { "of 2024, not sealed" };
        let targets = if guest.targets.is_empty() { "nothing yet".to_owned() } else { guest.targets.join(" ") };
        lines.push(format!("  {} since {}, by rule {:?}, {kind}: {targets}", guest.who, guest.since, guest.rule));
        if let (Some(state), Some(connected)) = (&guest.state, &guest.connected) {
            let [streams, sent, received] = [
                guest.streams.unwrap_or(0).to_string(),
                guest.sent.unwrap_or(0).to_string(),
                guest.received.unwrap_or(0).to_string(),
            ];
            let epoch = guest.epoch.unwrap_or(0);
            lines.push(format!(
                "    {state} since {connected}, resumed {epoch} times, {streams} connections, {sent} bytes sent, {received} received"
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_what_was_written() {
        let guest = Guest {
            session: "6f".into(),
            who: "@alice".into(),
            enrollment: None,
            rule: "manager".into(),
            sealed: true,
            since: "2026-11-23T10:00:00Z".into(),
            targets: vec!["localhost:22".into()],
            state: Some("live".into()),
            connected: Some("2026-11-23T10:05:00Z".into()),
            epoch: Some(1),
            streams: Some(1),
            sent: Some(2000),
            received: Some(30),
        };
        let status = Status {
            v: 1,
            pid: 7,
            at_sign: "@device".into(),
            device: "gw-17".into(),
            root: "root.example:64".into(),
            version: "0.1.0".into(),
            started: "2026-11-23T09:00:00Z".into(),
            written: "2026-11-23T10:06:00Z".into(),
            usage: None,
            sandbox: Some("files yes, ports yes, system calls yes".into()),
            twin: false,
            link: Some(LinkShown {
                state: "connected".into(),
                since: "2026-11-23T09:30:00Z".into(),
                connected_since: Some("2026-11-23T09:30:00Z".into()),
                last_heard: "2026-11-23T10:05:59Z".into(),
                late_after_seconds: 1200,
                well: true,
            }),
            clock: Some(
                "the clock is 3 hours behind the atServer's; until it is set, the atServer's time counts".into(),
            ),
            sessions: vec![guest],
        };
        let text = serde_json::to_string(&status).unwrap();
        let read: Status = serde_json::from_str(&text).unwrap();
        assert_eq!(
            shown(&read),
            [
                "gw-17@device: 1 session (pid 7, version 0.1.0, since 2026-11-23T09:00:00Z)",
                "  sandbox: files yes, ports yes, system calls yes",
                "  connected since 2026-11-23T09:30:00Z, atServer last heard 2026-11-23T10:05:59Z",
                "  the clock is 3 hours behind the atServer's; until it is set, the atServer's time counts",
                "  @alice since 2026-11-23T10:00:00Z, by rule \"manager\", sealed: localhost:22",
                "    live since 2026-11-23T10:05:00Z, resumed 1 times, 1 connections, 2000 bytes sent, 30 received",
            ]
        );
    }
}
