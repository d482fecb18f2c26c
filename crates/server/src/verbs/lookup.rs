//! `lookup`, `plookup`, `llookup`: reading.

use postern_dialogue::server::Access;
use postern_proto::verb::{Llookup, Lookup};
use postern_proto::{AtKey, AtSign, Detail, ProtocolError, Record, Reply, Visibility};
use serde_json::json;

use super::{Call, Plan, Planned};

/// What `owner` shares with the caller; to strangers, what is public.
///
/// An owner of this server who asks for the data of another one is served from that
/// household at once: there is no second connection, and no copy to keep.
pub(super) fn lookup(call: &Call<'_>, lookup: &Lookup) -> Planned {
    let key = match call.who {
        Some(me) => {
            let key = AtKey::shared(me.owner(), &lookup.name, &lookup.owner);
            me.check("lookup", &key, Access::Read)?;
            key
        }
        None => AtKey::public(&lookup.name, &lookup.owner),
    };
    call.hosted(&lookup.owner)?;
    read(call, &lookup.owner, &key, lookup.detail)
}

/// What `owner` shows to everybody.
pub(super) fn plookup(call: &Call<'_>, lookup: &Lookup) -> Planned {
    call.owner()?;
    call.hosted(&lookup.owner)?;
    read(call, &lookup.owner, &AtKey::public(&lookup.name, &lookup.owner), lookup.detail)
}

/// What is stored in the caller's own household.
pub(super) fn llookup(call: &Call<'_>, lookup: &Llookup) -> Planned {
    let me = call.owner()?;
    me.check("llookup", &lookup.key, Access::Read)?;
    if !matches!(lookup.key.visibility(), Visibility::Public | Visibility::Shared(_) | Visibility::Own) {
        return Err(ProtocolError::no_such_key(&lookup.key).into());
    }
    read(call, me.owner(), &lookup.key, lookup.detail)
}

fn read(call: &Call<'_>, household: &AtSign, key: &AtKey, detail: Detail) -> Planned {
    let record = call.store.get(household, key)?.ok_or_else(|| ProtocolError::no_such_key(key))?;
    if !record.is_active(call.now) {
        return Plan::reply(Reply::Null);
    }
    Plan::reply(show(household, key, record, detail))
}

fn show(owner: &AtSign, key: &AtKey, record: Record, detail: Detail) -> Reply {
    match detail {
        Detail::Value => Reply::Data(record.value),
        Detail::Meta => Reply::json(&record.metadata_json(owner).into()),
        Detail::All => {
            let metadata = record.metadata_json(owner);
            Reply::json(&json!({"key": key.to_string(), "data": record.value, "metaData": metadata}))
        }
    }
}
