//! Proving to another server that we speak for an owner of ours.

use postern_crypto::{RsaPrivateKey, SignatureHash};
use postern_dialogue::peer::{Claimant, Next, PeerProof};
use postern_net::tasks;
use postern_proto::{AtKey, AtSign, Metadata, Record};
use postern_store::{Assert, Batch, LogAs, StoreError};
use zeroize::Zeroizing;

use super::error::PeerError;
use super::wire::PeerWire;
use super::{Abroad, copies};
use crate::limits::{PEER_STEP, PEER_VERIFIES, POL_COOKIE_LIFE_MS};
use crate::serve::now_ms;

const SIGNING_KEY: &str = "signing_privatekey";
const SIGNING_PUBLIC_KEY: &str = "signing_publickey";
/// The reference's mark that the pair exists.
const SIGNING_MADE: &str = "signing_keypair_generated";

/// Leads the handshake on a fresh connection.
pub(super) async fn claim(abroad: &Abroad, wire: &mut PeerWire, me: &AtSign, them: &AtSign) -> Result<(), PeerError> {
    let (mut claimant, first) = Claimant::new(me, them);
    wire.say(&first.to_string()).await?;
    let mut answer = wire.answer(false, PEER_STEP).await?;
    copies::refresh_public_key(abroad, me, them, &answer).await?;
    loop {
        let line = match claimant.on_answer(answer)? {
            Next::Say(request) => request.to_string(),
            Next::Publish(proof) => {
                publish(abroad, me, &proof).await?;
                claimant.published().to_string()
            }
            Next::Done => return Ok(()),
        };
        wire.say(&line).await?;
        let prompt = claimant.awaits_prompt();
        answer = wire.answer(prompt, if prompt { PEER_VERIFIES } else { PEER_STEP }).await?;
    }
}

/// Puts the signature where the verifier reads it.
async fn publish(abroad: &Abroad, me: &AtSign, proof: &PeerProof) -> Result<(), PeerError> {
    let key = signing_key(abroad, me).await?;
    let failed = |_| PeerError::Handshake("the proof could not be signed".to_owned());
    let signature = key.sign(SignatureHash::Sha256, proof.signed_text().as_bytes()).map_err(failed)?;
    let now = now_ms();
    let metadata = Metadata { ttl: Some(POL_COOKIE_LIFE_MS), ..Metadata::default() };
    let cookie = Record::new(signature, metadata, now);
    abroad.store.commit(Batch::new(now).put(me, &proof.key(me), cookie, LogAs::Nothing)).await?;
    Ok(())
}

/// The key that our server signs with for `me`; made when it is first wanted.
async fn signing_key(abroad: &Abroad, me: &AtSign) -> Result<RsaPrivateKey, PeerError> {
    let broken = |_| PeerError::Handshake("the signing key of this server is damaged".to_owned());
    let private = AtKey::shared(me, SIGNING_KEY, me);
    let stored = || -> Result<Option<Zeroizing<String>>, StoreError> {
        Ok(abroad.store.get(me, &private)?.map(|record| Zeroizing::new(record.value)))
    };
    if let Some(text) = stored()? {
        return RsaPrivateKey::from_base64(&text).map_err(broken);
    }
    let key = tasks::blocking(RsaPrivateKey::generate).await.map_err(broken)?;
    let public = key.public_key().map_err(broken)?.to_base64();
    let now = now_ms();
    let record = |text: &str| Record::new(text, Metadata::default(), now);
    let batch = Batch::new(now)
        .assert(Assert::KeyAbsent(me.clone(), private.clone()))
        .put(me, &private, record(&key.to_base64()), LogAs::Nothing)
        .put(me, &AtKey::public(SIGNING_PUBLIC_KEY, me), record(&public), LogAs::Nothing)
        .put(me, &AtKey::private_key(SIGNING_MADE), record("yes"), LogAs::Nothing);
    match abroad.store.commit(batch).await {
        Ok(_) => Ok(key),
        // Made by somebody else meanwhile.
        Err(StoreError::Conflict) => {
            let text = stored()?.ok_or(PeerError::Store(StoreError::Conflict))?;
            RsaPrivateKey::from_base64(&text).map_err(broken)
        }
        Err(error) => Err(error.into()),
    }
}
