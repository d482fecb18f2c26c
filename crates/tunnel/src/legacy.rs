//! The session of 2024, as clients set it up: everything that can run side by side does.

use std::sync::Arc;
use std::time::Duration;

use postern_client::{Client, ClientError};
use postern_link::RelayPort;
use postern_proto::{AtSign, SigningKeyName, Uuid};
use postern_session::{
    Dialect, Envelope, EphemeralKey, EphemeralSshKey, Features, NAMESPACE, NptRequest, PingResponse, Reply, ReplyError,
    SealedOffer, SshRequest, StreamKeys,
};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::arrival::Answers;
use crate::limits::{HINT, REPLY, REQUEST_LIFE};
use crate::offline;
use crate::relay::DeviceEnd;
use crate::sealed::{Knocked, Line};
use crate::session::{Common, Wanted};
use crate::steps::Steps;
use crate::trouble::Trouble;

/// A session of 2024 that stands: the relay is dialled, the device has agreed.
pub(crate) struct Standing {
    pub(crate) relay: RelayPort,
    pub(crate) first: TcpStream,
    pub(crate) keys: Option<StreamKeys>,
    pub(crate) twin: bool,
    pub(crate) heartbeats: bool,
    /// The device keeps its relay sockets apart.
    pub(crate) numbers_sockets: bool,
    /// For an ssh tunnel of our own, when the session is not encrypted.
    pub(crate) ephemeral: Option<EphemeralSshKey>,
    /// Failures that the device tells later.
    pub(crate) late: mpsc::Receiver<String>,
}

pub(crate) type Making = tokio::task::JoinHandle<Result<EphemeralKey, postern_crypto::CryptoError>>;

/// A sealed session that is asked for in the same request.
pub(crate) struct Offering {
    /// `None`: the relay takes no tickets.
    pub(crate) line: oneshot::Receiver<Option<Arc<Line>>>,
    /// Who waits for the device's answer in the tunnel.
    pub(crate) knocked: Sender,
}

type Sender = oneshot::Sender<(Arc<Line>, Knocked)>;

/// A session of 2024 that is being set up.
pub(crate) struct Setup<'a> {
    pub(crate) common: &'a Common,
    wanted: &'a Wanted,
    pub(crate) steps: &'a Steps,
    pub(crate) client: Client,
    pub(crate) session: Uuid,
    pub(crate) relay: AtSign,
    published: OnceCell<Option<SigningKeyName>>,
}

impl<'a> Setup<'a> {
    pub(crate) fn new(
        common: &'a Common,
        wanted: &'a Wanted,
        steps: &'a Steps,
        client: Client,
        session: Uuid,
        relay: AtSign,
    ) -> Self {
        Self { common, wanted, steps, client, session, relay, published: OnceCell::new() }
    }

    /// Sets it up; asks for a sealed session as well where there is an `offering`.
    pub(crate) async fn run(
        self,
        answers: Answers,
        making: Option<Making>,
        offering: Option<Offering>,
    ) -> Result<Standing, Trouble> {
        let Answers { heartbeat, relay, reply } = answers;
        let steps = self.steps;
        let needed = self.needed_features();
        let must_ping = needed != Features::default();
        let (tell, heard) = watch::channel(None);
        let features = async {
            let ping = if must_ping { Some(self.features(heartbeat, needed).await?) } else { None };
            tell.send_replace(Some(ping.as_ref().map(|ping| ping.supported_features).unwrap_or_default()));
            Ok(ping)
        };
        // The device's answer is checked with its key: fetched while everything else goes on.
        let device_key = steps.follow("device's public key", 1, 1, self.client.public_key(&self.common.to));
        let meeting = async {
            // Our signing key is seen to while the relay makes ready.
            let (met, signing_key) = tokio::join!(self.meet(relay, heard.clone()), self.signing_key());
            let met = met?;
            let hinted = self.give_hint(&met, heard);
            // A sealed session goes by another port: it needs the request also when this one cannot be reached.
            let beside = offering.is_some();
            let (asking, asked) = oneshot::channel::<()>();
            let first = async {
                let first = self.dial(&met.port).await;
                if first.is_err() && beside {
                    let _sent_or_failed = asked.await;
                }
                first
            };
            // The request does not wait for the heartbeat: what an old daemon would not
            // understand is told by the heartbeat as well, and ends the attempt.
            let request = async {
                let request = self.ask(met.device.clone(), making, signing_key, offering).await;
                drop(asking);
                request
            };
            let (first, ephemeral, ()) = tokio::try_join!(first, request, hinted)?;
            Ok::<_, Trouble>((met.port, first, ephemeral))
        };
        let answered = async {
            let (port, first, ephemeral) = Box::pin(meeting).await?;
            steps.tell("Waiting for response from the device daemon");
            let (reply, text) = self.first_reply(reply).await?;
            Ok::<_, Trouble>((port, first, ephemeral, reply, text))
        };
        let device_key = async { device_key.await.map_err(Trouble::Client) };
        let ((port, first, ephemeral, late, text), features, device_key) =
            tokio::try_join!(answered, features, device_key)?;
        let answer = Reply::read(&text, &self.session, &device_key).map_err(Trouble::Reply)?;
        let keys = keys_of(&answer, ephemeral.as_ref())?;
        steps.tell("Received response from the device daemon");
        let twin = keys.as_ref().is_some_and(|(_, twin)| *twin);
        let able = features.map(|ping| ping.supported_features).unwrap_or_default();
        Ok(Standing {
            relay: port,
            first,
            keys: keys.map(|(keys, _)| keys),
            twin,
            ephemeral: answer.ephemeral,
            numbers_sockets: able.numbers_sockets,
            heartbeats: self.common.dialect.has_twin_keys() && able.control_channel_heartbeats,
            late,
        })
    }

    fn needed_features(&self) -> Features {
        let common = self.common;
        if !common.dialect.is_v5() {
            return Features::default();
        }
        let base = Features { sr_auth: common.authenticate_device, sr_e2ee: common.encrypt, ..Features::default() };
        match self.wanted {
            Wanted::Ssh { push_key, .. } => Features { accepts_public_keys: push_key.is_some(), ..base },
            Wanted::Npt { timeout, .. } => {
                Features { supports_port_choice: true, adjustable_timeout: *timeout != Duration::from_secs(30), ..base }
            }
        }
    }

    /// Pings and waits for what the daemon can do.
    async fn features(
        &self,
        mut heartbeat: mpsc::Receiver<PingResponse>,
        needed: Features,
    ) -> Result<PingResponse, Trouble> {
        self.steps.tell("Sending daemon feature check request");
        let mut known = None;
        let work = async {
            let name = format!("ping.{}.{NAMESPACE}", self.common.device);
            self.client.notify(&self.common.to, &name, "ping", None).await?;
            self.steps.tell("Waiting for daemon feature check response");
            let hint = tokio::time::sleep(HINT);
            tokio::pin!(hint);
            loop {
                tokio::select! {
                    biased;
                    ping = heartbeat.recv() => return ping.ok_or(Trouble::Client(ClientError::Stopped)),
                    () = &mut hint, if !hint.is_elapsed() => {
                        offline::hint(self.common);
                        known = offline::known_of(&self.client, &self.common.to, &self.common.device).await;
                    }
                }
            }
        };
        let limited = timeout(self.common.ping_timeout, work);
        let ping = self.steps.follow("feature check", 2, 2, limited).await;
        let ping = ping.map_err(|_| Trouble::DaemonSilent(known))??;
        self.steps.tell("Received daemon feature check response");
        match ping.supported_features.missing(needed) {
            Some(missing) => Err(Trouble::Missing(missing)),
            None => {
                self.steps.tell("Required daemon features are supported");
                Ok(ping)
            }
        }
    }

    /// Sends the signed request.
    async fn ask(
        &self,
        end: DeviceEnd,
        making: Option<Making>,
        signing_key: Option<SigningKeyName>,
        offering: Option<Offering>,
    ) -> Result<Option<EphemeralKey>, Trouble> {
        let common = self.common;
        let DeviceEnd { host, port, client_nonce, rvd_nonce, auth_mode, auth_key } = end;
        let relay_atsign = auth_mode.is_some().then(|| self.relay.to_string());
        let ephemeral = match making {
            None => None,
            Some(making) => {
                let made = self.steps.follow("waiting for the ephemeral key", 0, 0, making).await;
                Some(made.map_err(|_| Trouble::Crypto)?.map_err(|_| Trouble::Crypto)?)
            }
        };
        let pk = ephemeral.as_ref().map(EphemeralKey::public_base64).transpose().map_err(|_| Trouble::Crypto)?;
        let pk_type = pk.is_some().then(|| "rsa2048".to_owned());
        let offering = match offering {
            Some(Offering { line, knocked }) => line.await.ok().flatten().map(|line| (line, knocked)),
            None => None,
        };
        self.steps.tell("Sending session request to the device daemon");
        let signing_key = signing_key.as_ref();
        let (verb, text) = match self.wanted {
            Wanted::Ssh { .. } => {
                let request = |sealed| SshRequest {
                    direct: true,
                    session_id: self.session.to_string(),
                    host,
                    port,
                    authenticate_to_rvd: Some(common.authenticate_device),
                    relay_auth_mode: auth_mode,
                    relay_auth_aes_key: auth_key,
                    client_nonce: Some(client_nonce),
                    rvd_nonce,
                    encrypt_rvd_traffic: Some(common.encrypt),
                    client_ephemeral_pk: pk,
                    client_ephemeral_pk_type: pk_type,
                    // Daemons that do not know the field ignore it and answer with one key.
                    twin_keys: common.dialect.has_twin_keys().then_some(true),
                    relay_atsign,
                    sealed,
                };
                ("ssh_request", self.signed(request, signing_key, offering))
            }
            Wanted::Npt { host: target, port: target_port, timeout } => {
                let request = |sealed| NptRequest {
                    session_id: self.session.to_string(),
                    rvd_host: host,
                    rvd_port: port,
                    requested_port: *target_port,
                    requested_host: target.clone(),
                    authenticate_to_rvd: Some(common.authenticate_device),
                    relay_auth_mode: auth_mode,
                    relay_auth_aes_key: auth_key,
                    client_nonce: Some(client_nonce),
                    rvd_nonce,
                    encrypt_rvd_traffic: Some(common.encrypt),
                    client_ephemeral_pk: pk,
                    client_ephemeral_pk_type: pk_type,
                    timeout: u64::try_from(timeout.as_millis()).ok(),
                    twin_keys: common.dialect.has_twin_keys().then_some(true),
                    relay_atsign,
                    sealed,
                };
                ("npt_request", self.signed(request, signing_key, offering))
            }
        };
        let text = text?;
        let name = format!("{verb}.{}.{NAMESPACE}", common.device);
        self.client.notify(&common.to, &name, &text, Some(REQUEST_LIFE)).await?;
        Ok(ephemeral)
    }

    /// Where the key of our enrolment is published, with which the request is signed a second time. Without it devices
    /// that do not demand it serve us all the same.
    async fn signing_key(&self) -> Option<SigningKeyName> {
        if self.common.dialect < Dialect::Current {
            return None;
        }
        self.published_key().await
    }

    /// The same, whoever asks; published once.
    pub(crate) async fn published_key(&self) -> Option<SigningKeyName> {
        let publish = Box::pin(async {
            let published = self.steps.follow("our signing key", 1, 1, self.client.publish_signing_key()).await;
            published.inspect_err(|error| tracing::debug!(%error, "our signing key is not published")).ok()
        });
        self.published.get_or_init(|| publish).await.clone()
    }

    /// The envelope with the request, and in it the offer of a sealed session if there is one.
    fn signed<P: Serialize>(
        &self,
        request: impl FnOnce(Option<SealedOffer>) -> P,
        signing_key: Option<&SigningKeyName>,
        offering: Option<(Arc<Line>, Sender)>,
    ) -> Result<String, Trouble> {
        let keys = &self.client.identity().keys;
        if let Some((line, knocked)) = offering {
            let enrolled = signing_key.map(|name| (name, &keys.pkam));
            let made = line.knock(0, false, |offer, seal| {
                Envelope::sign_sealed(&request(Some(offer.to_wire())), &keys.encryption, enrolled, seal)
            })?;
            let text = made.text.clone();
            // Nobody waits for it any more: the session is being given up.
            let _ = knocked.send((line, made));
            return Ok(text);
        }
        let text = match signing_key {
            Some(name) => Envelope::sign_twice(&request(None), &keys.encryption, name, &keys.pkam),
            None => Envelope::sign(&request(None), &keys.encryption),
        };
        text.map_err(|_| Trouble::Crypto)
    }

    async fn first_reply(
        &self,
        mut reply: mpsc::Receiver<String>,
    ) -> Result<(mpsc::Receiver<String>, String), Trouble> {
        let limited = timeout(REPLY, reply.recv());
        let text = self.steps.follow("session request", 2, 2, limited).await.map_err(|_| Trouble::NoReply)?;
        Ok((reply, text.ok_or(Trouble::NoReply)?))
    }
}

/// The failure that a device tells after it has agreed. That our session lives is none: the request was delivered twice.
pub(crate) async fn failure(late: &mut mpsc::Receiver<String>) -> Option<String> {
    loop {
        let text = late.recv().await?;
        if !text.starts_with(ALREADY_LIVE) {
            return Some(text);
        }
    }
}

/// Begins the text of a device that is asked for a session that it has.
const ALREADY_LIVE: &str = "A session with id ";

/// The session's keys, and whether there is one for each direction; `None` where we asked for no encryption.
fn keys_of(reply: &Reply, ephemeral: Option<&EphemeralKey>) -> Result<Option<(StreamKeys, bool)>, Trouble> {
    let Some(ephemeral) = ephemeral else { return Ok(None) };
    let sealed = reply.keys.as_ref().ok_or(Trouble::Reply(ReplyError::NoKeys))?;
    let keys = ephemeral.open(sealed).map_err(|_| Trouble::Crypto)?;
    Ok(Some((keys, sealed.second.is_some())))
}
