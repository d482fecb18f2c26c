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
        }
    }
}

/// The key of an enrolment's record.
pub(crate) fn record_key(id: &Uuid, owner: &AtSign) -> AtKey {
    AtKey::own(&format!("{id}{RECORD}"), owner)
}

/// The enrolment `id` as it stands at `now`; `None` when there is none, or its record cannot be read.
pub(crate) fn find(
    store: &dyn Store,
    owner: &AtSign,
    id: &Uuid,
    now: Millis,
) -> Result<Option<Enrollment>, StoreError> {
    let Some((record, live)) = load(store, owner, id, now)? else { return Ok(None) };
    let state = match record.approval.state.as_str() {
        _ if !live => EnrollmentState::Expired,
        "approved" => EnrollmentState::Approved,
        "pending" => EnrollmentState::Pending,
        "denied" => EnrollmentState::Denied,
        "revoked" => EnrollmentState::Revoked,
        _ => EnrollmentState::Expired,
    };
    let namespaces = Namespaces::from_map(&record.namespaces);
    Ok(Some(Enrollment { id: id.clone(), state, public_key: record.apkam_public_key, namespaces }))
}

/// The record of `id`, and whether its time has not ended.
pub(crate) fn load(
    store: &dyn Store,
    owner: &AtSign,
    id: &Uuid,
    now: Millis,
) -> Result<Option<(EnrollmentRecord, bool)>, StoreError> {
    let Some(stored) = store.get(owner, &record_key(id, owner))? else { return Ok(None) };
    match serde_json::from_str(&stored.value) {
        Ok(record) => Ok(Some((record, stored.is_active(now)))),
        Err(error) => Err(StoreError::Corrupt(format!("enrolment record: {error}"))),
    }
}

/// The ids of every enrolment of `owner`.
pub(crate) fn ids(store: &dyn Store, owner: &AtSign) -> Result<Vec<Uuid>, StoreError> {
    let mut ids = Vec::new();
    let end = format!("{RECORD}{owner}");
    store.scan(owner, &mut |key, _, _| ids.extend(key.strip_suffix(end.as_str()).and_then(Uuid::parse)))?;
    Ok(ids)
}

impl EnrollmentRecord {
    /// As `enroll:list` and `enroll:fetch` show it.
    pub(crate) fn shown(&self) -> serde_json::Value {
        serde_json::json!({
            "appName": self.app_name,
            "deviceName": self.device_name,
            "namespace": self.namespaces,
            "encryptedAPKAMSymmetricKey": self.encrypted_apkam_symmetric_key,
            "status": self.approval.state,
        })
    }
}
