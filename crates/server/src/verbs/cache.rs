//! Copies of other households' records: `cached:@me:⟨key⟩@other`, `cached:public:⟨key⟩@other`.
//!
//! The owner of a record says with `ttr` whether others may keep a copy and for how long it counts. Copies follow the
//! owner's notifications, so that a client reads without a question to another server.

use postern_proto::{
    AtKey, AtSign, MessageType, Metadata, MetadataChange, Millis, Notification, Operation, Record, Visibility,
};
use postern_store::{Assert, Batch, LogAs, Store, StoreError};

use super::Call;

/// A copy that still counts.
pub(super) fn fresh(call: &Call<'_>, me: &AtSign, key: &AtKey) -> Result<Option<Record>, StoreError> {
    let copy = call.active(me, &key.clone().cached())?;
    Ok(copy.filter(|record| match record.metadata.ttr {
        Some(-1) => true,
        Some(_) => record.refresh_at.is_some_and(|at| call.now <= at),
        None => false,
    }))
}

/// Brings the copy that `me` has of `key` in line with its `source`, which was just read; `None`: it is gone.
/// Gives the batch back as it came when there is nothing to do.
pub(super) fn keep(
    call: &Call<'_>,
    batch: Batch,
    me: &AtSign,
    key: &AtKey,
    source: Option<&Record>,
) -> Result<Batch, StoreError> {
    let copy = key.clone().cached();
    let stored = call.store.get(me, &copy)?;
    let may_keep = |source: &&Record| matches!(source.metadata.ttr, Some(ttr) if ttr != 0) || key.is_public_key();
    match (stored, source.filter(may_keep)) {
        (Some(stored), None) if !key.is_public_key() => {
            Ok(batch.assert(Assert::KeyVersion(me.clone(), copy.clone(), stored.version)).remove(me, &copy))
        }
        (stored, Some(source)) => {
            let same = |old: &Record| old.value == source.value && old.metadata == source.metadata;
            let due = |old: &Record| old.refresh_at.is_some_and(|at| at < call.now) || !old.is_active(call.now);
            if stored.as_ref().is_some_and(|old| same(old) && !due(old)) {
                return Ok(batch);
            }
            write(call, batch, me, &copy, &source.value, source.metadata.clone())
        }
        (_, None) => Ok(batch),
    }
}

/// What a notification says about a record of its sender, done to the copy of its recipient.
pub(super) fn follow(call: &Call<'_>, batch: Batch, n: &Notification) -> Result<Batch, StoreError> {
    let key = match AtKey::parse(&n.key) {
        Ok(key) if n.message_type == MessageType::Key && is_from(&key, n) => key,
        // A text, or a name that is no key: there is nothing to have a copy of.
        _ => return Ok(batch),
    };
    // What everything for the sender is encrypted to is read, never taken from a push: a change has to be noticed.
    if key.is_public_key() {
        return Ok(batch);
    }
    let (me, copy) = (&n.to, key.cached());
    let stored = call.store.get(me, &copy)?;
    match n.operation {
        Operation::Delete => match stored {
            Some(stored) if stored.metadata.ccd == Some(true) => {
                Ok(batch.assert(Assert::KeyVersion(me.clone(), copy.clone(), stored.version)).remove(me, &copy))
            }
            _ => Ok(batch),
        },
        Operation::Update if matches!(n.metadata.ttr, None | Some(0)) => Ok(batch),
        Operation::Update => {
            let change = MetadataChange::from(Metadata {
                is_encrypted: Some(n.is_encrypted),
                immutable: None, // the owner's word on the original
                ..n.metadata.clone()
            });
            let mut metadata = stored.as_ref().map(|old| old.metadata.clone()).unwrap_or_default();
            metadata.apply(&change);
            match (&n.value, stored) {
                (Some(value), _) => write(call, batch, me, &copy, value, metadata),
                (None, Some(_)) => call.write(batch, me, &copy, LogAs::Meta, |old| match old {
                    Some(old) => old.next(&old.value, metadata, call.now),
                    None => Record::new("", metadata, call.now),
                }),
                (None, None) => Ok(batch),
            }
        }
    }
}

/// Speaks of the sender's own record, public or shared with the recipient.
fn is_from(key: &AtKey, n: &Notification) -> bool {
    let visible = match key.visibility() {
        Visibility::Public => true,
        Visibility::Shared(with) => *with == n.to,
        _ => false,
    };
    visible && !key.is_cached() && key.owner() == Some(&n.from)
}

/// Before `me` sends to `other`, both of this server: if the other's public key is not the one that `me` knows, the key
/// that `me` shares with it is put aside, and the programs of `me` make a new one.
pub(super) fn notice_public_key(
    call: &Call<'_>,
    batch: Batch,
    me: &AtSign,
    other: &AtSign,
) -> Result<Batch, StoreError> {
    let key = AtKey::public("publickey", other);
    let (Some(known), Some(source)) = (call.store.get(me, &key.clone().cached())?, call.active(other, &key)?) else {
        return Ok(batch);
    };
    if known.value == source.value {
        return Ok(batch);
    }
    keep_public_key(call, batch, me, other, &source)
}

/// The same when the public key was just read.
pub(super) fn keep_public_key(
    call: &Call<'_>,
    batch: Batch,
    me: &AtSign,
    other: &AtSign,
    source: &Record,
) -> Result<Batch, StoreError> {
    let key = AtKey::public("publickey", other);
    let known = call.store.get(me, &key.clone().cached())?;
    let batch = keep(call, batch, me, &key, Some(source))?;
    if known.is_none_or(|known| known.value == source.value) {
        return Ok(batch);
    }
    retire_shared_key(call.store, batch, me, other, call.now)
}

/// Puts the key aside that `me` shares with `other`, whose public key has changed.
pub(crate) fn retire_shared_key(
    store: &dyn Store,
    batch: Batch,
    me: &AtSign,
    other: &AtSign,
    now: Millis,
) -> Result<Batch, StoreError> {
    let name = format!("shared_key.{}", other.body());
    let (shared, aside) = (AtKey::own(&name, me), AtKey::own(&format!("{name}.until.{now}"), me));
    let Some(old) = store.get(me, &shared)? else { return Ok(batch) };
    let batch = batch.assert(Assert::KeyVersion(me.clone(), shared.clone(), old.version));
    Ok(batch.put(me, &aside, old, LogAs::Put).remove(me, &shared))
}

fn write(
    call: &Call<'_>,
    batch: Batch,
    me: &AtSign,
    copy: &AtKey,
    value: &str,
    metadata: Metadata,
) -> Result<Batch, StoreError> {
    call.write(batch, me, copy, LogAs::Put, |old| match old {
        Some(old) => old.next(value, metadata, call.now),
        None => Record::new(value, metadata, call.now),
    })
}
