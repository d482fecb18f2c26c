//! `update`: writing, and telling those it is shared with.

use postern_dialogue::server::Access;
use postern_proto::verb::Update;
use postern_proto::{AtKey, AtSign, ErrorCode, Metadata, Operation, ProtocolError, Record, Visibility};
use postern_store::{Batch, LogAs};

use super::notify::{Outgoing, deliver};
use super::{Call, Plan, Planned, is_managed};

pub(super) fn plan(call: &Call<'_>, update: &Update) -> Planned {
    let me = call.owner()?;
    let key = update.key.clone().or_owned_by(me.owner());
    check_kind(me.owner(), &key)?;
    me.check("update", &key, Access::Write)?;
    let batch = call.write(Batch::new(call.now), me.owner(), &key, log_as(&key, LogAs::Put), |old| {
        let mut metadata = old.map(|record| record.metadata.clone()).unwrap_or_default();
        metadata.apply(&update.metadata);
        match old {
            Some(old) => old.next(&update.value, metadata, call.now),
            None => Record::new(&update.value, metadata, call.now),
        }
    })?;
    let metadata = match batch.ops.first() {
        Some(postern_store::Op::Put { record, .. }) => record.metadata.clone(),
        _ => Metadata::default(),
    };
    let batch = tell(call, batch, me.owner(), &key, Operation::Update, Some(&update.value), metadata);
    Plan::logged(batch, 0, Operation::Update)
}

/// Which keys an owner may write at all.
fn check_kind(me: &AtSign, key: &AtKey) -> Result<(), ProtocolError> {
    let invalid = |text: String| Err(ProtocolError::new(ErrorCode::InvalidKey, text));
    if let Some(owner) = key.owner().filter(|owner| *owner != me) {
        return invalid(format!(
            "Invalid update command - sharedBy atsign {owner} should be same as current atsign {me}"
        ));
    }
    let kind = match key.visibility() {
        _ if key.is_cached() => "cachedSharedKey",
        Visibility::Private => "privateKey",
        Visibility::Local => "localKey",
        Visibility::PrivateKey if key.name() != "at_pkam_publickey" => "reservedKey",
        _ if is_managed(key) => "reservedKey",
        _ => return key.check().map_err(|error| ProtocolError::new(ErrorCode::InvalidKey, error.to_string())),
    };
    invalid(format!("You may not update keys of type {kind}: {key}"))
}

/// Keys that clients never synchronise are not logged.
pub(super) fn log_as(key: &AtKey, log: LogAs) -> LogAs {
    match key.visibility() {
        Visibility::Private | Visibility::PrivateKey | Visibility::Local => LogAs::Nothing,
        Visibility::Public if key.name().starts_with('_') && !key.name().starts_with("__") => LogAs::Nothing,
        _ => log,
    }
}

/// A change to a key shared with somebody else goes out as a notification, in the same batch.
pub(super) fn tell(
    call: &Call<'_>,
    batch: Batch,
    me: &AtSign,
    key: &AtKey,
    operation: Operation,
    value: Option<&str>,
    metadata: Metadata,
) -> Batch {
    let Some(to) = key.shared_with().filter(|to| *to != me && !key.is_cached()) else { return batch };
    let outgoing = Outgoing {
        id: call.uuid().into(),
        to: to.clone(),
        key: key.to_string(),
        value: value.map(str::to_owned),
        operation,
        is_encrypted: metadata.is_encrypted != Some(false),
        metadata,
        life_ms: crate::limits::NOTIFICATION_LIFE_MS,
        message_type: postern_proto::MessageType::Key,
    };
    deliver(call, batch, me, outgoing)
}
