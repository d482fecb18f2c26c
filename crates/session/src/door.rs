//! The device's decision about a request, told by its door.

mod denied;

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use postern_crypto::Ed25519PublicKey;
use postern_identity::Voucher;
use postern_identity::limits::CLOCK_TOLERANCE_MS;
use postern_proto::{AtSign, Uuid};

use crate::limits::REMEMBERED_SESSIONS;
use crate::permit::{HostPort, PermitOpen};
use crate::permit_listen::PermitListen;
use crate::replay::Memory;
use crate::request::SessionRequest;
use crate::sealed::{SealedRequest, SignedRequest};

pub use denied::Denied;

/// Decides who may come in. Holds the device's own list and what it has seen.
pub struct Door {
    permit_open: PermitOpen,
    permit_listen: PermitListen,
    seen: BTreeSet<(AtSign, Uuid)>,
    order: VecDeque<(AtSign, Uuid)>,
    sealed: Memory,
}

/// Somebody who may knock: a manager, or a client that the policy service vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    guest: Guest,
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

impl Door {
    /// A door that opens to these targets.
    pub fn new(permit_open: PermitOpen) -> Self {
        let permit_listen = PermitListen::default();
        Self { permit_open, permit_listen, seen: BTreeSet::new(), order: VecDeque::new(), sealed: Memory::default() }
    }

    /// The same, where these ports may be listened on for clients as well.
    #[must_use]
    pub fn with_listen(self, permit_listen: PermitListen) -> Self {
        Self { permit_listen, ..self }
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
            Some(live) if live.client != *client || live.key != *signed.voucher().key() => {
                return Err(Denied::NoSession);
            }
            Some(live) if live.epoch >= offer.epoch => return Err(Denied::Replayed),
            _ => {}
        }
        if *is_ssh {
            self.allows(guest.permits.as_ref(), &HostPort::localhost(sshd_port))?;
        }
        Ok(Admitted { guest: guest.clone(), signed })
    }

    /// Whether a guest may reach a target that was named inside its session: the device's own list, then what policy said
    /// last. The comparison is of text; whoever dials the target asks [`Door::may_dial`] for each address.
    ///
    /// # Errors
    /// [`Denied::Target`], [`Denied::Policy`].
    pub fn may_reach(&self, guest: &Guest, target: &HostPort) -> Result<(), Denied> {
        self.allows(guest.permits.as_ref(), target)
    }

    /// Whether an address that a permitted name leads to may be dialled for this guest. Link-local addresses, where clouds
    /// have their metadata, and those that are no single machine's are dialled only when a list names the address itself.
    ///
    /// # Errors
    /// [`Denied::Address`].
    pub fn may_dial(&self, guest: &Guest, address: SocketAddr) -> Result<(), Denied> {
        let listed = |list: &PermitOpen| list.names(address);
        if !is_special(address.ip()) || listed(&self.permit_open) || guest.permits.as_ref().is_some_and(listed) {
            return Ok(());
        }
        Err(Denied::Address(address.ip()))
    }

    /// Whether the device may listen on this port of its loopback for a guest: its own list, then what policy said last.
    ///
    /// # Errors
    /// [`Denied::Listen`].
    pub fn may_listen(&self, guest: &Guest, port: u16) -> Result<(), Denied> {
        let denied = |by_policy| Err(Denied::Listen { port, by_policy, permitted: self.permit_listen.to_string() });
        if !self.permit_listen.allows(port) {
            return denied(false);
        }
        if guest.permits.as_ref().is_some_and(|permits| !permits.lets_listen(port)) {
            return denied(true);
        }
        Ok(())
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

    /// Let in by the device's own list, and not by its policy service.
    pub fn is_manager(&self) -> bool {
        self.permits.is_none()
    }

    /// What lets the guest in, in a word: `manager` or `policy`.
    pub fn rule(&self) -> &'static str {
        if self.is_manager() { "manager" } else { "policy" }
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

    /// Who was let in, and how far.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }
}

/// Addresses that nobody means who names a host: no single machine's, or a cloud's metadata service.
fn is_special(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [first, ..] = v4.octets();
            first == 0 || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast() || v4 == ALIBABA_METADATA
        }
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local() || v6 == AWS_METADATA,
    }
}

/// Metadata services that are not link-local: Alibaba Cloud's, and that of AWS over IPv6.
const ALIBABA_METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
const AWS_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254);

/// Whole seconds of milliseconds.
fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
