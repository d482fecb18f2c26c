//! The record that tells where the relay is reached.

use std::num::NonZeroU16;
use std::sync::Arc;

use postern_client::RecordOptions;
use postern_net::backoff::Backoff;
use postern_rendezvous::{RelayAddress, RelayRecord};
use tokio::time::{sleep, timeout};

use super::Srvd;
use crate::limits::{PUBLISH_AGAIN, PUBLISH_WITHIN, REPUBLISH};

impl Srvd {
    /// Publishes our addresses. False: it did not work, or nobody can dial them.
    pub(super) async fn publish_place(&self, port: NonZeroU16) -> bool {
        // People write IPv6 addresses in brackets, the record does not.
        let host = self.config.host.trim_start_matches('[').trim_end_matches(']');
        let at = |port: NonZeroU16, tls| RelayAddress::new(host, port.get(), tls);
        let Ok(plain) = at(port, false) else {
            tracing::warn!(host, "no address that a relay's record can have: sealed sessions will not find this relay");
            return true;
        };
        // Plain first: TLS in TLS costs both ends for nothing where the network lets it through.
        let tls = self.config.tls.as_ref().and_then(|_| at(self.beside.unwrap_or(port), true).ok());
        let record = RelayRecord::new([Some(plain), tls].into_iter().flatten().collect()).print();
        let put = self.client.put_public(RelayAddress::RECORD, &record, RecordOptions::default());
        match timeout(PUBLISH_WITHIN, put).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "could not publish where this relay is reached");
                false
            }
            Err(_) => {
                tracing::warn!("could not publish where this relay is reached: no answer");
                false
            }
        }
    }

    /// Publishes it again and again: until it has worked, and then from time to time.
    pub(super) async fn keep_place_published(self: Arc<Self>, port: NonZeroU16, mut published: bool) {
        let mut backoff = Backoff::new(PUBLISH_AGAIN, REPUBLISH);
        loop {
            let pause = if published {
                backoff.reset();
                REPUBLISH
            } else {
                backoff.next(u32::from_ne_bytes(postern_crypto::random()))
            };
            tokio::select! {
                biased;
                () = self.tasks.token().cancelled() => return,
                () = sleep(pause) => {}
            }
            published = self.publish_place(port).await;
        }
    }
}
