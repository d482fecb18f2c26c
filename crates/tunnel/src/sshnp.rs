//! `sshnp`: a session, then ssh through it.

use std::cell::RefCell;
use std::ffi::OsString;
use std::pin::Pin;
use std::process::ExitCode;

use postern_link::sealed::Sealed;
use postern_link::{ClientSession, bind_local};
use postern_net::signals;
use postern_net::tasks::Tasks;
use postern_session::ReplyError;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::detach;
use crate::host_keys;
use crate::legacy::failure;
use crate::limits::DRAIN;
use crate::sealed::Late;
use crate::session::{Wanted, Way, establish, stop_of};
use crate::ssh::{SshCommand, host_key_alias, public_half};
use crate::ssh_tunnel::SshTunnel;
use crate::sshnp_cli::Config;
use crate::steps::Steps;
use crate::trouble::Trouble;

/// Runs to the end of ssh, or until the command is printed.
pub(crate) async fn run(config: Config, args: Vec<OsString>) -> Result<ExitCode, Trouble> {
    if config.print_only && !detach::is_second() {
        return detach::run_second(&args, "sshnp");
    }
    let stop = signals::shutdown_token().map_err(Trouble::Ssh)?;
    let tasks = Tasks::under(&stop);
    let outcome = Box::pin(session(config, &stop, &tasks)).await;
    // A session that is sealed says goodbye: else the device would keep it for a while.
    tasks.close_and_wait(DRAIN).await;
    outcome
}

async fn session(config: Config, stop: &CancellationToken, tasks: &Tasks) -> Result<ExitCode, Trouble> {
    let common = &config.common;
    let steps = Steps::of(common);
    let push_key = match (&config.ssh.identity, config.push_key) {
        (Some(identity), true) => Some(public_half(identity).map_err(Trouble::Identity)?),
        _ => None,
    };
    let wanted = Wanted::Ssh { push_key, user_name: config.user.is_none() };
    let listener = bind_local("127.0.0.1", config.local_port)
        .await
        .map_err(|error| Trouble::LocalPort(config.local_port, error))?;
    let port = listener.local_addr().map_err(|error| Trouble::LocalPort(config.local_port, error))?.port();
    let ssh_comes = RefCell::new(None);
    let local = || {
        let (comes, local) = Late::local();
        ssh_comes.replace(Some(comes));
        Some(local)
    };
    let standing = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(Trouble::Interrupted),
        standing = Box::pin(establish(common, &wanted, &local, &steps, tasks)) => standing?,
    };
    let user = config.user.clone().or(standing.user_name).ok_or(Trouble::NoUser)?;
    let mut options = config.ssh;
    let (mut carrying, mut trouble) = match standing.way {
        Way::Sealed(session) => {
            let alias = host_key_alias(&common.to, &common.device);
            options.host_keys = host_keys::known_hosts(&common.to, &common.device, &alias);
            sealed(session, listener, ssh_comes.take(), tasks)
        }
        Way::Legacy(legacy) => {
            let mut late = legacy.late;
            let session = ClientSession {
                relay: legacy.relay,
                first: legacy.first,
                keys: legacy.keys,
                twin: legacy.twin,
                heartbeat: None,
                announces_first: common.dialect.announces_first(),
                pairing: None,
                stop: stop_of(tasks),
            };
            let carrying = match legacy.ephemeral.filter(|_| !common.encrypt) {
                None => tasks.spawn(async move { drop(session.single(listener).await) }),
                Some(key) => {
                    steps.tell("Starting tunnel session");
                    let relay_end = bind_local("127.0.0.1", 0).await.map_err(|error| Trouble::LocalPort(0, error))?;
                    let through = relay_end.local_addr().map_err(|error| Trouble::LocalPort(0, error))?.port();
                    let carrying = tasks.spawn(async move { drop(session.single(relay_end).await) });
                    // ssh binds the port that we kept free until now.
                    drop(listener);
                    let tunnel = SshTunnel {
                        session: &standing.session,
                        at_sign: &common.to,
                        device: &common.device,
                        user: config.tunnel.user.as_deref().unwrap_or(&user),
                        key: &key,
                        through,
                        local_port: port,
                        options: &config.tunnel,
                        words: &options.extra,
                    };
                    let started = tokio::select! {
                        biased;
                        () = stop.cancelled() => Err(Trouble::Interrupted),
                        Some(text) = failure(&mut late) => Err(Trouble::Reply(ReplyError::Refused(text))),
                        started = tunnel.start() => started,
                    };
                    started?;
                    if config.tunnel.takes_words {
                        options.extra.clear();
                    }
                    carrying
                }
            };
            (carrying, told_late(late))
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
            _ = &mut trouble => {}
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
            let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(SSH_FAILED);
            tokio::select! {
                biased;
                // ssh has seen its connection close; why, we know better.
                trouble = &mut trouble, if code == SSH_FAILED => Err(trouble),
                () = std::future::ready(()) => Ok(ExitCode::from(code)),
            }
        }
        trouble = &mut trouble => {
            let _ = child.start_kill();
            Err(trouble)
        }
        () = stop.cancelled() => {
            // ssh is in our process group and has the same signal; it tidies its terminal first.
            let _ = child.wait().await;
            Err(Trouble::Interrupted)
        }
    }
}

/// ssh's exit code for its own troubles, not its command's. Source: ssh(1), EXIT STATUS.
const SSH_FAILED: u8 = 255;

/// Resolves with what went wrong behind the scenes; never, when nothing does.
type Failing = Pin<Box<dyn Future<Output = Trouble>>>;

/// ssh's one connection, carried as stream 1.
fn sealed(
    session: Sealed,
    listener: TcpListener,
    ssh_comes: Option<oneshot::Sender<TcpStream>>,
    tasks: &Tasks,
) -> (JoinHandle<()>, Failing) {
    let (tell, told) = oneshot::channel();
    let stop = tasks.token().clone();
    let carrying = tasks.spawn(async move {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            ended = session.ended() => {
                let _ = tell.send(Trouble::Over(ended.why));
                return;
            }
            accepted = listener.accept() => accepted.ok(),
        };
        // The port closes behind its one connection.
        drop(listener);
        if let (Some(comes), Some((socket, _))) = (ssh_comes, accepted) {
            let _ = socket.set_nodelay(true);
            let _ = comes.send(socket);
            if let Err(refused) = session.first().await {
                let _ = tell.send(Trouble::Stream(refused));
            }
        }
        session.close("ssh has ended").await;
        session.ended().await;
    });
    let failing = async {
        match told.await {
            Ok(trouble) => trouble,
            Err(_) => std::future::pending().await,
        }
    };
    (carrying, Box::pin(failing))
}

/// What a device of 2024 tells after it has agreed.
fn told_late(mut late: mpsc::Receiver<String>) -> Failing {
    Box::pin(async move {
        match failure(&mut late).await {
            Some(text) => Trouble::Reply(ReplyError::Refused(text)),
            None => std::future::pending().await,
        }
    })
}
