//! How enrolments lie in the store: JSON records in the server's own namespace.

use std::collections::BTreeMap;

use postern_dialogue::server::{Enrollment, EnrollmentState, Namespaces};
use postern_proto::{AtKey, AtSign, Millis, Uuid};
use postern_store::{Store, StoreError};
use serde::{Deserialize, Serialize};

/// Behind the id in the name of an enrolment's record.
pub(crate) const RECORD: &str = ".new.enrollments.__manage";
/// Behind the id in the name of the encrypted private key.
pub(crate) const PRIVATE_KEY: &str = ".default_enc_private_key.__manage";
/// Behind the id in the name of the encrypted self key.
pub(crate) const SELF_KEY: &str = ".default_self_enc_key.__manage";

/// The stored form, member for member the reference's.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EnrollmentRecord {
    pub(crate) session_id: String,
    pub(crate) app_name: String,
    pub(crate) device_name: String,
    pub(crate) namespaces: BTreeMap<String, String>,
    pub(crate) apkam_public_key: String,
    pub(crate) request_type: String,
    pub(crate) approval: Approval,
    #[serde(rename = "encryptedAPKAMSymmetricKey", skip_serializing_if = "Option::is_none")]
    pub(crate) encrypted_apkam_symmetric_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) apkam_keys_expiry: Option<i64>,
    /// It reads initial counter blocks beside the keys it is handed.
    #[serde(rename = "takesIV", skip_serializing_if = "std::ops::Not::not")]
    pub(crate) takes_iv: bool,
    /// What is published as its signing key from its approval on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signing_key: Option<String>,
    /// Its key was the legacy key too when it was revoked; the legacy form is closed with it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) held_legacy_key: bool,
}

/// Where it stands.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Approval {
    pub(crate) state: String,
}

impl Default for EnrollmentRecord {
    fn default() -> Self {
        Self {
            session_id: String::new(),
            app_name: String::new(),
            device_name: String::new(),
            namespaces: BTreeMap::new(),
            apkam_public_key: String::new(),
            request_type: "newEnrollment".into(),
            approval: Approval { state: "pending".into() },
            encrypted_apkam_symmetric_key: None,
            apkam_keys_expiry: None,
            takes_iv: false,
            signing_key: None,
            held_legacy_key: false,
        }
    }
}

/// The key of an enrolment's record.
pub(crate) fn record_key(id: &Uuid, owner: &AtSign) -> AtKey {
    AtKey::own(&format!("{id}{RECORD}"), owner)
}

/// An enrolment as it lies in the store.
pub(crate) struct Kept {
    pub(crate) id: Uuid,
    pub(crate) record: EnrollmentRecord,
    /// Whether it counts, at the moment it was read.
    pub(crate) state: EnrollmentState,
    pub(crate) expires_at: Option<Millis>,
}

/// The enrolment `id` as it stands at `now`, for proofs and rights; `None` when there is none.
pub(crate) fn find(
    store: &dyn Store,
    owner: &AtSign,
    id: &Uuid,
    now: Millis,
) -> Result<Option<Enrollment>, StoreError> {
    Ok(load(store, owner, id, now)?.map(|kept| Enrollment {
        namespaces: Namespaces::from_map(&kept.record.namespaces),
        id: kept.id,
        state: kept.state,
        public_key: kept.record.apkam_public_key,
        expires_at: kept.expires_at,
    }))
}

/// The whole record of `id`; an expired one is there until it is swept.
pub(crate) fn load(store: &dyn Store, owner: &AtSign, id: &Uuid, now: Millis) -> Result<Option<Kept>, StoreError> {
    let Some(stored) = store.get(owner, &record_key(id, owner))? else { return Ok(None) };
    let record: EnrollmentRecord = serde_json::from_str(&stored.value)
        .map_err(|error| StoreError::Corrupt(format!("enrolment record: {error}")))?;
    let state = match record.approval.state.as_str() {
        _ if !stored.is_active(now) => EnrollmentState::Expired,
        "approved" => EnrollmentState::Approved,
        "pending" => EnrollmentState::Pending,
        "denied" => EnrollmentState::Denied,
        "revoked" => EnrollmentState::Revoked,
        _ => EnrollmentState::Expired,
    };
    Ok(Some(Kept { id: id.clone(), record, state, expires_at: stored.expires_at }))
}

/// Every enrolment of `owner`, those that expired lately too, ordered by id.
pub(crate) fn all(store: &dyn Store, owner: &AtSign, now: Millis) -> Result<Vec<Kept>, StoreError> {
    let mut all = Vec::new();
    for id in ids(store, owner)? {
        all.extend(load(store, owner, &id, now)?);
    }
    Ok(all)
}

/// The record in which an enrolment publishes its signing key: `a` while it counts, `r` once it is revoked,
/// `d` once it is denied. Source: NoPorts 2026.
pub(crate) fn signing_record(id: &Uuid, state: EnrollmentState, owner: &AtSign) -> Option<AtKey> {
    let letter = match state {
        EnrollmentState::Approved | EnrollmentState::Pending => 'a',
        EnrollmentState::Revoked => 'r',
        EnrollmentState::Denied => 'd',
        EnrollmentState::Expired => return None,
    };
    Some(AtKey::public(&format!("_apsk.{id}.{letter}.__e"), owner))
}

/// A key as it is handed to a new device: `{"value":…}`, and `iv` beside it when it has one.
pub(crate) fn handed_over(value: &str, iv: Option<&str>) -> String {
    match iv {
        Some(iv) => serde_json::json!({ "value": value, "iv": iv }),
        None => serde_json::json!({ "value": value }),
    }
    .to_string()
}

/// The word of a state on the wire.
pub(crate) fn state_word(state: EnrollmentState) -> &'static str {
    match state {
        EnrollmentState::Pending => "pending",
        EnrollmentState::Approved => "approved",
        EnrollmentState::Denied => "denied",
        EnrollmentState::Revoked => "revoked",
        EnrollmentState::Expired => "expired",
    }
}

/// The ids of every enrolment of `owner`.
fn ids(store: &dyn Store, owner: &AtSign) -> Result<Vec<Uuid>, StoreError> {
    let mut ids = Vec::new();
    let end = format!("{RECORD}{owner}");
    store.scan(owner, &mut |key, _, _| ids.extend(key.strip_suffix(end.as_str()).and_then(Uuid::parse)))?;
    Ok(ids)
}

impl Kept {
    /// As `enroll:list` and `enroll:fetch` show it.
    pub(crate) fn shown(&self) -> serde_json::Value {
        let mut shown = serde_json::json!({
            "appName": self.record.app_name,
            "deviceName": self.record.device_name,
            "namespace": self.record.namespaces,
            "encryptedAPKAMSymmetricKey": self.record.encrypted_apkam_symmetric_key,
            "status": state_word(self.state),
        });
        // A member that others do not know is shown to those alone whom it concerns.
        if let Some(shown) = shown.as_object_mut().filter(|_| self.record.takes_iv) {
            shown.insert("takesIV".into(), true.into());
        }
        shown
    }

    /// What is left of its life at `now`, in milliseconds; `None`: no end.
    pub(crate) fn life_left(&self, now: Millis) -> Option<i64> {
        self.expires_at.map(|end| end.saturating_sub(now).max(1))
    }
}
