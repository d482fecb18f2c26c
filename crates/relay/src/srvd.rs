//! The daemon around the engine: hears requests, fetches the keys, answers with two ports.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use postern_client::{Client, ClientError, Settings, StartError, connect_patiently, identity};
use postern_crypto::{RsaPublicKey, SignatureHash};
use postern_net::tasks::Tasks;
use postern_net::tls::{TlsError, Trust};
use postern_net::{ready, signals};
use postern_observe::say;
use postern_proto::verb::Noop;
use postern_proto::{AtSign, Notification, Request, Uuid};
use postern_rendezvous::{AuthMode, Expected, HashAlgo, NAMESPACE, Nack, RelayReply, RelayRequest, Side};
use tokio::sync::Semaphore;

use crate::cli::Config;
use crate::engine::{Modes, Relay, SessionSpec, Verify};
use crate::limits::{DRAIN, HEARTBEAT, REQUESTS, RelayLimits};

/// Why the relay cannot run.
#[derive(Debug)]
pub(crate) enum SrvdError {
    Start(StartError),
    Trust(TlsError),
    Login(ClientError),
    Signals(std::io::Error),
}

struct Srvd {
    config: Config,
    client: Client,
    relay: Relay,
}

/// Life of what a reply speaks of. Source: NoPorts messages, 10 s.
const REPLY_LIFE: Duration = Duration::from_secs(10);

/// Runs until a signal comes.
pub(crate) async fn run(config: Config) -> Result<(), SrvdError> {
    let identity = identity(&config.at_sign, config.key_file.as_deref()).map_err(SrvdError::Start)?;
    let stop = signals::shutdown_token().map_err(SrvdError::Signals)?;
    let tasks = Tasks::under(&stop);
    let settings = Settings {
        root: config.root.clone(),
        trust: Trust::load().map_err(SrvdError::Trust)?,
        heartbeat: HEARTBEAT,
        monitor: Some(format!(r"\.request_ports\.{NAMESPACE}@")),
    };
    let (client, mut inbox) = match connect_patiently(identity, settings, &tasks).await {
        Ok(connected) => connected,
        Err(ClientError::Stopped) => return Ok(()),
        Err(error) => return Err(SrvdError::Login(error)),
    };
    // Answered behind `monitor` on the same connection: from here on nothing is missed.
    let _ = client.request(Request::Noop(Noop { ms: 0 })).await;
    say(format_args!("srvd: monitor started for {} (version {})", config.at_sign, env!("CARGO_PKG_VERSION")));
    ready::notify_ready();

    let limits = RelayLimits { bind: config.bind, ..RelayLimits::default() };
    let srvd = Arc::new(Srvd { relay: Relay::new(limits, tasks.clone()), client, config });
    let requests = Arc::new(Semaphore::new(REQUESTS));
    loop {
        let push = tokio::select! {
            biased;
            () = stop.cancelled() => break,
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

impl Srvd {
    /// Everything in here can be caused by a stranger: nothing is said above DEBUG.
    async fn hear(&self, push: &Notification) {
        let from = &push.from;
        if self.config.only.as_ref().is_some_and(|only| only != from) {
            return tracing::debug!(%from, "not the manager of this relay");
        }
        let text = match self.client.open(push).await {
            Ok(text) => text,
            Err(error) => return tracing::debug!(%from, %error, "could not read a request"),
        };
        let request = match RelayRequest::parse(&text) {
            Ok(request) => request,
            Err(error) => return tracing::debug!(%from, %error, "malformed request"),
        };
        let Some(session) = Uuid::parse(&request.session_id) else {
            return tracing::debug!(%from, "the session id is no UUID");
        };
        let (name, text) = match self.open(from, &request).await {
            Ok(reply) => (format!("{session}.{NAMESPACE}"), reply),
            Err(nack) => {
                tracing::debug!(%from, reason = %nack, "refused");
                (format!("nack.{session}.{NAMESPACE}"), nack.as_str().to_owned())
            }
        };
        if let Err(error) = self.client.notify(from, &name, &text, Some(REPLY_LIFE)).await {
            tracing::debug!(%from, %error, "could not answer");
        }
    }

    async fn open(&self, from: &AtSign, request: &RelayRequest) -> Result<String, Nack> {
        let nack = |text: &str| Nack::new(text);
        // The request is not signed: who asks is what the notification says, and the
        // client's side can be nobody else.
        let client = AtSign::parse(&request.at_sign_a).map_err(|_| nack("atSignA is no atSign"))?;
        let device = AtSign::parse(&request.at_sign_b).map_err(|_| nack("atSignB is no atSign"))?;
        if client != *from {
            return Err(nack("atSignA is not who asks"));
        }
        if request.only_443 {
            return Err(nack("this relay does not serve sessions on port 443"));
        }
        if !matches!(request.auth_mode, None | Some(AuthMode::Payload)) {
            return Err(nack("this relay does not support that relay authentication mode; use payload"));
        }
        let (a, b) =
            tokio::join!(self.key_of(&client, request.authenticate_a), self.key_of(&device, request.authenticate_b),);
        let (a, b) = (a?, b?);
        let verify: Verify = Arc::new(move |side, text, signature, hash| {
            let key = match side {
                Side::A => a.as_ref(),
                Side::B => b.as_ref(),
            };
            key.is_some_and(|key| key.verify_bytes(hash_of(hash), text.as_bytes(), signature).is_ok())
        });
        let nonce = Uuid::from_random(postern_crypto::random()).to_string();
        let spec = SessionSpec {
            requester: from.to_string(),
            expected: Expected {
                session_id: request.session_id.clone(),
                client_nonce: request.client_nonce.clone(),
                rvd_nonce: nonce.clone(),
            },
            authenticate_a: request.authenticate_a,
            authenticate_b: request.authenticate_b,
            verify,
            escr: None,
            modes: Modes::One(AuthMode::Payload),
            single_port: false,
        };
        let session = self.relay.open(spec).map_err(|refusal| nack(&refusal.to_string()))?;
        tracing::debug!(%from, session = %request.session_id, "session opened");
        let reply = RelayReply {
            host: self.config.host.clone(),
            port_a: session.port_a,
            port_b: session.port_b,
            nonce: Some(nonce),
            supports_event_logging: false,
            auto_detects_auth: false,
        };
        Ok(if request.json_reply { reply.print_json() } else { reply.print_csv() })
    }

    async fn key_of(&self, who: &AtSign, wanted: bool) -> Result<Option<RsaPublicKey>, Nack> {
        if !wanted {
            return Ok(None);
        }
        let key = self.client.public_key(who).await;
        key.map(Some).map_err(|error| Nack::new(&format!("the public key of {who} is not to be had: {error}")))
    }
}

fn hash_of(hash: HashAlgo) -> SignatureHash {
    match hash {
        HashAlgo::Sha256 => SignatureHash::Sha256,
        HashAlgo::Sha512 => SignatureHash::Sha512,
    }
}

impl fmt::Display for SrvdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Trust(error) => error.fmt(f),
            Self::Login(error) => error.fmt(f),
            Self::Signals(error) => write!(f, "cannot listen for signals: {error}"),
        }
    }
}
