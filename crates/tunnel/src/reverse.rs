//! `-R`: the device listens on its loopback, and what connects there is joined with a target at this end.

use std::sync::Arc;

use postern_link::sealed::{Authorize, Future, Listening, Refusal, Sealed, StreamRefused, Target};
use postern_net::tasks::Tasks;
use postern_net::tcp::{connect_first, resolve};
use postern_observe::say;
use postern_session::HostPort;
use postern_streams::RefusalCode;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::forward::Reverse;
use crate::limits::OWN_TARGET;
use crate::trouble::Trouble;

/// Has the device listen for each, and tells the user where.
///
/// # Errors
/// The device does not for one of them; then the session is closed.
pub(crate) async fn listen(session: &Sealed, reverses: &[Reverse], tasks: &Tasks) -> Result<(), Trouble> {
    for Reverse { port, target } in reverses {
        match session.listen(*port, target.clone(), Arc::new(Typed)).await {
            Ok(listening) => drop(tasks.spawn(until_closed(listening, *port))),
            Err(refused) => {
                session.close("a port is not listened on").await;
                return Err(Trouble::Stream(explained(refused)));
            }
        }
    }
    Ok(())
}

/// Devices that know of listening always say why not.
fn explained(refused: StreamRefused) -> StreamRefused {
    match refused {
        StreamRefused::Refused(RefusalCode::NotPermitted, text) if text.is_empty() => StreamRefused::Refused(
            RefusalCode::NotPermitted,
            "its daemon is of a version that does not know -R; it has to be updated".into(),
        ),
        refused => refused,
    }
}

async fn until_closed(listening: Listening, port: u16) {
    match listening.ended().await {
        Ok(()) | Err(StreamRefused::Reset) => say(format_args!("the device listens no longer on its port {port}")),
        // The session's end is told elsewhere.
        Err(_) => {}
    }
}

/// Dials what the user has typed; the device has no say in it.
struct Typed;

impl Authorize for Typed {
    fn dial<'a>(&'a self, target: &'a Target) -> Future<'a, Result<TcpStream, Refusal>> {
        Box::pin(async move {
            let refused = |code, text: String| Refusal { code, text };
            let Target::HostPort(HostPort { host, port }) = target else {
                return Err(refused(RefusalCode::NotPermitted, String::new()));
            };
            let work = async {
                let found = resolve(host, *port).await;
                let found = found.map_err(|_| refused(RefusalCode::NameUnknown, format!("{host} is not known")))?;
                connect_first(found).await.map_err(|error| Refusal { text: error.to_string(), ..error.into() })
            };
            let late = || Err(refused(RefusalCode::TargetUnreachable, "no answer".into()));
            let dialled = timeout(OWN_TARGET, work).await.unwrap_or_else(|_| late());
            if let Err(refusal) = &dialled {
                say(format_args!("{target}: {}: {}", refusal.code, refusal.text));
            }
            dialled
        })
    }
}
