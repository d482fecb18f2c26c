//! What can go wrong, told so that a user can act.

use std::fmt;
use std::io;

use crate::hosts::BadHosts;
use postern_client::trust::TrustError;
use postern_client::{ClientError, StartError};
use postern_link::LinkError;
use postern_link::sealed::{DialError, StreamRefused, Why};
use postern_net::tls::TlsError;
use postern_proto::AtSign;
use postern_rendezvous::ModeRefused;
use postern_session::{DeviceName, MissingFeature, RefusalCode, ReplyError};
use postern_streams::RefusalCode as StreamRefusal;

/// Why there is no tunnel.
#[derive(Debug)]
#[non_exhaustive]
pub(crate) enum Trouble {
    Start(StartError),
    Trust(TlsError),
    Client(ClientError),
    /// The relay did not answer.
    RelaySilent(AtSign),
    /// The relay refused.
    RelayRefused(AtSign, String),
    /// The relay's answer makes no sense.
    RelayNonsense(AtSign, String),
    /// The relay's port cannot be reached.
    RelayPort(String, io::Error),
    /// No heartbeat came. With what is known of the device, if anything is.
    DaemonSilent(Option<String>),
    /// No answer to the session request came.
    NoReply,
    /// The daemon refused, or its answer cannot be believed.
    Reply(ReplyError),
    Missing(MissingFeature),
    /// What the user wants of the relay cannot work.
    Mode(ModeRefused),
    /// The user name on the device is not known.
    NoUser,
    LocalPort(u16, io::Error),
    Identity(String),
    Ssh(io::Error),
    Link(LinkError),
    /// The ssh tunnel of a session that is not encrypted; what ssh said.
    SshTunnel(String),
    Crypto,
    Detach(io::Error),
    Interrupted,
    /// What the agent said.
    Agent {
        why: String,
        /// Somebody decided against us.
        refusal: bool,
    },
    /// The configuration file, or a name that means nothing by it.
    Hosts(BadHosts),
    /// Our own standard streams.
    Stdio(io::Error),
    /// Our identity key, or what is known of theirs.
    Pins(TrustError),
    /// The sealed session did not begin.
    Sealed(DialError),
    /// The device's signed no.
    Refused(RefusalCode, String),
    /// No answer to a request for a sealed session. With what is known of the device, if anything is.
    NoAnswer(Option<String>),
    /// No relay takes tickets.
    NoSealedRelay {
        relays: Vec<AtSign>,
        device: DeviceName,
        at_sign: AtSign,
    },
    /// A session of 2024 was asked for, and the device is known to do better.
    WouldDowngrade(DeviceName, AtSign),
    /// One connection of the session.
    Stream(StreamRefused),
    /// The sealed session is over, and nobody wanted that.
    Over(Why),
}

impl Trouble {
    /// Somebody decided against us: trying again changes nothing.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::RelayRefused(..) | Self::Reply(_) | Self::Client(ClientError::LoginRefused(..)) => true,
            Self::Pins(error) => error.is_pin(),
            Self::Sealed(error) => matches!(error, DialError::Unbelieved(_)),
            Self::Refused(code, _) => {
                matches!(code, RefusalCode::NotPermitted | RefusalCode::Identity | RefusalCode::Pin)
            }
            Self::Stream(StreamRefused::Refused(code, _)) => *code == StreamRefusal::NotPermitted,
            Self::WouldDowngrade(..) | Self::Agent { refusal: true, .. } => true,
            _ => false,
        }
    }

    /// Whether, of two ways to a session, this trouble with the sealed one forbids the other.
    pub(crate) fn ends_both(&self) -> bool {
        match self {
            Self::Pins(_) | Self::Refused(..) => true,
            Self::Sealed(error) => matches!(error, DialError::Unbelieved(_) | DialError::Handshake(_)),
            _ => false,
        }
    }

    /// Whether the relay was not where it was thought to be, for us or for the device.
    pub(crate) fn is_relay_unreachable(&self) -> bool {
        matches!(self, Self::Sealed(DialError::Unreachable(..)) | Self::Refused(RefusalCode::RelayUnreachable, _))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Trust(error) => error.fmt(f),
            Self::Client(error) => error.fmt(f),
            Self::RelaySilent(relay) => write!(
                f,
                "Connection timeout to srvd {relay} service\nHint: is the relay running, and is {relay} its atSign?"
            ),
            Self::RelayRefused(relay, why) => write!(f, "the relay {relay} refused: {why}"),
            Self::RelayNonsense(relay, why) => write!(f, "the relay {relay} answered nonsense: failed to {why}"),
            Self::RelayPort(to, error) => {
                write!(f, "cannot reach the relay at {to}: {error}\nHint: a firewall may block its ports")
            }
            Self::DaemonSilent(None) => f.write_str("Daemon feature check timed out"),
            Self::DaemonSilent(Some(known)) => write!(f, "Daemon feature check timed out: {known}"),
            Self::NoReply => f.write_str("No response from the device daemon"),
            Self::Reply(ReplyError::Refused(text)) => {
                write!(f, "Received error response from the device daemon: {text}")
            }
            Self::Reply(error) => error.fmt(f),
            Self::Missing(missing) => missing.fmt(f),
            Self::Mode(refused) => refused.fmt(f),
            Self::NoUser => f.write_str(
                "Remote username record not shared with the client\nHint: our atSign may not be in the device's --managers list, or the device is hidden or does not exist; if it is hidden, name the user with -u",
            ),
            Self::LocalPort(port, error) => {
                write!(f, "cannot listen on local port {port}: {error}; choose another with -l")
            }
            Self::Identity(why) => f.write_str(why),
            Self::Ssh(error) => write!(f, "cannot run ssh: {error}; is the OpenSSH client installed?"),
            Self::Link(error) => error.fmt(f),
            Self::SshTunnel(why) => write!(f, "the ssh tunnel to the device failed: {why}"),
            Self::Crypto => f.write_str("a cryptographic operation failed"),
            Self::Detach(error) => write!(f, "cannot go to the background: {error}"),
            Self::Hosts(error) => error.fmt(f),
            Self::Stdio(error) => write!(f, "standard input or output: {error}"),
            Self::Agent { why, .. } => f.write_str(why),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Pins(error) => error.fmt(f),
            Self::Sealed(error @ DialError::Unreachable(..)) => {
                write!(f, "{error}\nHint: a firewall may block its port")
            }
            Self::Sealed(error) => error.fmt(f),
            Self::Refused(code, text) => {
                write!(f, "the device refused: {text}")?;
                hint_for(code).map_or(Ok(()), |hint| write!(f, "\nHint: {hint}"))
            }
            Self::NoAnswer(known) => {
                f.write_str("No response from the device daemon")?;
                known.as_ref().map_or(Ok(()), |known| write!(f, ": {known}"))
            }
            Self::NoSealedRelay { relays, device, at_sign } => {
                let names = relays.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                write!(
                    f,
                    "{device}{at_sign} is to be reached by a sealed session only, and {names} publishes no address for one\nHint: name another relay with -r, or have it updated; a device that went back to other software must be forgotten first: postern pin remove {device}{at_sign}"
                )
            }
            Self::WouldDowngrade(device, at_sign) => write!(
                f,
                "{device}{at_sign} is known to serve sealed sessions, and a lesser one is not asked of it\nHint: if it went back to other software: postern pin remove {device}{at_sign}"
            ),
            Self::Stream(error) => error.fmt(f),
            Self::Over(why) => why.fmt(f),
        }
    }
}

/// What a user can do about a refusal.
fn hint_for(code: &RefusalCode) -> Option<&'static str> {
    Some(match code {
        RefusalCode::Expired => "are both clocks right?",
        RefusalCode::Pin => {
            "on the device, `postern pin list` shows what it knows of us, and `postern pin accept` changes it"
        }
        RefusalCode::RelayUnreachable => "the device cannot reach this relay; another can be named with -r",
        RefusalCode::Full | RefusalCode::Stopping => "try again in a while",
        _ => return None,
    })
}

impl std::error::Error for Trouble {}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}
