//! `npt`: a session with many connections behind a local port.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::process::ExitCode;

use postern_link::limits::PAIRING;
use postern_link::{Carried, ClientSession, bind_local};
use postern_net::signals;
use postern_net::tasks::Tasks;
use postern_observe::say;
use postern_session::{HostPort, ReplyError};
use tokio::net::TcpListener;

use crate::detach;
use crate::doors::Door;
use crate::legacy::{self, failure};
use crate::limits::{DRAIN, KEEP_ALIVE_PAUSE};
use crate::npt_cli::Config;
use crate::session::{Wanted, Way, establish, stop_of};
use crate::steps::Steps;
use crate::trouble::Trouble;

/// Runs to the end of the session, or until the port is printed.
pub(crate) async fn run(config: Config, args: Vec<OsString>) -> Result<ExitCode, Trouble> {
    if config.print_only && !detach::is_second() {
        return detach::run_second(&args, "npt");
    }
    let stop = signals::shutdown_token().map_err(Trouble::Ssh)?;
    let listener = listen(&config).await?;
    loop {
        let tasks = Tasks::under(&stop);
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Trouble::Interrupted),
            outcome = session(&config, &listener, &tasks) => outcome,
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

/// Listens on the first of the local hosts that can be.
async fn listen(config: &Config) -> Result<TcpListener, Trouble> {
    let mut trouble = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for host in &config.local_hosts {
        match bind_local(host, config.local_port).await {
            Ok(listener) => return Ok(listener),
            Err(error) => trouble = error,
        }
    }
    Err(Trouble::LocalPort(config.local_port, trouble))
}

async fn session(config: &Config, listener: &TcpListener, tasks: &Tasks) -> Result<(), Trouble> {
    let common = &config.common;
    let steps = Steps::new(common.quiet, common.verbosity);
    let wanted = Wanted::Npt { host: config.target_host.clone(), port: config.target_port, timeout: config.timeout };
    let standing = Box::pin(establish(common, &wanted, &|| None, &steps, tasks)).await?;
    let ready = || {
        let address = listener.local_addr().map_err(|error| Trouble::LocalPort(config.local_port, error))?;
        steps.report();
        if config.print_only {
            return detach::let_go(&address.port().to_string());
        }
        // A person types localhost; where it listens on more, that must be seen.
        let usual = address.ip() == IpAddr::from([127, 0, 0, 1]);
        let place = if usual { format!("localhost:{}", address.port()) } else { address.to_string() };
        say(format_args!("npt is listening on {place}"));
        Ok(())
    };
    let carried = match standing.way {
        Way::Sealed(session) => {
            let target = HostPort { host: config.target_host.clone(), port: config.target_port };
            let door = Door::open(&session, listener, target).await?;
            ready()?;
            door.carry(&session, config.timeout, tasks).await?
        }
        Way::Legacy(legacy) => {
            ready()?;
            as_in_2024(*legacy, config, listener, tasks).await?
        }
    };
    if !common.quiet && !config.print_only {
        say(format_args!("Session ended ({} bytes sent, {} received)", carried.out, carried.back));
    }
    Ok(())
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
