//! Believing another server that it speaks for its owner: its entry in the directory, its certificate, its signature.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use postern_dialogue::peer::PeerAnswer;
use postern_dialogue::server::{Peer, Verification};
use postern_net::tls::PeerCertificates;
use postern_proto::{AtSign, ErrorCode, ProtocolError};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::error::PeerError;
use super::{Abroad, CertificateCheck};
use crate::limits::{PEER_STEP, PEER_VERIFIES, VERIFYING, VERIFYING_PER_ADDRESS, VERIFYING_PER_ATSIGN};
use crate::misses::Misses;

/// What strangers may make us dial.
pub(super) struct Strangers {
    /// Claims of each address that did not hold.
    failures: Misses,
    all: Semaphore,
    by_address: Counts<IpAddr>,
    by_at_sign: Counts<AtSign>,
}

/// How often something happens at this moment, each bounded.
pub(super) struct Counts<K>(Arc<Mutex<HashMap<K, u32>>>);

/// One of them; over when dropped.
pub(crate) struct Counted<K: Eq + Hash> {
    counts: Arc<Mutex<HashMap<K, u32>>>,
    key: K,
}

impl<K: Eq + Hash + Clone> Counts<K> {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    pub(super) fn enter(&self, key: K, limit: u32) -> Option<Counted<K>> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Counted { counts: Arc::clone(&self.0), key })
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

impl Strangers {
    pub(super) fn new() -> Self {
        Self {
            failures: Misses::default(),
            all: Semaphore::new(VERIFYING),
            by_address: Counts::new(),
            by_at_sign: Counts::new(),
        }
    }
}

impl Abroad {
    /// Checks a `pol`. This is the one thing that somebody unknown can make us dial for.
    ///
    /// # Errors
    /// `AT0401` whatever does not hold; `AT0007`, `AT0021`, `AT0023` when there is nobody to ask; `AT0011` when too
    /// much is asked of us.
    pub(crate) async fn verify(
        &self,
        verification: Verification,
        shown: Option<PeerCertificates>,
        from: IpAddr,
    ) -> Result<Peer, ProtocolError> {
        let who = verification.at_sign().clone();
        let strangers = &self.strangers;
        let busy = || ProtocolError::new(ErrorCode::InternalException, "too many claims at once : try later");
        if !strangers.failures.delay(from, Instant::now()).is_zero() {
            return Err(busy());
        }
        let _address = strangers.by_address.enter(from, VERIFYING_PER_ADDRESS).ok_or_else(busy)?;
        let _at_sign = strangers.by_at_sign.enter(who.clone(), VERIFYING_PER_ATSIGN).ok_or_else(busy)?;
        let _place = strangers.all.try_acquire().map_err(|_| busy())?;
        let work = Box::pin(self.question(verification, shown));
        let outcome = match timeout(PEER_VERIFIES, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(told(&who, PeerError::TooSlow("the claimed server"))),
        };
        if let Err(error) = &outcome {
            tracing::debug!(%who, %from, %error, "pol refused");
            strangers.failures.count(from, Instant::now());
        }
        outcome
    }

    async fn question(
        &self,
        verification: Verification,
        shown: Option<PeerCertificates>,
    ) -> Result<Peer, ProtocolError> {
        let who = verification.at_sign().clone();
        let place = self.find(&who).await.map_err(|error| told(&who, error))?;
        let is_theirs = |shown: &PeerCertificates| self.trust.is_certificate_of(shown, &place.address.host);
        let certified = match (self.certificates, &shown) {
            (CertificateCheck::Ignored, _) | (CertificateCheck::IfShown, None) => true,
            (CertificateCheck::Required, None) => false,
            (_, Some(shown)) => is_theirs(shown),
        };
        if !certified {
            return Err(ProtocolError::new(ErrorCode::Authentication, "Certificate Verification Failed"));
        }
        let mut wire = self.dial(&who, &place).await.map_err(|error| told(&who, error))?;
        let mut answers = Vec::new();
        for question in verification.questions() {
            let answer = wire.ask(&question.to_string(), PEER_STEP).await;
            answers.push(answer.map_err(|error| told(&who, error))?);
        }
        match answers.as_slice() {
            [_, PeerAnswer::Data(signature), PeerAnswer::Data(key)] => verification.check(signature, key),
            // No such key: this server does not speak for the atSign.
            _ => Err(Verification::failed()),
        }
    }
}

/// What a stranger hears of our attempt: not where we dialled, nor what was there.
fn told(who: &AtSign, error: PeerError) -> ProtocolError {
    tracing::debug!(%who, ?error, "a claim could not be checked");
    match error {
        PeerError::NotFound(_) | PeerError::TooMany => error.into_protocol(),
        _ => ProtocolError::new(ErrorCode::UnableToConnect, format!("the server of {who} cannot be asked")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_given_back() {
        let counts = Counts::new();
        let one = counts.enter(1, 2).unwrap();
        let _two = counts.enter(1, 2).unwrap();
        assert!(counts.enter(1, 2).is_none() && counts.enter(2, 2).is_some());
        drop(one);
        assert!(counts.enter(1, 2).is_some());
        drop(_two);
        assert!(counts.0.lock().unwrap().is_empty());
    }
}
