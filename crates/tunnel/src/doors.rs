//! Local ports that lead into a sealed session.

use std::time::Duration;

use postern_link::Carried;
use postern_link::limits::CONNECTIONS;
use postern_link::sealed::{Local, Opened, Sealed, StreamRefused, Target, Why};
use postern_net::tasks::Tasks;
use postern_observe::say;
use postern_session::HostPort;
use postern_streams::RefusalCode;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::limits::{ACCEPT_PAUSE, WARM};
use crate::trouble::Trouble;

/// A local port and where it leads.
pub(crate) struct Door<'a> {
    listener: &'a TcpListener,
    target: HostPort,
    /// The first connection's, opened beforehand.
    warm: Option<(Opened, Instant)>,
}

impl<'a> Door<'a> {
    /// Opens the first stream at once: a target that the device forbids is told before anybody uses the port. One that is
    /// only not there now may come.
    pub(crate) async fn open(session: &Sealed, listener: &'a TcpListener, target: HostPort) -> Result<Self, Trouble> {
        let warm = match session.open(Target::HostPort(target.clone())).await {
            Ok(opened) => Some((opened, Instant::now() + WARM)),
            Err(StreamRefused::Refused(code @ (RefusalCode::NotPermitted | RefusalCode::ForbiddenAddress), text)) => {
                session.close("the target is not permitted").await;
                return Err(Trouble::Stream(StreamRefused::Refused(code, text)));
            }
            Err(_) => None,
        };
        Ok(Self { listener, target, warm })
    }

    /// Carries each connection to the target, until the session ends or there was none for `idle`.
    pub(crate) async fn carry(mut self, session: &Sealed, idle: Duration, tasks: &Tasks) -> Result<Carried, Trouble> {
        let (done, mut ended) = mpsc::channel(CONNECTIONS);
        let (mut live, mut last_end) = (0usize, Instant::now());
        let over = session.ended();
        tokio::pin!(over);
        loop {
            let cold = self.warm.as_ref().map_or_else(Instant::now, |(_, until)| *until);
            tokio::select! {
                biased;
                over = &mut over => return match over.why {
                    Why::Closed(_) | Why::ClosedByPeer(_) => Ok(over.carried),
                    why => Err(Trouble::Over(why)),
                },
                Some(()) = ended.recv() => {
                    live = live.saturating_sub(1);
                    last_end = Instant::now();
                }
                accepted = self.listener.accept(), if live < CONNECTIONS => {
                    let Ok((local, _)) = accepted else {
                        // Out of file descriptors: some connection will end.
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    };
                    let _ = local.set_nodelay(true);
                    live += 1;
                    let (session, done, target) = (session.clone(), done.clone(), self.target.clone());
                    let warm = self.warm.take();
                    drop(tasks.spawn(async move {
                        let (local, target) = (Local::from(local), Target::HostPort(target));
                        let carried = match warm {
                            Some((opened, _)) => opened.carry(local).await,
                            None => session.carry(local, target.clone()).await,
                        };
                        if let Err(refused) = carried {
                            tell(&target, &refused);
                        }
                        let _ = done.send(()).await;
                    }));
                }
                () = tokio::time::sleep_until(cold), if self.warm.is_some() => self.warm = None,
                () = tokio::time::sleep_until(last_end + idle), if live == 0 => session.close("idle").await,
            }
        }
    }
}

/// A connection that was not to be had. One that broke off, or that the session's end has ended, is nothing to tell.
fn tell(target: &Target, refused: &StreamRefused) {
    if matches!(refused, StreamRefused::Refused(..) | StreamRefused::TooMany) {
        say(format_args!("{target}: {refused}"));
    }
}
