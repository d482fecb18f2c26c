//! `npt`: a session with many connections behind a local port.

use std::ffi::OsString;
use std::process::ExitCode;

use postern_link::{ClientSession, bind_local};
use postern_net::signals;
use postern_net::tasks::Tasks;
use postern_observe::say;
use tokio::net::TcpListener;

use crate::detach;
use crate::limits::{DRAIN, KEEP_ALIVE_PAUSE};
use crate::npt_cli::Config;
use crate::session::{Wanted, establish, stop_of};
use crate::steps::Steps;
use crate::trouble::Trouble;

/// Runs to the end of the session, or until the port is printed.
pub(crate) async fn run(config: Config, args: Vec<OsString>) -> Result<ExitCode, Trouble> {
    if config.print_only && !detach::is_second() {
        return detach::run_second(&args, "npt");
    }
    let stop = signals::shutdown_token().map_err(Trouble::Ssh)?;
    let local = |error| Trouble::LocalPort(config.local_port, error);
    let listener = bind_local(&config.local_host, config.local_port).await.map_err(local)?;
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

async fn session(config: &Config, listener: &TcpListener, tasks: &Tasks) -> Result<(), Trouble> {
    let common = &config.common;
    let steps = Steps::new(common.quiet, common.verbosity);
    let wanted = Wanted::Npt { host: config.target_host.clone(), port: config.target_port, timeout: config.timeout };
    let standing = establish(common, &wanted, &steps, tasks).await?;
    let mut late = standing.late;
    let session = ClientSession {
        relay: standing.relay,
        first: standing.first,
        keys: standing.keys,
        twin: standing.twin,
        heartbeats: standing.heartbeats,
        stop: stop_of(tasks),
    };
    let address = listener.local_addr().map_err(|error| Trouble::LocalPort(config.local_port, error))?;
    steps.report();
    if config.print_only {
        detach::let_go(&address.port().to_string())?;
    } else {
        let host = if config.local_host == "127.0.0.1" { "localhost" } else { config.local_host.as_str() };
        say(format_args!("npt is listening on {host}:{}", address.port()));
    }
    tokio::select! {
        ended = session.multi(listener, config.timeout, tasks) => {
            let carried = ended.map_err(Trouble::Link)?;
            if !common.quiet && !config.print_only {
                say(format_args!("Session ended ({} bytes sent, {} received)", carried.out, carried.back));
            }
            Ok(())
        }
        Some(text) = late.recv() => Err(Trouble::Reply(postern_session::ReplyError::Refused(text))),
    }
}
