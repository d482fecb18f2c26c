//! The two ends, on the same ground as our own programs.

use std::fmt;
use std::io;
use std::time::Duration;

use postern_link::limits::PAIRING;
use postern_link::{ClientSession, DeviceSession, LinkError, RelayPort, bind_local};
use postern_net::signals;
use postern_net::tasks::Tasks;
use postern_session::StreamKeys;

use crate::STARTED;
use crate::cli::Config;
use crate::log::Log;

/// Connections that are cut get this long to notice.
const DRAIN: Duration = Duration::from_secs(2);

/// Why there was no session, or no good end of it.
#[derive(Debug)]
pub(crate) enum SrvError {
    Runtime(io::Error),
    Signals(io::Error),
    Bind(String, u16, io::Error),
    Link(LinkError),
}

/// Runs to the end of the session, or until a signal comes.
pub(crate) async fn run(config: Config, log: &mut Log) -> Result<(), SrvError> {
    let stop = signals::shutdown_token().map_err(SrvError::Signals)?;
    let tasks = Tasks::under(&stop);
    let bind = config.bind;
    let session = async { if bind { client(config, log, &tasks).await } else { device(config, log, &tasks).await } };
    let outcome = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        outcome = session => outcome,
    };
    tasks.close_and_wait(DRAIN).await;
    outcome
}

/// Peers of this program do not number their sockets: order of arrival decides.
fn relay_of(config: &Config) -> RelayPort {
    RelayPort { host: config.host.clone(), port: config.port, auth: config.auth.clone(), numbered: false }
}

async fn device(config: Config, log: &mut Log, tasks: &Tasks) -> Result<(), SrvError> {
    let stop = tasks.token().child_token();
    let session = DeviceSession { relay: relay_of(&config), target: config.local, keys: config.keys, stop };
    let carried = if config.multi {
        let control = session.dial_control().await.map_err(SrvError::Link)?;
        log.say(STARTED);
        session.multi_on(control, config.timeout, tasks).await
    } else {
        let sockets = session.dial_single().await.map_err(SrvError::Link)?;
        log.say(STARTED);
        session.single_on(sockets).await
    };
    tracing::info!(?carried, "session ended");
    carried.map(drop).map_err(SrvError::Link)
}

async fn client(config: Config, log: &mut Log, tasks: &Tasks) -> Result<(), SrvError> {
    let relay = relay_of(&config);
    let bound = bind_local(&config.local.host, config.local.port).await;
    let listener = bound.map_err(|error| SrvError::Bind(config.local.host.clone(), config.local.port, error))?;
    let trouble = |error| SrvError::Link(LinkError::Relay(format!("{}:{}", relay.host, relay.port), error));
    let first = relay.dial(0).await.map_err(trouble)?;
    let session = ClientSession {
        relay,
        first,
        twin: config.keys.as_ref().is_some_and(StreamKeys::is_twin),
        keys: config.keys,
        heartbeat: config.heartbeat.filter(|_| config.multi),
        announces_first: false,
        // Nobody says which device this is.
        pairing: Some(PAIRING),
        stop: tasks.token().child_token(),
    };
    if let Ok(address) = listener.local_addr() {
        log.say(&format!("listening on {address}"));
    }
    log.say(STARTED);
    let carried = if config.multi {
        session.multi(&listener, config.timeout, tasks).await
    } else {
        session.single_within(listener, config.timeout).await
    };
    tracing::info!(?carried, "session ended");
    carried.map(drop).map_err(SrvError::Link)
}

impl fmt::Display for SrvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime(error) => write!(f, "cannot start: {error}"),
            Self::Signals(error) => write!(f, "cannot listen for signals: {error}"),
            Self::Bind(host, port, error) => write!(f, "cannot listen on {host}:{port}: {error}"),
            Self::Link(error) => error.fmt(f),
        }
    }
}
