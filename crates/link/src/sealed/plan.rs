//! What either end brings to a session.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use postern_rendezvous::RelayAddress;
use postern_session::HostPort;
use postern_streams::RefusalCode;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::end::{End, EndFault, Knocking};
use super::local::Local;
use crate::pump::Carried;

/// A future in a box, as the closures below return them.
pub type Future<'a, T> = Pin<Box<dyn std::future::Future<Output = T> + Send + 'a>>;

/// Makes the ticket line (with its newline) for a relay, named by its place in the plan's list, and an epoch. Each call
/// makes a new one: a ticket is good once.
pub type Ticket = Box<dyn Fn(usize, u32) -> Result<String, Unbelieved> + Send + Sync>;

/// Looks at the reply in a knock, finds the keys it needs, and opens the client's end; or says why not.
pub type Believe<K, E> = Box<dyn Fn(K) -> Future<'static, Result<E, Unbelieved>> + Send + Sync>;

/// Sends the device a request for this epoch (after the way was lost). An error is no end: it is called again, with the next
/// epoch, until the time for a resumption is over.
pub type AskAgain<K> = Box<dyn Fn(u32) -> Future<'static, Result<Asked<K>, Unbelieved>> + Send + Sync>;

/// A request that was sent.
pub struct Asked<K> {
    /// Waits for the device's answer in the tunnel.
    pub knock: K,
    /// Resolves when the device refuses by notification: the session is over. May be pending forever.
    pub refused: Future<'static, Unbelieved>,
}

/// Why the other end was not believed, or why we have nothing to show. Its text is for the user.
pub type Unbelieved = Box<dyn std::error::Error + Send + Sync>;

/// What a stream leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The device's ssh server.
    Ssh,
    /// Something the device reaches.
    HostPort(HostPort),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ssh => f.write_str("the device's ssh server"),
            Self::HostPort(target) => target.fmt(f),
        }
    }
}

/// The client's part.
pub struct ClientPlan<K: Knocking, E: End> {
    /// Relays as the request named them, in the order in which they are tried.
    pub relays: Vec<RelayAddress>,
    /// Tickets of side a.
    pub ticket: Ticket,
    /// Waits for the device's answer to the request, which may still be on its way.
    pub knock: K,
    /// Believes the reply.
    pub believe: Believe<K, E>,
    /// `None`: resumption is off.
    pub ask_again: Option<AskAgain<K>>,
    /// Resume seconds of the request; zero: off. The device may have agreed to fewer: see [`End`].
    pub resume: Duration,
    /// Stream 1 of an `ssh_request`: open from the start. `None`: streams are opened by [`super::Sealed::carry`] alone.
    pub first: Option<Local>,
    /// Ends the session.
    pub stop: CancellationToken,
}

/// The device's part.
pub struct DevicePlan<E: End> {
    /// Relays as the request named them, in the order in which they are tried.
    pub relays: Vec<RelayAddress>,
    /// Tickets of side b.
    pub ticket: Ticket,
    /// The accepted request; its reply is ready to be sent.
    pub end: E,
    /// Says which targets may be dialled, and dials them.
    pub authorize: Arc<dyn Authorize>,
    /// Stream 1, to the device's ssh server, is open from the start (`ssh_request`).
    pub ssh: bool,
    /// Resume seconds of the reply; zero: off.
    pub resume: Duration,
    /// Ends the session.
    pub stop: CancellationToken,
}

/// Authorises at the moment of dialling, on the exact value dialled, and dials.
pub trait Authorize: Send + Sync {
    /// Called once for each stream. The returned socket is what the stream is joined with.
    fn dial<'a>(&'a self, target: &'a Target) -> Future<'a, Result<TcpStream, Refusal>>;

    /// Asked before [`Self::dial`]: a target that is served in this process, without a socket. `None`: it is dialled.
    fn serve<'a>(&'a self, target: &'a Target) -> Future<'a, Option<Result<Local, Refusal>>> {
        let _ = target;
        Box::pin(async { None })
    }

    /// A stream that was dialled is over, for the books. `address`: what was dialled.
    fn over(&self, target: &Target, address: Option<SocketAddr>, carried: Carried) {
        let _ = (target, address, carried);
    }

    /// The device: sockets that listen on this port of its loopback for the client, which it has asked for. They are closed
    /// with the stream that asked, or with the session.
    fn listen(&self, port: u16) -> Future<'_, Result<Vec<TcpListener>, Refusal>> {
        let text = format!("nobody listens on port {port} here");
        Box::pin(async { Err(Refusal { code: RefusalCode::NotPermitted, text }) })
    }

    /// A connection to a port of [`Self::listen`] is over, for the books.
    fn came_in(&self, port: u16, peer: SocketAddr, carried: Carried) {
        let _ = (port, peer, carried);
    }

    /// The sockets of [`Self::listen`] are closed.
    fn closed(&self, port: u16) {
        let _ = port;
    }
}

/// Why the device does not open a stream: what the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its kind.
    pub code: RefusalCode,
    /// Words for the user, at most 256 characters; more is cut off.
    pub text: String,
}

impl From<io::Error> for Refusal {
    /// The target could not be dialled.
    fn from(error: io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::ConnectionRefused => RefusalCode::TargetRefused,
            io::ErrorKind::NotFound => RefusalCode::NameUnknown,
            _ => RefusalCode::TargetUnreachable,
        };
        Self { code, text: String::new() }
    }
}

/// A relay's `!code text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayRefusal {
    /// The word before the first space: `full`, `alone`, `bad-ticket` …; ASCII.
    pub code: String,
    /// Its words, printable.
    pub text: String,
}

/// Why a session did not begin.
#[derive(Debug)]
#[non_exhaustive]
pub enum DialError {
    /// No relay could be reached; the last one tried and why.
    Unreachable(RelayAddress, io::Error),
    /// The relay refused our ticket.
    Refused(RelayAddress, RelayRefusal),
    /// The relay ended the connection, or was silent, before the other end had answered.
    Silent(RelayAddress),
    /// The connection ended in the middle of the other end's answer.
    CutShort(RelayAddress),
    /// What came is not from whom it should be.
    Unbelieved(Unbelieved),
    /// What came is no TLS flight of the other end.
    Handshake(EndFault),
    /// `stop` was cancelled.
    Stopped,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(relay, error) => write!(f, "the relay {relay} cannot be reached: {error}"),
            Self::Refused(relay, refusal) => {
                write!(f, "the relay {relay} refused: {} ({})", refusal.text, refusal.code)
            }
            Self::Silent(relay) => write!(f, "nothing came from the other end through the relay {relay}"),
            Self::CutShort(relay) => write!(
                f,
                "the connection through the relay {relay} was lost in the middle of the other end's answer; try again, or \
                 another relay"
            ),
            Self::Unbelieved(why) => why.fmt(f),
            Self::Handshake(why) => write!(f, "the handshake through the relay failed: {why}"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

// What it says is all there is: no source beneath says it again.
impl std::error::Error for DialError {}
