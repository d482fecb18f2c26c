//! What a sealed session may dial: decided for each connection, on the addresses that are then dialled.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, PoisonError};

use postern_link::Carried;
#[cfg(feature = "sshd")]
use postern_link::sealed::Local;
use postern_link::sealed::{Authorize, Future, Refusal, Target};
use postern_net::tcp::{connect_first, resolve};
use postern_observe::journal::{Entry, Event};
use postern_proto::Uuid;
use postern_session::{Denied, Guest, HostPort};
use postern_streams::RefusalCode;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::daemon::Daemon;
use crate::limits::TARGET;

/// A session's way to its targets.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) id: Uuid,
    /// As the session began.
    pub(crate) guest: Guest,
}

impl Authorize for Reach {
    fn dial<'a>(&'a self, target: &'a Target) -> Future<'a, Result<TcpStream, Refusal>> {
        Box::pin(async move {
            let named = self.named(target);
            // As it is now: what policy or the list of managers says may have changed since the session began.
            let Some(guest) = self.daemon.live.guest(&self.id) else {
                return Err(no(RefusalCode::NotPermitted, "the session is over"));
            };
            let dialled = self.reach(&guest, &named).await;
            if let Err(refusal) = &dialled {
                self.refused(refusal, &guest, &named);
            }
            dialled
        })
    }

    #[cfg(feature = "sshd")]
    fn serve<'a>(&'a self, target: &'a Target) -> Future<'a, Option<Result<Local, Refusal>>> {
        Box::pin(async move {
            let named = self.named(target);
            let guest = self.daemon.live.guest(&self.id)?;
            let served = self.serve_ssh(&guest, &named)?;
            if let Err(refusal) = &served {
                self.refused(refusal, &guest, &named);
            }
            Some(served)
        })
    }

    fn over(&self, target: &Target, address: Option<SocketAddr>, carried: Carried) {
        let target = self.named(target);
        self.daemon.journal.record(Entry {
            address: address.map(|address| address.to_string()),
            sent: Some(carried.out),
            received: Some(carried.back),
            ..self.entry(Event::Stream, &self.guest, &target.to_string())
        });
    }

    fn listen(&self, port: u16) -> Future<'_, Result<Vec<TcpListener>, Refusal>> {
        Box::pin(async move {
            let Some(guest) = self.daemon.live.guest(&self.id) else {
                return Err(no(RefusalCode::NotPermitted, "the session is over"));
            };
            let listening = self.listen_for(&guest, port).await;
            if let Err(refusal) = &listening {
                let why = Some(format!("{}: {}", refusal.code, refusal.text));
                let entry = self.entry(Event::Refused, &guest, &listened(port));
                self.daemon.journal.record(Entry { why, ..entry });
            }
            listening
        })
    }

    fn came_in(&self, port: u16, peer: SocketAddr, carried: Carried) {
        self.daemon.journal.record(Entry {
            address: Some(peer.to_string()),
            sent: Some(carried.out),
            received: Some(carried.back),
            ..self.entry(Event::Stream, &self.guest, &listened(port))
        });
    }

    fn closed(&self, port: u16) {
        self.daemon.live.closed(&self.id, port);
        tracing::info!(session = %self.id, port, "listens no longer");
    }
}

/// How a port that is listened on is written where targets are.
fn listened(port: u16) -> String {
    format!("listen:{port}")
}

impl Reach {
    fn named(&self, target: &Target) -> HostPort {
        match target {
            Target::Ssh => HostPort::localhost(self.daemon.config.sshd_port),
            Target::HostPort(HostPort { host, port }) => HostPort { host: host.to_lowercase(), port: *port },
        }
    }

    fn refused(&self, refusal: &Refusal, guest: &Guest, named: &HostPort) {
        let why = Some(format!("{}: {}", refusal.code, refusal.text));
        self.daemon.journal.record(Entry { why, ..self.entry(Event::Refused, guest, &named.to_string()) });
    }

    pub(crate) fn entry(&self, event: Event, guest: &Guest, target: &str) -> Entry {
        Entry {
            session: Some(self.id.to_string()),
            who: Some(guest.at_sign().to_string()),
            target: Some(target.to_owned()),
            rule: Some(guest.rule().to_owned()),
            sealed: Some(true),
            ..Entry::of(event)
        }
    }

    /// By name; an address that is dialled is looked at again.
    pub(crate) fn admit(&self, guest: &Guest, target: &HostPort) -> Result<(), Refusal> {
        self.door(|door| door.may_reach(guest, target))?;
        self.daemon.live.reaches(&self.id, target);
        Ok(())
    }

    /// The name is looked up once, and what was found is checked and dialled.
    async fn reach(&self, guest: &Guest, target: &HostPort) -> Result<TcpStream, Refusal> {
        self.admit(guest, target)?;
        let work = async {
            let host = target.host.trim_matches(['[', ']']);
            let found = resolve(host, target.port).await;
            let found = found.map_err(|_| no(RefusalCode::NameUnknown, &format!("{host} is not known here")))?;
            let (good, bad): (Vec<_>, Vec<_>) = found
                .into_iter()
                .map(|at| self.door(|door| door.may_dial(guest, at)).map(|()| at))
                .partition(Result::is_ok);
            if good.is_empty()
                && let Some(Err(why)) = bad.into_iter().next()
            {
                return Err(why);
            }
            connect_first(good.into_iter().flatten().collect()).await.map_err(|error| {
                let text = format!("{target}: {error}");
                Refusal { text, ..Refusal::from(error) }
            })
        };
        let late = || Err(no(RefusalCode::TargetUnreachable, &format!("{target} did not answer")));
        timeout(TARGET, work).await.unwrap_or_else(|_| late())
    }

    /// The one exception from "a device does not listen": its owner's list names the port, and only the device itself can
    /// connect to it.
    async fn listen_for(&self, guest: &Guest, port: u16) -> Result<Vec<TcpListener>, Refusal> {
        self.door(|door| door.may_listen(guest, port))?;
        let taken = |error: io::Error| no(RefusalCode::PortTaken, &format!("127.0.0.1:{port}: {error}"));
        let mut listeners = vec![TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(taken)?];
        match TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await {
            Ok(listener) => listeners.push(listener),
            // Who says localhost must not meet somebody else there.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(no(RefusalCode::PortTaken, &format!("[::1]:{port}: {error}")));
            }
            // A machine without IPv6.
            Err(_) => {}
        }
        if !self.daemon.live.listens(&self.id, port) {
            return Err(no(RefusalCode::TooManyStreams, "the device listens on enough ports for this session"));
        }
        // Policy may have changed its mind in between, and looked at what was listened on before.
        let still =
            self.daemon.live.guest(&self.id).is_some_and(|now| self.door(|door| door.may_listen(&now, port)).is_ok());
        if !still {
            self.daemon.live.closed(&self.id, port);
            return Err(no(RefusalCode::NotPermitted, "no longer permitted"));
        }
        tracing::info!(client = %guest.at_sign(), session = %self.id, port, "listens on its loopback for the client");
        Ok(listeners)
    }

    fn door(&self, ask: impl FnOnce(&postern_session::Door) -> Result<(), Denied>) -> Result<(), Refusal> {
        ask(&self.daemon.door.lock().unwrap_or_else(PoisonError::into_inner)).map_err(|denied| {
            let code = match denied {
                Denied::Address(_) => RefusalCode::ForbiddenAddress,
                _ => RefusalCode::NotPermitted,
            };
            no(code, &denied.to_string())
        })
    }
}

fn no(code: RefusalCode, text: &str) -> Refusal {
    Refusal { code, text: text.to_owned() }
}
