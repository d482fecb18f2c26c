//! `npt`: a session with many connections behind a local port.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;

use postern_link::limits::PAIRING;
use postern_link::{Carried, ClientSession, bind_local};
use postern_net::signals;
use postern_net::tasks::Tasks;
use postern_observe::say;
use postern_session::{HostPort, ReplyError};
use tokio::net::TcpListener;

use crate::detach;
use crate::doors::{Door, Doors};
use crate::forward::{Forward, Leads, Reverse};
use crate::legacy::{self, failure};
use crate::limits::{DRAIN, KEEP_ALIVE_PAUSE};
use crate::npt_cli::Config;
use crate::reverse;
use crate::session::{Wanted, Way, establish, stop_of};
use crate::steps::Steps;
use crate::trouble::Trouble;

/// Runs to the end of the session, or until the port is printed.
pub(crate) async fn run(config: Config, args: Vec<OsString>) -> Result<ExitCode, Trouble> {
    if config.print_only && !detach::is_second() {
        return detach::run_second(&args, "npt");
    }
    let stop = signals::shutdown_token().map_err(Trouble::Ssh)?;
    let doors = listen(&config).await?;
    loop {
        let tasks = Tasks::under(&stop);
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Trouble::Interrupted),
            outcome = session(&config, &doors, &tasks) => outcome,
        };
        tasks.token().cancel();
        tasks.close_and_wait(DRAIN).await;
        if !config.keep_alive {
            return outcome.map(|()| ExitCode::SUCCESS);
        }
        if let Err(trouble) = outcome {
            say(format_args!("Error : {trouble}"));
        }
        say("Session ended, keep-alive is set: will wait 5 seconds and retry");
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Trouble::Interrupted),
            () = tokio::time::sleep(KEEP_ALIVE_PAUSE) => {}
        }
    }
}

/// Listens for each forward on the first of its local hosts that can be.
async fn listen(config: &Config) -> Result<Vec<Door>, Trouble> {
    let mut doors = Vec::new();
    for Forward { local_hosts, local_port, leads } in &config.forwards {
        let mut outcome = Err(io::Error::from(io::ErrorKind::AddrNotAvailable));
        for host in local_hosts {
            outcome = bind_local(host, *local_port).await;
            if outcome.is_ok() {
                break;
            }
        }
        let listener = Arc::new(outcome.map_err(|error| Trouble::LocalPort(*local_port, error))?);
        doors.push(Door { listener, leads: leads.clone() });
    }
    Ok(doors)
}

async fn session(config: &Config, doors: &[Door], tasks: &Tasks) -> Result<(), Trouble> {
    let common = &config.common;
    let steps = Steps::of(common);
    let targets = doors.iter().filter_map(|door| match &door.leads {
        Leads::To(target) => Some(target.clone()),
        Leads::Socks => None,
    });
    // A sealed session names its targets later.
    let HostPort { host, port } = targets.into_iter().next().unwrap_or_else(|| HostPort::localhost(0));
    let wanted = Wanted::Npt { host, port, timeout: config.timeout };
    let standing = Box::pin(establish(common, &wanted, &|| None, &steps, tasks)).await?;
    let carried = match standing.way {
        Way::Sealed(session) => {
            let opened = Doors::open(&session, doors).await?;
            reverse::listen(&session, &config.reverses, tasks).await?;
            ready(config, doors, &steps)?;
            Box::pin(opened.carry(&session, config.timeout, config.reverses.len(), tasks)).await?
        }
        Way::Legacy(legacy) => {
            ready(config, doors, &steps)?;
            let only = doors.first().ok_or(Trouble::Crypto)?;
            as_in_2024(*legacy, config, &only.listener, tasks).await?
        }
    };
    if !common.quiet && !config.print_only {
        say(format_args!("Session ended ({} bytes sent, {} received)", carried.out, carried.back));
    }
    Ok(())
}

/// Says where we listen; with `-x` to the program that started us, which then ends.
fn ready(config: &Config, doors: &[Door], steps: &Steps) -> Result<(), Trouble> {
    let mut ports = Vec::new();
    steps.report();
    for door in doors {
        let address = door.listener.local_addr().map_err(|error| Trouble::LocalPort(0, error))?;
        ports.push(address.port().to_string());
        if config.print_only {
            continue;
        }
        // A person types localhost; where it listens on more, that must be seen.
        let usual = address.ip() == IpAddr::from([127, 0, 0, 1]);
        let place = if usual { format!("localhost:{}", address.port()) } else { address.to_string() };
        match &door.leads {
            _ if doors.len() == 1 => say(format_args!("npt is listening on {place}")),
            Leads::To(target) => say(format_args!("npt is listening on {place} for {target}")),
            Leads::Socks => say(format_args!("npt is listening on {place} for SOCKS 5")),
        }
    }
    for Reverse { port, target } in &config.reverses {
        if config.print_only {
            ports.push(port.to_string());
        } else {
            say(format_args!("the device listens on its localhost:{port} for {target}"));
        }
    }
    if config.print_only { detach::let_go(&ports.join(" ")) } else { Ok(()) }
}

async fn as_in_2024(
    legacy: legacy::Standing,
    config: &Config,
    listener: &TcpListener,
    tasks: &Tasks,
) -> Result<Carried, Trouble> {
    let mut late = legacy.late;
    let session = ClientSession {
        relay: legacy.relay,
        first: legacy.first,
        keys: legacy.keys,
        twin: legacy.twin,
        heartbeat: legacy.heartbeats.then_some(config.heartbeat),
        announces_first: config.common.dialect.announces_first(),
        pairing: (!legacy.numbers_sockets).then_some(PAIRING),
        stop: stop_of(tasks),
    };
    tokio::select! {
        ended = session.multi(listener, config.timeout, tasks) => ended.map_err(Trouble::Link),
        Some(text) = failure(&mut late) => Err(Trouble::Reply(ReplyError::Refused(text))),
    }
}
