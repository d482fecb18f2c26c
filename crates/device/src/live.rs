//! Sessions that run, and what they stand on: when that is taken away, they end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use postern_crypto::Ed25519PublicKey;
use postern_link::sealed::Sealed;
use postern_proto::{AtSign, SigningKeyName, Uuid};
use postern_rules::Answer;
use postern_session::{Guest, HostPort, LiveSession};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::daemon::Daemon;
use crate::limits::{LISTENS, TARGETS};

/// The sessions of one daemon; at most as many as it has seats.
#[derive(Default)]
pub(crate) struct Live {
    sessions: Mutex<BTreeMap<Uuid, Session>>,
    /// How many there are.
    count: watch::Sender<usize>,
}

/// A session that runs.
#[derive(Clone)]
pub(crate) struct Session {
    /// Who was let in, and how far, as of now.
    pub(crate) guest: Guest,
    /// Whose signature was checked.
    pub(crate) enrollment: Option<SigningKeyName>,
    /// What is reached, or was; a sealed session names its targets later, and may name many.
    pub(crate) targets: Vec<HostPort>,
    /// Ports of the loopback that are listened on for it.
    pub(crate) listens: Vec<u16>,
    /// There were more than are remembered.
    pub(crate) has_more: bool,
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
        self.count.send_replace(sessions.len());
        drop(sessions);
        Some(Place { live: Arc::clone(self), id: id.clone() })
    }

    /// Whether a session of this id runs.
    pub(crate) fn holds(&self, id: &Uuid) -> bool {
        self.lock().contains_key(id)
    }

    /// Waits until a session runs.
    pub(crate) async fn some(&self) {
        // The sender lives in `self`.
        let _ = self.count.subscribe().wait_for(|count| *count > 0).await;
    }

    /// How many sessions run, and tells when one comes or goes.
    pub(crate) fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    /// All sessions, as they are now.
    pub(crate) fn all(&self) -> Vec<(Uuid, Session)> {
        self.lock().iter().map(|(id, session)| (id.clone(), session.clone())).collect()
    }

    /// The clients of sessions whose guests `those` picks.
    pub(crate) fn clients(&self, those: impl Fn(&Guest) -> bool) -> BTreeSet<AtSign> {
        let sessions = self.lock();
        let picked = sessions.values().filter(|session| those(&session.guest));
        picked.map(|session| session.guest.at_sign().clone()).collect()
    }

    /// A session is about to dial this target.
    pub(crate) fn reaches(&self, id: &Uuid, target: &HostPort) {
        if let Some(session) = self.lock().get_mut(id)
            && !session.targets.contains(target)
        {
            if session.targets.len() < TARGETS {
                session.targets.push(target.clone());
            } else {
                session.has_more = true;
            }
        }
    }

    /// A port is about to be listened on for this session. False: the session is over, or has its share of ports.
    pub(crate) fn listens(&self, id: &Uuid, port: u16) -> bool {
        let mut sessions = self.lock();
        let Some(session) = sessions.get_mut(id) else { return false };
        let room = session.listens.len() < LISTENS;
        if room {
            session.listens.push(port);
        }
        room
    }

    /// A port is no longer listened on.
    pub(crate) fn closed(&self, id: &Uuid, port: u16) {
        if let Some(session) = self.lock().get_mut(id)
            && let Some(at) = session.listens.iter().position(|listened| *listened == port)
        {
            session.listens.remove(at);
        }
    }

    /// What policy says now of one of its guests: its sessions may reach that, from now on. `may`: whether a target is
    /// among it; `may_listen`: whether a port is. Returns how many sessions end because they reach more.
    fn narrow(&self, guest: &Guest, may: impl Fn(&HostPort) -> bool, may_listen: impl Fn(u16) -> bool) -> usize {
        let mut sessions = self.lock();
        let theirs = sessions.values_mut().filter(|session| {
            let before = &session.guest;
            before.at_sign() == guest.at_sign() && !before.is_manager() && before != guest
        });
        let ended = theirs.filter_map(|session| {
            session.guest = guest.clone();
            let within = session.targets.iter().all(&may) && session.listens.iter().all(|port| may_listen(*port));
            let reaches_more = session.has_more || !within;
            reaches_more.then(|| session.ending.end("the policy service permits less than the session reaches"))
        });
        ended.count()
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
            let (client, seconds) = (session.guest.at_sign(), session.since.elapsed().unwrap_or_default().as_secs());
            tracing::info!(%client, seconds, why, "a live session is told to end");
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
        let mut sessions = self.live.lock();
        sessions.remove(&self.id);
        self.live.count.send_replace(sessions.len());
    }
}

impl Daemon {
    /// Looks at what live sessions stand on again and again, so often that a session ends within `within` of a
    /// revocation: the enrolments of the clients, and what policy says of its guests. Without sessions it sleeps.
    pub(crate) async fn watch_grants(self: Arc<Self>, within: Duration) {
        // The rest is for the question and its answer.
        let pause = within * 9 / 10;
        loop {
            tokio::select! {
                () = self.tasks.token().cancelled() => return,
                () = async {
                    self.live.some().await;
                    tokio::time::sleep(pause).await;
                } => {}
            }
            for client in self.live.clients(|guest| !guest.is_manager()) {
                let Some(policy) = self.policy.clone() else { break };
                let daemon = Arc::clone(&self);
                self.tasks.spawn(async move {
                    if let Some(answer) = policy.ask_anew(&client).await {
                        daemon.heed(&client, &answer);
                    }
                });
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

    /// What policy says now counts for sessions that run as well.
    fn heed(&self, client: &AtSign, answer: &Answer) {
        let Some(guest) = answer.guest(client) else {
            let why = format!("denied by policy: {}", answer.reason());
            self.live.end(&why, |who, session| who == client && !session.guest.is_manager());
            return;
        };
        let ended = {
            let door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
            let may = |target: &HostPort| door.may_reach(&guest, target).is_ok();
            self.live.narrow(&guest, may, |port| door.may_listen(&guest, port).is_ok())
        };
        if ended > 0 {
            tracing::info!(%client, ended, "sessions end: policy permits less than they reach");
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
    use postern_session::{Door, PermitListen, PermitOpen};

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
            targets: Vec::new(),
            listens: Vec::new(),
            has_more: false,
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

    #[test]
    fn what_policy_takes_back_ends_the_sessions_that_reach_it_and_no_others() {
        let live = Arc::new(Live::default());
        let client = AtSign::parse("client").unwrap();
        let permits = |list| Guest::by_policy(&client, PermitOpen::parse(list).unwrap());
        let session = |port| Session {
            guest: permits("localhost:22,localhost:80"),
            enrollment: None,
            targets: vec![HostPort::localhost(port)],
            listens: Vec::new(),
            has_more: false,
            since: SystemTime::now(),
            ending: Ending::default(),
            sealed: None,
        };
        let sessions = [22, 80].map(session);
        let places = [1, 2].map(|n| {
            let id = Uuid::from_random([n; 16]);
            live.enter(&id, sessions[usize::from(n) - 1].clone()).unwrap()
        });
        let door = Door::new(PermitOpen::anything()).with_listen(PermitListen::parse("8080").unwrap());
        let narrow = |list| {
            let guest = permits(list);
            let may = |target: &HostPort| door.may_reach(&guest, target).is_ok();
            live.narrow(&guest, may, |port| door.may_listen(&guest, port).is_ok())
        };
        assert_eq!(narrow("localhost:22,localhost:80"), 0);
        assert_eq!(narrow("localhost:22,localhost:81"), 1);
        assert!(!sessions[0].ending.token().is_cancelled() && sessions[1].ending.token().is_cancelled());
        live.reaches(&places[0].id, &HostPort::localhost(81));
        assert_eq!(narrow("localhost:22"), 2, "the other one has not gone yet");
        drop(places);
        let listening = session(22);
        let place = live.enter(&Uuid::from_random([3; 16]), listening.clone()).unwrap();
        assert!(live.listens(&place.id, 8080));
        assert_eq!(narrow("localhost:22,listen:8080"), 0);
        assert_eq!(narrow("localhost:22"), 1, "it listens still");
        assert!(listening.ending.token().is_cancelled());
        assert!((1..LISTENS).all(|_| live.listens(&place.id, 8080)) && !live.listens(&place.id, 8080));
        live.closed(&place.id, 8080);
        assert!(live.listens(&place.id, 8080));
    }
}
