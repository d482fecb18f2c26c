//! The task that keeps one connection alive and matches what comes back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postern_dialogue::client::{Conversation, Heard};
use postern_dialogue::comeback::Comeback;
use postern_dialogue::heartbeat::{Beat, Heartbeat, Plan};
use postern_net::backoff::Backoff;
use postern_net::clock;
use postern_proto::verb::{Monitor, Noop};
use postern_proto::{AtSign, Millis, Notification, NotificationId, Request, ServerAddress};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::addresses::AddressBook;
use crate::error::ClientError;
use crate::habits::{Habits, Network, Sleep};
use crate::limits::{
    BEAT_FATE, HEARTBEAT_ANSWER, LOGIN, LONG_OUTAGE, RECONNECT, RECONNECT_FIRST, RECONNECT_LATER, RECONNECT_SOON,
    REMEMBERED, TOGETHER_BYTES,
};
use crate::link::{Link, LinkState};
use crate::settings::{Identity, Settings};
use crate::wire::{Wire, find_server};

/// A request on its way.
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) answer: oneshot::Sender<Result<String, ClientError>>,
}

/// Whose reply is awaited.
enum Tag {
    Login,
    Call(oneshot::Sender<Result<String, ClientError>>),
    Heartbeat,
}

/// How a connection ended.
enum Ended {
    Lost,
    Stopped,
    /// By us, to sleep.
    Asleep,
}

/// What a line was for.
enum Use {
    Beat,
    Work,
}

/// How long to wait before trying again.
enum Pauses {
    /// Somebody waits: at once, and then every few seconds.
    Eager { soon: Backoff, later: Backoff, since: Instant },
    /// A device of many.
    Patient(Comeback),
}

/// Our ends of what leads to the callers.
pub(crate) struct Ends {
    pub(crate) calls: mpsc::Receiver<Call>,
    pub(crate) pushes: mpsc::Sender<Notification>,
    pub(crate) doubts: Arc<Notify>,
    pub(crate) link: Arc<watch::Sender<Link>>,
    pub(crate) stop: CancellationToken,
}

pub(crate) struct Driver {
    pub(crate) settings: Settings,
    pub(crate) identity: Identity,
    pub(crate) calls: mpsc::Receiver<Call>,
    pub(crate) pushes: mpsc::Sender<Notification>,
    doubts: Arc<Notify>,
    link: Arc<watch::Sender<Link>>,
    pub(crate) stop: CancellationToken,
    known: Option<ServerAddress>,
    addresses: Option<AddressBook>,
    /// Those of a device that stays; `None`: somebody waits for us.
    habits: Option<Habits>,
    network: Option<Network>,
    /// The same once it was looked at.
    known_network: Option<Option<Network>>,
    heartbeat: Heartbeat,
    pauses: Pauses,
    /// What woke us up.
    waiting: Option<Call>,
    /// Told once, when the first proof is under way.
    reached: Option<oneshot::Sender<()>>,
    /// Server time of the last notification: a reconnect asks for what came after.
    heard_until: Option<Millis>,
    /// The first login: what a reconnect asks for when nothing was heard before the link was lost. A wrong clock brings
    /// some notifications twice or none.
    connected_at: Option<Instant>,
    recent: VecDeque<(AtSign, NotificationId)>,
}

impl Driver {
    pub(crate) fn new(
        settings: Settings,
        identity: Identity,
        addresses: Option<AddressBook>,
        habits: Option<Habits>,
        Ends { calls, pushes, doubts, link, stop }: Ends,
    ) -> Self {
        let heartbeat = Heartbeat::new(Plan::fixed(settings.heartbeat), None);
        let pauses = match &habits {
            Some(habits) => Pauses::Patient(Comeback::new(habits.on(None).pace)),
            None => Pauses::eager(),
        };
        Self {
            habits,
            network: None,
            known_network: None,
            heartbeat,
            pauses,
            waiting: None,
            addresses,
            settings,
            identity,
            calls,
            pushes,
            doubts,
            link,
            stop,
            known: None,
            reached: None,
            heard_until: None,
            connected_at: None,
            recent: VecDeque::new(),
        }
    }

    /// Logs in, tells how that went, and serves until stopped. Requests that wait by then go out behind the proof, where
    /// the server takes several at a time.
    pub(crate) async fn start(
        mut self,
        reached: oneshot::Sender<()>,
        outcome: oneshot::Sender<Result<(), ClientError>>,
    ) {
        self.reached = Some(reached);
        let stop = self.stop.clone();
        let login = tokio::select! {
            biased;
            () = stop.cancelled() => Err(ClientError::Stopped),
            login = timeout(LOGIN, Box::pin(self.login_by_book())) => {
                login.unwrap_or(Err(ClientError::TimedOut("the login")))
            }
        };
        match login {
            Ok((wire, talk)) => {
                // Whoever began may not care.
                let _ = outcome.send(Ok(()));
                let revalidate = self.revalidation(&wire);
                tokio::join!(Box::pin(self.run(wire, talk)), revalidate);
            }
            // Our end of the queue goes with us: whoever waits for a reply hears that there will be none.
            Err(error) => {
                let _ = outcome.send(Err(error));
            }
        }
    }

    /// An atServer that moved may have left its old self behind: who is refused at a remembered address asks the directory.
    async fn login_by_book(&mut self) -> Result<(Wire, Conversation<Tag>), ClientError> {
        let (root, who) = (&self.settings.root, &self.identity.at_sign);
        let remembered = self.addresses.as_ref().is_some_and(|book| book.find(root, who).is_some());
        match self.first_login().await {
            Err(ClientError::LoginRefused(..)) if remembered => {
                self.addresses = None;
                self.first_login().await
            }
            outcome => outcome,
        }
    }

    /// Asks the directory whether the atServer is still where it was remembered, so that the next login finds it. Of no
    /// concern to this one.
    fn revalidation(&self, wire: &Wire) -> impl Future<Output = ()> + use<> {
        let (settings, who, stop) = (self.settings.clone(), self.identity.at_sign.clone(), self.stop.clone());
        let (book, address) = (self.addresses.clone(), wire.address.clone());
        async move {
            let Some(book) = book.filter(|_| address != settings.root) else { return };
            let found = tokio::select! {
                () = stop.cancelled() => return,
                found = Box::pin(find_server(&settings, &who, LOGIN)) => found,
            };
            let written = match found {
                Ok(now) => book.remember(&settings.root, &who, &now),
                Err(ClientError::NotInDirectory(..)) => book.forget(&settings.root, &who),
                Err(_) => return, // a directory that is away says nothing
            };
            if let Err(error) = written {
                tracing::debug!(%error, "the address is not remembered");
            }
        }
    }

    async fn first_login(&mut self) -> Result<(Wire, Conversation<Tag>), ClientError> {
        let who = self.identity.at_sign.clone();
        let (mut wire, challenge) = match &self.addresses {
            Some(book) => Wire::challenged_by_book(&self.settings, &who, book, LOGIN).await?,
            None => Wire::challenged(&self.settings, &who, None, LOGIN).await?,
        };
        let proof = challenge.answer(&self.identity.keys).map_err(|_| ClientError::Crypto("the challenge"))?;
        let (pipeline, monitor) = (wire.may_pipeline(), self.monitor());
        let mut talk = Conversation::default();
        talk.asked(Tag::Login);
        let mut lines = format!("{}\n", Request::Pkam(proof));
        if pipeline {
            lines.push_str(&monitor);
            let first = self.calls.try_recv().ok();
            self.gather(&mut lines, &mut talk, first);
        }
        wire.send(&lines).await?;
        if let Some(reached) = self.reached.take() {
            let _ = reached.send(()); // of interest to those who measure
        }
        loop {
            tokio::select! {
                biased; // the answer first: it makes everything else allowed
                line = wire.line() => match talk.on_line(&line?) {
                    Heard::Reply(Tag::Login, Ok(_)) => break,
                    Heard::Reply(Tag::Login, Err(error)) => return Err(ClientError::LoginRefused(who, error)),
                    // Nothing else is answered before it, and pushes are for those who are logged in.
                    Heard::Nothing => {}
                    Heard::Reply(..) | Heard::Push(_) | Heard::OutOfStep => return Err(ClientError::LinkLost),
                },
                call = self.calls.recv(), if pipeline => {
                    let Some(call) = call else { return Err(ClientError::Stopped) };
                    let mut lines = String::new();
                    self.gather(&mut lines, &mut talk, Some(call));
                    wire.send(&lines).await?;
                }
            }
        }
        if !pipeline && !monitor.is_empty() {
            wire.send(&monitor).await?;
        }
        self.known = Some(wire.address.clone());
        self.connected_at = Some(Instant::now());
        Ok((wire, talk))
    }

    async fn log_in(&self, limit: Duration) -> Result<Wire, ClientError> {
        Wire::logged_in(&self.settings, &self.identity, self.known.as_ref(), limit, &self.monitor()).await
    }

    /// When that was, by the best that is known of the time now: the clock may have been wrong then.
    fn logged_in_first(&self) -> Option<Millis> {
        let ago = u64::try_from(self.connected_at?.elapsed().as_millis()).ok()?;
        Millis::try_from(clock::now_ms().saturating_sub(ago)).ok()
    }

    /// The line that asks for notifications; empty when nobody wants any.
    fn monitor(&self) -> String {
        self.settings.monitor.as_ref().map_or(String::new(), |regex| {
            let regex = Some(regex.clone()).filter(|r| !r.is_empty());
            let monitor = Monitor {
                strict: true,
                self_notifications: true,
                since: self.heard_until.or_else(|| self.logged_in_first()),
                regex,
            };
            format!("{}\n", Request::Monitor(monitor))
        })
    }

    /// Serves until stopped, reconnecting whenever the link is lost.
    async fn run(mut self, first: Wire, asked: Conversation<Tag>) {
        let (mut wire, mut talk) = (first, asked);
        loop {
            if let Pauses::Patient(comeback) = &mut self.pauses {
                comeback.up(Instant::now());
            }
            self.look_at_network(&wire);
            self.tell(LinkState::Connected);
            let ended = self.serve(wire, talk).await;
            if let Some(habits) = &self.habits {
                habits.learn(self.network, self.heartbeat.learnt());
            }
            talk = Conversation::default();
            match ended {
                Ended::Stopped => return,
                Ended::Lost => {
                    tracing::info!(at_sign = %self.identity.at_sign, "connection lost");
                    self.tell(LinkState::Lost);
                }
                Ended::Asleep => {
                    self.tell(LinkState::Asleep);
                    if !self.sleep().await {
                        return;
                    }
                    self.tell(LinkState::Lost);
                }
            }
            match self.reconnect().await {
                Some(again) => wire = again,
                None => return,
            }
            tracing::info!(at_sign = %self.identity.at_sign, "connection available");
        }
    }

    /// A device begins with what it knows of the network that it is in now.
    fn look_at_network(&mut self, wire: &Wire) {
        let Some(habits) = &self.habits else { return };
        wire.make_quiet();
        // A system that does not say any more has not moved.
        let network = Network::of_default_route().or(self.network);
        let first = self.known_network.replace(network).is_none_or(|before| before != network);
        if !first {
            return;
        }
        self.network = network;
        let manners = habits.on(network);
        self.heartbeat = Heartbeat::new(manners.plan, habits.learnt(network));
        if let Pauses::Patient(comeback) = &mut self.pauses {
            comeback.set_pace(manners.pace);
        }
        let (profile, asked) = (habits.profile_on(network), habits.profile);
        if profile == asked {
            tracing::info!(%profile, "profile of the link");
        } else {
            tracing::info!(%profile, "profile of the link: the default route is a modem's; say --profile if its bytes are free");
        }
    }

    /// Waits for the next time to be connected, or for something that must be sent. False: we are stopped.
    async fn sleep(&mut self) -> bool {
        let Some(Sleep { every, .. }) = self.habits.as_ref().and_then(|habits| habits.on(self.network).sleep) else {
            return true;
        };
        tracing::info!(hours = every.as_secs() / 3600, "asleep");
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            call = self.calls.recv() => {
                self.waiting = call;
                self.waiting.is_some()
            }
            () = sleep(every) => true,
        }
    }

    async fn reconnect(&mut self) -> Option<Wire> {
        self.pauses.lost();
        let mut refused = false;
        loop {
            let random = u32::from_ne_bytes(postern_crypto::random());
            let wait = self.pauses.next(random);
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = sleep(wait) => {}
            }
            self.pauses.trying();
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

    async fn serve(&mut self, mut wire: Wire, mut talk: Conversation<Tag>) -> Ended {
        let pipeline = wire.may_pipeline();
        let awake = self.habits.as_ref().and_then(|habits| habits.on(self.network).sleep).map(|sleep| sleep.awake);
        let mut heard = Instant::now();
        let mut used = heard;
        // When a question went out that is not answered; when any beat did.
        let (mut asked, mut beaten) = (false, heard);
        let mut silence = self.silence();
        if let Some(call) = self.waiting.take()
            && self.send_calls(&mut wire, &mut talk, call, pipeline).await.is_err()
        {
            return Ended::Lost;
        }
        let ended = loop {
            let quiet = if asked { HEARTBEAT_ANSWER.min(silence) } else { silence };
            let deadline = tokio::time::Instant::from_std(heard + quiet);
            let tired = awake.map(|awake| tokio::time::Instant::from_std(used + awake));
            // In the order of what must not wait: stopping, answers (they make room), then new requests.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ended::Stopped,
                line = wire.line() => {
                    let Ok(line) = line else { break Ended::Lost };
                    heard = Instant::now();
                    asked = false;
                    self.heartbeat.heard();
                    silence = self.silence();
                    self.tell_heard(heard);
                    match self.on_line(&mut talk, &line) {
                        Ok(Use::Beat) => {}
                        Ok(Use::Work) => used = heard,
                        Err(ended) => return ended,
                    }
                }
                call = self.calls.recv(), if pipeline || talk.open_requests() == 0 => {
                    let Some(call) = call else { return Ended::Stopped };
                    used = Instant::now();
                    if self.send_calls(&mut wire, &mut talk, call, pipeline).await.is_err() {
                        break Ended::Lost;
                    }
                }
                () = tokio::time::sleep_until(deadline) => {
                    if asked {
                        tracing::debug!("no answer to the heartbeat");
                        break Ended::Lost;
                    }
                    (heard, beaten) = (Instant::now(), Instant::now());
                    let sent = match self.heartbeat.beat(pipeline && self.habits.is_some()) {
                        Beat::Touch => wire.send("\n").await,
                        Beat::Ask => {
                            asked = true;
                            beat_now(&mut wire, &mut talk).await
                        }
                    };
                    silence = self.silence();
                    if sent.is_err() {
                        break Ended::Lost;
                    }
                }
                () = self.doubts.notified(), if !asked => {
                    (asked, heard) = (true, Instant::now());
                    if beat_now(&mut wire, &mut talk).await.is_err() {
                        break Ended::Lost;
                    }
                }
                () = until(tired), if !asked && talk.open_requests() == 0 => {
                    used = Instant::now();
                    if !self.habits.as_ref().is_some_and(Habits::is_busy) {
                        break Ended::Asleep;
                    }
                }
            }
        };
        // A link that ended with a beat on its way died of the silence before it; any other end says nothing.
        if matches!(ended, Ended::Lost) && beaten.elapsed() < BEAT_FATE {
            self.heartbeat.died();
        }
        self.heartbeat.closed();
        ended
    }

    /// Tells those who look how the link is from now on.
    fn tell(&self, state: LinkState) {
        let now = Instant::now();
        let heartbeat = self.heartbeat.learnt().interval;
        self.link.send_modify(|link| {
            let heard = if state == LinkState::Connected { now } else { link.heard };
            *link = Link { state, since: now, heard, heartbeat };
        });
    }

    /// The same of what was heard, which wakes nobody up.
    fn tell_heard(&self, heard: Instant) {
        let heartbeat = self.heartbeat.learnt().interval;
        self.link.send_if_modified(|link| {
            (link.heard, link.heartbeat) = (heard, heartbeat);
            false
        });
    }

    fn silence(&self) -> Duration {
        self.heartbeat.silence(u32::from_ne_bytes(postern_crypto::random()))
    }

    /// Sends this call and, where allowed, all that wait behind it, in one record.
    async fn send_calls(
        &mut self,
        wire: &mut Wire,
        talk: &mut Conversation<Tag>,
        first: Call,
        pipeline: bool,
    ) -> Result<(), ClientError> {
        let mut lines = String::new();
        if pipeline {
            self.gather(&mut lines, talk, Some(first));
        } else {
            lines = format!("{}\n", first.request);
            talk.asked(Tag::Call(first.answer));
        }
        wire.send(&lines).await
    }

    /// Adds `first` and what waits behind it, as much as fits.
    fn gather(&mut self, lines: &mut String, talk: &mut Conversation<Tag>, first: Option<Call>) {
        let mut next = first;
        while let Some(call) = next {
            lines.push_str(&call.request.to_string());
            lines.push('\n');
            talk.asked(Tag::Call(call.answer));
            next = if lines.len() < TOGETHER_BYTES { self.calls.try_recv().ok() } else { None };
        }
    }

    fn on_line(&mut self, talk: &mut Conversation<Tag>, line: &str) -> Result<Use, Ended> {
        match talk.on_line(line) {
            Heard::Reply(Tag::Call(answer), result) => {
                // The caller may have given up waiting.
                let _ = answer.send(result.map_err(ClientError::Server));
            }
            Heard::Push(push) => self.on_push(*push),
            Heard::Reply(Tag::Heartbeat | Tag::Login, _) | Heard::Nothing => return Ok(Use::Beat),
            Heard::OutOfStep => return Err(Ended::Lost),
        }
        Ok(Use::Work)
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

impl Pauses {
    fn eager() -> Self {
        Self::Eager {
            soon: Backoff::new(RECONNECT_FIRST, RECONNECT_SOON),
            later: Backoff::new(RECONNECT_SOON, RECONNECT_LATER),
            since: Instant::now(),
        }
    }

    fn lost(&mut self) {
        match self {
            Self::Eager { .. } => *self = Self::eager(),
            Self::Patient(comeback) => comeback.lost(Instant::now()),
        }
    }

    fn next(&mut self, random: u32) -> Duration {
        match self {
            Self::Eager { soon, since, .. } if since.elapsed() < LONG_OUTAGE => soon.next(random),
            Self::Eager { later, .. } => later.next(random),
            Self::Patient(comeback) => comeback.pause(Instant::now(), random),
        }
    }

    fn trying(&mut self) {
        if let Self::Patient(comeback) = self {
            comeback.trying(Instant::now());
        }
    }
}

/// Never, without a time.
async fn until(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn beat_now(wire: &mut Wire, talk: &mut Conversation<Tag>) -> Result<(), ClientError> {
    talk.asked(Tag::Heartbeat);
    wire.send(&format!("{}\n", Request::Noop(Noop { ms: 0 }))).await
}
