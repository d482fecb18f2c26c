//! What a proof is worth: whose data, and how much of it.

use std::collections::BTreeMap;

use postern_proto::{AtKey, AtSign, ErrorCode, Millis, ProtocolError, Uuid, Visibility};

use super::Rights;

/// The namespace of the server's own records about enrolments.
const MANAGE: &str = "__manage";

/// Before the id in the name of the record that publishes an enrolment's signing key. Source: NoPorts 2026,
/// `public:_apsk.⟨enrollmentId⟩.a.__e@x`.
const SIGNING_RECORD: &str = "_apsk.";

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
    Enrollment { id: Uuid, rights: Rights, expires_at: Option<Millis> },
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
    /// When it ends by itself, milliseconds since the epoch.
    pub expires_at: Option<Millis>,
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
        let Proof::Enrollment { id, rights, expires_at } = &mut self.proof else { return Ok(()) };
        let gone = || {
            let text = format!("The enrollment id: {id} is expired. Closing the connection");
            ProtocolError::enrollment(ErrorCode::EnrollmentExpired, text)
        };
        let current = current.filter(|e| e.id == *id && e.state != EnrollmentState::Expired).ok_or_else(gone)?;
        current.check_state()?;
        *expires_at = current.expires_at;
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

    /// When the enrolment ends by itself, milliseconds since the epoch; `None`: never.
    pub fn expires_at(&self) -> Option<Millis> {
        match &self.proof {
            Proof::Enrollment { expires_at, .. } => *expires_at,
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

    /// Proved by the key of the legacy form, which belongs to no enrolment.
    pub fn is_legacy(&self) -> bool {
        matches!(self.proof, Proof::LegacyKey)
    }

    /// May grant `namespaces` to others, or take them back from an enrolment that has them: nobody gives what
    /// is not theirs, nor locks out somebody mightier.
    ///
    /// # Errors
    /// The first namespace that is out of reach.
    pub fn covers<'n>(&self, namespaces: &'n BTreeMap<String, String>) -> Result<(), &'n str> {
        let Some(mine) = self.limits() else { return Ok(()) };
        let wanted = |text: &str| if text == "rw" { Access::Write } else { Access::Read };
        let beyond = namespaces.iter().find(|(name, access)| !mine.cover(&name.to_lowercase(), wanted(access)));
        beyond.map_or(Ok(()), |(name, _)| Err(name.as_str()))
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
            // With it relays and devices check who speaks; it is written by the enrolment that it speaks for.
            _ if is_signing_record(key) => self.owns_signing_record(key),
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

    fn owns_signing_record(&self, key: &AtKey) -> bool {
        *key.visibility() == Visibility::Public
            && self.enrollment_id().is_some_and(|id| key.name() == format!("{SIGNING_RECORD}{id}.a.__e"))
    }

    fn refusal(&self, verb: &str, key: impl std::fmt::Display) -> ProtocolError {
        let id = self.enrollment_id().map(Uuid::as_str).unwrap_or_default();
        let text = format!("Connection with enrollment ID {id} is not authorized to {verb} key: {key}");
        ProtocolError::new(ErrorCode::Unauthorized, text)
    }
}

impl Proof {
    fn of(enrollment: Enrollment) -> Self {
        let Enrollment { id, namespaces, expires_at, .. } = enrollment;
        Self::Enrollment { id, rights: namespaces.into(), expires_at }
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

    /// Whether all that `name` reaches with `wanted` is within reach too. `*` covers all but `__manage`, unless a
    /// namespace of its own within `name` grants less.
    fn cover(&self, name: &str, wanted: Access) -> bool {
        if name == MANAGE {
            return self.exact(MANAGE) >= Some(wanted);
        }
        let is_within = |inner: &str, outer: &str| {
            inner == outer || outer == EVERYTHING || inner.strip_suffix(outer).is_some_and(|head| head.ends_with('.'))
        };
        let all = || self.0.iter().filter(|(ns, _)| *ns != MANAGE);
        let around = all().filter(|(ns, _)| is_within(name, ns)).max_by_key(|(ns, _)| {
            // `*` is the widest, though not the shortest.
            if *ns == EVERYTHING { 0 } else { ns.len() }
        });
        around.is_some_and(|(_, access)| *access >= wanted)
            && all().filter(|(ns, _)| is_within(ns, name)).all(|(_, access)| *access >= wanted)
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

fn is_signing_record(key: &AtKey) -> bool {
    key.name().starts_with(SIGNING_RECORD) && key.is_in_namespace("__e")
}

/// `bob`, or `bob.until.1729760400123` of a key put aside: anything longer lies in a namespace.
fn is_shared_key_tail(tail: &str) -> bool {
    let who = match tail.split_once(".until.") {
        Some((who, at)) if !at.is_empty() && at.bytes().all(|b| b.is_ascii_digit()) => who,
        _ => tail,
    };
    !who.contains('.')
}

/// `shared_key.bob@alice` and `@bob:shared_key@alice`: every app needs them to talk to Bob.
fn is_shared_key(key: &AtKey) -> bool {
    match key.visibility() {
        Visibility::Shared(_) => key.name() == "shared_key",
        Visibility::Own => key.name().strip_prefix("shared_key.").is_some_and(is_shared_key_tail),
        _ => false,
    }
}
