//! The programs' side: find the agent, start it, ask it.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::limits::{LAST_WORD, START};
use super::place::{Place, surroundings};
use super::wire::{Lines, send};
use super::words::{Answer, Ask, Question, Status, Wish};
use crate::trouble::Trouble;

/// Whether the agent is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Manner {
    /// It is, and is started when it does not run.
    Auto,
    /// It is not.
    #[default]
    Off,
}

/// What came of asking.
pub(crate) enum Found {
    Stream(AgentStream),
    /// This program is to go by itself; why, for whoever wants to know.
    Alone(String),
}

/// A connection to the target, by way of the agent.
pub(crate) struct AgentStream {
    /// What is written here arrives there.
    pub(crate) data: UnixStream,
    /// The session was there already.
    pub(crate) live: bool,
    /// What the agent has to say to whoever wants to know more.
    pub(crate) told: Vec<String>,
    pub(crate) control: Control,
}

/// Where the agent says how a stream ends.
pub(crate) struct Control(Lines);

impl Control {
    /// How the stream ended, once no bytes flow any more: the trouble, if there was any.
    pub(crate) async fn verdict(mut self) -> Result<(), Trouble> {
        match timeout(LAST_WORD, self.0.next()).await {
            Ok(Ok(Answer::Failed { why, refusal })) => Err(Trouble::Agent { why, refusal }),
            // That it is silent, or has gone, says nothing of the stream.
            _ => Ok(()),
        }
    }

    /// Waits for trouble. Cancel-safe.
    pub(crate) async fn trouble(&mut self) -> Trouble {
        match self.0.next().await {
            Ok(Answer::Failed { why, refusal }) => Trouble::Agent { why, refusal },
            // The bytes that are still on their way say the rest.
            _ => std::future::pending().await,
        }
    }
}

/// Asks the agent for a stream, and starts it before if need be.
///
/// # Errors
/// The device cannot be reached, or somebody decided against us: going alone would change nothing.
pub(crate) async fn stream(wish: &Wish) -> Result<Found, Trouble> {
    let alone = |error: io::Error| Ok(Found::Alone(error.to_string()));
    let mut control = match reach(true).await {
        Ok(Some(control)) => control,
        Ok(None) => return Ok(Found::Alone("it does not run".to_owned())),
        Err(error) => return alone(error),
    };
    let (data, theirs) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => return alone(error),
    };
    let ask = Ask::Stream(Box::new(wish.clone()));
    let question = Question { surroundings: surroundings(), ask };
    if let Err(error) = send(&mut control, &question, Some(theirs.as_fd())).await {
        return alone(error);
    }
    drop(theirs);
    let mut control = Lines::new(control);
    match control.next().await {
        Ok(Answer::Begun { live, told }) => {
            Ok(Found::Stream(AgentStream { data, live, told, control: Control(control) }))
        }
        Ok(Answer::Failed { why, refusal }) => Err(Trouble::Agent { why, refusal }),
        Ok(Answer::GoAlone { why }) => Ok(Found::Alone(why)),
        Ok(_) => Ok(Found::Alone("it answered what was not asked".to_owned())),
        Err(error) => alone(error),
    }
}

/// What it holds; `None`: it does not run.
///
/// # Errors
/// It cannot be asked.
pub(super) async fn status() -> io::Result<Option<Status>> {
    match ask(Ask::Status).await? {
        Some(Answer::Status(status)) => Ok(Some(*status)),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "it is of another build: stop it first")),
        None => Ok(None),
    }
}

/// Ends it; returns once it has gone. `false`: it did not run.
///
/// # Errors
/// It cannot be asked.
pub(super) async fn stop() -> io::Result<bool> {
    let Some(mut control) = reach(false).await? else { return Ok(false) };
    send(&mut control, &Question { surroundings: surroundings(), ask: Ask::Stop }, None).await?;
    let mut control = Lines::new(control);
    let _: Answer = control.next().await?;
    // It keeps this connection until its sessions are closed.
    while control.next::<Answer>().await.is_ok() {}
    Ok(true)
}

/// Closes its sessions; `false`: it does not run.
///
/// # Errors
/// It cannot be asked.
pub(super) async fn close() -> io::Result<bool> {
    Ok(ask(Ask::Close).await?.is_some())
}

async fn ask(ask: Ask) -> io::Result<Option<Answer>> {
    let Some(mut control) = reach(false).await? else { return Ok(None) };
    send(&mut control, &Question { surroundings: surroundings(), ask }, None).await?;
    Lines::new(control).next().await.map(Some)
}

/// Connects to it. `None`: it does not run, and is not to be started.
async fn reach(may_start: bool) -> io::Result<Option<UnixStream>> {
    let place = Place::usual()?;
    match place.connect().await {
        Ok(stream) => return Ok(Some(stream)),
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(error);
        }
        Err(_) if !may_start => return Ok(None),
        Err(_) => {}
    }
    timeout(START, start()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    place.connect().await.map(Some)
}

/// Starts it beside us; returns when it, or another one, listens.
pub(super) async fn start() -> io::Result<()> {
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.arg0("agent").args(["run", "--detached"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = tokio::process::Command::from(command).spawn()?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line).await?;
    }
    if line.is_empty() {
        return Err(io::Error::other("the agent could not be started: run `postern agent run` to see why"));
    }
    Ok(())
}
