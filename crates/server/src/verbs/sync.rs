//! `sync`: what changed since a commit, a page at a time.

use postern_dialogue::server::{Access, Authority};
use postern_proto::verb::Sync;
use postern_proto::{AtKey, Reply, Visibility};
use postern_store::{LogEntry, Logged, StoreError};
use serde_json::{Map, Value as Json, json};

use super::{Call, Plan, Planned, is_managed};
use crate::limits::{LOG_PAGE, SYNC_BYTES, SYNC_ENTRIES};
use crate::pattern::Pattern;

/// The latest change of each key, in the order of commits.
pub(super) fn plan(call: &Call<'_>, sync: &Sync) -> Planned {
    let me = call.owner()?;
    let pattern = Pattern::parse(sync.regex.as_deref())?;
    let limit = sync.limit.unwrap_or(SYNC_ENTRIES).min(SYNC_ENTRIES);
    let unwanted = |entry: &LogEntry| {
        entry.kind == Logged::Remove && sync.skip_deletes_until.is_some_and(|commit| entry.commit <= commit)
    };
    let mut found: Vec<Json> = Vec::new();
    let mut bytes = 0;
    each_entry(call, me, sync.from, &mut |entry, key| {
        if unwanted(entry) || !(pattern.is_in(&entry.key) || is_always_wanted(key)) {
            return Ok(true);
        }
        let shown = show(call, me, entry, key)?;
        bytes += shown.to_string().len();
        // One entry goes out however long it is, or the client would never get past it.
        if found.len() >= limit || (bytes > SYNC_BYTES && !found.is_empty()) {
            return Ok(false);
        }
        found.push(shown);
        Ok(true)
    })?;
    Plan::reply(Reply::json(&Json::Array(found)))
}

/// Calls `each` with what `me` may see of the log behind `after`, until it has enough.
pub(super) fn each_entry(
    call: &Call<'_>,
    me: &Authority,
    after: i64,
    each: &mut dyn FnMut(&LogEntry, &AtKey) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    let mut after = after;
    loop {
        let page = call.store.log_since(me.owner(), after, LOG_PAGE)?;
        for entry in &page {
            after = entry.commit;
            let Ok(key) = AtKey::parse(&entry.key) else { continue };
            if is_managed(&key) || me.check("sync", &key, Access::Read).is_err() {
                continue;
            }
            if !each(entry, &key)? {
                return Ok(());
            }
        }
        if page.len() < LOG_PAGE {
            return Ok(());
        }
    }
}

/// Whatever a client asks for, without these it cannot read or send anything.
fn is_always_wanted(key: &AtKey) -> bool {
    match key.visibility() {
        _ if key.is_cached() => false,
        Visibility::Public => key.namespace().is_none(),
        Visibility::Shared(_) => key.name() == "shared_key",
        Visibility::Own => key.name().starts_with("shared_key."),
        Visibility::Private | Visibility::PrivateKey | Visibility::Local => false,
    }
}

/// A record that has expired meanwhile is told as deleted: the client is to forget it too.
fn show(call: &Call<'_>, me: &Authority, entry: &LogEntry, key: &AtKey) -> Result<Json, StoreError> {
    let record = match entry.kind {
        Logged::Put | Logged::Meta => call.store.get(me.owner(), key)?,
        Logged::Remove => None,
    };
    let record = record.filter(|record| record.expires_at.is_none_or(|end| call.now < end));
    let operation = if record.is_some() { operation(entry.kind) } else { operation(Logged::Remove) };
    let metadata = record.as_ref().map(|record| {
        let owner = key.owner().unwrap_or(me.owner());
        let texts = record.metadata_json(owner).into_iter().map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (name, Json::String(text))
        });
        texts.collect::<Map<_, _>>()
    });
    Ok(json!({
        "atKey": entry.key,
        "value": record.map(|record| record.value),
        "metadata": metadata,
        "commitId": entry.commit,
        "operation": operation,
    }))
}

/// The sign of a change on the wire.
pub(super) fn operation(kind: Logged) -> &'static str {
    match kind {
        Logged::Put => "+",
        Logged::Meta => "#",
        Logged::Remove => "-",
    }
}
