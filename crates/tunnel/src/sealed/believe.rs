//! Whose reply, and whose refusal, counts.

use std::sync::{Arc, PoisonError};

use postern_client::Client;
use postern_client::trust::{TrustError, now_ms};
use postern_crypto::Ed25519PublicKey;
use postern_identity::{Fingerprint, Label, PinAlgorithm, PinName, Statement, Verdict};
use postern_link::sealed::{Believe, Unbelieved};
use postern_seal::{ClientEnd, SealError, Waiting};
use postern_session::{Refused, SshPublicKey};

use super::line::Line;
use crate::host_keys;
use crate::trouble::Trouble;

impl Line {
    /// Believes the reply in the tunnel: the device's voucher, its pins, the statement. Who is new is remembered.
    pub(super) fn believe(self: &Arc<Self>) -> Believe<Waiting, ClientEnd> {
        let line = Arc::clone(self);
        Box::new(move |waiting| {
            let line = Arc::clone(&line);
            Box::pin(async move { line.believe_reply(waiting).await })
        })
    }

    async fn believe_reply(&self, waiting: Waiting) -> Result<ClientEnd, Unbelieved> {
        let claim = waiting.reply().ok_or(SealError::NoStatement)?.voucher()?;
        let client = self.client();
        let believed = self.known.believe_device(&client, &claim, &self.to, &self.device).await?;
        let key = *believed.voucher().key();
        if self.believed_before().is_some_and(|before| before != key) {
            return Err("another device answers than the one that this session began with".into());
        }
        let end = waiting.open(believed.voucher(), self.own.key(), now_ms())?;
        self.known.remember(&believed)?;
        // ssh asks for them as soon as its first bytes have come back.
        let keys = end.reply().ssh_host_keys.iter().filter_map(|key| SshPublicKey::parse(key).ok());
        host_keys::store(&self.to, &self.device, &keys.collect::<Vec<_>>());
        *self.device_key.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
        Ok(end)
    }

    fn believed_before(&self) -> Option<Ed25519PublicKey> {
        *self.device_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the device's refusal of the request with this hash. What anybody else says is passed over, but a device
    /// that shows another key than it should is told of.
    pub(super) async fn refused(&self, request: [u8; 32]) -> Trouble {
        let mut refusals = self.refusals.lock().await;
        while let Some(statement) = refusals.recv().await {
            match self.believe_refusal(&statement, request).await {
                Ok(Some(refused)) => return Trouble::Refused(refused.code, printable(&refused.message)),
                Ok(None) => tracing::debug!("a refusal of something else"),
                Err(error) if error.is_pin() => return Trouble::Pins(error),
                Err(error) => tracing::debug!(%error, "a refusal that is not believed"),
            }
        }
        std::future::pending().await
    }

    async fn believe_refusal(&self, statement: &Statement, request: [u8; 32]) -> Result<Option<Refused>, TrustError> {
        let claims: Option<Refused> = statement.claimed().ok();
        if !claims.is_some_and(|refused| refused.answers(&self.session, request)) {
            return Ok(None);
        }
        let claim = statement.voucher()?;
        let client = self.client();
        let believed = self.known.believe_device(&client, &claim, &self.to, &self.device).await?;
        let refused: Option<Refused> = statement.verify(Label::Refusal, believed.voucher().key()).ok();
        Ok(refused.filter(|refused| refused.answers(&self.session, request)))
    }

    /// Where a device is silent: perhaps it cannot read what is encrypted to the key that we keep of its owner.
    pub(super) async fn has_its_owners_key_changed(&self, client: &Client) -> Result<(), Trouble> {
        let name = PinName::AtSign(self.to.clone());
        let pins = self.known.pins().map_err(Trouble::Pins)?;
        let Ok(key) = client.public_key(&self.to).await else { return Ok(()) };
        let shown = Fingerprint::from(&key);
        match pins.check(&name, PinAlgorithm::Rsa2048, shown, false) {
            Verdict::Changed { pinned } => Err(Trouble::Pins(TrustError::Changed { pinned: Box::new(pinned), shown })),
            _ => Ok(()),
        }
    }
}

/// A device's words, as they may be shown.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WORDS).collect()
}

/// Of a device's words, in characters.
const WORDS: usize = 500;
