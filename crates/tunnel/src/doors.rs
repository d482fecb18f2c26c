//! Local ports that lead into a sealed session.

use std::sync::Arc;
use std::time::Duration;

use postern_link::Carried;
use postern_link::limits::CONNECTIONS;
use postern_link::sealed::{Local, Opened, Sealed, StreamRefused, Target, Why};
use postern_net::tasks::Tasks;
use postern_observe::say;
use postern_session::HostPort;
use postern_streams::RefusalCode;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::forward::Leads;
use crate::limits::{ACCEPT_PAUSE, SOCKS, WARM};
use crate::socks::{self, Answer};
use crate::trouble::Trouble;

/// A local port and where it leads.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) listener: Arc<TcpListener>,
    pub(crate) leads: Leads,
}

/// The doors of a session that stands.
pub(crate) struct Doors {
    doors: Vec<(Door, Option<Warm>)>,
}

/// The first connection's stream, opened beforehand.
struct Warm {
    opened: Opened,
    until: Instant,
}

impl Doors {
    /// Opens the first stream of each at once: a target that the device forbids is told before anybody uses the port. One
    /// that is only not there now may come.
    pub(crate) async fn open(session: &Sealed, doors: &[Door]) -> Result<Self, Trouble> {
        let mut opened = Vec::new();
        for door in doors {
            opened.push((door.clone(), warm(session, &door.leads).await?));
        }
        Ok(Self { doors: opened })
    }

    /// Carries each connection to its target, until the session ends or there was none for `idle`. `standing`: streams of
    /// the session that are there all the time.
    pub(crate) async fn carry(
        mut self,
        session: &Sealed,
        idle: Duration,
        standing: usize,
        tasks: &Tasks,
    ) -> Result<Carried, Trouble> {
        let (done, mut ended) = mpsc::channel(CONNECTIONS);
        // One: who comes while there are too many waits in the kernel.
        let (arrived, mut arrivals) = mpsc::channel(1);
        let acceptors = Tasks::under(tasks.token());
        let _stop = acceptors.token().clone().drop_guard();
        for (number, (door, _)) in self.doors.iter().enumerate() {
            drop(acceptors.spawn(accept(Arc::clone(&door.listener), number, arrived.clone(), acceptors.clone())));
        }
        let (mut live, mut last_end) = (0usize, Instant::now());
        let over = session.ended();
        tokio::pin!(over);
        loop {
            let cold = self.doors.iter().filter_map(|(_, warm)| Some(warm.as_ref()?.until)).min();
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
                Some((number, local)) = arrivals.recv(), if live < CONNECTIONS => {
                    let Some((door, warm)) = self.doors.get_mut(number) else { continue };
                    live += 1;
                    let carried = one(session.clone(), local, door.leads.clone(), warm.take());
                    let done = done.clone();
                    drop(tasks.spawn(async move {
                        carried.await;
                        let _ = done.send(()).await;
                    }));
                }
                () = tokio::time::sleep_until(cold.unwrap_or_else(Instant::now)), if cold.is_some() => {
                    let now = Instant::now();
                    for (_, warm) in &mut self.doors {
                        *warm = warm.take().filter(|warm| warm.until > now);
                    }
                }
                () = tokio::time::sleep_until(last_end + idle), if live == 0 => {
                    // The device's connections are not among ours.
                    if session.progress().streams > standing {
                        last_end = Instant::now();
                    } else {
                        session.close("idle").await;
                    }
                }
            }
        }
    }
}

async fn warm(session: &Sealed, leads: &Leads) -> Result<Option<Warm>, Trouble> {
    let Leads::To(target) = leads else { return Ok(None) };
    match session.open(Target::HostPort(target.clone())).await {
        Ok(opened) => Ok(Some(Warm { opened, until: Instant::now() + WARM })),
        Err(StreamRefused::Refused(code @ (RefusalCode::NotPermitted | RefusalCode::ForbiddenAddress), text)) => {
            session.close("the target is not permitted").await;
            Err(Trouble::Stream(StreamRefused::Refused(code, text)))
        }
        Err(_) => Ok(None),
    }
}

async fn accept(listener: Arc<TcpListener>, number: usize, arrived: mpsc::Sender<(usize, TcpStream)>, tasks: Tasks) {
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((local, _)) => {
                    let _ = local.set_nodelay(true);
                    if arrived.send((number, local)).await.is_err() {
                        return;
                    }
                }
                // Out of file descriptors: some connection will end.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    };
    tasks.token().run_until_cancelled(accepting).await;
}

/// One connection from its beginning to its end.
async fn one(session: Sealed, mut local: TcpStream, leads: Leads, warm: Option<Warm>) {
    match (leads, warm) {
        (Leads::To(target), Some(Warm { opened, .. })) => tell(&target, opened.carry(Local::from(local)).await),
        (Leads::To(target), None) => {
            let carried = session.carry(Local::from(local), Target::HostPort(target.clone())).await;
            tell(&target, carried);
        }
        (Leads::Socks, _) => {
            let target = match timeout(SOCKS, socks::hear(&mut local)).await {
                Ok(Ok(target)) => target,
                Ok(Err(error)) => return tracing::debug!(%error, "a program at the SOCKS port"),
                Err(_) => return tracing::debug!("a program at the SOCKS port says nothing"),
            };
            match session.open(Target::HostPort(target.clone())).await {
                Ok(opened) => {
                    if socks::answer(&mut local, Answer::Connected).await.is_ok() {
                        tell(&target, opened.carry(Local::from(local)).await);
                    }
                }
                Err(refused) => {
                    let answer = match &refused {
                        StreamRefused::Refused(code, _) => Answer::from(*code),
                        _ => Answer::Failed,
                    };
                    // The program is told in its own way; a person may want to know more.
                    let _ = socks::answer(&mut local, answer).await;
                    tell(&target, Err(refused));
                }
            }
        }
    }
}

/// A connection that was not to be had. One that broke off, or that the session's end has ended, is nothing to tell.
fn tell(target: &HostPort, carried: Result<Carried, StreamRefused>) {
    if let Err(refused @ (StreamRefused::Refused(..) | StreamRefused::TooMany)) = carried {
        say(format_args!("{target}: {refused}"));
    }
}
