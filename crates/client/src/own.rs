//! Notifications to ourselves, encrypted with the key that only our key file holds.

use std::time::Duration;

use postern_crypto::Iv;
use postern_proto::verb::Notify;
use postern_proto::{Metadata, NotificationId, Request, Uuid};

use crate::error::ClientError;
use crate::handle::Client;
use crate::sharing::millis;

impl Client {
    /// Sends a notification to ourselves: other programs that run under our name hear it.
    /// `life`: how long it waits for them. Returns its id.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn notify_own(&self, name: &str, text: &str, life: Duration) -> Result<NotificationId, ClientError> {
        let iv = Iv::generate();
        let value = self.identity().keys.self_encryption.encrypt_text(iv, text);
        let value = value.map_err(|_| ClientError::Crypto("a value of our own"))?;
        let (id, me) = (NotificationId::from(Uuid::from_random(postern_crypto::random())), self.at_sign());
        let mut notify = Notify::update(id.clone(), me, name, me, Some(value));
        notify.ttln = Some(millis(life));
        notify.metadata =
            Metadata { is_encrypted: Some(true), iv_nonce: Some(iv.to_base64()), ..Metadata::default() }.into();
        self.request(Request::Notify(Box::new(notify))).await.map(|_| id)
    }
}
