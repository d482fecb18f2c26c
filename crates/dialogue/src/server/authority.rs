//! What a proof is worth: whose data, and how much of it.

use std::collections::BTreeMap;

use postern_proto::{AtKey, AtSign, ErrorCode, ProtocolError, Uuid, Visibility};

use super::Rights;

/// The namespace of the server's own records about enrolments.
const MANAGE: &str = "__manage";

/// The right to everything but `__manage`.
const EVERYTHING: &str = "*";

/// The witness of a proof: whoever holds it has shown to be `owner`, perhaps with limits.
/// Nothing outside this module can make one.
#[derive(Clone)]
pub struct Authority {
    owner: AtSign,
    proof: Proof,
}

#[derive(Clone)]
enum Proof {
    Cram,
    LegacyKey,
    Enrollment { id: Uuid, rights: Rights },
}

/// What somebody wants with a key, or may do with it. Writing includes reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// `r`
    Read,
    /// `rw`
    Write,
}

/// Namespaces and the access that an enrolment has to each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(BTreeMap<String, Access>);

/// An enrolment as the server stores it, as far as proofs and rights go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrollment {
    /// Which.
    pub id: Uuid,
    /// Whether it counts.
    pub state: EnrollmentState,
    /// Base64 of the DER public key that proves it.
    pub public_key: String,
    /// What it may touch.
    pub namespaces: Namespaces,
}

/// Where an enrolment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrollmentState {
    /// Asked for.
    Pending,
    /// Granted.
    Approved,
    /// Refused.
    Denied,
    /// Taken back.
    Revoked,
    /// Its time is over.
    Expired,
}

impl Authority {
    pub(super) fn by_cram(owner: AtSign) -> Self {
        Self { owner, proof: Proof::Cram }
    }

    pub(super) fn by_legacy_key(owner: AtSign) -> Self {
        Self { owner, proof: Proof::LegacyKey }
    }

    pub(super) fn by_enrollment(owner: AtSign, enrollment: Enrollment) -> Self {
        Self { owner, proof: Proof::of(enrollment) }
    }

    pub(super) fn adopt(&mut self, enrollment: Enrollment) {
        if self.is_cram() {
            self.proof = Proof::of(enrollment);
        }
    }

    pub(super) fn renew(&mut self, current: Option<Enrollment>) -> Result<(), ProtocolError> {
        let Proof::Enrollment { id, rights } = &mut self.proof else { return Ok(()) };
        let gone = || {
            let text = format!("The enrollment id: {id} is expired. Closing the connection");
            ProtocolError::enrollment(ErrorCode::EnrollmentExpired, text)
        };
        let current = current.filter(|e| e.id == *id && e.state != EnrollmentState::Expired).ok_or_else(gone)?;
        current.check_state()?;
        if **rights != current.namespaces {
            *rights = current.namespaces.into();
        }
        Ok(())
    }

    /// Whose household this is.
    pub fn owner(&self) -> &AtSign {
        &self.owner
    }

    /// Proved by the activation secret, and not enrolled yet.
    pub fn is_cram(&self) -> bool {
        matches!(self.proof, Proof::Cram)
    }

    /// The enrolment whose key made the proof.
    pub fn enrollment_id(&self) -> Option<&Uuid> {
        match &self.proof {
            Proof::Enrollment { id, .. } => Some(id),
            Proof::Cram | Proof::LegacyKey => None,
        }
    }

    /// The limits of an enrolment; `None`: no limits.
    pub fn limits(&self) -> Option<&Rights> {
        match &self.proof {
            Proof::Enrollment { rights, .. } => Some(rights),
            Proof::Cram | Proof::LegacyKey => None,
        }
    }

    /// May decide on enrolments and set passcodes.
    pub fn manages(&self) -> bool {
        self.limits().is_none_or(|rights| rights.exact(MANAGE) == Some(Access::Write))
    }

    /// May change the keys that the identity itself rests on.
    pub fn is_full(&self) -> bool {
        self.manages() && self.limits().is_none_or(|rights| rights.exact(EVERYTHING) == Some(Access::Write))
    }

    /// Whether this authority reaches `key`. `verb` stands in the refusal.
    ///
    /// Stricter than the reference with keys that an identity rests on: it lets every
    /// enrolment replace them.
    ///
    /// # Errors
    /// `AT0009` with the enrolment and the key.
    pub fn check(&self, verb: &str, key: &AtKey, wanted: Access) -> Result<(), ProtocolError> {
        let Some(rights) = self.limits() else { return Ok(()) };
        let reached = match key.visibility() {
            _ if is_managed(key.name()) => false,
            Visibility::Public if wanted == Access::Read => true,
            _ if is_root_of_trust(key) => self.is_full(),
            _ if is_shared_key(key) => wanted == Access::Read || rights.can_write_anything(),
            _ => rights.reach(key.name(), wanted),
        };
        if reached { Ok(()) } else { Err(self.refusal(verb, key)) }
    }

    /// The same for the name in a notification, which need not be a key.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_name(&self, verb: &str, name: &str, shown: &str, wanted: Access) -> Result<(), ProtocolError> {
        let reached = self.limits().is_none_or(|rights| rights.reach(&name.to_lowercase(), wanted));
        if reached { Ok(()) } else { Err(self.refusal(verb, shown)) }
    }

    fn refusal(&self, verb: &str, key: impl std::fmt::Display) -> ProtocolError {
        let id = self.enrollment_id().map(Uuid::as_str).unwrap_or_default();
        let text = format!("Connection with enrollment ID {id} is not authorized to {verb} key: {key}");
        ProtocolError::new(ErrorCode::Unauthorized, text)
    }
}

impl Proof {
    fn of(enrollment: Enrollment) -> Self {
        Self::Enrollment { id: enrollment.id, rights: enrollment.namespaces.into() }
    }
}

impl Enrollment {
    pub(super) fn check_state(&self) -> Result<(), ProtocolError> {
        let (code, word) = match self.state {
            EnrollmentState::Approved => return Ok(()),
            EnrollmentState::Denied => (ErrorCode::EnrollmentDenied, "denied"),
            EnrollmentState::Pending => (ErrorCode::EnrollmentPending, "pending"),
            EnrollmentState::Revoked => (ErrorCode::EnrollmentRevoked, "revoked"),
            EnrollmentState::Expired => (ErrorCode::EnrollmentExpired, "expired or invalid"),
        };
        Err(ProtocolError::enrollment(code, format!("enrollment_id: {} is {word}", self.id)))
    }
}

impl Namespaces {
    /// From the map of an enrolment, namespace to `r` or `rw`; other rights count as none.
    pub fn from_map(map: &BTreeMap<String, String>) -> Self {
        let access = |text: &str| match text {
            "r" => Some(Access::Read),
            "rw" => Some(Access::Write),
            _ => None,
        };
        Self(map.iter().filter_map(|(name, text)| Some((name.to_lowercase(), access(text)?))).collect())
    }

    fn exact(&self, name: &str) -> Option<Access> {
        self.0.get(name).copied()
    }

    /// Has `rw` somewhere.
    pub fn can_write_anything(&self) -> bool {
        self.0.values().any(|access| *access == Access::Write)
    }

    /// Whether a key of this folded name (entity and namespace) is within reach. The longest
    /// enrolled namespace that is a dotted tail of the name decides; without one, `*`.
    pub fn reach(&self, name: &str, wanted: Access) -> bool {
        if is_managed(name) {
            return false;
        }
        let tail = |ns: &str| name.strip_suffix(ns).is_some_and(|head| head.ends_with('.'));
        let granted = self
            .0
            .iter()
            .filter(|(ns, _)| tail(ns))
            .max_by_key(|(ns, _)| ns.len())
            .map(|(_, access)| *access)
            .or_else(|| self.exact(EVERYTHING));
        granted.is_some_and(|access| access >= wanted)
    }

    /// Every key, `__manage` excepted.
    pub fn reach_everything(&self) -> bool {
        self.exact(EVERYTHING).is_some()
    }

    /// The server's messages about enrolments are heard by those who decide on them.
    pub fn manage(&self) -> bool {
        self.exact(MANAGE).is_some()
    }
}

/// In the namespace that the server keeps for itself.
fn is_managed(name: &str) -> bool {
    name == MANAGE || name.strip_suffix(MANAGE).is_some_and(|head| head.ends_with('.'))
}

fn is_root_of_trust(key: &AtKey) -> bool {
    *key.visibility() == Visibility::PrivateKey
        || matches!(key.name(), "publickey" | "signing_publickey" | "signing_privatekey")
}

/// `shared_key.bob@alice` and `@bob:shared_key@alice`: every app needs them to talk to Bob.
fn is_shared_key(key: &AtKey) -> bool {
    match key.visibility() {
        Visibility::Shared(_) => key.name() == "shared_key",
        Visibility::Own => key.name().starts_with("shared_key."),
        _ => false,
    }
}
