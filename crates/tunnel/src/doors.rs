//! Local ports that lead into a sealed session.

use std::time::Duration;

use postern_link::Carried;
use postern_link::limits::CONNECTIONS;
use postern_link::sealed::{Local, Sealed, Target, Why};
use postern_net::tasks::Tasks;
use postern_observe::say;
use postern_session::HostPort;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::limits::ACCEPT_PAUSE;
use crate::trouble::Trouble;

/// Carries each connection of `listener` to `target`, until the session ends or there was none for `idle`.
pub(crate) async fn carry(
    session: &Sealed,
    listener: &TcpListener,
    target: &HostPort,
    idle: Duration,
    tasks: &Tasks,
) -> Result<Carried, Trouble> {
    let (done, mut ended) = mpsc::channel(CONNECTIONS);
    let (mut live, mut last_end) = (0usize, Instant::now());
    let over = session.ended();
    tokio::pin!(over);
    loop {
        tokio::select! {
            biased;
            over = &mut over => return match over.why {
                Why::Closed(_) | Why::ClosedByPeer(_) => Ok(over.carried),
                why => Err(Trouble::Over(why)),
            },
            () = tasks.token().cancelled() => session.close("npt was stopped").await,
            Some(()) = ended.recv() => {
                live = live.saturating_sub(1);
                last_end = Instant::now();
            }
            accepted = listener.accept(), if live < CONNECTIONS => {
                let Ok((local, _)) = accepted else {
                    // Out of file descriptors: some connection will end.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let _ = local.set_nodelay(true);
                live += 1;
                let (session, done, target) = (session.clone(), done.clone(), Target::HostPort(target.clone()));
                drop(tasks.spawn(async move {
                    if let Err(refused) = session.carry(Local::from(local), target.clone()).await {
                        say(format_args!("{target}: {refused}"));
                    }
                    let _ = done.send(()).await;
                }));
            }
            () = tokio::time::sleep_until(last_end + idle), if live == 0 => session.close("idle").await,
        }
    }
}
