//! What a sealed session may dial: decided for each connection, on the addresses that are then dialled.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use postern_link::Carried;
use postern_link::sealed::{Authorize, Future, Refusal, Target};
use postern_net::tcp::{connect_first, resolve};
use postern_observe::journal::{Entry, Event};
use postern_proto::Uuid;
use postern_session::{Denied, Guest, HostPort};
use postern_streams::RefusalCode;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::daemon::Daemon;
use crate::limits::TARGET;

/// A session's way to its targets.
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
                let why = Some(format!("{}: {}", refusal.code, refusal.text));
                self.daemon.journal.record(Entry { why, ..self.entry(Event::Refused, &guest, &named) });
            }
            dialled
        })
    }

    fn over(&self, target: &Target, address: Option<SocketAddr>, carried: Carried) {
        let target = self.named(target);
        self.daemon.journal.record(Entry {
            address: address.map(|address| address.to_string()),
            sent: Some(carried.out),
            received: Some(carried.back),
            ..self.entry(Event::Stream, &self.guest, &target)
        });
    }
}

impl Reach {
    fn named(&self, target: &Target) -> HostPort {
        match target {
            Target::Ssh => HostPort::localhost(self.daemon.config.sshd_port),
            Target::HostPort(HostPort { host, port }) => HostPort { host: host.to_lowercase(), port: *port },
        }
    }

    fn entry(&self, event: Event, guest: &Guest, target: &HostPort) -> Entry {
        Entry {
            session: Some(self.id.to_string()),
            who: Some(guest.at_sign().to_string()),
            target: Some(target.to_string()),
            rule: Some(guest.rule().to_owned()),
            sealed: Some(true),
            ..Entry::of(event)
        }
    }

    /// The name is looked up once, and what was found is checked and dialled.
    async fn reach(&self, guest: &Guest, target: &HostPort) -> Result<TcpStream, Refusal> {
        self.door(|door| door.may_reach(guest, target))?;
        self.daemon.live.reaches(&self.id, target);
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
