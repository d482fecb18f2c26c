//! Which atSigns live here. The store knows; this remembers, for strangers ask often.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use postern_proto::{AtSign, ServerAddress};
use postern_store::{Account, Store, StoreError};

use crate::limits::ACCOUNT_READS_BURST;

type ByName = HashMap<AtSign, Account>;

/// The households of this server and where the directory says they are.
pub(crate) struct Accounts {
    store: Arc<dyn Store>,
    host: String,
    /// Of households without a port of their own.
    common_port: u16,
    known: RwLock<Arc<ByName>>,
    /// Reads left for unknown names, and when that was counted.
    reads: Mutex<(f64, Instant)>,
}

impl Accounts {
    pub(crate) fn load(store: Arc<dyn Store>, host: String, common_port: u16) -> Result<Self, StoreError> {
        let known = by_name(store.as_ref())?;
        let reads = Mutex::new((f64::from(ACCOUNT_READS_BURST), Instant::now()));
        Ok(Self { store, host, common_port, known: RwLock::new(known.into()), reads })
    }

    /// Everybody, as of the last reading.
    pub(crate) fn all(&self) -> Arc<ByName> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the store again; gives the atSigns that are gone.
    pub(crate) fn refresh(&self) -> Result<Vec<AtSign>, StoreError> {
        let new = by_name(self.store.as_ref())?;
        let old = self.all();
        if new == *old {
            return Ok(Vec::new());
        }
        let gone = old.keys().filter(|name| !new.contains_key(*name)).cloned().collect();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = new.into();
        Ok(gone)
    }

    /// Whether `at_sign` lives here. A name that is not known yet is looked for in the
    /// store, unless that happened too often in the last second.
    pub(crate) fn hosts(&self, at_sign: &AtSign) -> bool {
        self.find(at_sign).is_some()
    }

    fn find(&self, at_sign: &AtSign) -> Option<Account> {
        if let Some(account) = self.all().get(at_sign) {
            return Some(account.clone());
        }
        if !self.may_read(Instant::now()) {
            return None;
        }
        if let Err(error) = self.refresh() {
            tracing::debug!(%error, "households not read");
        }
        self.all().get(at_sign).cloned()
    }

    fn may_read(&self, now: Instant) -> bool {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let burst = f64::from(ACCOUNT_READS_BURST);
        let left = (reads.0 + now.saturating_duration_since(reads.1).as_secs_f64() * burst).min(burst);
        let allowed = left >= 1.0;
        *reads = (if allowed { left - 1.0 } else { left }, now);
        allowed
    }

    /// The directory's answer.
    pub(crate) fn address(&self, at_sign: &AtSign) -> Option<ServerAddress> {
        let account = self.find(at_sign)?;
        Some(ServerAddress { host: self.host.clone(), port: account.port.unwrap_or(self.common_port) })
    }

    /// Whether this server itself listens there.
    pub(crate) fn is_ours(&self, address: &ServerAddress) -> bool {
        let ours = |port: u16| port == self.common_port || self.all().values().any(|a| a.port == Some(port));
        address.host.eq_ignore_ascii_case(&self.host) && ours(address.port)
    }

    /// The only household, if there is just one.
    pub(crate) fn only(&self) -> Option<AtSign> {
        let all = self.all();
        let mut names = all.keys();
        names.next().filter(|_| all.len() == 1).cloned()
    }
}

fn by_name(store: &dyn Store) -> Result<ByName, StoreError> {
    Ok(store.accounts()?.into_iter().map(|account| (account.at_sign.clone(), account)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_store::{Batch, MemoryStore};

    #[test]
    fn a_new_household_is_found_and_made_up_names_cost_little() {
        let store = Arc::new(MemoryStore::new());
        let accounts = Accounts::load(store.clone(), "h".into(), 64).unwrap();
        let alice = AtSign::parse("alice").unwrap();
        assert!(!accounts.hosts(&alice));
        let account = Account { at_sign: alice.clone(), port: Some(7), created_at: 0 };
        drop(store.commit(Batch::new(0).add_account(account)));
        assert_eq!(accounts.address(&alice).unwrap().to_string(), "h:7");
        assert_eq!(accounts.only(), Some(alice));
        let now = Instant::now();
        let reads = (0..100).filter(|_| accounts.may_read(now)).count();
        assert!(reads < 25, "{reads}");
    }
}
