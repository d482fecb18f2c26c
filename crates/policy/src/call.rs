//! One request of a manager and its answer.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postern_client::{Client, ClientError, Inbox};
use postern_proto::AtSign;
use postern_rules::manage::Operation;
use postern_rules::rpc::{Domain, Kind, Reply, Request, RequestIds};
use serde_json::Value as Json;
use tokio::time::{Instant, timeout_at};

use crate::limits::MANAGER_WAIT;

/// A connected manager.
pub(crate) struct Manager {
    pub(crate) client: Client,
    pub(crate) inbox: Inbox,
    pub(crate) policy: AtSign,
    pub(crate) domain: Domain,
    pub(crate) ids: RequestIds,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum CallError {
    Client(ClientError),
    Silent(AtSign),
    Refused(String),
}

impl Manager {
    /// Asks and waits for the answer.
    pub(crate) async fn call(&mut self, operation: &Operation) -> Result<Json, CallError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let id = self.ids.next(u64::try_from(now.as_micros()).unwrap_or(0));
        let text = Request::print(id, operation.to_json());
        let name = self.domain.name(Kind::Request, id);
        self.client.notify(&self.policy, &name, &text, None).await.map_err(CallError::Client)?;
        let deadline = Instant::now() + MANAGER_WAIT;
        loop {
            let push = match timeout_at(deadline, self.inbox.next()).await {
                Ok(Some(push)) => push,
                Ok(None) => return Err(CallError::Client(ClientError::Stopped)),
                Err(_) => return Err(CallError::Silent(self.policy.clone())),
            };
            let Some(key) = self.domain.read(&push.bare_key()) else { continue };
            // Who, before which.
            if push.from != self.policy || key.id != id {
                continue;
            }
            let text = self.client.open(&push).await.map_err(CallError::Client)?;
            let Ok(reply) = Reply::read(key, &text) else { continue };
            match reply.kind() {
                Kind::Success => return Ok(reply.payload),
                Kind::Nack | Kind::Error => return Err(CallError::Refused(reply.message.unwrap_or_default())),
                Kind::Ack | Kind::Request => {}
            }
        }
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Silent(policy) => write!(
                f,
                "no answer from {policy}: either no npp runs there, or it does not have you in its --manager-allow-list"
            ),
            Self::Refused(why) => write!(f, "the policy service refused: {why}"),
        }
    }
}
