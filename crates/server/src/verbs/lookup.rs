//! `lookup`, `plookup`, `llookup`: reading.

use postern_dialogue::server::{Access, Authority};
use postern_proto::verb::{Llookup, Lookup};
use postern_proto::{AtKey, AtSign, Detail, ProtocolError, Record, Reply, Visibility};
use postern_store::{Batch, StoreError};
use serde_json::json;

use super::{Call, Plan, Planned, blocks, cache};

/// References that lead to references are followed this far. Source: the reference.
const REFERENCE_DEPTH: usize = 3;

/// A value that begins so is the name of another record, whose value is meant.
const REFERENCE: &str = "atsign://";

/// What `owner` shares with the caller; to strangers, what is public.
pub(super) fn lookup(call: &Call<'_>, lookup: &Lookup) -> Planned {
    match call.who {
        Some(me) if lookup.owner == *me.owner() => own(call, me, lookup),
        Some(me) => shared(call, me, lookup),
        None => {
            call.hosted(&lookup.owner)?;
            let key = AtKey::public(&lookup.name, &lookup.owner);
            read(call, Reader::Anyone, &lookup.owner, &key, lookup.detail)
        }
    }
}

fn own(call: &Call<'_>, me: &Authority, lookup: &Lookup) -> Planned {
    let key = AtKey::shared(me.owner(), &lookup.name, &lookup.owner);
    me.check("lookup", &key, Access::Read)?;
    read(call, Reader::Owner(me), me.owner(), &key, lookup.detail)
}

/// What another atSign shares with the caller: from the copy while it counts, else from the original.
fn shared(call: &Call<'_>, me: &Authority, lookup: &Lookup) -> Planned {
    let key = AtKey::shared(me.owner(), &lookup.name, &lookup.owner);
    me.check("lookup", &key, Access::Read)?;
    if !lookup.bypass_cache
        && let Some(copy) = cache::fresh(call, me.owner(), &key)?
    {
        return Plan::reply(show(call, Reader::Owner(me), &key.cached(), copy, lookup.detail)?);
    }
    call.hosted(&lookup.owner)?;
    if blocks::is_blocked(call, &lookup.owner, me.owner())? {
        return Err(blocks::refused().into());
    }
    original_here(call, me, &key, lookup.detail)
}

/// A record of another household of this server; the copy is brought in line with it.
fn original_here(call: &Call<'_>, me: &Authority, key: &AtKey, detail: Detail) -> Planned {
    let owner = key.owner().unwrap_or(me.owner());
    let source = call.active(owner, key)?;
    let batch = match &source {
        Some(source) if key.is_public_key() => {
            cache::keep_public_key(call, Batch::new(call.now), me.owner(), owner, source)?
        }
        source => cache::keep(call, Batch::new(call.now), me.owner(), key, source.as_ref())?,
    };
    let reply = match source {
        Some(source) => show(call, Reader::Owner(me), key, source, detail)?,
        None => Reply::Error(ProtocolError::no_such_key(key)),
    };
    if batch.ops.is_empty() { Plan::reply(reply) } else { Plan::change(batch, reply) }
}

/// What `owner` shows to everybody.
///
/// Copies of public records are kept and listed, but not read while the original is on this server: nobody tells us
/// when it changes, and it costs nothing to look.
pub(super) fn plookup(call: &Call<'_>, lookup: &Lookup) -> Planned {
    let me = call.owner()?;
    call.hosted(&lookup.owner)?;
    let key = AtKey::public(&lookup.name, &lookup.owner);
    if lookup.owner == *me.owner() {
        return read(call, Reader::Owner(me), me.owner(), &key, lookup.detail);
    }
    original_here(call, me, &key, lookup.detail)
}

/// What is stored in the caller's own household, copies included; references as they are.
pub(super) fn llookup(call: &Call<'_>, lookup: &Llookup) -> Planned {
    let me = call.owner()?;
    me.check("llookup", &lookup.key, Access::Read)?;
    if !matches!(lookup.key.visibility(), Visibility::Public | Visibility::Shared(_) | Visibility::Own) {
        return Err(ProtocolError::no_such_key(&lookup.key).into());
    }
    let Some(record) = visible(call, me.owner(), &lookup.key)? else { return Plan::reply(Reply::Null) };
    Plan::reply(print(&lookup.key, Some(record.value.clone()), &record, lookup.detail))
}

pub(super) fn read(call: &Call<'_>, reader: Reader<'_>, household: &AtSign, key: &AtKey, detail: Detail) -> Planned {
    match visible(call, household, key)? {
        Some(record) => Plan::reply(show(call, reader, key, record, detail)?),
        None => Plan::reply(Reply::Null),
    }
}

/// An error when there is nothing; nothing when it is not born yet or has expired.
fn visible(call: &Call<'_>, household: &AtSign, key: &AtKey) -> Result<Option<Record>, super::Refusal> {
    let record = call.store.get(household, key)?.ok_or_else(|| ProtocolError::no_such_key(key))?;
    Ok(Some(record).filter(|record| record.is_active(call.now)))
}

/// Who reads: a reference leads nowhere that this reader could not go.
#[derive(Clone, Copy)]
pub(super) enum Reader<'a> {
    Anyone,
    Owner(&'a Authority),
    /// Another operator's server, for this atSign.
    Peer(&'a AtSign),
}

/// The reply, references followed.
fn show(call: &Call<'_>, reader: Reader<'_>, key: &AtKey, record: Record, detail: Detail) -> Result<Reply, StoreError> {
    let mut value = Some(record.value.clone());
    if detail != Detail::Meta {
        for depth in 0..=REFERENCE_DEPTH {
            let Some(name) = value.as_ref().and_then(|value| value.strip_prefix(REFERENCE)) else { break };
            value = if depth == REFERENCE_DEPTH { None } else { referred(call, reader, name)? };
        }
    }
    Ok(print(key, value, &record, detail))
}

/// The value of the record that `name` means to this reader; `None`: there is none, or not for this reader.
fn referred(call: &Call<'_>, reader: Reader<'_>, name: &str) -> Result<Option<String>, StoreError> {
    let Ok(named) = AtKey::parse(name) else { return Ok(None) };
    let Some(owner) = named.owner().filter(|owner| call.accounts.hosts(owner)) else { return Ok(None) };
    let mut keys = Vec::new();
    match reader {
        Reader::Anyone => {}
        Reader::Owner(me) => {
            keys.push(AtKey::shared(me.owner(), named.name(), owner));
            if me.owner() == owner {
                keys.push(AtKey::own(named.name(), owner));
            }
            keys.retain(|key| me.check("lookup", key, Access::Read).is_ok());
            if blocks::is_blocked(call, owner, me.owner())? {
                keys.clear();
            }
        }
        Reader::Peer(peer) if blocks::is_blocked(call, owner, peer)? => {}
        Reader::Peer(peer) => keys.push(AtKey::shared(peer, named.name(), owner)),
    }
    keys.push(AtKey::public(named.name(), owner));
    for key in &keys {
        if let Some(record) = call.active(owner, key)? {
            return Ok(Some(record.value));
        }
    }
    Ok(None)
}

/// What is asked for of a record.
pub(crate) fn print(key: &AtKey, value: Option<String>, record: &Record, detail: Detail) -> Reply {
    let metadata = || key.owner().map(|owner| record.metadata_json(owner)).unwrap_or_default();
    match (detail, value) {
        (Detail::Value, Some(value)) => Reply::Data(value),
        (Detail::Value, None) => Reply::Null,
        (Detail::Meta, _) => Reply::json(&metadata().into()),
        (Detail::All, value) => Reply::json(&json!({"key": key.to_string(), "data": value, "metaData": metadata()})),
    }
}
