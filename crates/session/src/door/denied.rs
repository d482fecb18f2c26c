//! Why somebody may not come in, and what they are told.

use std::fmt;
use std::net::IpAddr;

use crate::permit::HostPort;
use crate::sealed::RefusalCode;

/// A request that may not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Denied {
    /// Not on the permit-open list; the client is told.
    Target {
        /// What was asked for.
        target: HostPort,
        /// The list.
        permitted: String,
    },
    /// Not on the list that the policy service gave for this client; the client is told.
    Policy {
        /// What was asked for.
        target: HostPort,
        /// The list.
        permitted: String,
    },
    /// This session was asked for before; whoever repeats it gets nothing.
    Replayed,
    /// The request's time is over, or has not come; by so many seconds.
    Expired {
        /// How far the request is behind (positive) or ahead of the device's clock.
        seconds: i64,
    },
    /// The identity key that signed speaks for another atSign than who sent the request.
    Identity,
    /// A session with this id is live, and this request does not go on with it.
    Live,
    /// The session to go on with is over, or somebody else's.
    NoSession,
    /// No room to remember the request.
    Full,
    /// The device does not listen on this port for this client.
    Listen {
        /// The port.
        port: u16,
        /// It is on the device's list, and policy does not let the client.
        by_policy: bool,
        /// The device's list.
        permitted: String,
    },
    /// The target's name leads to an address that is dialled only when it is listed itself.
    Address(IpAddr),
}

impl Denied {
    /// The code of the refusal that a sealed client is sent.
    pub fn code(&self) -> RefusalCode {
        match self {
            Self::Target { .. } | Self::Policy { .. } | Self::Listen { .. } | Self::Address(_) => {
                RefusalCode::NotPermitted
            }
            Self::Replayed | Self::Live => RefusalCode::Replayed,
            Self::Expired { .. } => RefusalCode::Expired,
            Self::Identity => RefusalCode::Identity,
            Self::NoSession => RefusalCode::NoSession,
            Self::Full => RefusalCode::Full,
        }
    }
}

/// The text that the client is sent; scripts know its beginning.
impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target { target, permitted } => {
                write!(f, "Connection to {target} denied based on daemon --permit-open [{permitted}]")
            }
            Self::Policy { target, permitted } => {
                write!(f, "Connection to {target} denied based on POLICY --permit-open [{permitted}]")
            }
            Self::Listen { port, by_policy: true, .. } => {
                write!(f, "Listening on port {port} denied based on POLICY, which would have to permit listen:{port}")
            }
            Self::Listen { port, permitted, .. } => {
                write!(f, "Listening on port {port} denied based on daemon --permit-listen [{permitted}]")
            }
            Self::Replayed => f.write_str("A session with this id was requested before"),
            Self::Expired { seconds } if *seconds < 0 => write!(
                f,
                "The request comes from the future: the client's clock is {} s ahead of the device's; set both clocks",
                -seconds
            ),
            Self::Expired { seconds } => write!(
                f,
                "The request's time was over {seconds} s ago: it was delayed, or the client's clock is behind the \
                 device's; set both clocks and try again"
            ),
            Self::Identity => f.write_str("The request is signed by the identity key of another atSign"),
            Self::Live => f.write_str("A session with this id is already live"),
            Self::NoSession => f.write_str("The session to go on with is over; begin a new one"),
            Self::Address(address) => write!(
                f,
                "The target is at {address}, an address that is dialled only when the daemon's --permit-open lists it itself"
            ),
            Self::Full => f.write_str("The device has seen too many requests in the last minutes; try again later"),
        }
    }
}
