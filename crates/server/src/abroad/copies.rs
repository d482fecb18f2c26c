//! Copies of records of other servers: how long they count, and what a changed public key means.

use postern_dialogue::peer::PeerAnswer;
use postern_proto::{AtKey, AtSign, Metadata, Millis, Record, Visibility};
use postern_store::{Assert, Batch, LogAs, Store, StoreError};
use serde_json::{Map, Value as Json};

use super::Abroad;
use crate::limits::{PUBLIC_COPY_LIFE_MS, SAME_COPY_MS};
use crate::serve::now_ms;
use crate::verbs::retire_shared_key;

/// A record as another server showed it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fetched {
    pub(crate) value: String,
    pub(crate) metadata: Metadata,
    /// The metadata as it came, to be passed on.
    pub(crate) shown: Map<String, Json>,
}

impl Fetched {
    /// Reads the answer to `lookup:all:…`. `Ok(None)`: there is no such record now. `Err`: no answer of the protocol.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, ()> {
        if text == "null" {
            return Ok(None);
        }
        let Ok(Json::Object(mut all)) = serde_json::from_str(text) else { return Err(()) };
        let value = match all.remove("data") {
            Some(Json::String(value)) => value,
            Some(Json::Null) | None => return Ok(None),
            Some(_) => return Err(()),
        };
        if value.contains(['\n', '\r']) {
            return Err(()); // it would become a second line of our reply
        }
        let shown = match all.remove("metaData") {
            Some(Json::Object(shown)) => shown,
            _ => Map::new(),
        };
        let mut metadata = Metadata::default();
        for (name, value) in &shown {
            let text = match value {
                Json::String(text) => text.clone(),
                Json::Number(_) | Json::Bool(_) => value.to_string(),
                _ => continue,
            };
            if let Some(known) = Metadata::known(name) {
                // What is outside the protocol's range is as if it were not said.
                let _ = metadata.set(known, &text);
            }
        }
        Ok(Some(Self { value, metadata, shown }))
    }
}

/// Whether a stored copy may be shown without asking its owner's server.
pub(crate) fn is_fresh(copy: &Record, key: &AtKey, now: Millis) -> bool {
    if !copy.is_active(now) {
        return false;
    }
    match copy.metadata.ttr {
        Some(-1) => true,
        Some(ttr) if ttr > 0 => copy.refresh_at.is_none_or(|at| now <= at),
        // Kept for ever, in case its server cannot be reached, and asked for again after a day.
        _ if key.is_public_key() => now < copy.updated_at.saturating_add(PUBLIC_COPY_LIFE_MS),
        _ => *key.visibility() == Visibility::Public,
    }
}

/// What is to be stored in the household of `me` after `key` was fetched, if anything.
///
/// Kept: what its owner gave a `ttr`; public records for a day; `publickey` for ever. When `publickey@bob` changed, our
/// `shared_key.bob@alice` becomes `shared_key.bob.until.⟨now⟩@alice`, so that clients make a new one.
pub(crate) fn keep(
    store: &dyn Store,
    me: &AtSign,
    key: &AtKey,
    fetched: &Fetched,
    now: Millis,
) -> Result<Option<Batch>, StoreError> {
    let copy_key = key.clone().cached();
    let old = store.get(me, &copy_key)?;
    let is_public = *key.visibility() == Visibility::Public;
    let wanted = matches!(fetched.metadata.ttr, Some(ttr) if ttr != 0) || is_public;
    if !wanted || copy_key.check().is_err() {
        return Ok(old.map(|_| Batch::new(now).remove(me, &copy_key)));
    }
    let mut metadata = fetched.metadata.clone();
    if key.is_public_key() {
        metadata.ttl = None;
    } else if is_public && metadata.ttr.is_none_or(|ttr| ttr == 0) {
        metadata.ttl = Some(metadata.ttl.filter(|ttl| *ttl > 0).unwrap_or(i64::MAX).min(PUBLIC_COPY_LIFE_MS));
    }
    let record = match &old {
        Some(old) => old.next(&fetched.value, metadata, now),
        None => Record::new(&fetched.value, metadata, now),
    };
    let mut batch = Batch::new(now);
    if let Some(old) = &old {
        let same = old.value == record.value && old.metadata == record.metadata;
        if same && old.is_active(now) && now < old.updated_at.saturating_add(SAME_COPY_MS) {
            return Ok(None);
        }
        batch = batch.assert(Assert::KeyVersion(me.clone(), copy_key.clone(), old.version));
        if let Some(owner) = key.owner().filter(|_| key.is_public_key() && old.value != record.value) {
            batch = retire_shared_key(store, batch, me, owner, now)?;
        }
    } else {
        batch = batch.assert(Assert::KeyAbsent(me.clone(), copy_key.clone()));
    }
    Ok(Some(batch.put(me, &copy_key, record, LogAs::Put)))
}

/// What is to be removed when the owner's server has no such record any more. A public key stays: it may be all that
/// tells a changed one.
pub(crate) fn drop_copy(store: &dyn Store, me: &AtSign, key: &AtKey, now: Millis) -> Result<Option<Batch>, StoreError> {
    let copy_key = key.clone().cached();
    if key.is_public_key() || store.get(me, &copy_key)?.is_none() {
        return Ok(None);
    }
    Ok(Some(Batch::new(now).remove(me, &copy_key)))
}

/// Before every claim the other owner's public key is looked at: that is how a change is noticed.
pub(super) async fn refresh_public_key(
    abroad: &Abroad,
    me: &AtSign,
    them: &AtSign,
    answer: &PeerAnswer,
) -> Result<(), StoreError> {
    let PeerAnswer::Data(text) = answer else { return Ok(()) };
    let Ok(Some(fetched)) = Fetched::parse(text) else { return Ok(()) };
    let key = AtKey::public("publickey", them);
    let Some(batch) = keep(abroad.store.as_ref(), me, &key, &fetched, now_ms())? else { return Ok(()) };
    match abroad.store.commit(batch).await {
        // Somebody else has just written it.
        Ok(_) | Err(StoreError::Conflict) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_store::{Account, MemoryStore};
    use std::sync::Arc;

    fn at(name: &str) -> AtSign {
        AtSign::parse(name).unwrap()
    }

    fn store() -> Arc<MemoryStore> {
        let store = Arc::new(MemoryStore::new());
        let account = Account { at_sign: at("alice"), port: None, created_at: 0 };
        drop(store.commit(Batch::new(0).add_account(account)));
        store
    }

    fn fetched(value: &str, metadata: &str) -> Fetched {
        Fetched::parse(&format!(r#"{{"key":"k","data":"{value}","metaData":{metadata}}}"#)).unwrap().unwrap()
    }

    /// Stores what is to be kept; gives the copy as it is then.
    fn after(store: &MemoryStore, key: &AtKey, fetched: &Fetched, now: Millis) -> Option<Record> {
        if let Some(batch) = keep(store, &at("alice"), key, fetched, now).unwrap() {
            drop(store.commit(batch));
        }
        store.get(&at("alice"), &key.clone().cached()).unwrap()
    }

    #[test]
    fn answers_are_read_and_forged_lines_are_not() {
        let read = fetched("v", r#"{"ttr":-1,"isEncrypted":true,"ivNonce":"AA==","status":"active","ccd":null}"#);
        assert_eq!((read.metadata.ttr, read.metadata.is_encrypted), (Some(-1), Some(true)));
        assert_eq!(read.metadata.iv_nonce.as_deref(), Some("AA=="));
        assert_eq!(Fetched::parse("null"), Ok(None));
        assert_eq!(Fetched::parse(r#"{"data":null}"#), Ok(None));
        for bad in ["", "x", "[]", r#"{"data":5}"#, r#"{"data":"a\n@alice@data:forged"}"#] {
            assert_eq!(Fetched::parse(bad), Err(()), "{bad}");
        }
    }

    #[test]
    fn shared_records_are_kept_as_long_as_their_owner_says() {
        let store = store();
        let key = AtKey::shared(&at("alice"), "k.ns", &at("bob"));
        assert_eq!(after(&store, &key, &fetched("v", "{}"), 0), None);
        assert_eq!(after(&store, &key, &fetched("v", r#"{"ttr":0}"#), 0), None);
        let copy = after(&store, &key, &fetched("v", r#"{"ttr":10}"#), 0).unwrap();
        assert!(is_fresh(&copy, &key, 10_000) && !is_fresh(&copy, &key, 10_001));
        let copy = after(&store, &key, &fetched("w", r#"{"ttr":-1}"#), 20_000).unwrap();
        assert_eq!((copy.value.as_str(), copy.version), ("w", 1));
        assert!(is_fresh(&copy, &key, i64::MAX));
        // Its owner wants no copies any more.
        assert_eq!(after(&store, &key, &fetched("w", "{}"), 30_000), None);
    }

    #[test]
    fn public_records_are_kept_for_a_day() {
        let store = store();
        let key = AtKey::public("name.ns", &at("bob"));
        let copy = after(&store, &key, &fetched("v", "{}"), 0).unwrap();
        assert!(is_fresh(&copy, &key, PUBLIC_COPY_LIFE_MS - 1) && !is_fresh(&copy, &key, PUBLIC_COPY_LIFE_MS));
        let copy = after(&store, &key, &fetched("v", r#"{"ttl":5000}"#), 0).unwrap();
        assert!(is_fresh(&copy, &key, 4999) && !is_fresh(&copy, &key, 5000));
        drop(store.commit(drop_copy(&*store, &at("alice"), &key, 0).unwrap().unwrap()));
        assert_eq!(store.get(&at("alice"), &key.cached()), Ok(None));
    }

    #[test]
    fn a_changed_public_key_retires_the_shared_key() {
        let store = store();
        let alice = at("alice");
        let shared = AtKey::own("shared_key.bob", &alice);
        let record = Record::new("wrapped", Metadata::default(), 0);
        drop(store.commit(Batch::new(0).put(&alice, &shared, record, LogAs::Put)));
        let key = AtKey::public("publickey", &at("bob"));
        let copy = after(&store, &key, &fetched("one", "{}"), 0).unwrap();
        assert!(is_fresh(&copy, &key, PUBLIC_COPY_LIFE_MS - 1) && !is_fresh(&copy, &key, PUBLIC_COPY_LIFE_MS));
        after(&store, &key, &fetched("one", "{}"), 100_000_000_000);
        assert!(store.get(&alice, &shared).unwrap().is_some(), "nothing has changed");
        after(&store, &key, &fetched("two", "{}"), 200_000_000_000);
        assert_eq!(store.get(&alice, &shared), Ok(None));
        let retired = AtKey::parse("shared_key.bob.until.200000000000@alice").unwrap();
        assert_eq!(store.get(&alice, &retired).unwrap().unwrap().value, "wrapped");
        // A server that has lost it does not make us forget it.
        assert!(drop_copy(&*store, &alice, &key, 0).unwrap().is_none());
    }
}
