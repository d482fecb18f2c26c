//! The device's decision about a request, told by its door.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use postern_crypto::Ed25519PublicKey;
use postern_identity::Voucher;
use postern_identity::limits::CLOCK_TOLERANCE_MS;
use postern_proto::{AtSign, Uuid};

use crate::limits::REMEMBERED_SESSIONS;
use crate::permit::{HostPort, PermitOpen};
use crate::replay::Memory;
use crate::request::SessionRequest;
use crate::sealed::{RefusalCode, SealedRequest, SignedRequest};

/// Decides who may come in. Holds the device's own list and what it has seen.
pub struct Door {
    permit_open: PermitOpen,
    seen: BTreeSet<(AtSign, Uuid)>,
    order: VecDeque<(AtSign, Uuid)>,
    sealed: Memory,
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

/// A request for a sealed session that may go on: only [`Door::knock_sealed`] makes one.
#[derive(Debug)]
pub struct Admitted {
    signed: SignedRequest,
    permits: Option<PermitOpen>,
}

/// The session that lives under an id now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSession {
    /// Whose it is.
    pub client: AtSign,
    /// The identity key that began it.
    pub key: Ed25519PublicKey,
    /// Its epoch.
    pub epoch: u32,
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
}

impl Door {
    /// A door that opens to these targets.
    pub fn new(permit_open: PermitOpen) -> Self {
        Self { permit_open, seen: BTreeSet::new(), order: VecDeque::new(), sealed: Memory::default() }
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
        self.allows(guest.permits.as_ref(), &request.target)?;
        Ok(Knocked { request, client: guest.at_sign.clone() })
    }

    /// Decides about a request for a sealed session. `sshd_port`: where the device's ssh server listens, which is the
    /// target of `ssh_request`; other targets are named inside and put to [`Door::may_reach`]. `live`: what lives under this
    /// session id now. `now_ms`: since 1970. A request is remembered until its time is over, whatever else is said to it.
    ///
    /// # Errors
    /// See [`Denied`].
    pub fn knock_sealed(
        &mut self,
        guest: &Guest,
        signed: SignedRequest,
        sshd_port: u16,
        live: Option<&LiveSession>,
        now_ms: u64,
    ) -> Result<Admitted, Denied> {
        let SealedRequest { session_id, offer, is_ssh, .. } = signed.request();
        let client = signed.voucher().at_sign();
        if *client != guest.at_sign {
            return Err(Denied::Identity);
        }
        let (begins, ends) = (offer.issued_ms, offer.expires_ms.saturating_add(CLOCK_TOLERANCE_MS));
        if begins > now_ms.saturating_add(CLOCK_TOLERANCE_MS) {
            return Err(Denied::Expired { seconds: -seconds(begins - now_ms) });
        }
        if ends <= now_ms {
            return Err(Denied::Expired { seconds: seconds(now_ms - offer.expires_ms) });
        }
        self.sealed.admit(client, (session_id.clone(), offer.epoch), offer.nonce, ends, now_ms)?;
        match live {
            Some(_) if offer.epoch == 0 => return Err(Denied::Live),
            None if offer.epoch > 0 => return Err(Denied::NoSession),
            Some(live) if live.client != *client || live.key != *signed.voucher().key() => return Err(Denied::NoSession),
            Some(live) if live.epoch >= offer.epoch => return Err(Denied::Replayed),
            _ => {}
        }
        if *is_ssh {
            self.allows(guest.permits.as_ref(), &HostPort::localhost(sshd_port))?;
        }
        Ok(Admitted { permits: guest.permits.clone(), signed })
    }

    /// Whether a session may reach a target that was named inside it: the device's own list, then what policy said when the
    /// session began. The comparison is of text; whoever dials the target checks the address as well.
    ///
    /// # Errors
    /// [`Denied::Target`], [`Denied::Policy`].
    pub fn may_reach(&self, session: &Admitted, target: &HostPort) -> Result<(), Denied> {
        self.allows(session.permits.as_ref(), target)
    }

    fn allows(&self, permits: Option<&PermitOpen>, target: &HostPort) -> Result<(), Denied> {
        if !self.permit_open.allows(target) {
            return Err(Denied::Target { target: target.clone(), permitted: self.permit_open.to_string() });
        }
        match permits.filter(|permits| !permits.allows(target)) {
            Some(permits) => Err(Denied::Policy { target: target.clone(), permitted: permits.to_string() }),
            None => Ok(()),
        }
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

impl Admitted {
    /// What was asked for.
    pub fn request(&self) -> &SealedRequest {
        self.signed.request()
    }

    /// SHA-256 of the request's payload text, which the reply names.
    pub fn request_hash(&self) -> [u8; 32] {
        self.signed.hash()
    }

    /// Who asked, by which enrolment and key.
    pub fn voucher(&self) -> &Voucher {
        self.signed.voucher()
    }

    /// What policy lets the client reach; `None`: it is a manager and is not narrowed.
    pub fn permits(&self) -> Option<&PermitOpen> {
        self.permits.as_ref()
    }
}

impl Denied {
    /// The code of the refusal that a sealed client is sent.
    pub fn code(&self) -> RefusalCode {
        match self {
            Self::Target { .. } | Self::Policy { .. } => RefusalCode::NotPermitted,
            Self::Replayed | Self::Live => RefusalCode::Replayed,
            Self::Expired { .. } => RefusalCode::Expired,
            Self::Identity => RefusalCode::Identity,
            Self::NoSession => RefusalCode::NoSession,
            Self::Full => RefusalCode::Full,
        }
    }
}

/// Whole seconds of milliseconds.
fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1000).unwrap_or(i64::MAX)
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
            Self::Full => f.write_str("The device has seen too many requests in the last minutes; try again later"),
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
