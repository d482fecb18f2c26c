//! A request for a sealed session: believed, let in, and answered in the tunnel; or refused, signed.
//!
//! Source: docs/protocol/sealed.md, "Request".

use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use postern_client::trust::{Believed, OwnIdentity, TrustError, now_ms};
use postern_identity::{Envelope, Label, Statement, VoucherError};
use postern_link::sealed::{self, Ahead, DevicePlan, DialError, Ended, Sealed, State, Ticket, Why};
use postern_observe::journal::{Entry, Event};
use postern_proto::{AtSign, Uuid};
use postern_rendezvous::{RelayAddress, Side, TicketTo};
use postern_seal::{Answer, DeviceEnd, SealError};
use postern_session::{
    Admitted, AsksSealed, Denied, Guest, HostPort, RefusalCode, Refused, RequestError, SealedRequest, SignedRequest,
};
use tokio::time::timeout;

use crate::daemon::{Daemon, TELL};
use crate::limits::{DOUBTS_A_MINUTE, IDLE_LOOKS, LAST_WORDS, REPLY_LIFE};
use crate::live::{Ending, SealedSession, Session};
use crate::reach::Reach;
use crate::sessions::on_the_device;

/// Why a request is not served.
enum No {
    /// The client is told.
    Told(RefusalCode, String),
    /// The client is told as well, but not without end: nobody has shown that it is who it says.
    Doubted(RefusalCode, String),
    /// Nothing is said: the request was served already, here or by another instance of this device, and a word of ours
    /// would end what it began; or it will be sent again.
    Silent(String),
}

impl Daemon {
    /// Serves a request for a sealed session of a guest who is known by name.
    pub(crate) async fn sealed_request<R: AsksSealed>(self: &Arc<Self>, guest: &Guest, envelope: Envelope) {
        let client = guest.at_sign();
        let Some(id) = envelope.claimed_session() else {
            return tracing::warn!(%client, "malformed session request: it names no session");
        };
        let Err(no) = self.admit_sealed::<R>(guest, &envelope, &id).await else { return };
        self.refuse_sealed(client, &id, envelope.payload_hash(), no).await;
    }

    async fn admit_sealed<R: AsksSealed>(
        self: &Arc<Self>,
        guest: &Guest,
        envelope: &Envelope,
        id: &Uuid,
    ) -> Result<(), No> {
        let doubted = |error: &dyn std::fmt::Display| No::Doubted(RefusalCode::Identity, error.to_string());
        let claim = envelope.sealed_voucher().map_err(|error| doubted(&error))?;
        // Not believed yet; it decides how patient we are, and what we do not say.
        let claimed = envelope.claimed::<R>().ok().and_then(|request| request.sealed_request()?.ok());
        let epoch = claimed.as_ref().map_or(0, |request| request.offer.epoch);
        // The way to a relay that is dialled all the time is under way while it is looked up who asks.
        let usual = claimed.iter().flat_map(addresses).next().filter(|relay| self.usual.contains(relay));
        let ahead = usual.filter(|_| epoch == 0).map(|relay| Ahead::dial(relay, &self.tasks));
        let (ours, believed) = tokio::join!(
            self.is_ours(envelope, epoch),
            self.known.believe_client(&self.client, &claim, guest.at_sign())
        );
        if !ours {
            return Err(No::Silent("another instance of this device serves it".into()));
        }
        let believed = believed.map_err(|error| match error {
            // Who goes on with a session asks again; perhaps it can be fetched then.
            TrustError::Fetch(_) if epoch > 0 => No::Silent(error.to_string()),
            error => not_believed(&error),
        })?;
        let (at_sign, device) = (&self.config.at_sign, &self.config.device);
        let signed = SignedRequest::verify::<R>(envelope, believed.voucher().clone(), at_sign, device);
        let signed = signed.map_err(|error| match error {
            RequestError::Offer(_) => No::Told(RefusalCode::NotPermitted, error.to_string()),
            error => doubted(&error),
        })?;
        let live = self.live.sealed(id);
        let admitted = {
            let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
            door.knock_sealed(guest, signed, self.config.sshd_port, live.as_ref(), now_ms())
        };
        let admitted = admitted.map_err(|denied| self.denied(guest, id, &denied))?;
        self.remember(&believed)?;
        if admitted.request().offer.epoch == 0 {
            self.begin_sealed(admitted, ahead).await
        } else {
            self.go_on_sealed(admitted).await
        }
    }

    fn denied(&self, guest: &Guest, id: &Uuid, denied: &Denied) -> No {
        self.journal.record(Entry {
            session: Some(id.to_string()),
            who: Some(guest.at_sign().to_string()),
            rule: Some(guest.rule().to_owned()),
            sealed: Some(true),
            why: Some(denied.to_string()),
            ..Entry::of(Event::Refused)
        });
        match denied {
            Denied::Replayed => No::Silent(denied.to_string()),
            _ => No::Told(denied.code(), denied.to_string()),
        }
    }

    /// Pins what is new. From here on nobody else comes in by this name.
    fn remember(&self, believed: &Believed) -> Result<(), No> {
        let fresh = self.known.remember(believed).map_err(|error| not_believed(&error))?;
        for pin in fresh {
            tracing::info!(pin = %pin, "first contact: the key is remembered");
            self.journal.record(Entry {
                who: Some(pin.name.to_string()),
                why: Some(pin.to_string()),
                ..Entry::of(Event::Pinned)
            });
        }
        Ok(())
    }

    async fn begin_sealed(self: &Arc<Self>, admitted: Admitted, ahead: Option<Ahead>) -> Result<(), No> {
        let request = admitted.request();
        let (id, offer) = (request.session_id.clone(), &request.offer);
        let Ok(seat) = Arc::clone(&self.sessions).try_acquire_owned() else {
            return Err(No::Told(RefusalCode::Full, "The device daemon serves as many sessions as it can".into()));
        };
        let (end, voucher) = self.accept(&admitted).await?;
        let ending = Ending::under(self.tasks.token());
        let entry = Session {
            guest: admitted.guest().clone(),
            enrollment: Some(admitted.voucher().enrollment().clone()),
            targets: request.is_ssh.then(|| HostPort::localhost(self.config.sshd_port)).into_iter().collect(),
            listens: Vec::new(),
            has_more: false,
            since: SystemTime::now(),
            ending: ending.clone(),
            sealed: Some(SealedSession {
                key: *admitted.voucher().key(),
                epoch: 0,
                connected: SystemTime::now(),
                handle: None,
            }),
        };
        let Some(place) = self.live.enter(&id, entry) else {
            return Err(No::Told(Denied::Live.code(), Denied::Live.to_string()));
        };
        let plan = DevicePlan {
            relays: addresses(request),
            ticket: self.tickets(&admitted, voucher),
            end,
            authorize: Arc::new(Reach { daemon: Arc::clone(self), id: id.clone(), guest: admitted.guest().clone() }),
            ssh: request.is_ssh,
            resume: self.config.resume.min(offer.resume),
            stop: self.tasks.token().child_token(),
        };
        let daemon = Arc::clone(self);
        self.tasks.spawn(async move {
            daemon.run_sealed(&admitted, plan, ahead, &ending).await;
            drop((seat, place));
        });
        Ok(())
    }

    /// From the relay to the last byte.
    async fn run_sealed(
        &self,
        admitted: &Admitted,
        plan: DevicePlan<DeviceEnd>,
        ahead: Option<Ahead>,
        ending: &Ending,
    ) {
        let (request, client) = (admitted.request(), admitted.guest().at_sign());
        let id = &request.session_id;
        let stop = plan.stop.clone();
        let session = match sealed::serve_ahead(plan, ahead, &self.tasks).await {
            Ok(session) => session,
            Err(DialError::Stopped) => return,
            Err(error) => {
                let no = No::Told(RefusalCode::RelayUnreachable, error.to_string());
                return self.refuse_sealed(client, id, admitted.request_hash(), no).await;
            }
        };
        self.live.began(id, session.clone());
        addresses(request).first().into_iter().for_each(|relay| self.usual.remember(relay));
        let (started, facts) = (Instant::now(), session.facts());
        let (key_exchange, cipher) = (facts.key_exchange.as_str(), facts.cipher.as_str());
        tracing::info!(%client, session = %id, key_exchange, cipher, "sealed session started");
        self.journal.record(self.sealed_entry(Event::Began, admitted));
        let Ended { why, carried } = tokio::select! {
            ended = until_over(&session, request.idle, ending) => ended,
            never = self.doubt_while_lost(&session) => match never {},
        };
        stop.cancel();
        let why = match (ending.why(), why) {
            (Some(ending), _) => ending.to_owned(),
            (None, Why::ClosedByPeer(said)) => format!("closed by the client: {said}"),
            (None, why) => why.to_string(),
        };
        let seconds = started.elapsed().as_secs();
        let (received, sent) = (carried.back, carried.out);
        tracing::info!(%client, session = %id, seconds, received, sent, why, "sealed session ended");
        self.journal.record(Entry {
            epoch: Some(session.progress().epoch),
            sent: Some(sent),
            received: Some(received),
            seconds: Some(seconds),
            why: Some(why),
            ..self.sealed_entry(Event::Ended, admitted)
        });
    }

    /// Where our address has changed, the link to the atServer is as dead as that to the relay, and does not know it: nobody
    /// could ask us to go on.
    async fn doubt_while_lost(&self, session: &Sealed) -> Infallible {
        loop {
            session.reaches(State::Suspended).await;
            self.client.doubt_link();
            session.reaches(State::Live).await;
        }
    }

    /// A live session goes on over another connection.
    async fn go_on_sealed(&self, admitted: Admitted) -> Result<(), No> {
        let request = admitted.request();
        let (id, epoch) = (&request.session_id, request.offer.epoch);
        let (end, voucher) = self.accept(&admitted).await?;
        let Some(session) = self.live.goes_on(id, epoch, admitted.guest().clone()) else {
            return Err(No::Told(Denied::NoSession.code(), Denied::NoSession.to_string()));
        };
        let resumed = session.resume(end, epoch, &addresses(request), &self.tickets(&admitted, voucher)).await;
        // The client sends another request with the next epoch.
        resumed.map_err(|error| No::Silent(error.to_string()))?;
        tracing::info!(client = %admitted.guest().at_sign(), session = %id, epoch, "sealed session goes on");
        self.journal.record(Entry { epoch: Some(epoch), ..self.sealed_entry(Event::Resumed, &admitted) });
        Ok(())
    }

    /// Makes the reply, and the end of the tunnel that says it.
    async fn accept(&self, admitted: &Admitted) -> Result<(DeviceEnd, Arc<str>), No> {
        let voucher = self.own.voucher(&self.client).await.map_err(|error| No::Silent(error.to_string()))?;
        let host_keys: Vec<String> = self.host_keys().iter().map(ToString::to_string).collect();
        let answer = Answer {
            at_sign: &self.config.at_sign,
            device: &self.config.device,
            identity: self.own.key(),
            voucher: &voucher,
            resume: self.config.resume,
            ssh_host_keys: &host_keys,
            now_ms: now_ms(),
        };
        let end = DeviceEnd::accept(admitted, &answer)
            .map_err(|error: SealError| No::Told(RefusalCode::NotPermitted, error.to_string()))?;
        Ok((end, voucher))
    }

    /// Makes tickets of our side for the relays of a request.
    fn tickets(&self, admitted: &Admitted, voucher: Arc<str>) -> Ticket {
        let own: Arc<OwnIdentity> = Arc::clone(&self.own);
        let relays: Vec<AtSign> = admitted.request().offer.relays.iter().map(|place| place.relay.clone()).collect();
        let session = admitted.request().session_id.clone();
        let (client, device) = (admitted.guest().at_sign().clone(), self.config.at_sign.clone());
        Box::new(move |place, epoch| {
            let relay = relays.get(place).ok_or("the request names no such relay")?.clone();
            let (client, device) = (client.clone(), device.clone());
            let to = TicketTo { relay, session: session.clone(), epoch, side: Side::B, client, device };
            Ok(postern_rendezvous::Ticket::make(&to, own.key(), &voucher, now_ms(), postern_crypto::random()))
        })
    }

    fn sealed_entry(&self, event: Event, admitted: &Admitted) -> Entry {
        let (request, guest) = (admitted.request(), admitted.guest());
        Entry {
            session: Some(request.session_id.to_string()),
            who: Some(guest.at_sign().to_string()),
            enrollment: Some(admitted.voucher().enrollment().to_string()),
            target: request.is_ssh.then(|| format!("localhost:{}", self.config.sshd_port)),
            relay: request.offer.relays.first().map(|place| place.relay.to_string()),
            rule: Some(guest.rule().to_owned()),
            sealed: Some(true),
            ..Entry::of(event)
        }
    }

    async fn refuse_sealed(&self, client: &AtSign, id: &Uuid, request: [u8; 32], no: No) {
        let (code, why) = match no {
            No::Silent(why) => return tracing::debug!(%client, session = %id, why, "a request is not answered"),
            No::Doubted(_, why) if !self.may_doubt_aloud() => {
                return tracing::debug!(%client, session = %id, why, "too many requests that are not believed");
            }
            No::Told(code, why) | No::Doubted(code, why) => (code, why),
        };
        tracing::warn!(%client, session = %id, %code, why, "sealed session refused");
        let voucher = match self.own.voucher(&self.client).await {
            Ok(voucher) => voucher,
            Err(error) => return tracing::warn!(%error, "a refusal cannot be signed"),
        };
        let refused = Refused::new(code, &why, id, request, now_ms());
        let text = Statement::print(Label::Refusal, &refused, self.own.key(), Some(&voucher));
        let name = self.reply_name(id);
        let sent = timeout(TELL, self.client.notify(client, &name, &text, Some(REPLY_LIFE))).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!(%client, session = %id, "could not tell the client why");
        }
    }

    fn may_doubt_aloud(&self) -> bool {
        let mut doubts = self.doubts.lock().unwrap_or_else(PoisonError::into_inner);
        if doubts.0.elapsed() >= Duration::from_secs(60) {
            *doubts = (Instant::now(), 0);
        }
        doubts.1 += 1;
        doubts.1 <= DOUBTS_A_MINUTE
    }
}

fn addresses(request: &SealedRequest) -> Vec<RelayAddress> {
    request.offer.relays.iter().map(|place| place.address.clone()).collect()
}

fn not_believed(error: &TrustError) -> No {
    match error {
        error if error.is_pin() => No::Doubted(RefusalCode::Pin, on_the_device(error)),
        TrustError::Voucher(VoucherError::Dates) => No::Doubted(RefusalCode::Expired, error.to_string()),
        error => No::Doubted(RefusalCode::Identity, error.to_string()),
    }
}

/// Waits until the session is over by itself, has carried nothing for `idle`, or is told to end.
async fn until_over(session: &Sealed, idle: Option<Duration>, ending: &Ending) -> Ended {
    let why = tokio::select! {
        biased;
        ended = session.ended() => return ended,
        () = ending.token().cancelled() => match ending.why() {
            Some(why) => why.to_owned(),
            // The daemon stops, and the session by itself.
            None => return session.ended().await,
        },
        () = idle_for(session, idle) => "no connection for as long as the client said".to_owned(),
    };
    // What cannot be said in time is cut by whoever owns the session.
    let said = timeout(LAST_WORDS, async {
        match ending.why() {
            Some(why) => session.revoke(why).await,
            None => session.close(&why).await,
        }
        session.ended().await
    });
    said.await.unwrap_or_else(|_| Ended { why: Why::Closed(why), carried: session.progress().carried })
}

/// Resolves when the session has had no connection for `idle`.
async fn idle_for(session: &Sealed, idle: Option<Duration>) {
    let Some(idle) = idle else { return std::future::pending().await };
    let mut looks = tokio::time::interval((idle / 4).clamp(IDLE_LOOKS[0], IDLE_LOOKS[1]));
    let (mut since, mut last) = (tokio::time::Instant::now(), session.progress().carried);
    loop {
        looks.tick().await;
        let now = session.progress();
        if now.streams > 0 || now.carried != last {
            (since, last) = (tokio::time::Instant::now(), now.carried);
        } else if since.elapsed() >= idle {
            return;
        }
    }
}
