//! `keys`: what an enrolment was given at its approval, and what it leaves for itself and others.
//!
//! The reference hands out any record by this verb; here an enrolment gets what is its own, and public keys.

use postern_dialogue::server::{Access, Authority, EnrollmentState};
use postern_proto::verb::{KeyGroup, KeyPut, Keys};
use postern_proto::{AtKey, AtSign, ErrorCode, Metadata, ProtocolError, Record, Reply, Uuid, Visibility};
use postern_store::{Batch, LogAs};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{Call, Plan, Planned, Refusal};
use crate::enrollments::{self, EnrollmentRecord, PRIVATE_KEY, SELF_KEY};

/// As it is stored and handed out.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptKey {
    value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_type: Option<String>,
    enrollment_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_key_name: Option<String>,
}

pub(super) fn plan(call: &Call<'_>, keys: &Keys) -> Planned {
    let me = call.owner()?;
    let id = me.enrollment_id().ok_or_else(only_enrolled)?;
    match keys {
        Keys::Get(key) => {
            let record = readable(call, me, id, key)?.ok_or_else(|| missing(key))?;
            Plan::reply(Reply::Data(record.value))
        }
        Keys::List(group) => list(call, me, id, *group),
        Keys::Put(put) => keep(call, me, id, put),
        Keys::Delete(key) => {
            if group_of(key).is_none() || !is_of(call, me.owner(), id, key)? {
                return Err(missing(key).into());
            }
            let batch = Batch::new(call.now).remove_unlogged(me.owner(), key);
            Plan::change(batch, Reply::Data("-1".into()))
        }
    }
}

fn only_enrolled() -> ProtocolError {
    let text = "keys can be used on connections with an approved enrollment only";
    ProtocolError::new(ErrorCode::InternalException, text)
}

fn missing(key: &AtKey) -> ProtocolError {
    ProtocolError::new(ErrorCode::KeyNotFound, format!("key {key} not found in keystore"))
}

/// The two keys of the approval, keys it put itself, and any public one in its namespaces.
fn readable(call: &Call<'_>, me: &Authority, id: &Uuid, key: &AtKey) -> Result<Option<Record>, Refusal> {
    let given = [PRIVATE_KEY, SELF_KEY].map(|end| AtKey::own(&format!("{id}{end}"), me.owner()));
    let allowed = given.contains(key)
        || match group_of(key) {
            Some(KeyGroup::Public) => me.limits().is_none_or(|rights| rights.reach(key.name(), Access::Read)),
            Some(KeyGroup::Own | KeyGroup::Private) => is_of(call, me.owner(), id, key)?,
            None => false,
        };
    if !allowed || key.owner() != Some(me.owner()) {
        return Ok(None);
    }
    Ok(call.active(me.owner(), key)?)
}

/// Put by the enrolment `id`.
fn is_of(call: &Call<'_>, me: &AtSign, id: &Uuid, key: &AtKey) -> Result<bool, Refusal> {
    let Some(record) = call.active(me, key)? else { return Ok(false) };
    let kept: Option<KeptKey> = serde_json::from_str(&record.value).ok();
    Ok(kept.is_some_and(|kept| kept.enrollment_id == id.as_str()))
}

fn group_of(key: &AtKey) -> Option<KeyGroup> {
    let group = match key.visibility() {
        _ if key.is_cached() => return None,
        Visibility::Public => KeyGroup::Public,
        Visibility::Private => KeyGroup::Private,
        Visibility::Own => KeyGroup::Own,
        _ => return None,
    };
    key.name().contains(&format!(".{}.", group.marker())).then_some(group)
}

fn list(call: &Call<'_>, me: &Authority, id: &Uuid, group: KeyGroup) -> Planned {
    let mut names = Vec::new();
    call.store.scan(me.owner(), &mut |key, _, ends| {
        let living = ends.is_none_or(|at| call.now < at);
        names.extend(AtKey::parse(key).ok().filter(|key| living && group_of(key) == Some(group)));
    })?;
    let mut own = Vec::new();
    for key in names {
        if is_of(call, me.owner(), id, &key)? {
            own.push(Json::from(key.to_string()));
        }
    }
    Plan::reply(Reply::json(&Json::Array(own)))
}

fn keep(call: &Call<'_>, me: &Authority, id: &Uuid, put: &KeyPut) -> Planned {
    let owner = me.owner();
    let enrolled = enrollments::load(call.store, owner, id, call.now)?;
    let enrolled = enrolled.filter(|kept| kept.state == EnrollmentState::Approved).ok_or_else(only_enrolled)?;
    let key = key_for(put, owner, &enrolled.record)?;
    key.check().map_err(|error| ProtocolError::new(ErrorCode::InvalidKey, error.to_string()))?;
    if !me.limits().is_none_or(|rights| rights.reach(key.name(), Access::Write)) {
        let text = format!("Connection with enrollment ID {id} is not authorized to keys key: {key}");
        return Err(ProtocolError::new(ErrorCode::Unauthorized, text).into());
    }
    if call.active(owner, &key)?.is_some() && !is_of(call, owner, id, &key)? {
        let text = format!("{key} belongs to another enrollment");
        return Err(ProtocolError::new(ErrorCode::Unauthorized, text).into());
    }
    let kept = KeptKey {
        value: put.value.clone(),
        key_type: put.key_type.clone(),
        enrollment_id: id.to_string(),
        encryption_key_name: put.encryption_key_name.clone(),
    };
    let value = serde_json::to_string(&kept)
        .map_err(|_| ProtocolError::new(ErrorCode::InternalException, "the key cannot be stored"))?;
    let batch = call.write(Batch::new(call.now), owner, &key, LogAs::Nothing, |old| match old {
        Some(old) => old.next(value, Metadata::default(), call.now),
        None => Record::new(value, Metadata::default(), call.now),
    })?;
    Plan::change(batch, Reply::Data("-1".into()))
}

/// Names of app and device are the enrolment's own: nobody puts keys in another's place.
fn key_for(put: &KeyPut, owner: &AtSign, enrolled: &EnrollmentRecord) -> Result<AtKey, ProtocolError> {
    let KeyPut { group, namespace, key_name, .. } = put;
    let foreign = |given: &Option<String>, own: &str| given.as_ref().is_some_and(|given| given != own);
    if foreign(&put.app_name, &enrolled.app_name) || foreign(&put.device_name, &enrolled.device_name) {
        let text = "appName and deviceName are those of another enrollment";
        return Err(ProtocolError::new(ErrorCode::Unauthorized, text));
    }
    let (app, device, marker) = (&enrolled.app_name, &enrolled.device_name, group.marker());
    Ok(match group {
        KeyGroup::Public => AtKey::public(&format!("{key_name}.{marker}.{namespace}"), owner),
        KeyGroup::Private => AtKey::private(&format!("{app}.{device}.{key_name}.{marker}.{namespace}"), owner),
        KeyGroup::Own => AtKey::own(&format!("{app}.{device}.{key_name}.{marker}.{namespace}"), owner),
    })
}
