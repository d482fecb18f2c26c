//! What callers hold: requests, notifications, records.

use std::sync::Arc;

use postern_net::tasks::Tasks;
use postern_proto::{AtSign, Notification, Request};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use crate::addresses::AddressBook;
use crate::driver::{Call, Driver, Ends};
use crate::error::ClientError;
use crate::habits::Habits;
use crate::limits::{INBOX, OUTBOX, REPLY};
use crate::link::Link;
use crate::settings::{Identity, Settings};
use crate::sharing::Sharing;

/// A connected identity. Clones share the connection.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) identity: Identity,
    calls: mpsc::Sender<Call>,
    pub(crate) sharing: Sharing,
    doubts: Arc<Notify>,
    pub(crate) link: Arc<watch::Sender<Link>>,
}

/// Notifications as they arrive.
pub struct Inbox {
    pub(crate) pushes: mpsc::Receiver<Notification>,
}

/// How a login that was begun goes.
pub struct Login {
    reached: Option<oneshot::Receiver<()>>,
    outcome: oneshot::Receiver<Result<(), ClientError>>,
}

impl Login {
    /// Waits until the atServer is reached: the proof is under way, and what was asked by then with it. Returns at once
    /// the second time, and when it will never be.
    pub async fn reached(&mut self) {
        if let Some(reached) = self.reached.take() {
            // A driver that gave up has said why elsewhere.
            let _ = reached.await;
        }
    }

    /// Waits for it.
    ///
    /// # Errors
    /// The server cannot be reached, or refused our proof.
    pub async fn outcome(self) -> Result<(), ClientError> {
        self.outcome.await.unwrap_or(Err(ClientError::Stopped))
    }
}

impl Client {
    /// Logs in and stays connected until `tasks` are stopped.
    pub async fn connect(identity: Identity, settings: Settings, tasks: &Tasks) -> Result<(Self, Inbox), ClientError> {
        let (client, inbox, login) = Self::begin(identity, settings, None, tasks);
        login.outcome().await?;
        Ok((client, inbox))
    }

    /// The same for a device with these habits, which count instead of [`Settings::heartbeat`].
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_as(
        identity: Identity,
        settings: Settings,
        habits: Habits,
        tasks: &Tasks,
    ) -> Result<(Self, Inbox), ClientError> {
        let (client, inbox, login) = Self::begin_as(identity, settings, None, Some(habits), tasks);
        login.outcome().await?;
        Ok((client, inbox))
    }

    /// Begins to log in, and gives the client at once: what is asked meanwhile travels behind the proof without waiting
    /// for its answer, where the server can take several requests at a time. `addresses`: where atServers were last time.
    ///
    /// When the login fails every request ends with [`ClientError::Stopped`], and the [`Login`] knows why.
    pub fn begin(
        identity: Identity,
        settings: Settings,
        addresses: Option<AddressBook>,
        tasks: &Tasks,
    ) -> (Self, Inbox, Login) {
        Self::begin_as(identity, settings, addresses, None, tasks)
    }

    fn begin_as(
        identity: Identity,
        settings: Settings,
        addresses: Option<AddressBook>,
        habits: Option<Habits>,
        tasks: &Tasks,
    ) -> (Self, Inbox, Login) {
        let (calls, call_receiver) = mpsc::channel(OUTBOX);
        let (push_sender, pushes) = mpsc::channel(INBOX);
        let (told, outcome) = oneshot::channel();
        let (at_server, reached) = oneshot::channel();
        let stop = tasks.token().child_token();
        let doubts = Arc::new(Notify::new());
        let heard = Arc::clone(&doubts);
        let link = Arc::new(Link::new());
        let ends = Ends { calls: call_receiver, pushes: push_sender, doubts: heard, link: Arc::clone(&link), stop };
        let driver = Driver::new(settings, identity.clone(), addresses, habits, ends);
        tasks.spawn(driver.start(at_server, told));
        let inner = Inner { identity, calls, sharing: Sharing::default(), doubts, link };
        (Self { inner: Arc::new(inner) }, Inbox { pushes }, Login { reached: Some(reached), outcome })
    }

    /// Looks now, and not at the next heartbeat, whether the link still lives: something else of ours that took the same way
    /// is lost. A dead link is noticed within [`crate::limits::HEARTBEAT_ANSWER`], and another one made.
    pub fn doubt_link(&self) {
        self.inner.doubts.notify_one();
    }

    /// Who we are.
    pub fn at_sign(&self) -> &AtSign {
        &self.inner.identity.at_sign
    }

    /// Our keys.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// Sends a request and waits for the reply. When the link is lost in between
    /// it is sent again: every request that goes this way may be repeated.
    pub async fn request(&self, request: Request) -> Result<String, ClientError> {
        let deadline = Instant::now() + REPLY;
        loop {
            match self.attempt(request.clone(), deadline).await {
                Err(ClientError::LinkLost) if Instant::now() < deadline => {}
                outcome => return outcome,
            }
        }
    }

    async fn attempt(&self, request: Request, deadline: Instant) -> Result<String, ClientError> {
        let (answer, answered) = oneshot::channel();
        let timed_out = |_| ClientError::TimedOut("a reply of the atServer");
        let sent = timeout_at(deadline, self.inner.calls.send(Call { request, answer })).await.map_err(timed_out)?;
        sent.map_err(|_| ClientError::Stopped)?;
        match timeout_at(deadline, answered).await.map_err(timed_out)? {
            Ok(outcome) => outcome,
            Err(_) if self.inner.calls.is_closed() => Err(ClientError::Stopped),
            Err(_) => Err(ClientError::LinkLost),
        }
    }
}

impl Inbox {
    /// The next notification; `None` when the client has stopped.
    pub async fn next(&mut self) -> Option<Notification> {
        self.pushes.recv().await
    }
}
