//! Signing keys of strangers, fetched from their atServers and kept for a moment.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use postern_client::Client;
use postern_proto::SigningKeyName;

use crate::engine::{KeyRecord, SigningKeys, Unknown};
use crate::limits::{KEPT_KEYS, KEY_AGE};

/// Asks the owners' atServers; remembers what it was told for [`KEY_AGE`].
pub(crate) struct KeyBook {
    client: Client,
    kept: Mutex<BTreeMap<SigningKeyName, (Instant, String)>>,
}

impl KeyBook {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, kept: Mutex::default() }
    }

    async fn find(&self, name: &SigningKeyName) -> KeyRecord {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept().get(name).filter(|(at, _)| at.elapsed() < KEY_AGE).map(|(_, record)| record.clone());
        if let Some(record) = known {
            return Ok(Some(record));
        }
        let record = self.client.signing_key_record(name).await.map_err(|error| {
            tracing::debug!(%name, %error, "could not ask for a signing key");
            Unknown
        })?;
        let mut kept = kept();
        match &record {
            Some(record) => {
                if kept.len() >= KEPT_KEYS {
                    kept.clear();
                }
                kept.insert(name.clone(), (Instant::now(), record.clone()));
            }
            None => drop(kept.remove(name)),
        }
        Ok(record)
    }
}

impl SigningKeys for KeyBook {
    fn record<'a>(&'a self, name: &'a SigningKeyName) -> Pin<Box<dyn Future<Output = KeyRecord> + Send + 'a>> {
        Box::pin(self.find(name))
    }
}
