//! The task that keeps one connection alive and matches what comes back.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postern_dialogue::client::{Conversation, Heard};
use postern_net::backoff::Backoff;
use postern_proto::verb::{Monitor, Noop};
use postern_proto::{AtSign, Millis, Notification, NotificationId, Request, ServerAddress};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::error::ClientError;
use crate::limits::{
    HEARTBEAT_ANSWER, LOGIN, LONG_OUTAGE, RECONNECT, RECONNECT_FIRST, RECONNECT_LATER, RECONNECT_SOON, REMEMBERED,
};
use crate::settings::{Identity, Settings};
use crate::wire::Wire;

/// A request on its way.
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) answer: oneshot::Sender<Result<String, ClientError>>,
}

/// Whose reply is awaited.
enum Tag {
    Call(oneshot::Sender<Result<String, ClientError>>),
    Heartbeat,
}

/// How a connection ended.
enum Ended {
    Lost,
    Stopped,
}

pub(crate) struct Driver {
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
    pub(crate) calls: mpsc::Receiver<Call>,
    pub(crate) pushes: mpsc::Sender<Notification>,
    pub(crate) stop: CancellationToken,
    known: Option<ServerAddress>,
    /// Server time of the last notification: a reconnect asks for what came after.
    heard_until: Option<Millis>,
    /// Our time of the first login: what a reconnect asks for when nothing was heard before the link was lost. A wrong
    /// clock brings some notifications twice or none, as before.
    connected_at: Option<Millis>,
    recent: VecDeque<(AtSign, NotificationId)>,
}

impl Driver {
    pub(crate) fn new(
        settings: Settings,
        identity: Identity,
        calls: mpsc::Receiver<Call>,
        pushes: mpsc::Sender<Notification>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            settings,
            identity,
            calls,
            pushes,
            stop,
            known: None,
            heard_until: None,
            connected_at: None,
            recent: VecDeque::new(),
        }
    }

    /// The first login; the caller wants to know why it fails.
    pub(crate) async fn first_login(&mut self) -> Result<Wire, ClientError> {
        let wire = timeout(LOGIN, self.log_in(LOGIN)).await.unwrap_or(Err(ClientError::TimedOut("the login")))?;
        self.known = Some(wire.address.clone());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.connected_at = Millis::try_from(now.as_millis()).ok();
        Ok(wire)
    }

    async fn log_in(&self, limit: Duration) -> Result<Wire, ClientError> {
        let monitor = self.settings.monitor.as_ref().map_or(String::new(), |regex| {
            let regex = Some(regex.clone()).filter(|r| !r.is_empty());
            let monitor = Monitor {
                strict: true,
                self_notifications: true,
                since: self.heard_until.or(self.connected_at),
                regex,
            };
            format!("{}\n", Request::Monitor(monitor))
        });
        Wire::logged_in(&self.settings, &self.identity, self.known.as_ref(), limit, &monitor).await
    }

    /// Serves until stopped, reconnecting whenever the link is lost.
    pub(crate) async fn run(mut self, first: Wire) {
        let mut wire = first;
        loop {
            if matches!(self.serve(wire).await, Ended::Stopped) {
                return;
            }
            tracing::info!(at_sign = %self.identity.at_sign, "connection lost");
            match self.reconnect().await {
                Some(again) => wire = again,
                None => return,
            }
            tracing::info!(at_sign = %self.identity.at_sign, "connection available");
        }
    }

    async fn reconnect(&mut self) -> Option<Wire> {
        let since = Instant::now();
        let mut pause = Backoff::new(RECONNECT_FIRST, RECONNECT_SOON);
        let mut long_pause = Backoff::new(RECONNECT_SOON, RECONNECT_LATER);
        let mut refused = false;
        loop {
            let random = u32::from_ne_bytes(postern_crypto::random());
            let wait = if since.elapsed() < LONG_OUTAGE { pause.next(random) } else { long_pause.next(random) };
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = sleep(wait) => {}
            }
            let tried = tokio::select! {
                () = self.stop.cancelled() => return None,
                tried = timeout(RECONNECT * 2, self.log_in(RECONNECT)) => tried,
            };
            match tried {
                Ok(Ok(wire)) => {
                    self.known = Some(wire.address.clone());
                    return Some(wire);
                }
                Ok(Err(error @ ClientError::LoginRefused(..))) if !refused => {
                    // Nothing but a person heals that; we try on, for the person may.
                    tracing::warn!(%error, "refused; trying on");
                    refused = true;
                    self.known = None;
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "reconnecting");
                    self.known = None;
                }
                Err(_) => {
                    tracing::debug!(error = "timed out", "reconnecting");
                    self.known = None;
                }
            }
        }
    }

    async fn serve(&mut self, mut wire: Wire) -> Ended {
        let mut talk = Conversation::default();
        let pipeline = wire.may_pipeline();
        let mut heard = Instant::now();
        let mut tested = false;
        loop {
            let beat = self.settings.heartbeat;
            let quiet = if tested { HEARTBEAT_ANSWER.min(beat) } else { beat };
            let deadline = tokio::time::Instant::from_std(heard + quiet);
            // In the order of what must not wait: stopping, answers (they make room), then new requests.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ended::Stopped,
                line = wire.line() => {
                    let Ok(line) = line else { return Ended::Lost };
                    heard = Instant::now();
                    tested = false;
                    if let Err(ended) = self.on_line(&mut talk, &line) {
                        return ended;
                    }
                }
                call = self.calls.recv(), if pipeline || talk.open_requests() == 0 => {
                    let Some(call) = call else { return Ended::Stopped };
                    if let Err(ended) = self.send_calls(&mut wire, &mut talk, call, pipeline).await {
                        return ended;
                    }
                }
                () = tokio::time::sleep_until(deadline) => {
                    if tested {
                        tracing::debug!("no answer to the heartbeat");
                        return Ended::Lost;
                    }
                    tested = true;
                    heard = Instant::now();
                    talk.asked(Tag::Heartbeat);
                    if wire.send(&format!("{}\n", Request::Noop(Noop { ms: 0 }))).await.is_err() {
                        return Ended::Lost;
                    }
                }
            }
        }
    }

    /// Sends this call and, where allowed, all that wait behind it, in one record.
    async fn send_calls(
        &mut self,
        wire: &mut Wire,
        talk: &mut Conversation<Tag>,
        first: Call,
        pipeline: bool,
    ) -> Result<(), Ended> {
        let mut lines = String::new();
        let mut next = Some(first);
        while let Some(call) = next {
            lines.push_str(&call.request.to_string());
            lines.push('\n');
            talk.asked(Tag::Call(call.answer));
            next = if pipeline && lines.len() < 64 * 1024 { self.calls.try_recv().ok() } else { None };
        }
        wire.send(&lines).await.map_err(|_| Ended::Lost)
    }

    fn on_line(&mut self, talk: &mut Conversation<Tag>, line: &str) -> Result<(), Ended> {
        match talk.on_line(line) {
            Heard::Reply(Tag::Call(answer), result) => {
                // The caller may have given up waiting.
                let _ = answer.send(result.map_err(ClientError::Server));
            }
            Heard::Push(push) => self.on_push(*push),
            Heard::Reply(Tag::Heartbeat, _) | Heard::Nothing => {}
            Heard::OutOfStep => return Err(Ended::Lost),
        }
        Ok(())
    }

    fn on_push(&mut self, push: Notification) {
        self.heard_until = self.heard_until.max(Some(push.at));
        let name = (push.from.clone(), push.id.clone());
        if self.recent.contains(&name) {
            return;
        }
        self.recent.push_back(name);
        if self.recent.len() > REMEMBERED {
            self.recent.pop_front();
        }
        if self.pushes.try_send(push).is_err() {
            tracing::debug!("inbox full: a notification was dropped");
        }
    }
}
