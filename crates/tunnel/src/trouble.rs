//! What can go wrong, told so that a user can act.

use std::fmt;
use std::io;

use crate::hosts::BadHosts;
use postern_client::{ClientError, StartError};
use postern_link::LinkError;
use postern_net::tls::TlsError;
use postern_proto::AtSign;
use postern_rendezvous::ModeRefused;
use postern_session::{MissingFeature, ReplyError};

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
    /// The configuration file, or a name that means nothing by it.
    Hosts(BadHosts),
    /// Our own standard streams.
    Stdio(io::Error),
}

impl Trouble {
    /// Somebody decided against us: trying again changes nothing.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::RelayRefused(..) | Self::Reply(_) | Self::Client(ClientError::LoginRefused(..)))
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
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for Trouble {}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}
