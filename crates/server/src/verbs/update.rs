//! `update`, `update:meta`: writing, and telling those it is shared with.

use postern_dialogue::server::Access;
use postern_proto::verb::{Update, UpdateMeta};
use postern_proto::{
    AtKey, AtSign, ErrorCode, MessageType, Metadata, MetadataChange, Operation, ProtocolError, Record, Routing,
    Visibility,
};
use postern_store::{Assert, Batch, LogAs, StoreError};

use super::notify::{Outgoing, deliver};
use super::{Call, Plan, Planned, Refusal, is_managed};

pub(super) fn plan(call: &Call<'_>, update: &Update) -> Planned {
    write(call, "update", &update.key, &update.metadata, Some(&update.value))
}

/// Metadata of a record that is there; its value stays.
pub(super) fn meta(call: &Call<'_>, update: &UpdateMeta) -> Planned {
    write(call, "update:meta", &update.key, &update.metadata, None)
}

fn write(call: &Call<'_>, verb: &str, key: &AtKey, change: &MetadataChange, value: Option<&str>) -> Planned {
    let me = call.owner()?;
    let key = key.clone().or_owned_by(me.owner());
    check_kind(me.owner(), &key)?;
    me.check(verb, &key, Access::Write)?;
    let stored = call.store.get(me.owner(), &key)?;
    let assert = match &stored {
        Some(record) => Assert::KeyVersion(me.owner().clone(), key.clone(), record.version),
        None => Assert::KeyAbsent(me.owner().clone(), key.clone()),
    };
    // The unborn can be written; the expired are as good as gone.
    let living = stored.filter(|record| record.expires_at.is_none_or(|end| call.now < end));
    let record = make(call, &key, living.as_ref(), change, value)?;
    let metadata = record.metadata.clone();
    let log = log_as(&key, if value.is_some() { LogAs::Put } else { LogAs::Meta });
    let batch = Batch::new(call.now).assert(assert).put(me.owner(), &key, record, log);
    let batch = tell(call, batch, me.owner(), &key, Operation::Update, value, metadata)?;
    Plan::logged(batch, 0)
}

/// What is stored from now on: given metadata replaces, `null` clears, the rest stays.
fn make(
    call: &Call<'_>,
    key: &AtKey,
    old: Option<&Record>,
    change: &MetadataChange,
    value: Option<&str>,
) -> Result<Record, Refusal> {
    if old.is_some_and(|old| old.metadata.immutable == Some(true)) {
        let text = format!("Immutable records may not be updated : {key} is immutable");
        return Err(ProtocolError::new(ErrorCode::Unauthorized, text).into());
    }
    let mut metadata = old.map(|old| old.metadata.clone()).unwrap_or_default();
    metadata.apply(change);
    // The reference says so too: who caches for a time, and says nothing, keeps copies when the original goes.
    if metadata.ttr.is_some_and(|ttr| ttr != 0) && metadata.ccd.is_none() {
        metadata.ccd = Some(false);
    }
    let (value, old) = match (value, old) {
        (Some(value), old) => (value.to_owned(), old),
        (None, Some(old)) => (old.value.clone(), Some(old)),
        (None, None) => return Err(ProtocolError::no_such_key(key).into()),
    };
    Ok(match old {
        Some(old) => old.next(value, metadata, call.now),
        None => Record::new(value, metadata, call.now),
    })
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
) -> Result<Batch, StoreError> {
    let Some(to) = key.shared_with().filter(|to| *to != me && !key.is_cached()) else { return Ok(batch) };
    let outgoing = Outgoing {
        id: call.uuid().into(),
        to: to.clone(),
        key: key.to_string(),
        value: value.map(str::to_owned),
        operation,
        is_encrypted: metadata.is_encrypted != Some(false),
        metadata,
        life_ms: crate::limits::NOTIFICATION_LIFE_MS,
        message_type: MessageType::Key,
        routing: Routing::default(),
    };
    deliver(call, batch, me, outgoing)
}
