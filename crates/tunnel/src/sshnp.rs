//! `sshnp`: a session, then ssh through it.

use std::ffi::OsString;
use std::process::ExitCode;

use postern_link::{ClientSession, bind_local};
use postern_net::signals;
use postern_net::tasks::Tasks;

use crate::detach;
use crate::limits::DRAIN;
use crate::session::{Wanted, establish, failure, stop_of};
use crate::ssh::{SshCommand, public_half};
use crate::ssh_tunnel::SshTunnel;
use crate::sshnp_cli::Config;
use crate::steps::Steps;
use crate::trouble::Trouble;

/// Runs to the end of ssh, or until the command is printed.
pub(crate) async fn run(config: Config, args: Vec<OsString>) -> Result<ExitCode, Trouble> {
    if config.print_only && !detach::is_second() {
        return detach::run_second(&args, "sshnp");
    }
    let common = &config.common;
    let steps = Steps::new(common.quiet, common.verbosity);
    let stop = signals::shutdown_token().map_err(Trouble::Ssh)?;
    let tasks = Tasks::under(&stop);
    let push_key = match (&config.ssh.identity, config.push_key) {
        (Some(identity), true) => Some(public_half(identity).map_err(Trouble::Identity)?),
        _ => None,
    };
    let wanted = Wanted::Ssh { push_key, user_name: config.user.is_none() };
    let listener = bind_local("127.0.0.1", config.local_port)
        .await
        .map_err(|error| Trouble::LocalPort(config.local_port, error))?;
    let port = listener.local_addr().map_err(|error| Trouble::LocalPort(config.local_port, error))?.port();
    let standing = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(Trouble::Interrupted),
        standing = establish(common, &wanted, &steps, &tasks) => standing?,
    };
    let user = config.user.clone().or(standing.user_name).ok_or(Trouble::NoUser)?;
    let mut late = standing.late;
    let session = ClientSession {
        relay: standing.relay,
        first: standing.first,
        keys: standing.keys,
        twin: standing.twin,
        heartbeat: None,
        announces_first: common.dialect.announces_first(),
        pairing: None,
        stop: stop_of(&tasks),
    };
    let tunnel_key = standing.ephemeral.filter(|_| !common.encrypt);
    let mut options = config.ssh;
    let mut carrying = match &tunnel_key {
        None => tasks.spawn(session.single(listener)),
        Some(key) => {
            steps.tell("Starting tunnel session");
            let relay_end = bind_local("127.0.0.1", 0).await.map_err(|error| Trouble::LocalPort(0, error))?;
            let through = relay_end.local_addr().map_err(|error| Trouble::LocalPort(0, error))?.port();
            let carrying = tasks.spawn(session.single(relay_end));
            // ssh binds the port that we kept free until now.
            drop(listener);
            let tunnel = SshTunnel {
                session: &standing.session,
                at_sign: &common.to,
                device: &common.device,
                user: config.tunnel.user.as_deref().unwrap_or(&user),
                key,
                through,
                local_port: port,
                options: &config.tunnel,
                words: &options.extra,
            };
            let started = tokio::select! {
                biased;
                () = stop.cancelled() => Err(Trouble::Interrupted),
                Some(text) = failure(&mut late) => Err(Trouble::Reply(postern_session::ReplyError::Refused(text))),
                started = tunnel.start() => started,
            };
            started?;
            if config.tunnel.takes_words {
                options.extra.clear();
            }
            carrying
        }
    };
    let ssh = SshCommand::new(port, &user, &common.to, &common.device, &options);
    steps.tell("Starting user session");
    steps.report();

    if config.print_only {
        detach::let_go(&ssh.print())?;
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            _ = &mut carrying => {}
            Some(_) = failure(&mut late) => {}
        }
        return Ok(ExitCode::SUCCESS);
    }

    let mut child = tokio::process::Command::from(ssh.command()).kill_on_drop(true).spawn().map_err(Trouble::Ssh)?;
    tokio::select! {
        biased;
        status = child.wait() => {
            // What ssh wrote last is still on its way.
            let _ = tokio::time::timeout(DRAIN, carrying).await;
            let status = status.map_err(Trouble::Ssh)?;
            Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(255)))
        }
        Some(text) = failure(&mut late) => {
            let _ = child.start_kill();
            Err(Trouble::Reply(postern_session::ReplyError::Refused(text)))
        }
        () = stop.cancelled() => {
            // ssh is in our process group and has the same signal; it tidies its terminal first.
            let _ = child.wait().await;
            Err(Trouble::Interrupted)
        }
    }
}
