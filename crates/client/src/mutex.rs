//! Locks among several programs of one atSign: an immutable record belongs to whoever writes it first.

use std::time::Duration;

use postern_proto::verb::Update;
use postern_proto::{AtKey, Metadata, Request};

use crate::error::ClientError;
use crate::handle::Client;

impl Client {
    /// Takes the lock `name` for `life`. `false`: another program of this atSign has it. Source: NoPorts, mutexes for
    /// several instances.
    ///
    /// # Errors
    /// The server does not know immutable records, or cannot be asked: nobody has the lock.
    pub async fn take_mutex(&self, name: &str, life: Duration) -> Result<bool, ClientError> {
        let metadata = Metadata {
            ttl: i64::try_from(life.as_millis()).ok(),
            is_encrypted: Some(false),
            immutable: Some(true),
            ..Metadata::default()
        };
        let key = AtKey::own(name, self.at_sign());
        match self.request(Request::Update(Update { key, metadata: metadata.into(), value: "lock".into() })).await {
            Ok(_) => Ok(true),
            Err(ClientError::Server(error)) if error.message.contains("immutable") => Ok(false),
            Err(error) => Err(error),
        }
    }
}
