//! `connect`: standard input and output joined with a port of a device.

use std::cell::RefCell;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use postern_link::ClientSession;
use postern_link::sealed::{Local, Sealed, Target};
use postern_net::signals;
use postern_net::tasks::Tasks;
use postern_observe::say;
use postern_session::{Dialect, HostPort, ReplyError};
use tokio::time::timeout;

use crate::connect_cli::{Config, FAILED};
use crate::hosts::{Destination, HostName, Hosts};
use crate::legacy::{self, failure};
use crate::limits::{DRAIN, HALF_CLOSED};
use crate::refusal::{self, Reason};
use crate::relay::relay_auth;
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
    let steps = Steps::new(true, config.verbosity);
    let wanted = match config.port {
        SSH_PORT => Wanted::Ssh { push_key: None, user_name: false },
        port => Wanted::Npt { host: "localhost".to_owned(), port, timeout: Duration::from_secs(30) },
    };
    let common = common(&found, config);
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
    if config.port == SSH_PORT && hosts.host_keys(&host).is_empty() {
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
    let stop = stop_of(tasks);
    tokio::select! {
        biased;
        () = stop.cancelled() => Err((Trouble::Interrupted, true)),
        Some(text) = failure(&mut late) => Err((Trouble::Reply(ReplyError::Refused(text)), true)),
        carried = stdio::carry(ours) => {
            carrying.abort();
            carried.map_err(|error| (Trouble::Stdio(error), true))
        }
    }
}

fn common(found: &Destination, config: &Config) -> Common {
    let Destination { from, to, device, relays, root, key_file, patience, least } = found.clone();
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
