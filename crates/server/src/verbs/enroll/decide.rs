//! `enroll:approve`, `deny`, `revoke`, `unrevoke`, `delete`.

use postern_dialogue::server::{Authority, EnrollmentState};
use postern_proto::verb::{Enroll, EnrollOperation, EnrollParams};
use postern_proto::{AtKey, AtSign, ErrorCode, ProtocolError, Record, Reply};
use postern_store::{Batch, LogAs};
use serde_json::{Value as Json, json};

use super::{internal, mandatory, may_decide, meant, unknown};
use crate::enrollments::{Kept, PRIVATE_KEY, SELF_KEY, handed_over, record_key, signing_record, state_word};
use crate::verbs::{Call, Plan, Planned, Refusal};

const LEGACY_KEY: &str = "at_pkam_publickey";

pub(super) fn plan(call: &Call<'_>, me: &Authority, enroll: &Enroll) -> Planned {
    let mut kept = meant(call, me.owner(), &enroll.params)?;
    may_decide(me, &kept, enroll.operation)?;
    check_state(&kept, enroll.operation)?;
    let own = me.enrollment_id() == Some(&kept.id);
    let batch = Batch::new(call.now);
    let (batch, state) = match enroll.operation {
        EnrollOperation::Approve => (approve(call, batch, me.owner(), &kept, &enroll.params)?, "approved"),
        EnrollOperation::Revoke | EnrollOperation::Deny if own && !enroll.force => {
            let text = "Current client cannot revoke its own enrollment : use enroll:revoke:force";
            return Err(ProtocolError::new(ErrorCode::SelfRevocation, text).into());
        }
        EnrollOperation::Deny => (close_legacy(call, batch, me.owner(), &mut kept)?, "denied"),
        EnrollOperation::Revoke => (close_legacy(call, batch, me.owner(), &mut kept)?, "revoked"),
        EnrollOperation::Unrevoke => (open_legacy(call, batch, me.owner(), &mut kept)?, "approved"),
        EnrollOperation::Delete => return forget(call, me.owner(), &kept),
        EnrollOperation::Request | EnrollOperation::List | EnrollOperation::Fetch => {
            return Err(ProtocolError::invalid_command().into());
        }
    };
    let before = kept.state;
    kept.record.approval.state = state.into();
    let life = match enroll.operation {
        EnrollOperation::Approve => kept.record.apkam_keys_expiry,
        _ => kept.life_left(call.now),
    };
    let batch = call.keep_enrollment(batch, me.owner(), &kept.id, &kept.record, life)?;
    let batch = move_signing_record(call, batch, me.owner(), &kept, before, enroll.operation)?;

    let mut reply = json!({"enrollmentId": kept.id.as_str(), "status": state});
    let ends = matches!(enroll.operation, EnrollOperation::Revoke | EnrollOperation::Deny);
    if let Some(reply) = reply.as_object_mut().filter(|_| own && ends) {
        reply.insert("message".into(), Json::from("Enrollment is revoked. Closing the connection"));
    }
    let mut plan = Plan::change(batch, Reply::json(&reply))?;
    plan.ends_rights = ends.then(|| me.owner().clone());
    plan.close = own && ends;
    Ok(plan)
}

/// From which states which decision may be taken.
fn check_state(kept: &Kept, operation: EnrollOperation) -> Result<(), ProtocolError> {
    use EnrollmentState::{Approved, Denied, Expired, Pending, Revoked};
    if kept.state == Expired {
        return Err(unknown(kept.id.as_str()));
    }
    let (from, rule): (&[EnrollmentState], _) = match operation {
        EnrollOperation::Approve => (&[Pending], "Only pending enrollments can be approved"),
        EnrollOperation::Deny => (&[Pending, Approved, Denied, Revoked], ""),
        EnrollOperation::Revoke => (&[Approved], "Only approved enrollments can be revoked"),
        EnrollOperation::Unrevoke => (&[Revoked], "Only revoked enrollments can be un-revoked"),
        _ => (&[Denied, Revoked], "Only denied or revoked enrollments can be deleted"),
    };
    if from.contains(&kept.state) {
        return Ok(());
    }
    let (id, verb, state) = (&kept.id, operation.as_str(), state_word(kept.state));
    let article = if state == "approved" { "an" } else { "a" };
    Err(internal(format!("Failed to {verb} enrollment id: {id}. Cannot {verb} {article} {state} enrollment. {rule}")))
}

/// The two keys that the new device wants, and the public half of its own for all to see.
fn approve(
    call: &Call<'_>,
    mut batch: Batch,
    me: &AtSign,
    kept: &Kept,
    params: &EnrollParams,
) -> Result<Batch, Refusal> {
    let life = kept.record.apkam_keys_expiry;
    let (private, own) =
        (&params.encrypted_default_encryption_private_key, &params.encrypted_default_self_encryption_key);
    for (end, value, iv, name) in [
        (PRIVATE_KEY, private, &params.enc_private_key_iv, "encryptedDefaultEncryptionPrivateKey"),
        (SELF_KEY, own, &params.self_enc_key_iv, "encryptedDefaultSelfEncryptionKey"),
    ] {
        let value = mandatory(value, name, "approve")?;
        let key = AtKey::own(&format!("{}{end}", kept.id), me);
        batch = call.keep(batch, me, &key, handed_over(&value, iv.as_deref()), life)?;
    }
    batch = call.publish_signing_key(batch, me, &kept.id, &kept.record, life)?;
    let key = published_key(kept, me);
    // App and device are texts of a stranger's choice; where they make no name, nothing is published.
    if key.check().is_ok() {
        let value = json!({"apkamPublicKey": kept.record.apkam_public_key}).to_string();
        batch = call.keep(batch, me, &key, value, life)?;
    }
    Ok(batch)
}

fn published_key(kept: &Kept, me: &AtSign) -> AtKey {
    let (app, device) = (&kept.record.app_name, &kept.record.device_name);
    AtKey::public(&format!("{app}.{device}.pkam.__pkams.__public_keys"), me)
}

/// The first device's key opens the door in the legacy form too; a revocation that left it so would be none.
fn close_legacy(call: &Call<'_>, batch: Batch, me: &AtSign, kept: &mut Kept) -> Result<Batch, Refusal> {
    let key = AtKey::private_key(LEGACY_KEY);
    let is_same = call.store.get(me, &key)?.is_some_and(|legacy| legacy.value == kept.record.apkam_public_key);
    kept.record.held_legacy_key |= is_same;
    Ok(if is_same { batch.remove_unlogged(me, &key) } else { batch })
}

fn open_legacy(call: &Call<'_>, batch: Batch, me: &AtSign, kept: &mut Kept) -> Result<Batch, Refusal> {
    let key = AtKey::private_key(LEGACY_KEY);
    let held = std::mem::take(&mut kept.record.held_legacy_key);
    if !held || call.store.get(me, &key)?.is_some() {
        return Ok(batch);
    }
    let value = kept.record.apkam_public_key.clone();
    Ok(call.keep(batch, me, &key, value, None)?)
}

/// A revoked or denied enrolment signs nothing any more: its published signing key moves to where nobody takes it
/// for a valid one.
fn move_signing_record(
    call: &Call<'_>,
    batch: Batch,
    me: &AtSign,
    kept: &Kept,
    before: EnrollmentState,
    operation: EnrollOperation,
) -> Result<Batch, Refusal> {
    let after = match operation {
        EnrollOperation::Revoke => EnrollmentState::Revoked,
        EnrollOperation::Deny => EnrollmentState::Denied,
        EnrollOperation::Unrevoke => EnrollmentState::Approved,
        _ => return Ok(batch),
    };
    let (Some(from), Some(to)) = (signing_record(&kept.id, before, me), signing_record(&kept.id, after, me)) else {
        return Ok(batch);
    };
    let record = call.store.get(me, &from)?.filter(|_| from != to);
    let Some(record) = record else { return Ok(batch) };
    let moved = Record { version: 0, ..record };
    Ok(batch.remove_unlogged(me, &from).put(me, &to, moved, LogAs::Nothing))
}

/// Everything the server keeps of it.
fn forget(call: &Call<'_>, me: &AtSign, kept: &Kept) -> Planned {
    let mut batch = Batch::new(call.now).remove_unlogged(me, &record_key(&kept.id, me));
    for end in [PRIVATE_KEY, SELF_KEY] {
        batch = batch.remove_unlogged(me, &AtKey::own(&format!("{}{end}", kept.id), me));
    }
    let published = published_key(kept, me);
    let is_its =
        call.store.get(me, &published)?.is_some_and(|record| record.value.contains(&kept.record.apkam_public_key));
    if is_its {
        batch = batch.remove_unlogged(me, &published);
    }
    for state in [EnrollmentState::Approved, EnrollmentState::Revoked, EnrollmentState::Denied] {
        if let Some(key) = signing_record(&kept.id, state, me)
            && call.store.get(me, &key)?.is_some()
        {
            batch = batch.remove_unlogged(me, &key);
        }
    }
    Plan::change(batch, Reply::json(&json!({"enrollmentId": kept.id.as_str(), "status": "deleted"})))
}
