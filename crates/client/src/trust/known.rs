//! Whom we believe.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use postern_crypto::RsaPublicKey;
use postern_identity::{
    DeviceName, EnrollmentFault, Expected, Fingerprint, Origin, Pin, PinAlgorithm, PinName, Pins, Verdict, Voucher,
    VoucherClaim, VoucherError,
};
use postern_proto::AtSign;

use super::error::TrustError;
use super::now_ms;
use super::places::{self, Places};
use crate::files;
use crate::handle::Client;
use crate::limits::{IDENTITY_FILE_BYTES, PEERS, PINS_BYTES, PINS_SEEN};

/// The pins of this user, and those of this process where nothing can be kept.
pub struct KnownKeys {
    places: Places,
    strict: bool,
    here: Mutex<Here>,
}

#[derive(Default)]
struct Here {
    /// What could not be written.
    pins: Pins,
    /// Keys that pins are of, so that they need not be fetched.
    keys: HashMap<AtSign, RsaPublicKey>,
    /// That nothing can be kept has been said.
    told: bool,
}

/// Somebody whose voucher is believed. What is new in it is remembered by [`KnownKeys::remember`].
pub struct Believed {
    voucher: Voucher,
    encryption: RsaPublicKey,
    news: Vec<(PinName, Fingerprint)>,
}

impl Believed {
    /// The voucher.
    #[must_use]
    pub fn voucher(&self) -> &Voucher {
        &self.voucher
    }

    /// The encryption key of the atSign, as pinned.
    #[must_use]
    pub fn encryption_key(&self) -> &RsaPublicKey {
        &self.encryption
    }

    /// Whether anything of it is seen for the first time.
    #[must_use]
    pub fn is_first_contact(&self) -> bool {
        !self.news.is_empty()
    }
}

impl KnownKeys {
    /// The pins that lie in `places`. `strict`: only keys that a person gave count.
    #[must_use]
    pub fn new(places: Places, strict: bool) -> Self {
        Self { places, strict, here: Mutex::default() }
    }

    /// All pins, as they are now.
    ///
    /// # Errors
    /// The file is there and cannot be read: what it forbids is not known.
    pub fn pins(&self) -> Result<Pins, TrustError> {
        let mut pins = self.file_pins()?;
        // A line of the file counts more, and so comes first.
        for pin in self.here().pins.iter() {
            if pins.of(&pin.name).next().is_none() {
                pins.add(pin.clone());
            }
        }
        Ok(pins)
    }

    /// Whether the device's identity key is pinned, so that it will be asked for nothing but a sealed session.
    ///
    /// # Errors
    /// See [`Self::pins`].
    pub fn knows_device(&self, at_sign: &AtSign, device: &DeviceName) -> Result<bool, TrustError> {
        let name = PinName::Device(device.clone(), at_sign.clone());
        Ok(self.pins()?.of(&name).next().is_some())
    }

    /// Believes the voucher of a device, or says why not: the pins first, then what the servers say. The enrolment's own
    /// signature is checked unless the device's key is pinned; a revoked device cannot log in to hear a request.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub async fn believe_device(
        &self,
        client: &Client,
        claim: &VoucherClaim,
        at_sign: &AtSign,
        device: &DeviceName,
    ) -> Result<Believed, TrustError> {
        self.believe(client, claim, Expected { at_sign, device: Some(device) }).await
    }

    /// Believes the voucher of a client's enrolment, or says why not. Its record is asked for each time, for it says
    /// whether the enrolment is still good. Call it for those only who may come in by name: it fetches what they say.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub async fn believe_client(
        &self,
        client: &Client,
        claim: &VoucherClaim,
        at_sign: &AtSign,
    ) -> Result<Believed, TrustError> {
        self.believe(client, claim, Expected { at_sign, device: None }).await
    }

    async fn believe(
        &self,
        client: &Client,
        claim: &VoucherClaim,
        expected: Expected<'_>,
    ) -> Result<Believed, TrustError> {
        if claim.at_sign() != expected.at_sign {
            return Err(VoucherError::SomebodyElse.into());
        }
        let pins = self.pins()?;
        let device = expected.device.map(|device| PinName::Device(device.clone(), expected.at_sign.clone()));
        let shown = Fingerprint::from(&claim.claimed_key()?);
        let device_verdict = device.as_ref().map(|name| pins.check(name, PinAlgorithm::Ed25519, shown, self.strict));
        let device_is_known = device_verdict == Some(Verdict::Known);

        let owner = PinName::AtSign(expected.at_sign.clone());
        let kept = self.kept_key(&pins, expected.at_sign);
        let key = async {
            match &kept {
                Some(key) => Ok(key.clone()),
                None => client.public_key(expected.at_sign).await.map_err(TrustError::Fetch),
            }
        };
        let record = async { if device_is_known { Ok(None) } else { record(client, claim).await.map(Some) } };
        let (key, record) = tokio::join!(key, record);
        let key = key?;
        let owner_verdict = pins.check(&owner, PinAlgorithm::Rsa2048, Fingerprint::from(&key), self.strict);
        let mut news = Vec::new();
        match self.heed(&owner, Fingerprint::from(&key), owner_verdict) {
            Ok(true) => news.push((owner.clone(), Fingerprint::from(&key))),
            Ok(false) => {}
            // Who was given the device's key needs not be given its owner's.
            Err(TrustError::NotGiven { .. }) if device_is_known => {}
            Err(error) => return Err(error),
        }
        let believed = claim.believe(expected, &key, record?.as_deref(), now_ms());
        let voucher = match believed {
            Ok(voucher) => voucher,
            Err(VoucherError::Signature) if kept.is_some() => {
                // The reason is worth a question: perhaps another key is shown now.
                let now = Fingerprint::from(&client.public_key(expected.at_sign).await.map_err(TrustError::Fetch)?);
                self.heed(&owner, now, pins.check(&owner, PinAlgorithm::Rsa2048, now, self.strict))?;
                return Err(VoucherError::Signature.into());
            }
            Err(error) => return Err(error.into()),
        };
        if let (Some(name), Some(verdict)) = (device, device_verdict)
            && self.heed(&name, shown, verdict)?
        {
            news.push((name, shown));
        }
        Ok(Believed { voucher, encryption: key, news })
    }

    /// The encryption key of `at_sign`, if the pins have nothing against it.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub async fn encryption_key(&self, client: &Client, at_sign: &AtSign) -> Result<RsaPublicKey, TrustError> {
        let (pins, name) = (self.pins()?, PinName::AtSign(at_sign.clone()));
        if let Some(key) = self.kept_key(&pins, at_sign) {
            return Ok(key);
        }
        let key = client.public_key(at_sign).await.map_err(TrustError::Fetch)?;
        let shown = Fingerprint::from(&key);
        self.heed(&name, shown, pins.check(&name, PinAlgorithm::Rsa2048, shown, self.strict))?;
        Ok(key)
    }

    /// Writes down who was seen for the first time, and returns the new pins. Call it once what they say has been verified
    /// and they are let in. Where nothing can be written, this process remembers.
    ///
    /// # Errors
    /// Another program has in the meantime pinned another key.
    pub fn remember(&self, believed: &Believed) -> Result<Vec<Pin>, TrustError> {
        self.keep_key(believed.voucher.at_sign(), &believed.encryption);
        if believed.news.is_empty() {
            return Ok(Vec::new());
        }
        let now = now_ms();
        let mut fresh = Vec::new();
        let written = self.edit(|pins| {
            fresh.clear();
            for (name, shown) in &believed.news {
                let verdict = pins.check(name, name.algorithm(), *shown, self.strict);
                if self.heed(name, *shown, verdict)? && pins.iter().count() < PINS_SEEN {
                    let pin = Pin::made(name.clone(), *shown, Origin::Seen, now);
                    pins.add(pin.clone());
                    fresh.push(pin);
                }
            }
            Ok(!fresh.is_empty())
        });
        match written {
            Err(TrustError::File(path, error)) => {
                let mut here = self.here();
                if !std::mem::replace(&mut here.told, true) {
                    let path = path.display();
                    tracing::warn!(%path, %error, "cannot keep pins; until its end this program remembers whom it saw");
                }
                for (name, shown) in &believed.news {
                    let verdict = here.pins.check(name, name.algorithm(), *shown, self.strict);
                    if self.heed(name, *shown, verdict)? && here.pins.iter().count() < PINS_SEEN {
                        let pin = Pin::made(name.clone(), *shown, Origin::Seen, now);
                        here.pins.add(pin.clone());
                        fresh.push(pin);
                    }
                }
                Ok(fresh)
            }
            written => written.map(|()| fresh),
        }
    }

    /// Pins a key because a person says so, in the place of what was known.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn accept(&self, name: PinName, fingerprint: Fingerprint) -> Result<Pin, TrustError> {
        let pin = Pin::made(name, fingerprint, Origin::Given, now_ms());
        self.edit(|pins| {
            pins.accept(pin.clone());
            Ok(true)
        })?;
        Ok(pin)
    }

    /// Forgets a name; `false`: it was not known.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn forget(&self, name: &PinName) -> Result<bool, TrustError> {
        let mut removed = 0;
        self.edit(|pins| {
            removed = pins.remove(name);
            Ok(removed > 0)
        })?;
        Ok(removed > 0)
    }

    /// Where the pins are kept.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        self.places.pins()
    }

    /// Reads, changes and replaces the file while other programs wait. `change` says whether there is anything to write.
    fn edit(&self, mut change: impl FnMut(&mut Pins) -> Result<bool, TrustError>) -> Result<(), TrustError> {
        let no_home = || TrustError::File("known_atsigns".into(), std::io::Error::other("there is no home directory"));
        let path = self.places.pins().ok_or_else(no_home)?;
        let trouble = |error| TrustError::File(path.clone(), error);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(trouble)?;
        }
        let _lock = places::lock(&path).map_err(trouble)?;
        let mut pins = self.file_pins()?;
        if change(&mut pins)? {
            files::replace(&path, &pins.to_string(), 0o644).map_err(trouble)?;
        }
        Ok(())
    }

    fn file_pins(&self) -> Result<Pins, TrustError> {
        let Some(path) = self.places.pins() else { return Ok(Pins::default()) };
        match files::read(&path, PINS_BYTES) {
            Ok(text) => Ok(text.map(|text| Pins::parse(&text)).unwrap_or_default()),
            Err(error) => Err(TrustError::File(path, error)),
        }
    }

    /// The key whose fingerprint is pinned, if we have it: nobody has to be asked.
    fn kept_key(&self, pins: &Pins, at_sign: &AtSign) -> Option<RsaPublicKey> {
        let name = PinName::AtSign(at_sign.clone());
        pins.of(&name).next()?;
        let is_pinned = |key: &RsaPublicKey| {
            pins.check(&name, PinAlgorithm::Rsa2048, Fingerprint::from(key), self.strict) == Verdict::Known
        };
        if let Some(key) = self.here().keys.get(at_sign).filter(|key| is_pinned(key)) {
            return Some(key.clone());
        }
        let text = files::read(&self.places.known_key(at_sign)?, IDENTITY_FILE_BYTES).ok()??;
        let key = RsaPublicKey::from_base64(text.trim()).ok().filter(is_pinned)?;
        self.hold_key(at_sign, &key);
        Some(key)
    }

    fn keep_key(&self, at_sign: &AtSign, key: &RsaPublicKey) {
        if self.hold_key(at_sign, key) {
            return;
        }
        let Some(path) = self.places.known_key(at_sign) else { return };
        let text = format!("{}\n", key.to_base64());
        if files::read(&path, IDENTITY_FILE_BYTES).is_ok_and(|kept| kept.is_some_and(|kept| *kept == text)) {
            return;
        }
        let kept = files::make_private_folder(&path).and_then(|()| files::replace(&path, &text, 0o644));
        if let Err(error) = kept {
            tracing::debug!(path = %path.display(), %error, "a public key is not kept");
        }
    }

    /// Whether it was held already.
    fn hold_key(&self, at_sign: &AtSign, key: &RsaPublicKey) -> bool {
        let keys = &mut self.here().keys;
        if keys.len() >= PEERS && !keys.contains_key(at_sign) {
            keys.clear();
        }
        keys.insert(at_sign.clone(), key.clone()).is_some_and(|held| held == *key)
    }

    /// `true`: first contact; `false`: known.
    fn heed(&self, name: &PinName, shown: Fingerprint, verdict: Verdict) -> Result<bool, TrustError> {
        match verdict {
            Verdict::Known => Ok(false),
            Verdict::New => Ok(true),
            Verdict::Changed { pinned } => Err(TrustError::Changed { pinned: Box::new(pinned), shown }),
            Verdict::NotGiven => Err(TrustError::NotGiven { name: name.clone(), shown }),
            Verdict::Unreadable { line } => {
                let file = self.places.pins().unwrap_or_default();
                Err(TrustError::Unreadable { name: name.clone(), file, line })
            }
        }
    }

    fn here(&self) -> MutexGuard<'_, Here> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the record of the voucher's enrolment says. One that is not there might be anybody's invention.
async fn record(client: &Client, claim: &VoucherClaim) -> Result<String, TrustError> {
    let name = claim.enrollment()?;
    let fault = |fault| TrustError::Voucher(VoucherError::Enrollment(fault));
    match client.signing_key_record(name).await.map_err(TrustError::Fetch)? {
        Some(record) => Ok(record),
        None if client.enrollment_has_ended(name).await.map_err(TrustError::Fetch)? => {
            Err(fault(EnrollmentFault::Revoked))
        }
        None => Err(fault(EnrollmentFault::Unavailable(format!("{name} is not published")))),
    }
}

#[cfg(test)]
mod tests;
