//! Setting a session up: everything that can run side by side does.

use std::path::PathBuf;
use std::time::Duration;

use postern_client::{AddressBook, Client, ClientError, Settings, identity};
use postern_link::RelayPort;
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_observe::{Verbosity, say};
use postern_proto::{AtSign, ServerAddress, SigningKeyName, Uuid};
use postern_rendezvous::ModeWish;
use postern_session::{
    DeviceName, Dialect, Envelope, EphemeralKey, EphemeralSshKey, Features, NAMESPACE, NptRequest, PingResponse, Reply,
    ReplyError, SshPublicKey, SshRequest, StreamKeys,
};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::arrival::{self, Arrivals, Parties};
use crate::choose;
use crate::limits::{HEARTBEAT, HINT, REPLY, REQUEST_LIFE};
use crate::offline;
use crate::relay::DeviceEnd;
use crate::steps::Steps;
use crate::trouble::Trouble;

/// What both programs are told on their command lines.
pub(crate) struct Common {
    pub(crate) from: AtSign,
    pub(crate) to: AtSign,
    pub(crate) device: DeviceName,
    /// One, or several of which the nearest is taken.
    pub(crate) relays: Vec<AtSign>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) root: ServerAddress,
    pub(crate) authenticate_client: bool,
    pub(crate) authenticate_device: bool,
    /// How sockets prove whose they are, and whether all go through one port.
    pub(crate) relay_auth: ModeWish,
    pub(crate) encrypt: bool,
    pub(crate) ping_timeout: Duration,
    pub(crate) verbosity: Verbosity,
    pub(crate) quiet: bool,
    /// Whose habits we have.
    pub(crate) dialect: Dialect,
}

/// What kind of session is asked for.
pub(crate) enum Wanted {
    /// The device's ssh server.
    Ssh {
        /// Public key to push.
        push_key: Option<SshPublicKey>,
        /// Fetch the device's user name.
        user_name: bool,
    },
    /// Any target that the device permits.
    Npt { host: String, port: u16, timeout: Duration },
}

/// A session that stands: the relay is dialled, the device has agreed.
pub(crate) struct Standing {
    pub(crate) relay: RelayPort,
    pub(crate) first: TcpStream,
    pub(crate) keys: Option<StreamKeys>,
    pub(crate) twin: bool,
    pub(crate) heartbeats: bool,
    /// The device keeps its relay sockets apart.
    pub(crate) numbers_sockets: bool,
    pub(crate) user_name: Option<String>,
    /// For an ssh tunnel of our own, when the session is not encrypted.
    pub(crate) ephemeral: Option<EphemeralSshKey>,
    /// Names the session.
    pub(crate) session: Uuid,
    /// Failures that the device tells later.
    pub(crate) late: mpsc::Receiver<String>,
}

/// Sets a session up.
pub(crate) async fn establish(
    common: &Common,
    wanted: &Wanted,
    steps: &Steps,
    tasks: &Tasks,
) -> Result<Standing, Trouble> {
    let session = Uuid::from_random(postern_crypto::random());
    // RSA takes longer than the whole login: begin at once, on a thread of its own.
    let making = common.encrypt.then(|| tokio::task::spawn_blocking(EphemeralKey::generate));
    let identity = identity(&common.from, common.key_file.as_deref()).map_err(Trouble::Start)?;
    let settings = Settings {
        root: common.root.clone(),
        trust: Trust::load().map_err(Trouble::Trust)?,
        heartbeat: HEARTBEAT,
        monitor: Some(monitor_regex(common, &session)),
    };
    // The first requests do not wait for the login's answer: they travel behind the proof.
    let (client, mut inbox, mut login) = Client::begin(identity, settings, AddressBook::usual(), tasks);
    let refused = async {
        // TCP, TLS, and the claim with the directory's question.
        steps.follow("reaching the atServer", 3, 2, login.reached()).await;
        steps.nothing_before_now();
        match steps.follow("login", 1, 1, login.outcome()).await {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    };
    // Boxed here and below: these states are large, and used once.
    let standing = Box::pin(async {
        let relay = Box::pin(choose::nearest(common, &client, &mut inbox, steps)).await;
        let parties = Parties {
            device_at_sign: common.to.clone(),
            device: common.device.clone(),
            relay: relay.clone(),
            session: session.clone(),
        };
        let arrivals = arrival::sort(parties, client.clone(), inbox, tasks);
        let setup = Setup { common, wanted, steps, client, session, relay, published: OnceCell::new() };
        Box::pin(setup.run(arrivals, making)).await
    });
    tokio::select! {
        biased; // why there is no login says more than that nothing was answered
        error = refused => Err(error.into()),
        standing = standing => standing,
    }
}

/// What the atServer is asked to push: nothing but what belongs to this session.
fn monitor_regex(common: &Common, session: &Uuid) -> String {
    let choosing = choose::monitor_regex(common).map(|regex| format!("|{regex}")).unwrap_or_default();
    format!(r"heartbeat\.{}\.{NAMESPACE}@|{session}\.{choosing}", common.device)
}

type Making = tokio::task::JoinHandle<Result<EphemeralKey, postern_crypto::CryptoError>>;

pub(crate) struct Setup<'a> {
    pub(crate) common: &'a Common,
    wanted: &'a Wanted,
    pub(crate) steps: &'a Steps,
    pub(crate) client: Client,
    pub(crate) session: Uuid,
    pub(crate) relay: AtSign,
    published: OnceCell<Option<SigningKeyName>>,
}

impl Setup<'_> {
    async fn run(self, arrivals: Arrivals, making: Option<Making>) -> Result<Standing, Trouble> {
        let Arrivals { heartbeat, relay, reply } = arrivals;
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
        let user_name = self.user_name();
        let meeting = async {
            // Our signing key is seen to while the relay makes ready.
            let (met, signing_key) = tokio::join!(self.meet(relay, heard.clone()), self.signing_key());
            let met = met?;
            let (first, hinted) = (self.dial(&met.port), self.give_hint(&met, heard));
            // The request does not wait for the heartbeat: what an old daemon would not
            // understand is told by the heartbeat as well, and ends the attempt.
            let request = self.ask(met.device.clone(), making, signing_key);
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
        let pushed = async { self.push_key().await };
        let ((port, first, ephemeral, late, text), features, device_key, user_name, ()) =
            tokio::try_join!(answered, features, device_key, user_name, pushed)?;
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
            session: self.session,
            numbers_sockets: able.numbers_sockets,
            heartbeats: self.common.dialect.has_twin_keys() && able.control_channel_heartbeats,
            user_name,
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
                        self.hint();
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

    /// A daemon says nothing to strangers, so its silence needs an explanation.
    fn hint(&self) {
        let Common { from, to, device, .. } = self.common;
        say(format_args!(
            "No answer from the device daemon yet. Likely causes: {from} is not in the --managers list of {to}, no device is called {device:?}, or the daemon is not running.",
            device = device.as_str()
        ));
    }

    /// Sends the signed request.
    async fn ask(
        &self,
        end: DeviceEnd,
        making: Option<Making>,
        signing_key: Option<SigningKeyName>,
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
        self.steps.tell("Sending session request to the device daemon");
        let (verb, text) = match self.wanted {
            Wanted::Ssh { .. } => {
                let request = SshRequest {
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
                    sealed: None,
                };
                ("ssh_request", self.signed(&request, signing_key.as_ref()))
            }
            Wanted::Npt { host: target, port: target_port, timeout } => {
                let request = NptRequest {
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
                    sealed: None,
                };
                ("npt_request", self.signed(&request, signing_key.as_ref()))
            }
        };
        let text = text.map_err(|_| Trouble::Crypto)?;
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

    fn signed<P: Serialize>(
        &self,
        request: &P,
        signing_key: Option<&SigningKeyName>,
    ) -> Result<String, postern_crypto::CryptoError> {
        let keys = &self.client.identity().keys;
        match signing_key {
            Some(name) => Envelope::sign_twice(request, &keys.encryption, name, &keys.pkam),
            None => Envelope::sign(request, &keys.encryption),
        }
    }

    async fn first_reply(
        &self,
        mut reply: mpsc::Receiver<String>,
    ) -> Result<(mpsc::Receiver<String>, String), Trouble> {
        let limited = timeout(REPLY, reply.recv());
        let text = self.steps.follow("session request", 2, 2, limited).await.map_err(|_| Trouble::NoReply)?;
        Ok((reply, text.ok_or(Trouble::NoReply)?))
    }

    async fn user_name(&self) -> Result<Option<String>, Trouble> {
        let Wanted::Ssh { user_name: true, .. } = self.wanted else { return Ok(None) };
        self.steps.tell("Resolving remote username for user session");
        let name = format!("username.{}.{NAMESPACE}", self.common.device);
        let record = self.client.get_shared(&self.common.to, &name);
        match self.steps.follow("user name on the device", 1, 2, record).await {
            Ok(name) if is_user_name(&name) => Ok(Some(name.trim().to_owned())),
            Ok(_) => Err(Trouble::NoUser),
            Err(error) => {
                tracing::debug!(%error, "no user name");
                Err(Trouble::NoUser)
            }
        }
    }

    async fn push_key(&self) -> Result<(), Trouble> {
        let Wanted::Ssh { push_key: Some(key), .. } = self.wanted else { return Ok(()) };
        self.steps.tell("Sharing ssh public key");
        let name = format!("sshpublickey.{}.{NAMESPACE}", self.common.device);
        let text = key.to_string();
        let sent = self.client.notify(&self.common.to, &name, &text, Some(REQUEST_LIFE));
        Ok(self.steps.follow("ssh public key", 1, 1, sent).await?)
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

/// Part of the command line of ssh: nothing that could be taken for an option or a second word.
pub(crate) fn is_user_name(name: &str) -> bool {
    let name = name.trim();
    let good = |c: char| !c.is_whitespace() && !c.is_control() && !"'\"`$&|;<>()\\@".contains(c);
    !name.is_empty() && name.len() <= 64 && !name.starts_with('-') && name.chars().all(good)
}

/// The token that ends a session when its program is told to stop.
pub(crate) fn stop_of(tasks: &Tasks) -> CancellationToken {
    tasks.token().child_token()
}
