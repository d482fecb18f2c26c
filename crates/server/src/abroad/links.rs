//! Connections to other servers on which we speak for an owner of ours. Few, kept while they are used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use postern_dialogue::peer::PeerAnswer;
use postern_proto::AtSign;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error::PeerError;
use super::wire::PeerWire;
use super::{Abroad, Purpose, claim};
use crate::limits::{OUTBOUND_CONNECTIONS, OUTBOUND_IDLE, OWNER_LINE_BYTES, PEER_NOTIFY};

/// Who speaks to whom, and about what: a lookup does not wait behind a queue of notifications.
type Key = (AtSign, AtSign, Purpose);

/// A link that nobody uses at this moment. Who takes it out and does not put it back has closed it: an answer that
/// nobody waited for must never be read as the answer to the next question.
type Slot = tokio::sync::Mutex<Option<Link>>;

struct Link {
    wire: PeerWire,
    used: Instant,
    _place: OwnedSemaphorePermit,
}

pub(super) struct Links {
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
    places: Arc<Semaphore>,
}

impl Links {
    pub(super) fn new() -> Self {
        Self { slots: Mutex::default(), places: Arc::new(Semaphore::new(OUTBOUND_CONNECTIONS)) }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Key, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, key: Key) -> Arc<Slot> {
        Arc::clone(self.slots().entry(key).or_default())
    }

    /// A place for one more connection; the one unused for the longest time is closed for it.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, PeerError> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(place);
        }
        let oldest = {
            let slots = self.slots();
            let idle = slots.values().filter_map(|slot| Some((slot.try_lock().ok()?.as_ref()?.used, slot)));
            idle.min_by_key(|(used, _)| *used).map(|(_, slot)| Arc::clone(slot))
        };
        if let Some(slot) = oldest
            && let Ok(mut link) = slot.try_lock()
        {
            *link = None;
        }
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| PeerError::TooMany)
    }

    /// Connections that are open for `me`, those in use at this moment included.
    pub(super) fn open_for(&self, me: &AtSign) -> usize {
        let open = |slot: &Slot| slot.try_lock().map_or(true, |link| link.is_some());
        self.slots().iter().filter(|(key, slot)| key.0 == *me && open(slot)).count()
    }

    /// Closes what was idle for long, and forgets empty slots.
    pub(super) fn tidy(&self, now: Instant) {
        self.slots().retain(|_, slot| {
            if let Ok(mut link) = slot.try_lock() {
                link.take_if(|link| now.saturating_duration_since(link.used) >= OUTBOUND_IDLE);
                if link.is_none() && Arc::strong_count(slot) == 1 {
                    return false;
                }
            }
            true
        });
    }
}

impl Link {
    async fn ask(&mut self, line: &str, purpose: Purpose) -> Result<PeerAnswer, PeerError> {
        self.wire.ask(line, purpose.patience()).await
    }
}

impl Abroad {
    /// Asks the server of `them` in the name of `me`: on the connection that there is, or on a new one.
    ///
    /// # Errors
    /// See [`PeerError`]; an error reply is `Refused`.
    pub(crate) async fn ask(
        &self,
        me: &AtSign,
        them: &AtSign,
        purpose: Purpose,
        line: &str,
    ) -> Result<String, PeerError> {
        let slot = self.links.slot((me.clone(), them.clone(), purpose));
        let busy = |_| PeerError::TooSlow("an earlier request to the other server");
        let mut slot = timeout(PEER_NOTIFY, slot.lock()).await.map_err(busy)?;
        let (mut link, reused) = match slot.take() {
            Some(link) => (link, true),
            None => (self.link(me, them).await?, false),
        };
        let mut answer = link.ask(line, purpose).await;
        if reused && answer.as_ref().is_err_and(PeerError::is_lost_link) {
            // It was closed while nobody looked.
            drop(link);
            link = self.link(me, them).await?;
            answer = link.ask(line, purpose).await;
        }
        link.used = Instant::now();
        match answer? {
            PeerAnswer::Data(text) => {
                *slot = Some(link);
                Ok(text)
            }
            PeerAnswer::Error(error) => {
                *slot = Some(link);
                Err(PeerError::Refused(error))
            }
            PeerAnswer::Prompt(_) => Err(PeerError::Nonsense),
        }
    }

    /// Asks the server of `them` without saying who asks; for what everybody may read.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn ask_as_nobody(&self, them: &AtSign, line: &str) -> Result<String, PeerError> {
        let place = self.find(them).await?;
        let _place = self.links.place()?;
        let mut wire = self.dial(them, &place).await?;
        wire.set_limit(OWNER_LINE_BYTES);
        match wire.ask(line, Purpose::Ask.patience()).await? {
            PeerAnswer::Data(text) => Ok(text),
            PeerAnswer::Error(error) => Err(PeerError::Refused(error)),
            PeerAnswer::Prompt(_) => Err(PeerError::Nonsense),
        }
    }

    /// A new connection that speaks for `me`.
    async fn link(&self, me: &AtSign, them: &AtSign) -> Result<Link, PeerError> {
        let place = self.find(them).await?;
        let seat = self.links.place()?;
        let mut wire = self.dial(them, &place).await?;
        claim::claim(self, &mut wire, me, them).await?;
        wire.set_limit(OWNER_LINE_BYTES);
        Ok(Link { wire, used: Instant::now(), _place: seat })
    }
}
