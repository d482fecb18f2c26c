//! The daemon around the engine: hears requests, fetches the keys, answers with ports.

mod opening;
mod place;

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use postern_client::{Client, ClientError, Settings, StartError, connect_patiently, identity};
use postern_net::ready::{self, Watchdog};
use postern_net::signals;
use postern_net::tasks::Tasks;
use postern_net::tls::{TlsError, Trust};
use postern_observe::journal::Journal;
use postern_observe::presence::{Presence, Present};
use postern_observe::say;
use postern_proto::verb::Noop;
use postern_proto::{AtSign, Notification, Request, Uuid};
use postern_rendezvous::hints::{DISCOVER_REQUEST, DISCOVER_RESPONSE, DiscoverRequest, ModesHint};
use postern_rendezvous::{NAMESPACE, RelayRequest};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use self::opening::Unopened;
use crate::cli::{Config, Generation, Port, TlsFiles};
use crate::engine::{Entrance, Relay, TicketKeys, TicketSpec};
use crate::keys::KeyBook;
use crate::limits::{DRAIN, HEARTBEAT, REQUESTS, RelayLimits, TLS_RELOAD};

/// Why the relay cannot run.
#[derive(Debug)]
pub(crate) enum SrvdError {
    Start(StartError),
    Trust(TlsError),
    Login(ClientError),
    Signals(std::io::Error),
    Port(u16, std::io::Error),
    Certificate(TlsError),
}

struct Srvd {
    config: Config,
    client: Client,
    relay: Relay,
    keys: Arc<KeyBook>,
    tasks: Tasks,
    /// Where else guests are let in.
    beside: Option<NonZeroU16>,
}

/// Life of what a reply speaks of. Source: NoPorts messages, 10 s.
const REPLY_LIFE: Duration = Duration::from_secs(10);

/// What a notification wants, by its key.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    /// `<device>.request_ports`
    Ports,
    /// `<device>`: the oldest form.
    LegacyPorts,
    /// `<device>.auth_modes`
    Modes,
    /// `logging.<session>.sessions`
    Logging,
    /// `discover_request`
    Discover,
}

impl Wish {
    fn of(key: &str) -> Option<Self> {
        let name = key.strip_suffix(NAMESPACE)?.strip_suffix('.')?;
        match name.rsplit_once('.') {
            None if name == DISCOVER_REQUEST => Some(Self::Discover),
            None => Some(Self::LegacyPorts),
            Some((_, "request_ports")) => Some(Self::Ports),
            Some((_, "auth_modes")) => Some(Self::Modes),
            Some((session, "sessions")) if session.starts_with("logging.") => Some(Self::Logging),
            Some(_) => None,
        }
    }
}

/// Runs until a signal comes.
pub(crate) async fn run(config: Config) -> Result<(), SrvdError> {
    let identity = identity(&config.at_sign, config.key_file.as_deref()).map_err(SrvdError::Start)?;
    let stop = signals::shutdown_token().map_err(SrvdError::Signals)?;
    let tasks = Tasks::under(&stop);
    let limits = RelayLimits {
        bind: config.bind,
        detect_window: config.detect_window,
        key_recheck: config.key_recheck,
        max_rate: config.max_rate,
        ..RelayLimits::default()
    };
    // Before the login: who cannot have the port need not bother the atServer.
    let relay = match config.port {
        None => Relay::new(limits, tasks.clone()),
        Some(port) => bind(limits, &tasks, port)?,
    };
    if let Some(path) = &config.journal {
        let usual = || Journal::standard(&format!("srvd.{}", config.at_sign));
        relay.keep_journal(if path.as_os_str().is_empty() { usual() } else { Journal::open(path.clone()) });
    }
    if let Some(files) = &config.tls {
        relay.speak_tls(files.read().map_err(SrvdError::Certificate)?);
    }
    let beside = match config.tls_port {
        Some(port) => Some(relay.bind_beside(port).map_err(|error| SrvdError::Port(port, error))?),
        None => None,
    };
    let settings = Settings {
        root: config.root.clone(),
        trust: Trust::load().map_err(SrvdError::Trust)?,
        heartbeat: HEARTBEAT,
        monitor: Some(format!(r"[.:]([^.]+|.+\.(request_ports|auth_modes|sessions))\.{NAMESPACE}@")),
    };
    let (client, mut inbox) = match connect_patiently(identity, settings, &tasks).await {
        Ok(connected) => connected,
        Err(ClientError::Stopped) => return Ok(()),
        Err(error) => return Err(SrvdError::Login(error)),
    };
    // Answered behind `monitor` on the same connection: from here on nothing is missed.
    let _ = client.request(Request::Noop(Noop { ms: 0 })).await;
    let keys = Arc::new(KeyBook::new(client.clone()));
    let beside_port = beside.as_ref().map(|entrance| entrance.port);
    let srvd = Arc::new(Srvd { relay, client, config, keys, tasks: tasks.clone(), beside: beside_port });
    srvd.open_port(beside).await;
    let at_sign = &srvd.config.at_sign;
    say(format_args!("srvd: monitor started for {at_sign} (version {})", env!("CARGO_PKG_VERSION")));
    ready::notify_ready();
    ready::notify_status(&format!("{at_sign} introduces guests"));
    let mut watchdog = Watchdog::of_environment();
    let port = srvd.relay.single_port().map_or_else(|| "two for each session".to_owned(), |port| port.to_string());
    let _present = Presence::hold(&Present::now("relay", at_sign.as_str()).with("port", port));

    let requests = Arc::new(Semaphore::new(REQUESTS));
    loop {
        let push = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = watchdog.beat() => continue,
            push = inbox.next() => push,
        };
        let Some(push) = push else { break };
        let Ok(permit) = Arc::clone(&requests).acquire_owned().await else { break };
        let srvd = Arc::clone(&srvd);
        tasks.spawn(async move {
            srvd.hear(&push).await;
            drop(permit);
        });
    }
    ready::notify_stopping();
    tasks.close_and_wait(DRAIN).await;
    Ok(())
}

fn bind(limits: RelayLimits, tasks: &Tasks, port: Port) -> Result<Relay, SrvdError> {
    let Port { number, named } = port;
    match Relay::with_single_port(limits.clone(), tasks.clone(), number) {
        Ok(relay) => Ok(relay),
        Err(error) if named => Err(SrvdError::Port(number, error)),
        Err(error) => {
            say(format_args!("[WARN] srvd: port {number} cannot be had ({error}): taking a free one; see --bind-port"));
            Relay::with_single_port(limits, tasks.clone(), 0).map_err(|error| SrvdError::Port(0, error))
        }
    }
}

impl Srvd {
    /// Lets guests in at the port for all, and says to everybody where it is.
    async fn open_port(self: &Arc<Self>, beside: Option<Entrance>) {
        let Some(port) = self.relay.single_port() else { return };
        if self.config.generation != Generation::Current {
            self.relay.serve_port(None);
            return say(format_args!("srvd: single port {port}"));
        }
        let srvd = Arc::clone(self);
        self.relay.serve_port(Some(TicketSpec {
            relay: self.config.at_sign.clone(),
            serves: Arc::new(move |client| srvd.config.serves(client)),
            keys: Arc::clone(&self.keys) as Arc<dyn TicketKeys>,
        }));
        if let Some(entrance) = beside {
            say(format_args!("srvd: TLS port {}", entrance.port));
            self.relay.serve_beside(entrance);
        }
        if let Some(files) = self.config.tls.clone() {
            self.tasks.spawn(Arc::clone(self).keep_certificate(files));
        }
        // Who reads that we are ready finds the record.
        let published = self.publish_place(port).await;
        self.tasks.spawn(Arc::clone(self).keep_place_published(port, published));
        say(format_args!("srvd: single port {port}"));
    }

    /// Reads the certificate again and again, for those who renew it. One that cannot be read changes nothing.
    async fn keep_certificate(self: Arc<Self>, files: TlsFiles) {
        loop {
            tokio::select! {
                biased;
                () = self.tasks.token().cancelled() => return,
                () = sleep(TLS_RELOAD) => {}
            }
            match files.read() {
                Ok(tls) => self.relay.speak_tls(tls),
                Err(error) => tracing::warn!(%error, "the certificate cannot be read: the one before goes on"),
            }
        }
    }

    /// Everything in here can be caused by a stranger: nothing is said above DEBUG.
    async fn hear(&self, push: &Notification) {
        let from = &push.from;
        if !self.config.serves(from) {
            return tracing::debug!(%from, "not a manager of this relay");
        }
        let Some(wish) = Wish::of(&push.bare_key()) else {
            return tracing::debug!(%from, "a notification that asks for nothing we do");
        };
        let text = match self.client.open(push).await {
            Ok(text) => text,
            Err(error) => return tracing::debug!(%from, %error, "could not read a request"),
        };
        match wish {
            Wish::Ports => match RelayRequest::parse(&text) {
                Ok(request) => {
                    let Some(session) = Uuid::parse(&request.session_id) else {
                        return tracing::debug!(%from, "the session id is no UUID");
                    };
                    self.answer(from, &session, self.open(from, &request).await).await;
                }
                Err(error) => tracing::debug!(%from, %error, "malformed request"),
            },
            Wish::LegacyPorts => match Uuid::parse(text.trim()) {
                Some(session) => self.answer(from, &session, self.open_legacy(from, session.as_str())).await,
                None => tracing::debug!(%from, "the session id is no UUID"),
            },
            Wish::Modes if self.config.generation == Generation::Current => {
                let Some(hint) = ModesHint::parse(&text) else {
                    return tracing::debug!(%from, "malformed hint");
                };
                let ModesHint { session_id, rvd_nonce, side_a, side_b } = hint;
                let taken = self.relay.hint(&session_id, &from.to_string(), &rvd_nonce, side_a, side_b);
                tracing::debug!(%from, taken, "hint");
            }
            Wish::Discover if self.config.generation == Generation::Current => {
                if let Some(request) = DiscoverRequest::parse(&text) {
                    let answer = request.answer(&self.config.host, self.relay.knock_port());
                    self.tell(from, &format!("{DISCOVER_RESPONSE}.{NAMESPACE}"), &answer.print()).await;
                }
            }
            // We write no events of sessions; who asks for them is not told no either.
            Wish::Logging | Wish::Modes | Wish::Discover => tracing::debug!(%from, ?wish, "heard and not acted on"),
        }
    }

    async fn answer(&self, from: &AtSign, session: &Uuid, outcome: Result<String, Unopened>) {
        match outcome {
            Ok(reply) => self.tell(from, &format!("{session}.{NAMESPACE}"), &reply).await,
            Err(Unopened::Silent(why)) => tracing::debug!(%from, %session, why, "not answered"),
            Err(Unopened::Told(nack)) => {
                tracing::debug!(%from, reason = %nack, "refused");
                self.tell(from, &format!("nack.{session}.{NAMESPACE}"), nack.as_str()).await;
            }
        }
    }

    async fn tell(&self, to: &AtSign, name: &str, text: &str) {
        if let Err(error) = self.client.notify(to, name, text, Some(REPLY_LIFE)).await {
            tracing::debug!(%to, %error, "could not answer");
        }
    }
}

impl fmt::Display for SrvdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Trust(error) => error.fmt(f),
            Self::Login(error) => error.fmt(f),
            Self::Certificate(error) => write!(f, "cannot {error}; see --tls-cert and --tls-key"),
            Self::Signals(error) => write!(f, "cannot listen for signals: {error}"),
            Self::Port(port, error) => {
                write!(f, "cannot listen on port {port}: {error}; choose another with --bind-port, or --443-bind-port")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_what_is_wanted() {
        for (key, wish) in [
            ("pi.request_ports.sshrvd", Some(Wish::Ports)),
            ("pi.sshrvd", Some(Wish::LegacyPorts)),
            ("pi.auth_modes.sshrvd", Some(Wish::Modes)),
            ("logging.6f9619ff-8b86-4d01-b42d-00cf4fc964ff.sessions.sshrvd", Some(Wish::Logging)),
            ("discover_request.sshrvd", Some(Wish::Discover)),
            ("pi.other.sshrvd", None),
            ("pi.request_ports.sshnp", None),
            ("sshrvd", None),
        ] {
            assert_eq!(Wish::of(key), wish, "{key}");
        }
    }
}
