//! The device's decision about a request, told by its door.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use postern_proto::{AtSign, Uuid};

use crate::limits::REMEMBERED_SESSIONS;
use crate::permit::{HostPort, PermitOpen};
use crate::request::SessionRequest;

/// Decides who may come in. Holds the device's own list and what it has seen.
pub struct Door {
    permit_open: PermitOpen,
    seen: BTreeSet<(AtSign, Uuid)>,
    order: VecDeque<(AtSign, Uuid)>,
}

/// A request that may go on: only [`Door::knock`] makes one.
#[derive(Debug)]
pub struct Knocked {
    request: SessionRequest,
    client: AtSign,
}

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
    /// This session was asked for before; whoever repeats it gets nothing.
    Replayed,
}

impl Door {
    /// A door that opens to these targets.
    pub fn new(permit_open: PermitOpen) -> Self {
        Self { permit_open, seen: BTreeSet::new(), order: VecDeque::new() }
    }

    /// The list as heartbeats show it.
    pub fn permit_open(&self) -> &PermitOpen {
        &self.permit_open
    }

    /// Decides. The caller has checked that `client` is a manager and signed the
    /// request; a session id is good once per client.
    pub fn knock(&mut self, client: &AtSign, request: SessionRequest) -> Result<Knocked, Denied> {
        let id = (client.clone(), request.session_id.clone());
        if !self.seen.insert(id.clone()) {
            return Err(Denied::Replayed);
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED_SESSIONS
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        if !self.permit_open.allows(&request.target) {
            return Err(Denied::Target { target: request.target, permitted: self.permit_open.to_string() });
        }
        Ok(Knocked { request, client: client.clone() })
    }
}

impl Knocked {
    /// What was asked for and allowed.
    pub fn request(&self) -> &SessionRequest {
        &self.request
    }

    /// Who asked.
    pub fn client(&self) -> &AtSign {
        &self.client
    }
}

/// The text that the client is sent; scripts know its beginning.
impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target { target, permitted } => {
                write!(f, "Connection to {target} denied based on daemon --permit-open [{permitted}]")
            }
            Self::Replayed => f.write_str("A session with this id was requested before"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RelayEnd;

    fn request(n: u8, port: u16) -> SessionRequest {
        SessionRequest {
            session_id: Uuid::from_random([n; 16]),
            relay: RelayEnd { host: "r".into(), port: 1, auth: None },
            target: HostPort::localhost(port),
            ephemeral_key: None,
            twin_keys: true,
            multi: None,
            is_ssh: true,
        }
    }

    #[test]
    fn the_list_decides_and_says_both_names() {
        let alice = AtSign::parse("alice").unwrap();
        let mut door = Door::new(PermitOpen::default());
        assert!(door.knock(&alice, request(1, 22)).is_ok());
        let denied = door.knock(&alice, request(2, 23)).unwrap_err();
        assert_eq!(
            denied.to_string(),
            "Connection to localhost:23 denied based on daemon --permit-open [localhost:22,localhost:3389]"
        );
    }

    #[test]
    fn a_session_id_is_good_once_per_client() {
        let (alice, bob) = (AtSign::parse("alice").unwrap(), AtSign::parse("bob").unwrap());
        let mut door = Door::new(PermitOpen::default());
        assert!(door.knock(&alice, request(1, 22)).is_ok());
        assert_eq!(door.knock(&alice, request(1, 22)).unwrap_err(), Denied::Replayed);
        assert!(door.knock(&bob, request(1, 22)).is_ok());
    }
}
