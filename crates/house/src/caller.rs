//! A client of sealed sessions in the test's own hands, so that it can also do what ours never would; and a relay that
//! joins tickets without reading them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use postern_client::trust::{KnownKeys, OwnIdentity, Places, now_ms};
use postern_client::{Client, Identity, Inbox, KeyFile, Settings, parse_root};
use postern_identity::{Label, Statement};
use postern_link::sealed::{AskAgain, Asked, ClientPlan, Local, Sealed, Ticket, Unbelieved, dial};
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_proto::{AtSign, Uuid};
use postern_rendezvous::{RelayAddress, RelayPlace, Side, TicketTo};
use postern_seal::{Knock, Waiting};
use postern_session::{
    DeviceName, Envelope, HostKeys, NAMESPACE, NptRequest, Offer, RefusalCode, Refused, SealedReply, SshRequest,
};
use postern_testkit::World;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A device answers within this time, or does not.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Clone)]
pub struct Wish {
    /// `ssh_request`; else `npt_request`.
    pub ssh: bool,
    /// Resume seconds.
    pub resume: Duration,
    /// Life without connections.
    pub idle: Duration,
    /// Where to meet.
    pub relays: Vec<RelayPlace>,
    /// The session; `None`: a new one.
    pub session: Option<Uuid>,
    /// 0 begins it.
    pub epoch: u32,
}

/// A client.
pub struct Caller {
    shared: Arc<Shared>,
    /// What the device says by notification.
    pub inbox: Inbox,
    tasks: Tasks,
}

struct Shared {
    client: Client,
    own: OwnIdentity,
    known: KnownKeys,
    device: AtSign,
    name: DeviceName,
    reply: Mutex<Option<SealedReply>>,
}

/// A request that was made.
pub struct Request {
    /// Names the session.
    pub session: Uuid,
    /// SHA-256 of its payload's text.
    pub hash: [u8; 32],
    /// Name of the notification.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Waits for the answer.
    pub waiting: Waiting,
}

impl Caller {
    /// Logs in as `at_sign` with the keys that lie in its home. `state`: where identity key and pins are kept.
    ///
    /// # Errors
    /// The server does not let it in.
    pub async fn connect(world: &World, at_sign: &str, state: PathBuf) -> anyhow::Result<Self> {
        Self::connect_with(world, at_sign, world.key_file(at_sign), state).await
    }

    /// The same with another key file.
    ///
    /// # Errors
    /// The server does not let it in.
    pub async fn connect_with(world: &World, at_sign: &str, keys: PathBuf, state: PathBuf) -> anyhow::Result<Self> {
        let keys = KeyFile::load(&keys).ok().context("no keys")?;
        let identity = Identity { at_sign: AtSign::parse(at_sign)?, keys: Arc::new(keys) };
        let places = Places { config: Some(state.clone()), state: Some(state) };
        let own = OwnIdentity::load(&places, &identity, None)?;
        let settings = Settings {
            root: parse_root(&world.root())?,
            trust: Trust::only_pem(&std::fs::read(world.ca_file())?).ok().context("no trust")?,
            heartbeat: Duration::from_secs(60),
            monitor: Some(format!(r"\.{}\.{NAMESPACE}@", World::DEVICE_NAME)),
        };
        let tasks = Tasks::new();
        let (client, inbox) = Client::connect(identity, settings, &tasks).await?;
        own.voucher(&client).await?;
        let device = AtSign::parse(World::DEVICE)?;
        let name = DeviceName::parse(World::DEVICE_NAME)?;
        let (known, reply) = (KnownKeys::new(places, false), Mutex::default());
        let shared = Shared { client, own, known, device, name, reply };
        Ok(Self { shared: Arc::new(shared), inbox, tasks })
    }

    /// Its connection.
    pub fn client(&self) -> &Client {
        &self.shared.client
    }

    /// Makes a request; `change`: to what is asked.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn request(&self, wish: &Wish, change: impl Fn(&mut Offer)) -> anyhow::Result<Request> {
        self.shared.request(wish, change)
    }

    /// Sends a request.
    ///
    /// # Errors
    /// It cannot be delivered.
    pub async fn send(&self, request: &Request) -> anyhow::Result<()> {
        self.shared.client.notify(&self.shared.device, &request.name, &request.text, None).await?;
        Ok(())
    }

    /// Asks, meets the device at a relay, and believes it. `first`: the local end of an ssh session.
    ///
    /// # Errors
    /// The device does not answer, or not as it should.
    pub async fn session(&self, wish: &Wish, first: Option<Local>) -> anyhow::Result<(Uuid, Sealed)> {
        let request = self.request(wish, |_| ())?;
        let session = request.session.clone();
        let plan = self.plan(wish, request.waiting, &session, first);
        let (sent, met) = tokio::join!(
            self.shared.client.notify(&self.shared.device, &request.name, &request.text, None),
            dial(plan, PATIENCE, &self.tasks)
        );
        sent?;
        Ok((session, met?))
    }

    /// What a client does after its request.
    pub fn plan(
        &self,
        wish: &Wish,
        knock: Waiting,
        session: &Uuid,
        first: Option<Local>,
    ) -> ClientPlan<Waiting, postern_seal::ClientEnd> {
        let believing = Arc::clone(&self.shared);
        ClientPlan {
            relays: wish.relays.iter().map(|place| place.address.clone()).collect(),
            ticket: self.shared.tickets(wish, session),
            knock,
            believe: Box::new(move |waiting| {
                let shared = Arc::clone(&believing);
                Box::pin(async move {
                    let claim = waiting.reply().ok_or("no reply")?.voucher()?;
                    let Shared { client, own, known, device, name, reply } = &*shared;
                    let believed = known.believe_device(client, &claim, device, name).await?;
                    let end = waiting.open(believed.voucher(), own.key(), now_ms())?;
                    known.remember(&believed)?;
                    *lock(reply) = Some(end.reply().clone());
                    Ok(end)
                })
            }),
            ask_again: (!wish.resume.is_zero()).then(|| self.shared.ask_again(wish, session)),
            resume: wish.resume,
            first,
            stop: self.tasks.token().child_token(),
        }
    }

    /// What the device said of itself when a session last began.
    pub fn last_reply(&self) -> Option<SealedReply> {
        lock(&self.shared.reply).clone()
    }

    /// The host keys that the device publishes for us.
    ///
    /// # Errors
    /// There are none, or they are not believed.
    pub async fn host_keys(&self) -> anyhow::Result<Vec<String>> {
        let Shared { client, known, device, name, .. } = &*self.shared;
        let text = client.get_shared(device, &HostKeys::record(name)).await?;
        let statement = Statement::parse(&text)?;
        let claim = statement.voucher().map_err(|error| anyhow!("{error}"))?;
        let believed = known.believe_device(client, &claim, device, name).await?;
        let keys = HostKeys::verify(&statement, believed.voucher(), now_ms())?;
        Ok(keys.iter().map(ToString::to_string).collect())
    }

    /// The device's refusal of a request, signed by its identity key.
    ///
    /// # Errors
    /// It says nothing in time, or something else.
    pub async fn refusal(&mut self, request: &Request) -> anyhow::Result<(RefusalCode, String)> {
        let wanted = format!("{}.{}.{NAMESPACE}", request.session, self.shared.name);
        loop {
            let push = timeout(PATIENCE, self.inbox.next()).await.context("the device says nothing")?;
            let push = push.context("the client has stopped")?;
            if push.from != self.shared.device || push.bare_key() != wanted {
                continue;
            }
            let text = self.shared.client.open(&push).await?;
            let Ok(statement) = Statement::parse(&text) else { bail!("not a statement: {}", *text) };
            let Shared { client, known, device, name, .. } = &*self.shared;
            let claim = statement.voucher().map_err(|error| anyhow!("{error}"))?;
            let believed = known.believe_device(client, &claim, device, name).await?;
            let refused: Refused = statement.verify(Label::Refusal, believed.voucher().key())?;
            ensure!(refused.answers(&request.session, request.hash), "a refusal of something else: {refused:?}");
            return Ok((refused.code, refused.message));
        }
    }

    /// True when the device says nothing about a request for some time.
    pub async fn hears_nothing(&mut self, of: &Uuid, time: Duration) -> bool {
        let wanted = format!("{of}.{}.{NAMESPACE}", self.shared.name);
        let heard = async { while self.inbox.next().await.is_some_and(|push| push.bare_key() != wanted) {} };
        timeout(time, heard).await.is_err()
    }
}

impl Shared {
    fn request(&self, wish: &Wish, change: impl Fn(&mut Offer)) -> anyhow::Result<Request> {
        let (knock, hello) = Knock::new().map_err(|error| anyhow!("{error}"))?;
        let session = wish.session.clone().unwrap_or_else(|| Uuid::from_random(postern_crypto::random()));
        let now = now_ms();
        let mut offer = Offer {
            hello,
            to: self.device.clone(),
            device: self.name.clone(),
            issued_ms: now,
            expires_ms: now + 30_000,
            nonce: postern_crypto::random(),
            epoch: wish.epoch,
            resume: wish.resume,
            relays: wish.relays.clone(),
            only: true,
        };
        change(&mut offer);
        let voucher = self.own.ready_voucher().context("no voucher")?;
        let (keys, by) = (&self.client.identity().keys, (self.own.key(), &*voucher));
        let (verb, text) = if wish.ssh {
            ("ssh_request", Envelope::sign_sealed(&SshRequest::sealed(&session, &offer), &keys.encryption, None, by))
        } else {
            let request = NptRequest::sealed(&session, &offer, Some(wish.idle));
            ("npt_request", Envelope::sign_sealed(&request, &keys.encryption, None, by))
        };
        let text = text.ok().context("cannot sign")?;
        let envelope = Envelope::parse(&text)?;
        let waiting = knock.asked(postern_seal::Asked {
            request: envelope.payload_hash(),
            session_id: session.clone(),
            epoch: offer.epoch,
            at_sign: self.device.clone(),
            device: self.name.clone(),
            own: self.client.at_sign().clone(),
        });
        let name = format!("{verb}.{}.{NAMESPACE}", self.name);
        Ok(Request { session, hash: envelope.payload_hash(), name, text, waiting })
    }

    fn tickets(self: &Arc<Self>, wish: &Wish, session: &Uuid) -> Ticket {
        let (shared, session, relays) = (Arc::clone(self), session.clone(), wish.relays.clone());
        Box::new(move |place, epoch| {
            let to = TicketTo {
                relay: relays.get(place).ok_or("no such relay")?.relay.clone(),
                session: session.clone(),
                epoch,
                side: Side::A,
                client: shared.client.at_sign().clone(),
                device: shared.device.clone(),
            };
            let voucher = shared.own.ready_voucher().ok_or("no voucher")?;
            let nonce = postern_crypto::random();
            Ok(postern_rendezvous::Ticket::make(&to, shared.own.key(), &voucher, now_ms(), nonce))
        })
    }

    fn ask_again(self: &Arc<Self>, wish: &Wish, session: &Uuid) -> AskAgain<Waiting> {
        let (shared, wish, session) = (Arc::clone(self), wish.clone(), session.clone());
        Box::new(move |epoch| {
            let (shared, wish) = (Arc::clone(&shared), Wish { epoch, session: Some(session.clone()), ..wish.clone() });
            Box::pin(async move {
                let unbelieved = |error: anyhow::Error| Unbelieved::from(error.to_string());
                let request = shared.request(&wish, |_| ()).map_err(unbelieved)?;
                shared.client.notify(&shared.device, &request.name, &request.text, None).await?;
                Ok(Asked { knock: request.waiting, refused: Box::pin(std::future::pending()) })
            })
        })
    }
}

/// Joins two sides whose tickets name the same session, epoch and relay, believing everything; can cut what it joined.
pub struct TicketRelay {
    /// Where it listens.
    pub address: SocketAddr,
    cut: Arc<Mutex<CancellationToken>>,
    met: Arc<Mutex<Vec<String>>>,
}

impl TicketRelay {
    /// Starts one on loopback.
    ///
    /// # Errors
    /// There is no port.
    pub async fn start(tasks: &Tasks) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let relay = Self { address: listener.local_addr()?, cut: Arc::default(), met: Arc::default() };
        let (cut, met) = (Arc::clone(&relay.cut), Arc::clone(&relay.met));
        let waiting: Arc<Mutex<HashMap<String, TcpStream>>> = Arc::default();
        let inner = tasks.clone();
        drop(tasks.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (cut, met, waiting) = (Arc::clone(&cut), Arc::clone(&met), Arc::clone(&waiting));
                drop(inner.spawn(async move {
                    let mut line = String::new();
                    let mut reader = BufReader::with_capacity(1, socket);
                    let Ok(1..) = reader.read_line(&mut line).await else { return };
                    let Some(meeting) = meeting(&line) else { return };
                    let mut socket = reader.into_inner();
                    lock(&met).push(meeting.clone());
                    let Some(mut other) = lock(&waiting).remove(&meeting) else {
                        lock(&waiting).insert(meeting, socket);
                        return;
                    };
                    let cut = lock(&cut).clone();
                    tokio::select! {
                        () = cut.cancelled() => {}
                        _ = tokio::io::copy_bidirectional(&mut socket, &mut other) => {}
                    }
                }));
            }
        }));
        Ok(relay)
    }

    /// As a request names it.
    ///
    /// # Errors
    /// None that a test meets.
    pub fn place(&self) -> anyhow::Result<RelayPlace> {
        let (host, port) = (self.address.ip().to_string(), self.address.port());
        let address = RelayAddress::new(&host, port, false).map_err(|error| anyhow!("{error}"))?;
        Ok(RelayPlace { relay: AtSign::parse(World::RELAY)?, address })
    }

    /// Ends what is joined now.
    pub fn cut(&self) {
        std::mem::take(&mut *lock(&self.cut)).cancel();
    }

    /// Sides that have shown a ticket so far.
    pub fn guests(&self) -> usize {
        lock(&self.met).len()
    }
}

/// What both sides of a meeting say.
fn meeting(line: &str) -> Option<String> {
    let text = postern_crypto::decode_base64(line.strip_prefix("ticket:")?.trim_end()).ok()?;
    let ticket: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let payload = ticket.get("payload")?;
    Some(format!("{} {} {}", payload.get("relay")?, payload.get("sessionId")?, payload.get("epoch")?))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
