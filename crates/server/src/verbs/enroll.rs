//! `enroll`: as far as the first activation goes, and looking at what there is.

use std::collections::BTreeMap;

use postern_crypto::RsaPublicKey;
use postern_dialogue::server::{Authority, Enrollment, EnrollmentState, Namespaces};
use postern_proto::verb::{Enroll, EnrollOperation, EnrollParams};
use postern_proto::{AtKey, AtSign, ErrorCode, Metadata, ProtocolError, Record, Reply, Uuid};
use postern_store::{Batch, LogAs};
use serde_json::{Map, Value as Json, json};

use super::{Call, Plan, Planned, Refusal};
use crate::enrollments::{self, Approval, EnrollmentRecord, PRIVATE_KEY, SELF_KEY};

pub(super) fn plan(call: &Call<'_>, enroll: &Enroll) -> Planned {
    match enroll.operation {
        EnrollOperation::Request => match call.who {
            Some(me) if me.is_cram() => first_device(call, me, &enroll.params),
            _ => Err(unsupported(enroll.operation)),
        },
        operation => {
            let me = call.who.ok_or_else(|| {
                let text = format!("Cannot {} enrollment without authentication", operation.as_str());
                ProtocolError::new(ErrorCode::Authentication, text)
            })?;
            match operation {
                EnrollOperation::List => list(call, me, &enroll.params),
                EnrollOperation::Fetch => fetch(call, me, &enroll.params),
                _ => Err(unsupported(operation)),
            }
        }
    }
}

fn unsupported(operation: EnrollOperation) -> Refusal {
    internal(format!("enroll:{} is not supported yet", operation.as_str())).into()
}

fn internal(text: impl Into<String>) -> ProtocolError {
    ProtocolError::new(ErrorCode::InternalException, text)
}

/// The device that holds the activation secret: approved at once, with all rights. Its key
/// becomes the legacy key too, for programs that know no enrolments.
fn first_device(call: &Call<'_>, me: &Authority, params: &EnrollParams) -> Planned {
    let wanted = |value: &Option<String>, name: &str| {
        value.clone().filter(|text| !text.is_empty()).ok_or_else(|| {
            ProtocolError::new(ErrorCode::IllegalArguments, format!("{name} is mandatory for enroll:request"))
        })
    };
    let (app, device) = (wanted(&params.app_name, "appName")?, wanted(&params.device_name, "deviceName")?);
    let public_key = wanted(&params.apkam_public_key, "apkamPublicKey")?;
    RsaPublicKey::from_base64(&public_key)
        .map_err(|_| ProtocolError::new(ErrorCode::IllegalArguments, "apkamPublicKey is no RSA public key"))?;
    refuse_twin(call, me.owner(), &app, &device)?;
    let id = call.uuid();
    let mut namespaces = params.namespaces.clone().unwrap_or_default();
    namespaces.extend([("__manage", "rw"), ("*", "rw")].map(|(name, access)| (name.into(), access.into())));
    let record = EnrollmentRecord {
        app_name: app,
        device_name: device,
        apkam_public_key: public_key.clone(),
        approval: Approval { state: "approved".into() },
        encrypted_apkam_symmetric_key: params.encrypted_apkam_symmetric_key.clone(),
        apkam_keys_expiry: params.apkam_keys_expiry_in_millis,
        namespaces: namespaces.clone(),
        ..EnrollmentRecord::default()
    };
    let text = serde_json::to_string(&record).map_err(|_| internal("enrollment cannot be stored"))?;
    let put = |batch: Batch, key: AtKey, value: String| {
        call.write(batch, me.owner(), &key, LogAs::Nothing, |old| match old {
            Some(old) => old.next(value, Metadata::default(), call.now),
            None => Record::new(value, Metadata::default(), call.now),
        })
    };
    let mut batch = put(Batch::new(call.now), enrollments::record_key(&id, me.owner()), text)?;
    for (end, value) in [
        (PRIVATE_KEY, &params.encrypted_default_encryption_private_key),
        (SELF_KEY, &params.encrypted_default_self_encryption_key),
    ] {
        if let Some(value) = value {
            let key = AtKey::own(&format!("{id}{end}"), me.owner());
            batch = put(batch, key, json!({ "value": value }).to_string())?;
        }
    }
    batch = put(batch, AtKey::private_key("at_pkam_publickey"), public_key.clone())?;
    let reply = Reply::json(&json!({"enrollmentId": id.as_str(), "status": "approved"}));
    let mut plan = Plan::change(batch, reply)?;
    plan.adopt = Some(Enrollment {
        namespaces: Namespaces::from_map(&namespaces),
        state: EnrollmentState::Approved,
        public_key,
        id,
    });
    Ok(plan)
}

/// One living enrolment for each app on each device.
fn refuse_twin(call: &Call<'_>, owner: &AtSign, app: &str, device: &str) -> Result<(), Refusal> {
    for (id, record) in living(call, owner)? {
        let state = record.approval.state.as_str();
        if record.app_name == app && record.device_name == device && matches!(state, "approved" | "pending") {
            let text = format!(
                "Another enrollment with id {id} exists with the app name: {app} and device name: {device} in {state} state"
            );
            return Err(internal(text).into());
        }
    }
    Ok(())
}

fn living(call: &Call<'_>, owner: &AtSign) -> Result<BTreeMap<Uuid, EnrollmentRecord>, Refusal> {
    let mut all = BTreeMap::new();
    for id in enrollments::ids(call.store, owner)? {
        if let Some((record, true)) = enrollments::load(call.store, owner, &id, call.now)? {
            all.insert(id, record);
        }
    }
    Ok(all)
}

fn list(call: &Call<'_>, me: &Authority, params: &EnrollParams) -> Planned {
    let wanted = params.enrollment_status_filter.as_deref();
    let mut shown = Map::new();
    for (id, record) in living(call, me.owner())? {
        let mine = me.manages() || me.enrollment_id() == Some(&id);
        if mine && wanted.is_none_or(|states| states.contains(&record.approval.state)) {
            shown.insert(enrollments::record_key(&id, me.owner()).to_string(), record.shown());
        }
    }
    Plan::reply(Reply::json(&Json::Object(shown)))
}

fn fetch(call: &Call<'_>, me: &Authority, params: &EnrollParams) -> Planned {
    let id = params.enrollment_id.as_deref().unwrap_or_default();
    let unknown = || {
        ProtocolError::enrollment(ErrorCode::EnrollmentExpired, format!("enrollment_id: {id} is expired or invalid"))
    };
    let parsed = Uuid::parse(id).filter(|id| me.manages() || me.enrollment_id() == Some(id)).ok_or_else(unknown)?;
    match enrollments::load(call.store, me.owner(), &parsed, call.now)? {
        Some((record, true)) => Plan::reply(Reply::json(&record.shown())),
        _ => Err(unknown().into()),
    }
}
