//! Keys of strangers, fetched from their atServers and kept for a moment.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use postern_client::Client;
use postern_crypto::RsaPublicKey;
use postern_proto::{AtSign, SigningKeyName};
use tokio::sync::OnceCell;

use crate::engine::{KeyRecord, SigningKeys, TicketKeys, Unknown};
use crate::limits::{KEPT_KEYS, KEY_AGE};

/// Asks the owners' atServers; remembers what it was told for [`KEY_AGE`].
pub(crate) struct KeyBook {
    client: Client,
    signing: Mutex<Kept<SigningKeyName, String>>,
    encryption: Mutex<Kept<AtSign, RsaPublicKey>>,
}

/// Answers, and questions under way: who asks the same meanwhile waits for the same answer.
struct Kept<K, V> {
    cells: BTreeMap<K, (Instant, Arc<OnceCell<V>>)>,
    /// The oldest first; those of a name that was asked for anew are passed over.
    order: VecDeque<(Instant, K)>,
}

/// Why there is no answer to keep.
enum NoKey {
    /// There is no such record.
    Absent,
    Unknown,
}

impl KeyBook {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, signing: Mutex::default(), encryption: Mutex::default() }
    }

    async fn find_signing(&self, name: &SigningKeyName) -> KeyRecord {
        let cell = self.signing.lock().unwrap_or_else(PoisonError::into_inner).cell(name, Instant::now());
        let asked = cell.get_or_try_init(|| async {
            match self.client.signing_key_record(name).await {
                Ok(record) => record.ok_or(NoKey::Absent),
                Err(error) => {
                    tracing::debug!(%name, %error, "could not ask for a signing key");
                    Err(NoKey::Unknown)
                }
            }
        });
        match asked.await {
            Ok(record) => Ok(Some(record.clone())),
            Err(NoKey::Absent) => Ok(None),
            Err(NoKey::Unknown) => Err(Unknown),
        }
    }

    async fn find_encryption(&self, of: &AtSign) -> Result<RsaPublicKey, Unknown> {
        let cell = self.encryption.lock().unwrap_or_else(PoisonError::into_inner).cell(of, Instant::now());
        let asked = cell.get_or_try_init(|| async {
            self.client.public_key(of).await.map_err(|error| {
                tracing::debug!(%of, %error, "could not ask for an encryption key");
                Unknown
            })
        });
        asked.await.cloned()
    }
}

impl SigningKeys for KeyBook {
    fn record<'a>(&'a self, name: &'a SigningKeyName) -> Pin<Box<dyn Future<Output = KeyRecord> + Send + 'a>> {
        Box::pin(self.find_signing(name))
    }
}

impl TicketKeys for KeyBook {
    fn encryption_key<'a>(
        &'a self,
        of: &'a AtSign,
    ) -> Pin<Box<dyn Future<Output = Result<RsaPublicKey, Unknown>> + Send + 'a>> {
        Box::pin(self.find_encryption(of))
    }
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self { cells: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Ord, V> Kept<K, V> {
    /// The cell for this name: with its answer, if there is one that is young enough.
    fn cell(&mut self, name: &K, now: Instant) -> Arc<OnceCell<V>> {
        while let Some((since, oldest)) = self.order.front()
            && (now.saturating_duration_since(*since) >= KEY_AGE || self.order.len() >= KEPT_KEYS)
        {
            if self.cells.get(oldest).is_some_and(|(asked, _)| asked == since) {
                self.cells.remove(oldest);
            }
            self.order.pop_front();
        }
        let cell = self.cells.get(name);
        cell.map(|(_, cell)| Arc::clone(cell)).unwrap_or_else(|| {
            let cell = Arc::default();
            self.cells.insert(name.clone(), (now, Arc::clone(&cell)));
            self.order.push_back((now, name.clone()));
            cell
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_for_its_age_and_no_longer() {
        let (mut kept, start) = (Kept::<u32, u32>::default(), Instant::now());
        kept.cell(&1, start).set(7).unwrap();
        assert_eq!(kept.cell(&1, start + KEY_AGE / 2).get(), Some(&7));
        assert_eq!(kept.cell(&1, start + KEY_AGE).get(), None);
        assert_eq!((kept.cells.len(), kept.order.len()), (1, 1));
    }

    #[test]
    fn a_crowd_of_names_is_bounded() {
        let (mut kept, now) = (Kept::<usize, u32>::default(), Instant::now());
        for name in 0..KEPT_KEYS + 10 {
            kept.cell(&name, now);
        }
        assert_eq!((kept.cells.len(), kept.order.len()), (KEPT_KEYS, KEPT_KEYS));
        assert!(!kept.cells.contains_key(&0) && kept.cells.contains_key(&(KEPT_KEYS + 9)));
    }
}
