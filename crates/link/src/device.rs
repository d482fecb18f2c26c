//! The device's end of a session: dials the relay and the target, never listens.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use postern_net::tasks::Tasks;
use postern_net::tcp;
use postern_session::{ControlLine, ControlReader, HostPort, StreamKeys};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::control::control_of;
use crate::dial::RelayPort;
use crate::limits::{CONNECTIONS, DIAL};
use crate::pump::{Carried, Crypt, pump};

/// A session that was allowed.
pub struct DeviceSession {
    /// Where the client waits.
    pub relay: RelayPort,
    /// What it may reach.
    pub target: HostPort,
    /// `None`: not encrypted.
    pub keys: Option<StreamKeys>,
    /// Ends the session.
    pub stop: CancellationToken,
}

/// Why a session could not start or go on.
#[derive(Debug)]
#[non_exhaustive]
pub enum LinkError {
    /// The relay cannot be reached.
    Relay(String, io::Error),
    /// The target cannot be reached.
    Target(HostPort, io::Error),
    /// The keys could not be used.
    Keys,
}

impl DeviceSession {
    /// One connection: relay socket and target, keys used directly.
    pub async fn single(self) -> Result<Carried, LinkError> {
        let sockets = self.dial_single().await?;
        self.single_on(sockets).await
    }

    /// The two sockets of [`Self::single`]: relay and target.
    pub async fn dial_single(&self) -> Result<(TcpStream, TcpStream), LinkError> {
        let (relay, target) = tokio::join!(self.relay.dial(0), dial_target(&self.target));
        let relay = relay.map_err(|error| self.relay_trouble(error))?;
        let target = target.map_err(|error| LinkError::Target(self.target.clone(), error))?;
        Ok((relay, target))
    }

    /// Carries what [`Self::dial_single`] has dialled.
    pub async fn single_on(self, (relay, target): (TcpStream, TcpStream)) -> Result<Carried, LinkError> {
        let crypt = Crypt::of_device(self.keys.as_ref()).map_err(|_| LinkError::Keys)?;
        Ok(pump(target, relay, crypt, &self.stop).await.0)
    }

    /// The control channel of [`Self::multi`].
    pub async fn dial_control(&self) -> Result<TcpStream, LinkError> {
        self.relay.dial(0).await.map_err(|error| self.relay_trouble(error))
    }

    /// Many connections, each announced on the control channel. Ends when that
    /// closes, or after `idle` without connections.
    pub async fn multi(self, idle: Duration, tasks: &Tasks) -> Result<Carried, LinkError> {
        let control = self.dial_control().await?;
        self.multi_on(control, idle, tasks).await
    }

    /// The same on what [`Self::dial_control`] has dialled.
    pub async fn multi_on(self, socket: TcpStream, idle: Duration, tasks: &Tasks) -> Result<Carried, LinkError> {
        let crypt = Crypt::of_device(self.keys.as_ref()).map_err(|_| LinkError::Keys)?;
        // The writing half is kept: closing it would tell the client that the session is over.
        let twin = self.keys.as_ref().is_some_and(StreamKeys::is_twin);
        let reader = if twin { ControlReader::of_twin_session() } else { ControlReader::default() };
        let (mut control, _writer) = control_of(socket, crypt, reader);
        let (done, mut ended) = mpsc::channel::<Carried>(CONNECTIONS);
        let mut carried = Carried::default();
        let mut live = 0usize;
        let mut last_end = Instant::now();
        // Announced and not yet dialled, and how many were announced: the client counts the same.
        let mut announced = VecDeque::new();
        let mut number = 0u32;
        let children = self.stop.child_token();
        let _stop_children = children.clone().drop_guard();
        loop {
            while live < CONNECTIONS
                && let Some((number, keys)) = announced.pop_front()
            {
                live += 1;
                // Relays that do not know numbers pair by order of arrival: one socket after the other.
                let relay = self.relay.dial(number).await;
                let (target, stop, done) = (self.target.clone(), children.clone(), done.clone());
                tasks.spawn(async move {
                    let part = connection(relay, &target, keys, &stop).await;
                    let _ = done.send(part).await;
                });
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some(part) = ended.recv() => {
                    carried.out += part.out;
                    carried.back += part.back;
                    live = live.saturating_sub(1);
                    last_end = Instant::now();
                }
                more = control.read(|line| announced.extend(self.keys_of(line).map(|keys| {
                    number = number.wrapping_add(1);
                    (number, keys)
                }))), if announced.is_empty() => {
                    if !more.unwrap_or(false) {
                        break;
                    }
                }
                () = tokio::time::sleep_until((last_end + idle).into()), if live == 0 => break,
            }
        }
        Ok(carried)
    }

    /// What a control line asks for: keys, or none where the whole session has none.
    #[expect(clippy::option_option, reason = "outer: a connection is asked for; inner: it is encrypted")]
    fn keys_of(&self, line: ControlLine) -> Option<Option<StreamKeys>> {
        match line {
            ControlLine::Connect(keys) => Some(Some(keys)),
            ControlLine::ConnectPlain if self.keys.is_none() => Some(None),
            ControlLine::ConnectPlain | ControlLine::Other => None,
        }
    }

    fn relay_trouble(&self, error: io::Error) -> LinkError {
        LinkError::Relay(format!("{}:{}", self.relay.host, self.relay.port), error)
    }
}

/// One connection of many. When the target refuses, closing the relay socket tells the client's side.
async fn connection(
    relay: io::Result<TcpStream>,
    target: &HostPort,
    keys: Option<StreamKeys>,
    stop: &CancellationToken,
) -> Carried {
    let work = async {
        let crypt = Crypt::of_device(keys.as_ref()).map_err(io::Error::other)?;
        let relay = relay?;
        let local = dial_target(target).await?;
        Ok::<_, io::Error>(pump(local, relay, crypt, stop).await.0)
    };
    work.await.unwrap_or_else(|error| {
        tracing::debug!(%target, %error, "connection failed");
        Carried::default()
    })
}

async fn dial_target(target: &HostPort) -> io::Result<TcpStream> {
    tcp::connect_tcp(&target.host, target.port, DIAL).await
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay(to, error) => write!(f, "cannot reach the relay at {to}: {error}"),
            Self::Target(to, error) => write!(f, "cannot reach {to}: {error}"),
            Self::Keys => f.write_str("the session keys cannot be used"),
        }
    }
}

impl std::error::Error for LinkError {}
