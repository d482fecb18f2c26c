//! From a signed request to a running session.

use std::sync::{Arc, PoisonError};
use std::time::{Instant, SystemTime};

use postern_client::ClientError;
use postern_client::trust::TrustError;
use postern_crypto::{AesKey, CryptoError, RsaPublicKey, SignatureHash};
use postern_link::{DeviceSession, RelayAuth, RelayPort};
use postern_observe::journal::{Entry, Event};
use postern_proto::{AtSign, Notification, SigningKeyName, Uuid};
use postern_rendezvous::{AuthLine, ChallengeSigner, EscrProver, Side, SignedLine};
use postern_session::{
    AsksSealed, Denied, Dialect, EnrollmentFault, Envelope, EnvelopeError, EphemeralSshKey, Guest, Knocked, NAMESPACE,
    NptRequest, RelayAuth as Asked, Reply, SessionRequest, SshRequest, StreamKeys,
};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::cli::MinSecurity;
use crate::daemon::{Daemon, TELL};
use crate::limits::{MUTEX, NOT_MINE, REPLY_LIFE};
use crate::live::{Ending, Session};

/// What the signatures of a request have shown.
struct Signed {
    /// The session it speaks of.
    id: Option<Uuid>,
    /// The key of the client's enrolment, where it was checked.
    enrollment: Option<SigningKeyName>,
}

/// What a client is told that asks for a session of 2024 where none is served.
const ONLY_SEALED: &str =
    "This device serves sealed sessions alone (--min-security sealed): use a newer client and relay";

/// What a client is told that asks for the built-in ssh server in a session of 2024: it knows people by what a sealed
/// session shows of them.
const BUILTIN_IS_SEALED: &str =
    "The ssh server of this device is built in and takes sealed sessions alone: use a newer client and relay";

/// What the client is told of a key that is not what this device remembers.
pub(crate) fn on_the_device(error: &TrustError) -> String {
    format!("On the device: {error}")
}

fn malformed(push: &Notification, why: &dyn std::fmt::Display) {
    tracing::warn!(from = %push.from, error = %why, "malformed session request");
}

/// The text that a client is sent; newer programs know it.
fn already_live(id: &Uuid) -> String {
    format!("A session with id {id} is already live")
}

impl Daemon {
    pub(crate) async fn ssh_request(self: &Arc<Self>, push: &Notification, guest: &Guest) {
        let Some(envelope) = self.envelope(push).await else { return };
        if self.asks_sealed::<SshRequest>(&envelope) {
            return self.sealed_request::<SshRequest>(guest, envelope).await;
        }
        if let Some((request, signed)) = self.verified::<SshRequest>(push, &envelope, |r| r.session_id.as_str()).await {
            let request = if self.config.dialect.is_v5() { request } else { request.as_version_4() };
            let request = if self.config.dialect == Dialect::Current { request } else { request.without_seal() };
            match request.check(self.config.sshd_port) {
                Some(request) if self.is_served(&request) => self.knock(guest, request, signed).await,
                _ => self.cannot_serve(push, signed.id),
            }
        }
    }

    pub(crate) async fn npt_request(self: &Arc<Self>, push: &Notification, guest: &Guest) {
        let Some(envelope) = self.envelope(push).await else { return };
        if self.asks_sealed::<NptRequest>(&envelope) {
            return self.sealed_request::<NptRequest>(guest, envelope).await;
        }
        if let Some((request, signed)) = self.verified::<NptRequest>(push, &envelope, |r| r.session_id.as_str()).await {
            let request = if self.config.dialect == Dialect::Current { request } else { request.without_seal() };
            match request.check() {
                Some(request) if self.is_served(&request) => self.knock(guest, request, signed).await,
                _ => self.cannot_serve(push, signed.id),
            }
        }
    }

    /// The C daemon of 2024 cannot do without encryption.
    fn is_served(&self, request: &SessionRequest) -> bool {
        self.config.dialect != Dialect::C2024 || request.ephemeral_key.is_some()
    }

    fn cannot_serve(&self, push: &Notification, id: Option<Uuid>) {
        tracing::warn!(from = %push.from, session = ?id, "a request lacks something or asks for what is not served");
    }

    /// Opens the envelope; a malformed one is dropped.
    async fn envelope(&self, push: &Notification) -> Option<Envelope> {
        let text = self.client.open(push).await.map_err(|error| malformed(push, &error)).ok()?;
        Envelope::parse(&text).map_err(|error| malformed(push, &error)).ok()
    }

    /// Whether a sealed session is asked for. What was left out or put in by somebody else fails with the signature.
    fn asks_sealed<R: AsksSealed>(&self, envelope: &Envelope) -> bool {
        let asks = |request: R| request.sealed_request().is_some();
        self.config.dialect == Dialect::Current && envelope.claimed::<R>().is_ok_and(asks)
    }

    /// Checks the client's signatures. A malformed request is
    /// dropped; a wrong signature is answered, for the usual reason is a new key.
    async fn verified<R: DeserializeOwned>(
        &self,
        push: &Notification,
        envelope: &Envelope,
        id: impl Fn(&R) -> &str,
    ) -> Option<(R, Signed)> {
        if self.config.min_security == MinSecurity::Sealed {
            tracing::warn!(from = %push.from, "session refused: it is not sealed, and --min-security demands that");
            if let Some(id) = envelope.claimed_session() {
                self.tell(&push.from, &id, ONLY_SEALED).await;
            }
            return None;
        }
        let (key, enrollment, ours) = tokio::join!(
            self.known.encryption_key(&self.client, &push.from),
            self.checked_enrollment(envelope, &push.from),
            self.is_ours(envelope, 0)
        );
        if !ours {
            tracing::debug!(from = %push.from, "another instance of this device serves the request");
            return None;
        }
        let enrollment = match enrollment {
            Ok(name) => Some(name),
            Err(fault) if fault.is_fatal(self.config.require_enrollment_signature) => {
                tracing::warn!(from = %push.from, %fault, "session refused");
                if let Some(id) = envelope.claimed_session() {
                    self.tell(&push.from, &id, &fault.to_string()).await;
                }
                return None;
            }
            Err(fault) => {
                tracing::debug!(from = %push.from, %fault, "the signature of the client's enrolment counts for nothing");
                None
            }
        };
        let key = match key {
            Ok(key) => key,
            // Otherwise whoever shows another key would only have to ask for an old session.
            Err(error) if error.is_pin() => {
                tracing::warn!(from = %push.from, %error, "session refused");
                if let Some(id) = envelope.claimed_session() {
                    self.tell(&push.from, &id, &on_the_device(&error)).await;
                }
                return None;
            }
            Err(error) => {
                tracing::warn!(from = %push.from, %error, "could not fetch the client's public key");
                return None;
            }
        };
        match envelope.verify::<R>(&key) {
            Ok(request) => {
                let id = Uuid::parse(id(&request));
                Some((request, Signed { id, enrollment }))
            }
            Err(EnvelopeError::Signature) => {
                tracing::warn!(from = %push.from, "signature not verified");
                if let Some(id) = envelope.claimed_session() {
                    let why = EnvelopeError::Signature;
                    let text = format!(
                        "Signature not verified: Likely that the client atSign's public key has changed: {why}"
                    );
                    self.tell(&push.from, &id, &text).await;
                }
                None
            }
            Err(error) => {
                malformed(push, &error);
                None
            }
        }
    }

    /// Whether this instance of the device, and no other, is to answer. Whoever writes the session's lock first; asked
    /// beside everything else, so that it costs no time. A server that does not know such locks leaves it to everybody.
    /// `epoch`: above 0 for a request that goes on with a session.
    pub(crate) async fn is_ours(&self, envelope: &Envelope, epoch: u32) -> bool {
        let Some(id) = envelope.claimed_session().filter(|_| self.config.dialect == Dialect::Current) else {
            return true;
        };
        let is_live = self.live.holds(&id);
        let name = match epoch {
            // Its lock is ours, and may stand still: who asks again is to hear why not.
            0 if is_live => return true,
            0 => format!("{id}.session_mutexes.{NAMESPACE}"),
            epoch => format!("{id}-{epoch}.session_mutexes.{NAMESPACE}"),
        };
        if epoch > 0 && !is_live {
            // Another instance may have the session, and comes first.
            tokio::time::sleep(NOT_MINE).await;
        }
        match self.client.take_mutex(&name, MUTEX).await {
            Ok(ours) => {
                self.twins.took(ours || is_live);
                ours || is_live
            }
            Err(error) => {
                tracing::debug!(%error, "no lock for a session");
                true
            }
        }
    }

    /// Checks the signature of the client's enrolment, if the request has one; names its key.
    async fn checked_enrollment(
        &self,
        envelope: &Envelope,
        client: &AtSign,
    ) -> Result<SigningKeyName, EnrollmentFault> {
        let claim = envelope.enrollment_claim(client)?.ok_or(EnrollmentFault::Missing)?;
        let name = claim.key_name();
        let unavailable = |error: ClientError| EnrollmentFault::Unavailable(error.to_string());
        match self.client.signing_key_record(name).await.map_err(unavailable)? {
            Some(record) => envelope.verify_enrollment(claim, &record).map(|()| name.clone()),
            None if self.client.enrollment_has_ended(name).await.map_err(unavailable)? => Err(EnrollmentFault::Revoked),
            None => Err(EnrollmentFault::Unavailable(format!("{name} is not published"))),
        }
    }

    async fn knock(self: &Arc<Self>, guest: &Guest, request: SessionRequest, signed: Signed) {
        let (client, id) = (guest.at_sign(), request.session_id.clone());
        if self.live.holds(&id) {
            tracing::warn!(%client, session = %id, "a session with this id is live");
            return self.tell(client, &id, &already_live(&id)).await;
        }
        if self.answers_ssh(&request.target) {
            tracing::warn!(%client, session = %id, "session refused: it is not sealed, and the ssh server is built in");
            return self.tell(client, &id, BUILTIN_IS_SEALED).await;
        }
        let decision = self.door.lock().unwrap_or_else(PoisonError::into_inner).knock(guest, request);
        let knocked = match decision {
            Ok(knocked) => knocked,
            Err(denied) => {
                tracing::warn!(%client, session = %id, %denied, "session refused");
                self.journal.record(Entry {
                    session: Some(id.to_string()),
                    who: Some(client.to_string()),
                    why: Some(denied.to_string()),
                    sealed: Some(false),
                    ..Entry::of(Event::Refused)
                });
                if denied != Denied::Replayed {
                    self.tell(client, &id, &denied.to_string()).await;
                }
                return;
            }
        };
        let Ok(seat) = Arc::clone(&self.sessions).try_acquire_owned() else {
            tracing::warn!(%client, "too many sessions");
            return self.tell(client, &id, "The device daemon serves as many sessions as it can").await;
        };
        let ephemeral = if self.wants_ephemeral_key(knocked.request()) { self.ephemeral_key(&id).await } else { None };
        let (session, reply) = match self.prepare(&knocked, ephemeral) {
            Ok(prepared) => prepared,
            Err(CryptoError) => {
                return self.tell(client, &id, "The client's ephemeral key cannot be used").await;
            }
        };
        let enrollment = signed.enrollment.clone();
        let ending = Ending::under(self.tasks.token());
        let session = DeviceSession { stop: ending.token().clone(), ..session };
        let entry = Session {
            guest: guest.clone(),
            enrollment: signed.enrollment,
            targets: vec![knocked.request().target.clone()],
            listens: Vec::new(),
            has_more: false,
            since: SystemTime::now(),
            ending: ending.clone(),
            sealed: None,
        };
        let Some(place) = self.live.enter(&id, entry) else {
            return self.tell(client, &id, &already_live(&id)).await;
        };
        // The relay is dialled while the reply travels; should that fail, a second message says so.
        let (daemon, rule) = (Arc::clone(self), guest.rule());
        self.tasks.spawn(async move {
            let started = Instant::now();
            let (request, client) = (knocked.request(), knocked.client());
            tracing::info!(%client, session = %request.session_id, target = %request.target, "session started");
            daemon.journal.record(daemon.entry(Event::Began, &knocked, rule, enrollment.as_ref()));
            let ended = match request.multi {
                None => session.single().await,
                Some(idle) => session.multi(idle, &daemon.tasks).await,
            };
            drop((seat, place));
            let seconds = started.elapsed().as_secs();
            let carried = ended.as_ref().ok();
            if let Some(carried) = carried {
                postern_net::usage::moved(postern_net::usage::Plane::Data, carried.out, carried.back);
            }
            daemon.journal.record(Entry {
                sent: carried.map(|carried| carried.out),
                received: carried.map(|carried| carried.back),
                seconds: Some(seconds),
                why: ended.as_ref().err().map(ToString::to_string).or_else(|| ending.why().map(str::to_owned)),
                ..daemon.entry(Event::Ended, &knocked, rule, enrollment.as_ref())
            });
            match ended {
                Ok(carried) => {
                    let (received, sent) = (carried.back, carried.out);
                    tracing::info!(%client, session = %request.session_id, seconds, received, sent, "session ended");
                }
                Err(error) => {
                    tracing::warn!(%client, session = %request.session_id, %error, "session failed");
                    let text = format!("Failed to start up the daemon side of the relay socket tunnel : {error}");
                    daemon.tell(client, &request.session_id, &text).await;
                }
            }
        });
        let name = self.reply_name(&id);
        if let Err(error) = self.client.notify(client, &name, &reply, Some(REPLY_LIFE)).await {
            tracing::warn!(%client, session = %id, %error, "could not send the reply");
        }
    }

    /// What the journal says of a session.
    fn entry(&self, event: Event, knocked: &Knocked, rule: &str, enrollment: Option<&SigningKeyName>) -> Entry {
        let (request, client) = (knocked.request(), knocked.client());
        Entry {
            session: Some(request.session_id.to_string()),
            who: Some(client.to_string()),
            enrollment: enrollment.map(ToString::to_string),
            target: Some(request.target.to_string()),
            relay: Some(format!("{}:{}", request.relay.host, request.relay.port)),
            rule: Some(rule.to_owned()),
            sealed: Some(false),
            ..Entry::of(event)
        }
    }

    /// A client that does not encrypt brings its own ssh tunnel.
    fn wants_ephemeral_key(&self, request: &SessionRequest) -> bool {
        request.is_ssh && (request.ephemeral_key.is_none() || self.config.dialect.always_makes_ssh_keys())
    }

    /// Makes the session's keys, its auth line and the signed reply.
    fn prepare(
        &self,
        knocked: &Knocked,
        ephemeral: Option<EphemeralSshKey>,
    ) -> Result<(DeviceSession, Zeroizing<String>), CryptoError> {
        let (request, dialect) = (knocked.request(), self.config.dialect);
        let twin = request.twin_keys && dialect.has_twin_keys();
        let signer = &self.client.identity().keys.encryption;
        let keys = request.ephemeral_key.as_ref().map(|_| if twin { StreamKeys::twin() } else { StreamKeys::single() });
        let sealed = match (&keys, &request.ephemeral_key) {
            (Some(keys), Some(to)) => Some(keys.seal(&RsaPublicKey::from_base64(to)?, twin)?),
            _ => None,
        };
        let auth = match &request.relay.auth {
            None => RelayAuth::Nothing,
            Some(Asked::Payload { client_nonce, rvd_nonce }) => self.signed_line(request, client_nonce, rvd_nonce)?,
            Some(Asked::Escr { key, nonces }) => match (self.challenge_signer(), nonces) {
                (Some(signer), _) => {
                    let key = AesKey::from_base64(key.reveal())?;
                    RelayAuth::Escr(Arc::new(EscrProver::new(request.session_id.as_str(), Side::B, key, signer)))
                }
                (None, Some((client_nonce, rvd_nonce))) => self.signed_line(request, client_nonce, rvd_nonce)?,
                (None, None) => return Err(CryptoError),
            },
        };
        let reply = Reply { session_id: request.session_id.clone(), keys: sealed, ephemeral };
        let reply = reply.print(request.is_ssh, signer)?;
        let (host, port) = (request.relay.host.clone(), request.relay.port);
        let relay = RelayPort { host, port, auth, numbered: dialect.numbers_sockets() };
        let stop = self.tasks.token().child_token();
        Ok((DeviceSession { relay, target: request.target.clone(), keys, stop }, reply))
    }

    fn signed_line(&self, request: &SessionRequest, client: &str, relay: &str) -> Result<RelayAuth, CryptoError> {
        let line = AuthLine::new(request.session_id.as_str(), client, relay);
        let signer = &self.client.identity().keys.encryption;
        let signature = signer.sign(SignatureHash::Sha256, line.signed_text().as_bytes())?;
        Ok(RelayAuth::Line(Arc::new(SignedLine::new(line, signature))))
    }

    /// None while our signing key is not published, and in generations that knew no challenges.
    fn challenge_signer(&self) -> Option<ChallengeSigner> {
        let name = self.signing_key.get().filter(|_| self.config.dialect.answers_challenges())?;
        let keys = Arc::clone(&self.client.identity().keys);
        Some(ChallengeSigner::new(name.clone(), move |text| keys.pkam.sign(SignatureHash::Sha256, text)))
    }

    pub(crate) fn reply_name(&self, id: &Uuid) -> String {
        format!("{id}.{}.{NAMESPACE}", self.config.device)
    }

    /// Sends a refusal in plain words.
    async fn tell(&self, client: &AtSign, id: &Uuid, text: &str) {
        if !self.config.dialect.tells_refusals() {
            return;
        }
        let name = self.reply_name(id);
        let sent = timeout(TELL, self.client.notify(client, &name, text, Some(REPLY_LIFE))).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!(%client, "could not tell the client why");
        }
    }
}
