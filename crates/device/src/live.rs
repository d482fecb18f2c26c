//! Sessions that run, and what they stand on: when that is taken away, they end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use postern_crypto::Ed25519PublicKey;
use postern_link::sealed::Sealed;
use postern_proto::{AtSign, SigningKeyName, Uuid};
use postern_session::{Guest, LiveSession};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::daemon::Daemon;

/// The sessions of one daemon; at most as many as it has seats.
#[derive(Default)]
pub(crate) struct Live {
    sessions: Mutex<BTreeMap<Uuid, Session>>,
    came: Notify,
}

/// A session that runs.
#[derive(Clone)]
pub(crate) struct Session {
    /// Who was let in, and how far, as of now.
    pub(crate) guest: Guest,
    /// Whose signature was checked.
    pub(crate) enrollment: Option<SigningKeyName>,
    /// What is reached; a sealed session names its targets later, and may name many.
    pub(crate) target: Option<String>,
    /// When it began.
    pub(crate) since: SystemTime,
    /// How it is told to end.
    pub(crate) ending: Ending,
    /// A sealed session.
    pub(crate) sealed: Option<SealedSession>,
}

/// What a sealed session is beside the others.
#[derive(Clone)]
pub(crate) struct SealedSession {
    /// The client's identity key.
    pub(crate) key: Ed25519PublicKey,
    /// Of the latest request that was let in.
    pub(crate) epoch: u32,
    /// Since when it is connected as it is now.
    pub(crate) connected: SystemTime,
    /// Once its relay has been dialled.
    pub(crate) handle: Option<Sealed>,
}

/// Tells a session to end, and why; the first word counts.
#[derive(Clone, Default)]
pub(crate) struct Ending {
    token: CancellationToken,
    why: Arc<OnceLock<String>>,
}

/// A session's place among them, given back when it is dropped.
pub(crate) struct Place {
    live: Arc<Live>,
    id: Uuid,
}

impl Ending {
    /// That of a session which ends with `owner` in any case.
    pub(crate) fn under(owner: &CancellationToken) -> Self {
        Self { token: owner.child_token(), why: Arc::default() }
    }

    /// Cancelled when the session is to end.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Ends the session.
    pub(crate) fn end(&self, why: &str) {
        let _ = self.why.set(why.to_owned());
        self.token.cancel();
    }

    /// Why it was ended; `None`: it was not, or the daemon stops.
    pub(crate) fn why(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }
}

impl Live {
    /// `None`: a session of this id runs already.
    pub(crate) fn enter(self: &Arc<Self>, id: &Uuid, session: Session) -> Option<Place> {
        let mut sessions = self.lock();
        if sessions.contains_key(id) {
            return None;
        }
        sessions.insert(id.clone(), session);
        drop(sessions);
        self.came.notify_one();
        Some(Place { live: Arc::clone(self), id: id.clone() })
    }

    /// Whether a session of this id runs.
    pub(crate) fn holds(&self, id: &Uuid) -> bool {
        self.lock().contains_key(id)
    }

    /// The sealed session of this id, as the door wants it.
    pub(crate) fn sealed(&self, id: &Uuid) -> Option<LiveSession> {
        let sessions = self.lock();
        let session = sessions.get(id)?;
        let SealedSession { key, epoch, .. } = session.sealed.as_ref()?;
        Some(LiveSession { client: session.guest.at_sign().clone(), key: *key, epoch: *epoch })
    }

    /// Who was let in, as of now; `None`: the session is over.
    pub(crate) fn guest(&self, id: &Uuid) -> Option<Guest> {
        self.lock().get(id).map(|session| session.guest.clone())
    }

    /// The relay of a sealed session has been dialled.
    pub(crate) fn began(&self, id: &Uuid, handle: Sealed) {
        if let Some(sealed) = self.lock().get_mut(id).and_then(|session| session.sealed.as_mut()) {
            sealed.handle = Some(handle);
        }
    }

    /// A request that goes on with a sealed session was let in.
    pub(crate) fn goes_on(&self, id: &Uuid, epoch: u32, guest: Guest) -> Option<Sealed> {
        let mut sessions = self.lock();
        let session = sessions.get_mut(id)?;
        session.guest = guest;
        let sealed = session.sealed.as_mut()?;
        (sealed.epoch, sealed.connected) = (epoch, SystemTime::now());
        sealed.handle.clone()
    }

    fn enrollments(&self) -> BTreeSet<SigningKeyName> {
        self.lock().values().filter_map(|session| session.enrollment.clone()).collect()
    }

    /// Ends the sessions that `those` picks; returns how many.
    pub(crate) fn end(&self, why: &str, those: impl Fn(&AtSign, &Session) -> bool) -> usize {
        let sessions = self.lock();
        let picked = sessions.values().filter(|session| those(session.guest.at_sign(), session));
        let told = picked.map(|session| {
            let (client, target) = (session.guest.at_sign(), session.target.as_deref());
            let seconds = session.since.elapsed().unwrap_or_default().as_secs();
            tracing::info!(%client, target, seconds, why, "a live session is told to end");
            session.ending.end(why);
        });
        told.count()
    }

    /// The map is changed in single steps, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Session>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.live.lock().remove(&self.id);
    }
}

impl Daemon {
    /// Looks at the enrolments of live sessions again and again, so often that a session ends within `within` of the
    /// revocation. Without sessions it sleeps.
    pub(crate) async fn watch_enrollments(self: Arc<Self>, within: Duration) {
        // The rest is for the question and its answer.
        let pause = within * 9 / 10;
        loop {
            if self.live.enrollments().is_empty() {
                tokio::select! {
                    () = self.tasks.token().cancelled() => return,
                    () = self.live.came.notified() => {}
                }
            }
            tokio::select! {
                () = self.tasks.token().cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            for enrollment in self.live.enrollments() {
                // Each by itself: an atServer that does not answer must not delay the others.
                let daemon = Arc::clone(&self);
                self.tasks.spawn(async move {
                    if let Ok(true) = timeout(within, daemon.has_ended(&enrollment)).await {
                        let theirs = |_: &AtSign, session: &Session| session.enrollment.as_ref() == Some(&enrollment);
                        let sessions = daemon.live.end("the client's enrolment was revoked", theirs);
                        tracing::info!(%enrollment, sessions, "the client's enrolment was revoked: its sessions end");
                    }
                });
            }
        }
    }

    /// Whether it is known for sure that an enrolment is over; an atServer that cannot be asked ends nothing.
    async fn has_ended(&self, enrollment: &SigningKeyName) -> bool {
        let known = self.client.signing_key_record(enrollment).await;
        let outcome = match known {
            Ok(Some(_)) => return false,
            Ok(None) => self.client.enrollment_has_ended(enrollment).await,
            Err(error) => Err(error),
        };
        outcome.unwrap_or_else(|error| {
            tracing::debug!(%enrollment, %error, "could not look at an enrolment");
            false
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_while_its_session_lives_and_an_enrolment_ends_its_own() {
        let live = Arc::new(Live::default());
        let client = AtSign::parse("client").unwrap();
        let [a, b] = [1, 2].map(|n| Uuid::from_random([n; 16]));
        let enrollment = |id| SigningKeyName::new(Some(id), &client);
        let session = |enrollment| Session {
            guest: Guest::manager(std::slice::from_ref(&client), &client).unwrap(),
            enrollment,
            target: None,
            since: SystemTime::now(),
            ending: Ending::default(),
            sealed: None,
        };
        let [first, second] = ["one", "two"].map(|id| session(enrollment(id)));
        let place = live.enter(&a, first.clone()).unwrap();
        let _other = live.enter(&b, second.clone()).unwrap();
        assert!(live.enter(&a, session(None)).is_none() && live.holds(&a));
        assert_eq!(live.end("revoked", |_, session| session.enrollment == enrollment("one")), 1);
        assert!(first.ending.token().is_cancelled() && !second.ending.token().is_cancelled());
        assert_eq!((first.ending.why(), second.ending.why()), (Some("revoked"), None));
        drop(place);
        assert!(!live.holds(&a) && live.enrollments().len() == 1);
    }
}
