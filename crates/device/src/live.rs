//! Sessions that run, and the enrolments they stand on: when one of these is revoked, its sessions end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postern_proto::{SigningKeyName, Uuid};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::daemon::Daemon;

/// The sessions of one daemon; at most as many as it has seats.
#[derive(Default)]
pub(crate) struct Live {
    sessions: Mutex<BTreeMap<Uuid, Entry>>,
    came: Notify,
}

struct Entry {
    enrollment: Option<SigningKeyName>,
    stop: CancellationToken,
}

/// A session's place among them, given back when it is dropped.
pub(crate) struct Place {
    live: Arc<Live>,
    id: Uuid,
}

impl Live {
    /// `None`: a session of this id runs already. `enrollment`: whose signature was checked; `stop` ends the session.
    pub(crate) fn enter(
        self: &Arc<Self>,
        id: &Uuid,
        enrollment: Option<SigningKeyName>,
        stop: &CancellationToken,
    ) -> Option<Place> {
        let mut sessions = self.lock();
        if sessions.contains_key(id) {
            return None;
        }
        sessions.insert(id.clone(), Entry { enrollment, stop: stop.clone() });
        drop(sessions);
        self.came.notify_one();
        Some(Place { live: Arc::clone(self), id: id.clone() })
    }

    /// Whether a session of this id runs.
    pub(crate) fn holds(&self, id: &Uuid) -> bool {
        self.lock().contains_key(id)
    }

    fn enrollments(&self) -> BTreeSet<SigningKeyName> {
        self.lock().values().filter_map(|entry| entry.enrollment.clone()).collect()
    }

    /// Ends the sessions of an enrolment; returns how many.
    fn end(&self, enrollment: &SigningKeyName) -> usize {
        let sessions = self.lock();
        let theirs = sessions.values().filter(|entry| entry.enrollment.as_ref() == Some(enrollment));
        theirs.map(|entry| entry.stop.cancel()).count()
    }

    /// The map is changed in single steps, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Entry>> {
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
                        let sessions = daemon.live.end(&enrollment);
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
    use postern_proto::AtSign;

    #[test]
    fn an_id_is_taken_while_its_session_lives_and_an_enrolment_ends_its_own() {
        let live = Arc::new(Live::default());
        let [a, b] = [1, 2].map(|n| Uuid::from_random([n; 16]));
        let enrollment = |id| SigningKeyName::new(Some(id), &AtSign::parse("client").unwrap());
        let stops = [CancellationToken::new(), CancellationToken::new()];
        let place = live.enter(&a, enrollment("one"), &stops[0]).unwrap();
        let _other = live.enter(&b, enrollment("two"), &stops[1]).unwrap();
        assert!(live.enter(&a, None, &stops[1]).is_none() && live.holds(&a));
        assert_eq!(live.end(&enrollment("one").unwrap()), 1);
        assert!(stops[0].is_cancelled() && !stops[1].is_cancelled());
        drop(place);
        assert!(!live.holds(&a) && live.enrollments().len() == 1);
    }
}
