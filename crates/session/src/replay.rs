//! Which sealed requests were seen: each acts once, and nothing is forgotten before its time is over.

use std::collections::{BTreeMap, BTreeSet};

use postern_proto::{AtSign, Uuid};

use crate::door::Denied;
use crate::limits::{REMEMBERED_CLIENTS, REMEMBERED_OF_CLIENT};

/// Requests by client. Full, it refuses: a client's flood costs that client alone.
#[derive(Default)]
pub(crate) struct Memory {
    clients: BTreeMap<AtSign, Seen>,
    /// The latest end of all that was forgotten. Should the clock be set back, what ends before is still not believed.
    horizon_ms: u64,
}

/// What one client asked.
#[derive(Default)]
struct Seen {
    sessions: BTreeSet<(Uuid, u32)>,
    nonces: BTreeSet<[u8; 16]>,
    /// In the order in which they may be forgotten.
    until: BTreeSet<(u64, (Uuid, u32), [u8; 16])>,
}

impl Memory {
    /// Remembers a request until `until_ms`. A session id with its epoch, and a nonce, are good once.
    ///
    /// # Errors
    /// [`Denied::Replayed`], [`Denied::Full`].
    pub(crate) fn admit(
        &mut self,
        client: &AtSign,
        session: (Uuid, u32),
        nonce: [u8; 16],
        until_ms: u64,
        now_ms: u64,
    ) -> Result<(), Denied> {
        if !self.clients.contains_key(client) && self.clients.len() >= REMEMBERED_CLIENTS {
            self.clients.retain(|_, seen| {
                seen.forget(now_ms, &mut self.horizon_ms);
                !seen.until.is_empty()
            });
            if self.clients.len() >= REMEMBERED_CLIENTS {
                return Err(Denied::Full);
            }
        }
        let seen = self.clients.entry(client.clone()).or_default();
        seen.forget(now_ms, &mut self.horizon_ms);
        if until_ms <= self.horizon_ms || seen.sessions.contains(&session) || seen.nonces.contains(&nonce) {
            return Err(Denied::Replayed);
        }
        if seen.until.len() >= REMEMBERED_OF_CLIENT {
            return Err(Denied::Full);
        }
        seen.sessions.insert(session.clone());
        seen.nonces.insert(nonce);
        seen.until.insert((until_ms, session, nonce));
        Ok(())
    }
}

impl Seen {
    /// Forgets what is over.
    fn forget(&mut self, now_ms: u64, horizon_ms: &mut u64) {
        while let Some(first) = self.until.first()
            && first.0 <= now_ms
        {
            if let Some((until, session, nonce)) = self.until.pop_first() {
                *horizon_ms = until.max(*horizon_ms);
                self.sessions.remove(&session);
                self.nonces.remove(&nonce);
            }
        }
    }
}
