//! The daemon's one loop: hear, check who it is, hand on.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use postern_client::trust::{KnownKeys, OwnIdentity, Places, TrustError, now_ms};
use postern_client::{Client, ClientError, Network, Profile, Settings, StartError, connect_as, home_dir, identity};
use postern_net::ready::{self, Watchdog};
use postern_net::signals;
use postern_net::tasks::Tasks;
use postern_net::tls::{TlsError, Trust};
use postern_observe::journal::Journal;
use postern_observe::say;
use postern_proto::verb::Noop;
use postern_proto::{Notification, Request, SigningKeyName};
use postern_rendezvous::hints::{LATENCY_REQUEST, LATENCY_RESPONSE, RelayMap};
use postern_session::{Dialect, Door, Guest, HostPort, NAMESPACE, SshPublicKey};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use crate::authorized_keys::{self, Added};
use crate::builtin_ssh::BuiltinSsh;
use crate::cli::Config;
#[cfg(feature = "sshd")]
use crate::cli::SshServer;
use crate::clock::ClockTold;
use crate::limits::{
    DRAIN, FIRST_RECORDS, POLICY_HEARTBEAT, POLICY_HEARTBEAT_SPARINGLY, REPLY_LIFE, REPUBLISH, REPUBLISH_LOOKS,
    REPUBLISH_SPARINGLY, REQUESTS, SESSIONS,
};
use crate::live::Live;
use crate::managers::Managers;
use crate::policy::Policy;
use crate::twin::Twins;
use crate::usage::Meter;
use crate::usual::UsualRelays;

/// Everything the handlers share.
pub(crate) struct Daemon {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) door: Mutex<Door>,
    pub(crate) tasks: Tasks,
    pub(crate) sessions: Arc<Semaphore>,
    pub(crate) policy: Option<Arc<Policy>>,
    /// Who may come in by the device's own list.
    pub(crate) managers: Mutex<Managers>,
    /// Where the key lies that proves our relay sockets, once it does.
    pub(crate) signing_key: OnceLock<SigningKeyName>,
    /// Bytes that went by.
    pub(crate) meter: Meter,
    /// Something that others should read of us could not be written.
    pub(crate) unpublished: AtomicBool,
    requests: Arc<Semaphore>,
    pub(crate) keys_file: tokio::sync::Mutex<()>,
    /// Our identity key.
    pub(crate) own: Arc<OwnIdentity>,
    /// Whose keys we know.
    pub(crate) known: KnownKeys,
    /// Host keys of our ssh server, as they were last read.
    pub(crate) host_keys: Mutex<Arc<[SshPublicKey]>>,
    /// The ssh server inside, where one is asked for.
    pub(crate) builtin_ssh: Option<BuiltinSsh>,
    /// Refusals of this minute to people whose requests are not believed.
    pub(crate) doubts: Mutex<(Instant, u32)>,
    /// Relays that are dialled before it is known who asks.
    pub(crate) usual: UsualRelays,
    /// Sessions that run.
    pub(crate) live: Arc<Live>,
    /// Who came in, to what.
    pub(crate) journal: Journal,
    /// Whether another machine runs with our keys.
    pub(crate) twins: Twins,
    /// What clients are told of the device has changed.
    pub(crate) news: Notify,
    /// What was said last of this machine's clock.
    pub(crate) clock: ClockTold,
}

/// Why the daemon cannot run.
#[derive(Debug)]
pub(crate) enum DaemonError {
    Start(StartError),
    Own(TrustError),
    Trust(TlsError),
    Login(ClientError),
    Signals(std::io::Error),
    #[cfg(feature = "sshd")]
    HostKey(postern_sshd::HostKeyError),
}

/// What a notification asks for, by the first part of its key.
enum Verb {
    Ping,
    PushKey,
    Ssh,
    Npt,
    RelayLatency,
}

impl Verb {
    fn of(push: &Notification, device: &str, dialect: Dialect) -> Option<Self> {
        let key = push.bare_key();
        let verb = key.strip_suffix(NAMESPACE)?.strip_suffix('.')?.strip_suffix(device)?.strip_suffix('.')?;
        Some(match verb {
            "ping" => Self::Ping,
            "sshpublickey" => Self::PushKey,
            "ssh_request" => Self::Ssh,
            "npt_request" if dialect.is_v5() => Self::Npt,
            LATENCY_REQUEST if dialect == Dialect::Current => Self::RelayLatency,
            _ => return None,
        })
    }
}

/// Runs until a signal comes.
pub(crate) async fn run(config: Config) -> Result<(), DaemonError> {
    let identity = identity(&config.at_sign, config.key_file.as_deref()).map_err(DaemonError::Start)?;
    let places = Places::of_user();
    let own = OwnIdentity::load(&places, &identity, Some(&config.device)).map_err(DaemonError::Own)?;
    #[cfg(feature = "sshd")]
    let builtin_ssh = match config.ssh_server {
        SshServer::Builtin => Some(BuiltinSsh::start(&config, &places).map_err(DaemonError::HostKey)?),
        SshServer::System => None,
    };
    #[cfg(not(feature = "sshd"))]
    let builtin_ssh = None;
    let stop = signals::shutdown_token().map_err(DaemonError::Signals)?;
    let hangups = signals::Hangups::listen().map_err(DaemonError::Signals)?;
    let tasks = Tasks::under(&stop);
    let meter = Meter::open(config.device.as_str(), config.at_sign.as_str(), &config.habits);
    let settings = Settings {
        root: config.root.clone(),
        trust: Trust::load().map_err(DaemonError::Trust)?,
        heartbeat: Duration::ZERO, // the habits say
        monitor: Some(match &config.policy {
            None => format!(r"\.{}\.{NAMESPACE}@", config.device),
            Some(_) => format!(r"(\.{}\.{NAMESPACE}@|{})", config.device, Policy::replies_regex()),
        }),
    };
    ready::notify_status("logging in");
    let (client, mut inbox) = match connect_as(identity, settings, config.habits.clone(), &tasks).await {
        Ok(connected) => connected,
        Err(ClientError::Stopped) => return Ok(()),
        Err(error) => return Err(DaemonError::Login(error)),
    };
    let daemon = Arc::new(Daemon {
        managers: Mutex::new(Managers::new(config.managers.clone(), config.managers_file.clone())),
        door: Mutex::new(Door::new(config.permit_open.clone()).with_listen(config.permit_listen.clone())),
        policy: config.policy.as_ref().map(|at_sign| Policy::new(at_sign.clone(), &config, client.clone(), &tasks)),
        client,
        tasks: tasks.clone(),
        sessions: Arc::new(Semaphore::new(SESSIONS)),
        signing_key: OnceLock::new(),
        unpublished: AtomicBool::new(true),
        meter,
        requests: Arc::new(Semaphore::new(REQUESTS)),
        keys_file: tokio::sync::Mutex::new(()),
        own: Arc::new(own),
        known: KnownKeys::new(places, config.strict_pins),
        host_keys: Mutex::new(Arc::default()),
        builtin_ssh,
        doubts: Mutex::new((Instant::now(), 0)),
        usual: UsualRelays::default(),
        live: Arc::default(),
        twins: Twins::new(),
        news: Notify::new(),
        clock: ClockTold::default(),
        journal: Journal::standard_by(&format!("sshnpd.{}{}", config.device, config.at_sign), now_ms),
        config,
    });
    daemon.remove_leftover_keys();
    if let Some(within) = daemon.config.client_key_check {
        tasks.spawn(Arc::clone(&daemon).watch_grants(within));
    }
    tasks.spawn(Arc::clone(&daemon).watch_managers(hangups));
    tasks.spawn(Arc::clone(&daemon).keep_status());
    tasks.spawn(Arc::clone(&daemon).keep_usage());
    // Answered behind `monitor` on the same connection: from here on nothing is missed.
    let _ = daemon.client.request(Request::Noop(Noop { ms: 0 })).await;
    // Ready means that whoever may come in finds the records of the device.
    // What is signed bears the time.
    daemon.ask_time().await;
    let pace = Pace::of(&daemon.config);
    let mut republish = tokio::time::interval(pace.looks);
    republish.tick().await;
    let mut published = Instant::now();
    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        _ = timeout(FIRST_RECORDS, Arc::clone(&daemon).publish()) => {}
    }
    say(format_args!(
        "Monitor for {}: monitor started ({}, version {})",
        daemon.config.at_sign,
        daemon.config.device,
        env!("CARGO_PKG_VERSION")
    ));
    ready::notify_ready();
    let mut watchdog = Watchdog::of_environment();
    let mut guests = daemon.live.count();
    guests.mark_changed();
    tasks.spawn(Arc::clone(&daemon).stay_awake_while_busy());
    let mut beat = tokio::time::interval(pace.policy);
    tasks.spawn(Arc::clone(&daemon).watch_twins());
    tasks.spawn(Arc::clone(&daemon).watch_clock());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = watchdog.beat() => {}
            Ok(()) = guests.changed() => daemon.tell_manager(*guests.borrow_and_update()),
            push = inbox.next() => match push {
                Some(push) => daemon.hear(push).await,
                None => break,
            },
            _ = republish.tick() => {
                if published.elapsed() >= pace.republish || daemon.unpublished.load(Ordering::Relaxed) {
                    published = Instant::now();
                    tasks.spawn(Arc::clone(&daemon).publish());
                }
            }
            () = daemon.news.notified() => {
                tasks.spawn(Arc::clone(&daemon).publish());
            }
            _ = beat.tick(), if daemon.policy.is_some() => {
                let daemon = Arc::clone(&daemon);
                tasks.spawn(async move { daemon.tell_policy().await });
            }
        }
    }
    ready::notify_stopping();
    tasks.close_and_wait(DRAIN).await;
    daemon.meter.save();
    Ok(())
}

/// What the daemon does by the clock, as its link allows.
struct Pace {
    republish: Duration,
    looks: Duration,
    policy: Duration,
}

impl Pace {
    fn of(config: &Config) -> Self {
        let [policy_auto, policy_metered] = POLICY_HEARTBEAT_SPARINGLY;
        let (republish, policy) = match config.habits.profile_on(Network::of_default_route()) {
            Profile::Wired | Profile::Every(_) => (REPUBLISH, POLICY_HEARTBEAT),
            Profile::Auto => (REPUBLISH_SPARINGLY, policy_auto),
            Profile::Metered | Profile::Sleepy { .. } => (REPUBLISH_SPARINGLY, policy_metered),
        };
        let hastened = config.habits.hastened.max(1);
        Self { republish: republish / hastened, looks: REPUBLISH_LOOKS / hastened, policy: policy / hastened }
    }
}

impl Daemon {
    /// The line that `systemctl status` shows.
    fn tell_manager(&self, guests: usize) {
        let Config { device, at_sign, .. } = &self.config;
        ready::notify_status(&format!("{device}{at_sign} waits for requests; sessions: {guests}"));
    }

    /// Whether a target is the ssh server inside.
    pub(crate) fn answers_ssh(&self, target: &HostPort) -> bool {
        let is_here = matches!(target.host.trim_matches(['[', ']']), "localhost" | "127.0.0.1" | "::1");
        self.builtin_ssh.is_some() && is_here && target.port == self.config.sshd_port
    }

    /// A sleepy device stays connected while sessions run.
    async fn stay_awake_while_busy(self: Arc<Self>) {
        let mut sessions = self.live.count();
        loop {
            self.config.habits.set_busy(*sessions.borrow_and_update() > 0);
            tokio::select! {
                biased;
                () = self.tasks.token().cancelled() => return,
                changed = sessions.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Checks who it is before anything is decrypted; a stranger costs a comparison.
    async fn hear(self: &Arc<Self>, push: Notification) {
        if self.policy.as_ref().is_some_and(|policy| policy.hear(&push)) {
            return;
        }
        let Some(verb) = Verb::of(&push, self.config.device.as_str(), self.config.dialect) else { return };
        if let Some(guest) = self.manager(&push.from) {
            let Ok(permit) = Arc::clone(&self.requests).acquire_owned().await else { return };
            let daemon = Arc::clone(self);
            self.tasks.spawn(async move {
                daemon.serve(verb, &push, &guest).await;
                drop(permit);
            });
            return;
        }
        let Some(policy) = &self.policy else {
            return tracing::debug!(from = %push.from, "not in --managers list");
        };
        // Strangers have seats of their own: while an answer is awaited, managers do not wait behind them.
        let Some(seat) = policy.seat() else {
            return tracing::debug!(from = %push.from, "too many questions to the policy service at once");
        };
        let (daemon, policy) = (Arc::clone(self), Arc::clone(policy));
        self.tasks.spawn(async move {
            if let Some(guest) = policy.admit(&push.from).await {
                daemon.serve(verb, &push, &guest).await;
            }
            drop(seat);
        });
    }

    async fn serve(self: &Arc<Self>, verb: Verb, push: &Notification, guest: &Guest) {
        match verb {
            Verb::Ping => self.answer_ping(push).await,
            Verb::PushKey => self.take_key(push).await,
            Verb::Ssh => self.ssh_request(push, guest).await,
            Verb::Npt => self.npt_request(push, guest).await,
            Verb::RelayLatency => self.measure_relays(push).await,
        }
    }

    /// "I am here, and this is what I offer", for whoever looks at the policy service.
    async fn tell_policy(&self) {
        if let Some(policy) = &self.policy {
            policy.heartbeat(&self.ping_response().print()).await;
        }
    }

    async fn answer_ping(&self, push: &Notification) {
        let name = format!("heartbeat.{}.{NAMESPACE}", self.config.device);
        // The request that follows is signed: fetch the key to check it while the answer travels.
        let text = self.ping_response().print_as(self.config.dialect);
        let (_, sent) = tokio::join!(
            self.client.public_key(&push.from),
            self.client.notify(&push.from, &name, &text, Some(REPLY_LIFE)),
        );
        if let Err(error) = sent {
            tracing::warn!(to = %push.from, %error, "could not answer a ping");
        }
    }

    /// Tells a client how far relays are from here. It dials no more than a session request could make it dial.
    async fn measure_relays(&self, push: &Notification) {
        let text = match self.client.open(push).await {
            Ok(text) => text,
            Err(error) => return tracing::warn!(from = %push.from, %error, "could not read a list of relays"),
        };
        let Some(relays) = RelayMap::parse(&text) else { return };
        let name = format!("{LATENCY_RESPONSE}.{}.{NAMESPACE}", self.config.device);
        let text = postern_link::latencies(&relays).await.print();
        if let Err(error) = self.client.notify(&push.from, &name, &text, Some(REPLY_LIFE)).await {
            tracing::warn!(to = %push.from, %error, "could not tell how far the relays are");
        }
    }

    async fn take_key(&self, push: &Notification) {
        if !self.config.accept_keys {
            tracing::info!(from = %push.from, "an ssh public key was sent but -s is not set");
            return;
        }
        let text = match self.client.open(push).await {
            Ok(text) => text,
            Err(error) => return tracing::warn!(from = %push.from, %error, "could not read an ssh public key"),
        };
        let Ok(key) = SshPublicKey::parse(&text) else {
            return tracing::warn!(from = %push.from, "what was sent is not an ssh public key of a known type");
        };
        let Ok(home) = home_dir() else { return tracing::warn!("HOME is not set") };
        let _one_at_a_time = self.keys_file.lock().await;
        match authorized_keys::add(&home.join(".ssh"), &key, &self.config.key_options) {
            Ok(Added::Now) => tracing::info!(from = %push.from, "ssh public key added"),
            Ok(Added::Before) => tracing::debug!(from = %push.from, "ssh public key known already"),
            Err(error) => tracing::warn!(%error, "could not add the ssh public key to authorized_keys"),
        }
    }
}

/// Time between a first failure text and giving up on telling it.
pub(crate) const TELL: Duration = Duration::from_secs(5);

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Own(error) => write!(f, "the identity key of this device cannot be used: {error}"),
            Self::Trust(error) => error.fmt(f),
            Self::Login(error) => error.fmt(f),
            #[cfg(feature = "sshd")]
            Self::HostKey(error) => error.fmt(f),
            Self::Signals(error) => write!(f, "cannot listen for signals: {error}"),
        }
    }
}
