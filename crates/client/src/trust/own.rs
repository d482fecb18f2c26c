//! Our identity key and the voucher for it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use postern_crypto::{AtKeys, Ed25519PrivateKey};
use postern_identity::limits::VOUCHER_LIFE_MS;
use postern_identity::{DeviceName, Expected, Fingerprint, Voucher, VoucherClaim};
use postern_proto::{AtSign, SigningKeyName};

use super::error::TrustError;
use super::now_ms;
use super::places::{self, Places};
use crate::files;
use crate::handle::Client;
use crate::limits::{IDENTITY_FILE_BYTES, VOUCHER_RENEWAL_MS};
use crate::settings::Identity;

/// By which one enrolment or one device speaks for itself.
pub struct OwnIdentity {
    key: Ed25519PrivateKey,
    at_sign: AtSign,
    keys: Arc<AtKeys>,
    name: SigningKeyName,
    device: Option<DeviceName>,
    /// `None`: it could not be kept, and was derived.
    path: Option<PathBuf>,
    voucher: Mutex<Option<Issued>>,
}

#[derive(Clone)]
struct Issued {
    text: Arc<str>,
    expires_ms: u64,
}

/// Begins the one line of a key file, so that people and scanners see what it is.
const PREFIX: &str = "postern-identity-key-v1 ";

impl OwnIdentity {
    /// Reads our key, or makes it where it will live. `device`: `None` for a client.
    ///
    /// Where nothing can be kept (no home, or a read-only one) the key is derived from the key of the enrolment, so that it is
    /// the same after a restart and those who know it go on knowing it; that is logged as a warning.
    ///
    /// # Errors
    /// There is a key file, and it is damaged or can be read by others.
    pub fn load(places: &Places, identity: &Identity, device: Option<&DeviceName>) -> Result<Self, TrustError> {
        let Identity { at_sign, keys } = identity;
        let name = SigningKeyName::new(keys.enrollment_id.as_deref(), at_sign).ok_or(TrustError::Crypto)?;
        let wanted = places.identity_key(at_sign, device, name.enrollment());
        let (key, path) = match wanted {
            Some(path) => match read_or_make(&path)? {
                Ok(key) => (key, Some(path)),
                Err(error) => {
                    let path = path.display();
                    tracing::warn!(%path, %error, "cannot keep an identity key; deriving one from the key file");
                    (derived(keys, device)?, None)
                }
            },
            None => (derived(keys, device)?, None),
        };
        Ok(Self {
            key,
            at_sign: at_sign.clone(),
            keys: Arc::clone(keys),
            name,
            device: device.cloned(),
            path,
            voucher: Mutex::new(None),
        })
    }

    /// Reads the fingerprint out of an identity key file.
    ///
    /// # Errors
    /// It cannot be read or is none.
    pub fn fingerprint_of(path: &Path) -> Result<Fingerprint, TrustError> {
        let text = files::read(path, IDENTITY_FILE_BYTES).map_err(|e| TrustError::File(path.to_owned(), e))?;
        let text = text.ok_or_else(|| TrustError::File(path.to_owned(), std::io::ErrorKind::NotFound.into()))?;
        Ok(Fingerprint::from(&parse(path, &text)?.public_key()))
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &Ed25519PrivateKey {
        &self.key
    }

    /// What the other end remembers of us.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::from(&self.key.public_key())
    }

    /// Where the key is kept; `None`: it is derived, for there is no place.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Our enrolment.
    #[must_use]
    pub fn enrollment(&self) -> &SigningKeyName {
        &self.name
    }

    /// The voucher for our key: the one that lies beside it, or a new one when that is about to end or our enrolment is
    /// another one now. For a new one our signing key is published first, which takes one or two round trips.
    ///
    /// # Errors
    /// Our signing key cannot be published.
    pub async fn voucher(&self, client: &Client) -> Result<Arc<str>, TrustError> {
        if let Some(text) = self.ready_voucher() {
            return Ok(text);
        }
        client.publish_signing_key().await.map_err(TrustError::Publish)?;
        self.issue(now_ms())
    }

    /// The voucher if there is a good one already.
    #[must_use]
    pub fn ready_voucher(&self) -> Option<Arc<str>> {
        let now = now_ms();
        let mut held = self.voucher.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = self.kept_voucher(now);
        }
        let good = held.as_ref().filter(|issued| issued.expires_ms > now.saturating_add(VOUCHER_RENEWAL_MS));
        good.map(|issued| Arc::clone(&issued.text))
    }

    /// The one beside the key, if it is good now and says what we would say.
    fn kept_voucher(&self, now: u64) -> Option<Issued> {
        let text = files::read(&self.voucher_path()?, IDENTITY_FILE_BYTES).ok()??;
        let claim = VoucherClaim::parse(text.trim()).ok()?;
        let voucher = self.check(&claim, now)?;
        Some(Issued { text: claim.text().into(), expires_ms: voucher.expires_ms() })
    }

    fn check(&self, claim: &VoucherClaim, now: u64) -> Option<Voucher> {
        let expected = Expected { at_sign: &self.at_sign, device: self.device.as_ref() };
        let record = self.keys.pkam.public_key().ok()?.to_base64();
        let voucher = claim.believe(expected, &self.keys.encryption_public, Some(&record), now).ok()?;
        (*voucher.key() == self.key.public_key() && *voucher.enrollment() == self.name).then_some(voucher)
    }

    fn issue(&self, now: u64) -> Result<Arc<str>, TrustError> {
        let (encryption, enrolled) = (&self.keys.encryption, (&self.name, &self.keys.pkam));
        let public = self.key.public_key();
        let text = Voucher::issue(&public, self.device.as_ref(), encryption, enrolled, now, VOUCHER_LIFE_MS);
        let text: Arc<str> = text.map_err(|_| TrustError::Crypto)?.into();
        if let Some(path) = self.voucher_path()
            && let Err(error) = files::replace(&path, &format!("{text}\n"), 0o600)
        {
            tracing::debug!(path = %path.display(), %error, "the voucher is not kept");
        }
        let issued = Issued { text: Arc::clone(&text), expires_ms: now.saturating_add(VOUCHER_LIFE_MS) };
        *self.voucher.lock().unwrap_or_else(PoisonError::into_inner) = Some(issued);
        Ok(text)
    }

    fn voucher_path(&self) -> Option<PathBuf> {
        self.path.as_ref().map(|path| path.with_extension("voucher"))
    }
}

/// The outer error: a key that is there cannot be used. The inner one: none can be kept.
fn read_or_make(path: &Path) -> Result<std::io::Result<Ed25519PrivateKey>, TrustError> {
    if let Some(key) = read(path)? {
        return Ok(Ok(key));
    }
    let fresh = Ed25519PrivateKey::generate().map_err(|_| TrustError::Crypto)?;
    let text = zeroize::Zeroizing::new(format!("{PREFIX}{}\n", *fresh.to_base64()));
    match files::make_private_folder(path).and_then(|()| files::create(path, &text)) {
        Ok(true) => Ok(Ok(fresh)),
        // Another program of ours made it at the same moment.
        Ok(false) => Ok(Ok(read(path)?.ok_or_else(|| TrustError::Damaged(path.to_owned()))?)),
        Err(error) => Ok(Err(error)),
    }
}

fn read(path: &Path) -> Result<Option<Ed25519PrivateKey>, TrustError> {
    let text = files::read(path, IDENTITY_FILE_BYTES).map_err(|error| TrustError::File(path.to_owned(), error))?;
    let Some(text) = text else { return Ok(None) };
    if places::is_exposed(path) {
        return Err(TrustError::Exposed(path.to_owned()));
    }
    parse(path, &text).map(Some)
}

fn parse(path: &Path, text: &str) -> Result<Ed25519PrivateKey, TrustError> {
    let damaged = || TrustError::Damaged(path.to_owned());
    let seed = text.trim().strip_prefix(PREFIX).ok_or_else(damaged)?;
    Ed25519PrivateKey::from_base64(seed).map_err(|_| damaged())
}

fn derived(keys: &AtKeys, device: Option<&DeviceName>) -> Result<Ed25519PrivateKey, TrustError> {
    let purpose = match device {
        Some(device) => format!("postern identity v1 device {device}"),
        None => "postern identity v1 client".to_owned(),
    };
    Ed25519PrivateKey::derive(&keys.pkam, &purpose).map_err(|_| TrustError::Crypto)
}

#[cfg(test)]
mod tests;
