//! `connect`: standard input and output joined with a port of a device.

use std::cell::RefCell;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use postern_client::trust::{KnownKeys, Places};
use postern_link::ClientSession;
use postern_link::sealed::{Local, Sealed, Target};
use postern_net::signals;
use postern_net::tasks::Tasks;
use postern_observe::{Verbosity, say};
use postern_session::{Dialect, HostPort, ReplyError};
use tokio::time::timeout;

use crate::agent::{self, AgentStream, Found, Manner, Wish};
use crate::connect_cli::{Config, FAILED};
use crate::host_keys;
use crate::hosts::{Destination, HostName, Hosts};
use crate::legacy::{self, failure};
use crate::limits::{DRAIN, HALF_CLOSED};
use crate::refusal::{self, Reason};
use crate::relay::relay_auth;
use crate::sealed::Sealing;
use crate::session::{Common, Wanted, Way, establish, stop_of};
use crate::stdio::{self, Fate, Stdio};
use crate::steps::Steps;
use crate::trouble::Trouble;

/// ssh's own; the device knows where its ssh server really listens.
const SSH_PORT: u16 = 22;
/// A connection that is one of its kind: the session ends with it.
const IDLE: Duration = Duration::from_secs(2);

/// Runs to the end of the connection. What went wrong has been told, to ssh as well.
pub(crate) async fn run(config: Config) -> ExitCode {
    let Err((trouble, flowed)) = Box::pin(connect(&config)).await else { return ExitCode::SUCCESS };
    let why = format!("{}: {trouble}", shown(&config.host));
    say(format_args!("postern: {why}"));
    // Once bytes have flowed, they are encrypted, and no word of ours would be understood.
    if config.speaks_ssh && !flowed {
        let reason = if trouble.is_refusal() { Reason::NotPermitted } else { Reason::ByApplication };
        stdio::last_words(&refusal::disconnect(reason, &why)).await;
    }
    ExitCode::from(FAILED)
}

/// The trouble, and whether anything had flowed before it.
type Ended = Result<(), (Trouble, bool)>;

async fn connect(config: &Config) -> Ended {
    let early = |trouble| (trouble, false);
    let hosts = Hosts::read(config.file.as_deref()).map_err(|error| early(Trouble::Hosts(error)))?;
    let host = HostName::parse(&config.host).map_err(|error| early(Trouble::Hosts(error)))?;
    let found = hosts.find(&host).map_err(|error| early(Trouble::Hosts(error)))?;
    let stop = signals::shutdown_token().map_err(|error| early(Trouble::Ssh(error)))?;
    let tasks = Tasks::under(&stop);
    // How ssh ends its ProxyCommand: the device is told, or it would keep the session for a client that comes back.
    let mut hangups = signals::Hangups::listen().map_err(|error| early(Trouble::Ssh(error)))?;
    let left = stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            () = left.cancelled() => {}
            () = hangups.next() => left.cancel(),
        }
    });
    let wanted = match config.port {
        SSH_PORT => Wanted::Ssh { push_key: None, user_name: false },
        port => Wanted::Npt { host: "localhost".to_owned(), port, timeout: Duration::from_secs(30) },
    };
    let common = common(&found, config);
    let steps = Steps::new(true, config.verbosity).with_line(&common);
    if config.agent.unwrap_or(found.agent) == Manner::Auto {
        let by_agent = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(early(Trouble::Interrupted)),
            found = ask_agent(&common, config, &steps) => found.map_err(early)?,
        };
        if let Some(stream) = by_agent {
            return tokio::select! {
                biased;
                () = stop.cancelled() => Err((Trouble::Interrupted, true)),
                ended = Box::pin(carry_by_agent(stream)) => ended,
            };
        }
    }
    let fate = RefCell::new(Fate::default());
    let local = || {
        let (stdio, its_fate) = Stdio::open().ok().filter(|_| config.port == SSH_PORT)?;
        fate.replace(its_fate);
        Some(Local::new(stdio))
    };
    let standing = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(early(Trouble::Interrupted)),
        standing = Box::pin(establish(&common, &wanted, &local, &steps, &tasks)) => standing.map_err(early)?,
    };
    steps.report();
    if config.port == SSH_PORT && host_keys::of_host(&host, &hosts).is_empty() {
        say(format_args!(
            "postern: no ssh host key of {} is known to us, so ssh may refuse it: name it as host-keys in {}",
            host.as_str(),
            Hosts::path(config.file.as_deref()).display()
        ));
    }
    let ended = match standing.way {
        Way::Sealed(session) => Box::pin(carry_sealed(session, &wanted, fate.take())).await,
        Way::Legacy(legacy) => Box::pin(carry(*legacy, &wanted, &tasks)).await,
    };
    tasks.token().cancel();
    tasks.close_and_wait(DRAIN).await;
    ended
}

/// The agent serves devices that are known: what is seen for the first time is for the user to see. `None`: we go by
/// ourselves.
async fn ask_agent(common: &Common, config: &Config, steps: &Steps) -> Result<Option<AgentStream>, Trouble> {
    let Sealing { strict_pins, resume, .. } = common.sealing;
    let known = KnownKeys::new(Places::of_user(), strict_pins);
    if !known.knows_device(&common.to, &common.device).map_err(Trouble::Pins)? {
        steps.tell("without the agent: this device is not known yet");
        return Ok(None);
    }
    let wish = Wish {
        from: common.from.to_string(),
        to: common.to.to_string(),
        device: common.device.to_string(),
        relays: common.relays.iter().map(ToString::to_string).collect(),
        root: common.root.to_string(),
        key_file: common.key_file.as_deref().map(std::path::absolute).transpose().map_err(Trouble::Stdio)?,
        target: (config.port != SSH_PORT).then(|| ("localhost".to_owned(), config.port)),
        patience: common.ping_timeout,
        resume,
        strict: strict_pins,
        verbose: matches!(config.verbosity, Verbosity::Info | Verbosity::Debug),
    };
    match steps.follow("a session of the agent", 0, 0, agent::stream(&wish)).await? {
        Found::Stream(stream) => {
            let session = if stream.live { "a live session" } else { "a new session, on its login" };
            steps.tell(&format!("by the agent: {session}"));
            if wish.verbose {
                stream.told.iter().for_each(say);
            }
            steps.report();
            Ok(Some(stream))
        }
        Found::Alone(why) => {
            steps.tell(&format!("without the agent: {why}"));
            Ok(None)
        }
    }
}

async fn carry_by_agent(stream: AgentStream) -> Ended {
    let AgentStream { data, mut control, .. } = stream;
    let (stdio, fate) = Stdio::open().map_err(|error| (Trouble::Stdio(error), false))?;
    let ended = tokio::select! {
        carried = stdio::carry(stdio, data) => match carried {
            Ok(()) => control.verdict().await,
            Err(error) => Err(Trouble::Stdio(error)),
        },
        trouble = control.trouble() => Err(trouble),
    };
    ended.map_err(|trouble| (trouble, fate.flowed()))
}

async fn carry_sealed(session: Sealed, wanted: &Wanted, fate: Fate) -> Ended {
    let (carrying, fate): (Pin<Box<dyn Future<Output = _>>>, _) = match wanted {
        Wanted::Ssh { .. } => (Box::pin(session.first()), fate),
        Wanted::Npt { host, port, .. } => {
            let (stdio, fate) = Stdio::open().map_err(|error| (Trouble::Stdio(error), false))?;
            let local = Local::new(stdio);
            let target = Target::HostPort(HostPort { host: host.clone(), port: *port });
            (Box::pin(session.carry(local, target)), fate)
        }
    };
    let half_closed = async {
        fate.ended.cancelled().await;
        tokio::time::sleep(HALF_CLOSED).await;
    };
    let outcome = tokio::select! {
        carried = carrying => carried.map(drop).map_err(Trouble::Stream),
        () = half_closed => Ok(()),
    };
    session.close("done").await;
    // Goodbye is being said; who does not hear it is not waited for.
    let _ = timeout(DRAIN, session.ended()).await;
    outcome.map_err(|trouble| (trouble, fate.flowed()))
}

async fn carry(standing: legacy::Standing, wanted: &Wanted, tasks: &Tasks) -> Ended {
    let mut late = standing.late;
    let session = ClientSession {
        relay: standing.relay,
        first: standing.first,
        keys: standing.keys,
        twin: standing.twin,
        heartbeat: None,
        announces_first: false,
        pairing: None,
        stop: stop_of(tasks),
    };
    let (ours, carrying) = match wanted {
        Wanted::Ssh { .. } => {
            let (ours, theirs) = stdio::pair().await.map_err(|error| (Trouble::LocalPort(0, error), false))?;
            (ours, tasks.spawn(session.single_on(theirs)))
        }
        Wanted::Npt { .. } => {
            let listener = postern_link::bind_local("127.0.0.1", 0).await;
            let listener = listener.map_err(|error| (Trouble::LocalPort(0, error), false))?;
            let address = listener.local_addr().map_err(|error| (Trouble::LocalPort(0, error), false))?;
            let ours = tokio::net::TcpStream::connect(address).await;
            let owner = tasks.clone();
            let carrying = tasks.spawn(async move { session.multi(&listener, IDLE, &owner).await });
            (ours.map_err(|error| (Trouble::LocalPort(0, error), false))?, carrying)
        }
    };
    let _ = ours.set_nodelay(true);
    let (stdio, _) = Stdio::open().map_err(|error| (Trouble::Stdio(error), true))?;
    let stop = stop_of(tasks);
    tokio::select! {
        biased;
        () = stop.cancelled() => Err((Trouble::Interrupted, true)),
        Some(text) = failure(&mut late) => Err((Trouble::Reply(ReplyError::Refused(text)), true)),
        carried = stdio::carry(stdio, ours) => {
            carrying.abort();
            carried.map_err(|error| (Trouble::Stdio(error), true))
        }
    }
}

fn common(found: &Destination, config: &Config) -> Common {
    let Destination { from, to, device, relays, root, key_file, patience, least, agent: _ } = found.clone();
    Common {
        from,
        to,
        device,
        relays,
        key_file,
        root,
        authenticate_client: true,
        authenticate_device: true,
        relay_auth: relay_auth(None, false, Dialect::Current).expect("what is usual is allowed"),
        encrypt: true,
        ping_timeout: patience,
        verbosity: config.verbosity,
        quiet: true,
        dialect: Dialect::Current,
        sealing: config.seal.sealing(least),
    }
}

/// A name as it may be shown whatever it is.
fn shown(host: &str) -> String {
    host.chars().filter(char::is_ascii_graphic).take(80).collect()
}
