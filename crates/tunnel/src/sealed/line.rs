//! What a sealed session needs from its first request to its last resumption.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postern_client::trust::{KnownKeys, OwnIdentity, now_ms};
use postern_client::{Client, Settings};
use postern_crypto::{CryptoError, Ed25519PrivateKey, Ed25519PublicKey};
use postern_identity::{Fingerprint, PinName, Statement};
use postern_link::sealed::{ClientPlan, Local, Sealed, Ticket, dial};
use postern_net::tasks::Tasks;
use postern_proto::{AtSign, Uuid};
use postern_rendezvous::{RelayPlace, Side, TicketTo};
use postern_seal::{Asked, Knock, Waiting};
use postern_session::limits::REQUEST_LIFE_MS;
use postern_session::{DeviceName, Envelope, NAMESPACE, NptRequest, Offer, SshRequest};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::relays::{self, RelayBook};
use super::{Begun, Ready};
use crate::limits::REQUEST_LIFE;
use crate::session::Wanted;
use crate::steps::Steps;
use crate::trouble::Trouble;

/// Who asks whom for what, and where they meet.
pub(crate) struct Line {
    pub(super) own: Arc<OwnIdentity>,
    pub(super) known: Arc<KnownKeys>,
    pub(super) from: AtSign,
    pub(super) to: AtSign,
    pub(super) device: DeviceName,
    pub(super) session: Uuid,
    kind: Kind,
    resume: Duration,
    places: Vec<RelayPlace>,
    pub(super) settings: Settings,
    /// Ends everything.
    pub(super) stop: CancellationToken,
    pub(super) login: Mutex<Login>,
    pub(super) refusals: tokio::sync::Mutex<mpsc::Receiver<Statement>>,
    /// The device's identity key, once it was believed: it is the same to the end.
    pub(super) device_key: Mutex<Option<Ed25519PublicKey>>,
}

/// The connection to our atServer, by which requests are sent.
pub(super) struct Login {
    pub(super) client: Client,
    pub(super) tasks: Tasks,
}

#[derive(Clone, Copy)]
enum Kind {
    Ssh,
    Npt { idle: Duration },
}

/// A request that was signed and may be sent.
pub(crate) struct Knocked {
    /// Waits for its answer.
    pub(crate) waiting: Waiting,
    /// What is sent.
    pub(crate) text: String,
}

impl Line {
    pub(super) fn new(ready: Ready, begun: Begun<'_>, places: Vec<RelayPlace>) -> Self {
        let Begun { common, wanted, client, session, settings, login, refusals, stop, .. } = begun;
        let kind = match wanted {
            Wanted::Ssh { .. } => Kind::Ssh,
            Wanted::Npt { timeout, .. } => Kind::Npt { idle: *timeout },
        };
        Self {
            own: ready.own,
            known: ready.known,
            from: common.from.clone(),
            to: common.to.clone(),
            device: common.device.clone(),
            session,
            kind,
            resume: common.sealing.resume,
            places,
            settings,
            stop,
            login: Mutex::new(Login { client, tasks: login }),
            refusals: tokio::sync::Mutex::new(refusals),
            device_key: Mutex::default(),
        }
    }

    /// A request for a sealed session and nothing else.
    pub(crate) fn knock_alone(&self, epoch: u32) -> Result<Knocked, Trouble> {
        let keys = Arc::clone(&self.client().identity().keys);
        self.knock(epoch, true, |offer, seal| match self.kind {
            Kind::Ssh => Envelope::sign_sealed(&SshRequest::sealed(&self.session, offer), &keys.encryption, None, seal),
            Kind::Npt { idle } => {
                let request = NptRequest::sealed(&self.session, offer, Some(idle));
                Envelope::sign_sealed(&request, &keys.encryption, None, seal)
            }
        })
    }

    /// A request that `sign` makes with the offer in it, signed by the identity key for which the voucher vouches.
    pub(crate) fn knock(
        &self,
        epoch: u32,
        only: bool,
        sign: impl FnOnce(&Offer, (&Ed25519PrivateKey, &str)) -> Result<String, CryptoError>,
    ) -> Result<Knocked, Trouble> {
        let crypto = |_| Trouble::Crypto;
        let (knock, hello) = Knock::new().map_err(|_| Trouble::Crypto)?;
        let now = now_ms();
        let offer = Offer {
            hello,
            to: self.to.clone(),
            device: self.device.clone(),
            issued_ms: now,
            expires_ms: now.saturating_add(REQUEST_LIFE_MS),
            nonce: postern_crypto::random(),
            epoch,
            resume: self.resume,
            relays: self.places.clone(),
            only,
        };
        let voucher = self.own.ready_voucher().ok_or(Trouble::Crypto)?;
        let text = sign(&offer, (self.own.key(), &voucher)).map_err(crypto)?;
        let request = Envelope::parse(&text).map_err(|_| Trouble::Crypto)?.payload_hash();
        let waiting = knock.asked(Asked {
            request,
            session_id: self.session.clone(),
            epoch,
            at_sign: self.to.clone(),
            device: self.device.clone(),
            own: self.from.clone(),
        });
        Ok(Knocked { waiting, text })
    }

    /// Sends a request. To a device whose owner's key we keep, nothing has to be looked up before.
    pub(crate) async fn send(&self, client: &Client, text: &str) -> Result<(), Trouble> {
        let verb = match self.kind {
            Kind::Ssh => "ssh_request",
            Kind::Npt { .. } => "npt_request",
        };
        let name = format!("{verb}.{}.{NAMESPACE}", self.device);
        let key = self.known.encryption_key(client, &self.to).await.map_err(Trouble::Pins)?;
        Ok(client.notify_once(&self.to, &key, &name, text, Some(REQUEST_LIFE)).await?)
    }

    /// Meets the device, whose answer to `knocked` may take `patience`. Its signed refusal ends that at once.
    pub(crate) async fn meet(
        self: &Arc<Self>,
        knocked: Knocked,
        local: Option<Local>,
        patience: Duration,
        tasks: &Tasks,
    ) -> Result<Sealed, Trouble> {
        let hash = knocked.waiting.asked().request;
        let plan = ClientPlan {
            relays: self.places.iter().map(|place| place.address.clone()).collect(),
            ticket: self.ticket(),
            knock: knocked.waiting,
            believe: self.believe(),
            ask_again: (!self.resume.is_zero()).then(|| self.ask_again()),
            resume: self.resume,
            first: local,
            stop: tasks.token().child_token(),
        };
        tokio::select! {
            biased;
            refused = self.refused(hash) => Err(refused),
            met = dial(plan, patience, tasks) => met.map_err(Trouble::Sealed),
        }
    }

    fn ticket(self: &Arc<Self>) -> Ticket {
        let line = Arc::clone(self);
        Box::new(move |place, epoch| {
            let place = line.places.get(place).ok_or("there is no such relay")?;
            let to = TicketTo {
                relay: place.relay.clone(),
                session: line.session.clone(),
                epoch,
                side: Side::A,
                client: line.from.clone(),
                device: line.to.clone(),
            };
            let voucher = line.own.ready_voucher().ok_or("our voucher has expired")?;
            Ok(postern_rendezvous::Ticket::make(&to, line.own.key(), &voucher, now_ms(), postern_crypto::random()))
        })
    }

    /// A line of progress: how the session is sealed, and whose key we believe on what ground.
    pub(crate) fn tell(&self, session: &Sealed, steps: &Steps) {
        let facts = session.facts();
        let key = *self.device_key.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(shown) = key.as_ref().map(Fingerprint::from) else { return };
        let name = PinName::Device(self.device.clone(), self.to.clone());
        let pins = self.known.pins().unwrap_or_default();
        let pin = pins.of(&name).find(|pin| pin.fingerprint == shown);
        let ground = pin.map_or_else(|| "not kept".to_owned(), |pin| pin.origin.to_string());
        steps.tell(&format!("sealed session: {}, {}, device key {shown} ({ground})", facts.key_exchange, facts.cipher));
    }

    /// The relays may have moved: what we remember of them is looked up next time.
    pub(crate) fn forget_places(&self, error: &Trouble) {
        if error.is_relay_unreachable()
            && let Some(book) = RelayBook::usual()
        {
            self.places.iter().for_each(|place| book.forget(&self.settings.root, &place.relay));
        }
    }

    /// Looks up beside the session where the relays are now, for the next one.
    pub(crate) fn look_at_relays_again(self: &Arc<Self>, tasks: &Tasks) {
        let (line, stop) = (Arc::clone(self), tasks.token().clone());
        drop(tasks.spawn(async move {
            let mut relays: Vec<_> = line.places.iter().map(|place| place.relay.clone()).collect();
            relays.dedup();
            let client = line.client();
            stop.run_until_cancelled(relays::refresh(&relays, &client, &line.settings.root)).await;
        }));
    }

    /// Our connection to the atServer as it is now.
    pub(super) fn client(&self) -> Client {
        self.login.lock().unwrap_or_else(PoisonError::into_inner).client.clone()
    }
}
