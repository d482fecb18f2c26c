//! A stored record: value, metadata, and the dates the server keeps.

use serde_json::{Map, Value as Json, json};

use crate::{AtSign, Metadata, Millis, wire_date};

/// A record as the server stores it. Times in milliseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The value, plain or ciphertext: text without line breaks.
    pub value: String,
    /// What the writer said of it.
    pub metadata: Metadata,
    /// First write.
    pub created_at: Millis,
    /// Last write.
    pub updated_at: Millis,
    /// Counts writes from 0.
    pub version: u64,
    /// Not visible before.
    pub available_at: Option<Millis>,
    /// Not visible from then on.
    pub expires_at: Option<Millis>,
    /// A cached copy is stale from then on.
    pub refresh_at: Option<Millis>,
}

impl Record {
    /// A first version written at `now`.
    pub fn new(value: impl Into<String>, metadata: Metadata, now: Millis) -> Self {
        let mut record = Self {
            value: value.into(),
            metadata,
            created_at: now,
            updated_at: now,
            version: 0,
            available_at: None,
            expires_at: None,
            refresh_at: None,
        };
        record.date(now);
        record
    }

    /// The next version: creation date kept, version counted up, dates made anew.
    pub fn next(&self, value: impl Into<String>, metadata: Metadata, now: Millis) -> Self {
        let mut next = Self::new(value, metadata, now);
        next.created_at = self.created_at;
        next.version = self.version.saturating_add(1);
        next
    }

    /// Birth = now + ttb, end = now + ttl (+ ttb), refresh = now + ttr seconds; none for 0 and −1.
    fn date(&mut self, now: Millis) {
        let some = |n: Option<i64>| n.filter(|n| *n > 0);
        let ttb = some(self.metadata.ttb);
        self.available_at = ttb.map(|ttb| now.saturating_add(ttb));
        self.expires_at = some(self.metadata.ttl).map(|ttl| now.saturating_add(ttl).saturating_add(ttb.unwrap_or(0)));
        self.refresh_at = some(self.metadata.ttr).map(|ttr| now.saturating_add(ttr.saturating_mul(1000)));
    }

    /// Born and not expired.
    pub fn is_active(&self, now: Millis) -> bool {
        self.available_at.is_none_or(|at| at <= now) && self.expires_at.is_none_or(|at| now < at)
    }

    /// The `metaData` object of `lookup:meta` and `lookup:all`. Members without a
    /// value are left out: strict readers stumble over names they do not know.
    pub fn metadata_json(&self, owner: &AtSign) -> Map<String, Json> {
        let mut json = Map::new();
        let mut put = |name: &str, value: Json| json.insert(name.to_owned(), value);
        put("createdBy", owner.as_str().into());
        put("updatedBy", owner.as_str().into());
        put("createdAt", wire_date(self.created_at).into());
        put("updatedAt", wire_date(self.updated_at).into());
        for (name, at) in
            [("availableAt", self.available_at), ("expiresAt", self.expires_at), ("refreshAt", self.refresh_at)]
        {
            if let Some(at) = at {
                put(name, wire_date(at).into());
            }
        }
        put("status", "active".into());
        put("version", self.version.into());
        let m = &self.metadata;
        for (name, n) in [("ttl", m.ttl), ("ttb", m.ttb), ("ttr", m.ttr)] {
            if let Some(n) = n {
                put(name, n.into());
            }
        }
        put("ccd", m.ccd.unwrap_or(false).into());
        put("isBinary", m.is_binary.unwrap_or(false).into());
        put("isEncrypted", m.is_encrypted.unwrap_or(false).into());
        if let Some(immutable) = m.immutable {
            put("immutable", immutable.into());
        }
        if let (Some(hash), Some(algo)) = (&m.pub_key_hash, &m.hashing_algo) {
            put("pubKeyHash", json!({"hash": hash, "hashingAlgo": algo}));
            put("hashingAlgo", Json::Null); // said already
        }
        for (name, value) in m.entries() {
            if !json.contains_key(name) {
                json.insert(name.to_owned(), value.into());
            }
        }
        json.retain(|_, value| !value.is_null());
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_before_birth_and_after_death() {
        let metadata = Metadata { ttl: Some(1000), ttb: Some(500), ..Metadata::default() };
        let record = Record::new("v", metadata, 10_000);
        assert!(!record.is_active(10_499));
        assert!(record.is_active(10_500) && record.is_active(11_499));
        assert!(!record.is_active(11_500));
    }

    #[test]
    fn the_next_version_keeps_its_birthday() {
        let first = Record::new("a", Metadata::default(), 5);
        let second = first.next("b", Metadata::default(), 9);
        assert_eq!((second.created_at, second.updated_at, second.version), (5, 9, 1));
    }

    #[test]
    fn json_has_only_what_is_known() {
        let record = Record::new(
            "v",
            Metadata { iv_nonce: Some("AA==".into()), is_encrypted: Some(true), ..Metadata::default() },
            0,
        );
        let text = serde_json::to_string(&record.metadata_json(&AtSign::parse("alice").unwrap())).unwrap();
        assert_eq!(
            text,
            r#"{"createdBy":"@alice","updatedBy":"@alice","createdAt":"1970-01-01 00:00:00.000Z","updatedAt":"1970-01-01 00:00:00.000Z","status":"active","version":0,"ccd":false,"isBinary":false,"isEncrypted":true,"ivNonce":"AA=="}"#
        );
    }
}
