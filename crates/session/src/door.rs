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

/// Somebody who may knock: a manager, or a client that the policy service vouches for.
#[derive(Clone, Debug)]
pub struct Guest {
    at_sign: AtSign,
    /// What policy lets this guest reach; `None`: managers are not narrowed.
    permits: Option<PermitOpen>,
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
    /// Not on the list that the policy service gave for this client; the client is told.
    Policy {
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

    /// Decides. The caller has checked that the guest signed the request; a session id is
    /// good once per client. The device's own list comes first, then what policy says.
    pub fn knock(&mut self, guest: &Guest, request: SessionRequest) -> Result<Knocked, Denied> {
        let id = (guest.at_sign.clone(), request.session_id.clone());
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
        if let Some(permits) = guest.permits.as_ref().filter(|permits| !permits.allows(&request.target)) {
            return Err(Denied::Policy { target: request.target, permitted: permits.to_string() });
        }
        Ok(Knocked { request, client: guest.at_sign.clone() })
    }
}

impl Guest {
    /// A guest if `who` is one of the managers.
    pub fn manager(managers: &[AtSign], who: &AtSign) -> Option<Self> {
        managers.contains(who).then(|| Self { at_sign: who.clone(), permits: None })
    }

    /// A guest whom a policy service lets reach these targets, and no others.
    pub fn by_policy(who: &AtSign, permits: PermitOpen) -> Self {
        Self { at_sign: who.clone(), permits: Some(permits) }
    }

    /// Who it is.
    pub fn at_sign(&self) -> &AtSign {
        &self.at_sign
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
            Self::Policy { target, permitted } => {
                write!(f, "Connection to {target} denied based on POLICY --permit-open [{permitted}]")
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

    fn manager(name: &str) -> Guest {
        let name = AtSign::parse(name).unwrap();
        Guest::manager(std::slice::from_ref(&name), &name).unwrap()
    }

    #[test]
    fn both_lists_must_allow() {
        let alice = AtSign::parse("alice").unwrap();
        let mut door = Door::new(PermitOpen::default());
        let guest = Guest::by_policy(&alice, PermitOpen::parse("localhost:22,localhost:2233").unwrap());
        assert!(door.knock(&guest, request(1, 22)).is_ok());
        assert_eq!(
            door.knock(&guest, request(2, 3389)).unwrap_err().to_string(),
            "Connection to localhost:3389 denied based on POLICY --permit-open [localhost:22,localhost:2233]"
        );
        assert!(matches!(door.knock(&guest, request(3, 2233)), Err(Denied::Target { .. })));
        assert!(Guest::manager(&[], &alice).is_none());
    }

    #[test]
    fn the_list_decides_and_says_both_names() {
        let alice = manager("alice");
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
        let (alice, bob) = (manager("alice"), manager("bob"));
        let mut door = Door::new(PermitOpen::default());
        assert!(door.knock(&alice, request(1, 22)).is_ok());
        assert_eq!(door.knock(&alice, request(1, 22)).unwrap_err(), Denied::Replayed);
        assert!(door.knock(&bob, request(1, 22)).is_ok());
    }
}
