//! For whom an identity key speaks, said by the atSign.

use std::fmt;

use postern_crypto::{CryptoError, Ed25519PublicKey, RsaPrivateKey, RsaPublicKey};
use postern_proto::{AtSign, SigningKeyName};
use serde::{Deserialize, Serialize};

use crate::device_name::DeviceName;
use crate::enrollment::{EnrollmentClaim, EnrollmentFault};
use crate::envelope::{Envelope, EnvelopeError};
use crate::limits::{CLOCK_TOLERANCE_MS, VOUCHER_BYTES, VOUCHER_LIFE_MS};

/// Which end an identity key is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A client's enrolment.
    Client,
    /// A device.
    Device,
}

/// A voucher that was believed: only [`VoucherClaim::believe`] and [`Voucher::issue`] make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voucher {
    at_sign: AtSign,
    enrollment: SigningKeyName,
    device: Option<DeviceName>,
    key: Ed25519PublicKey,
    expires_ms: u64,
}

/// A voucher as received: read, not yet believed.
pub struct VoucherClaim {
    envelope: Envelope,
    claimed: Payload,
    at_sign: AtSign,
    text: String,
}

/// Whose voucher is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The atSign.
    pub at_sign: &'a AtSign,
    /// `None`: a client; else the device of this name.
    pub device: Option<&'a DeviceName>,
}

/// Why a voucher is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VoucherError {
    /// There is none.
    Missing,
    /// Not what it should be.
    Malformed,
    /// Of somebody else: another atSign, another device, the other kind.
    SomebodyElse,
    /// Not yet good, no longer, or for too long.
    Dates,
    /// The atSign did not sign it.
    Signature,
    /// Its enrolment did not.
    Enrollment(EnrollmentFault),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    v: u32,
    kind: Kind,
    at_sign: String,
    enrollment: String,
    device: Option<String>,
    key: String,
    iat: u64,
    exp: u64,
}

impl Voucher {
    /// The text of a voucher for `key`, signed by the atSign and by the enrolment whose key's record is `name`.
    /// `device`: `None` for a client. `now_ms`, `life_ms`: since 1970.
    ///
    /// # Errors
    /// A key cannot sign.
    pub fn issue(
        key: &Ed25519PublicKey,
        device: Option<&DeviceName>,
        encryption: &RsaPrivateKey,
        (name, enrolled): (&SigningKeyName, &RsaPrivateKey),
        now_ms: u64,
        life_ms: u64,
    ) -> Result<String, CryptoError> {
        let payload = Payload {
            v: 1,
            kind: if device.is_some() { Kind::Device } else { Kind::Client },
            at_sign: name.owner().to_string(),
            enrollment: name.enrollment().to_owned(),
            device: device.map(ToString::to_string),
            key: key.to_base64(),
            iat: now_ms,
            exp: now_ms.saturating_add(life_ms.min(VOUCHER_LIFE_MS)),
        };
        Envelope::sign_twice(&payload, encryption, name, enrolled)
    }

    /// Whose key it is.
    pub fn at_sign(&self) -> &AtSign {
        &self.at_sign
    }

    /// The enrolment that vouches: when it is revoked, the key speaks for nobody.
    pub fn enrollment(&self) -> &SigningKeyName {
        &self.enrollment
    }

    /// `None`: a client.
    pub fn device(&self) -> Option<&DeviceName> {
        self.device.as_ref()
    }

    /// The key.
    pub fn key(&self) -> &Ed25519PublicKey {
        &self.key
    }

    /// Milliseconds since 1970.
    pub fn expires_ms(&self) -> u64 {
        self.expires_ms
    }
}

impl VoucherClaim {
    /// Reads one.
    ///
    /// # Errors
    /// [`VoucherError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, VoucherError> {
        if text.len() > VOUCHER_BYTES {
            return Err(VoucherError::Malformed);
        }
        let envelope = Envelope::parse(text).map_err(|_| VoucherError::Malformed)?;
        let claimed: Payload = envelope.claimed().map_err(|_| VoucherError::Malformed)?;
        let at_sign = AtSign::parse(&claimed.at_sign).map_err(|_| VoucherError::Malformed)?;
        if claimed.v != 1 {
            return Err(VoucherError::Malformed);
        }
        Ok(Self { envelope, claimed, at_sign, text: text.to_owned() })
    }

    /// Whose it says it is.
    pub fn at_sign(&self) -> &AtSign {
        &self.at_sign
    }

    /// The key it says it vouches for, not yet believed: good for asking the pins before anybody else.
    ///
    /// # Errors
    /// [`VoucherError::Malformed`].
    pub fn claimed_key(&self) -> Result<Ed25519PublicKey, VoucherError> {
        Ed25519PublicKey::from_base64(&self.claimed.key).map_err(|_| VoucherError::Malformed)
    }

    /// The device it says it is of; `None`: a client's. For readers who wait for no device in particular.
    ///
    /// # Errors
    /// [`VoucherError::Malformed`].
    pub fn claimed_device(&self) -> Result<Option<DeviceName>, VoucherError> {
        self.claimed.device.as_deref().map(DeviceName::parse).transpose().map_err(|_| VoucherError::Malformed)
    }

    /// As it came.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where the key of its enrolment lies.
    ///
    /// # Errors
    /// It names none, or one of another atSign.
    pub fn enrollment(&self) -> Result<&SigningKeyName, VoucherError> {
        self.enrollment_claim().map(EnrollmentClaim::key_name)
    }

    fn enrollment_claim(&self) -> Result<&EnrollmentClaim, VoucherError> {
        let claim = self.envelope.enrollment_claim(&self.at_sign).map_err(VoucherError::Enrollment)?;
        let claim = claim.ok_or(VoucherError::Enrollment(EnrollmentFault::Missing))?;
        if claim.key_name().enrollment() == self.claimed.enrollment { Ok(claim) } else { Err(VoucherError::Malformed) }
    }

    /// Checks everything. `encryption`: the atSign's key, pinned or fetched. `record`: what the record of its enrolment says;
    /// `None`: it could not be had, and the enrolment's signature is not checked. `now_ms`: since 1970.
    ///
    /// # Errors
    /// See [`VoucherError`].
    pub fn believe(
        &self,
        expected: Expected<'_>,
        encryption: &RsaPublicKey,
        record: Option<&str>,
        now_ms: u64,
    ) -> Result<Voucher, VoucherError> {
        let claimed = &self.claimed;
        let kind = if expected.device.is_some() { Kind::Device } else { Kind::Client };
        let device = self.claimed_device()?;
        if self.at_sign != *expected.at_sign || claimed.kind != kind || device.as_ref() != expected.device {
            return Err(VoucherError::SomebodyElse);
        }
        let begun = claimed.iat <= now_ms.saturating_add(CLOCK_TOLERANCE_MS);
        let over = claimed.exp.saturating_add(CLOCK_TOLERANCE_MS) <= now_ms;
        if !begun || over || claimed.exp.saturating_sub(claimed.iat) > VOUCHER_LIFE_MS {
            return Err(VoucherError::Dates);
        }
        self.envelope.verify::<Payload>(encryption).map_err(|error| match error {
            EnvelopeError::Signature => VoucherError::Signature,
            EnvelopeError::Malformed | EnvelopeError::Payload => VoucherError::Malformed,
        })?;
        let claim = self.enrollment_claim()?;
        if let Some(record) = record {
            self.envelope.verify_enrollment(claim, record).map_err(VoucherError::Enrollment)?;
        }
        Ok(Voucher {
            at_sign: self.at_sign.clone(),
            enrollment: claim.key_name().clone(),
            device,
            key: self.claimed_key()?,
            expires_ms: claimed.exp,
        })
    }
}

impl fmt::Display for VoucherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("nobody vouches for the identity key"),
            Self::Malformed => f.write_str("the voucher of the identity key is malformed"),
            Self::SomebodyElse => f.write_str("the voucher of the identity key is for somebody else"),
            Self::Dates => {
                f.write_str("the voucher of the identity key is not good now; check the clocks of both machines")
            }
            Self::Signature => f.write_str("the voucher of the identity key was not signed by its atSign"),
            Self::Enrollment(fault) => write!(f, "the voucher of the identity key: {fault}"),
        }
    }
}

impl std::error::Error for VoucherError {}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_crypto::Ed25519PrivateKey;
    use std::sync::LazyLock;

    const NOW: u64 = 1_800_000_000_000;
    const DAY: u64 = 86_400_000;
    static KEYS: LazyLock<[RsaPrivateKey; 2]> = LazyLock::new(|| [(); 2].map(|()| RsaPrivateKey::generate().unwrap()));

    fn at(name: &str) -> AtSign {
        AtSign::parse(name).unwrap()
    }

    #[test]
    fn believed_for_whom_when_and_by_whom_it_says() {
        let [encryption, enrolled] = &*KEYS;
        let (public, record) = (encryption.public_key().unwrap(), enrolled.public_key().unwrap().to_base64());
        let owner = at("device");
        let name = SigningKeyName::new(Some("6f9619ff-8b86-4d01-b42d-00cf4fc964ff"), &owner).unwrap();
        let (gw17, gw18) = (DeviceName::parse("gw-17").unwrap(), DeviceName::parse("gw-18").unwrap());
        let key = Ed25519PrivateKey::generate().unwrap().public_key();
        let text = Voucher::issue(&key, Some(&gw17), encryption, (&name, enrolled), NOW, 365 * DAY).unwrap();
        assert!(text.len() < VOUCHER_BYTES / 2, "{}", text.len());
        let claim = VoucherClaim::parse(&text).unwrap();
        assert_eq!(claim.enrollment(), Ok(&name));
        let expected = Expected { at_sign: &owner, device: Some(&gw17) };
        let believe = |expected, key: &RsaPublicKey, record, now| claim.believe(expected, key, record, now);

        let voucher = believe(expected, &public, Some(record.as_str()), NOW).unwrap();
        assert_eq!((voucher.key(), voucher.at_sign(), voucher.device()), (&key, &owner, Some(&gw17)));
        assert!(believe(expected, &public, None, NOW).is_ok());

        let other = at("mallory");
        for expected in [
            Expected { at_sign: &other, device: Some(&gw17) },
            Expected { at_sign: &owner, device: Some(&gw18) },
            Expected { at_sign: &owner, device: None },
        ] {
            assert_eq!(believe(expected, &public, None, NOW), Err(VoucherError::SomebodyElse));
        }
        for now in [NOW - CLOCK_TOLERANCE_MS - 1, NOW + 365 * DAY + CLOCK_TOLERANCE_MS] {
            assert_eq!(believe(expected, &public, None, now), Err(VoucherError::Dates));
        }
        let wrong = enrolled.public_key().unwrap();
        assert_eq!(believe(expected, &wrong, None, NOW), Err(VoucherError::Signature));
        let fault = believe(expected, &public, Some(&public.to_base64()), NOW).unwrap_err();
        assert_eq!(fault, VoucherError::Enrollment(EnrollmentFault::Signature));
    }

    /// A device cannot name another enrolment than the one that signs for it.
    #[test]
    fn the_enrolment_named_is_the_one_that_signs() {
        let [encryption, enrolled] = &*KEYS;
        let owner = at("device");
        let name = SigningKeyName::new(Some("6f9619ff-8b86-4d01-b42d-00cf4fc964ff"), &owner).unwrap();
        let key = Ed25519PrivateKey::generate().unwrap().public_key();
        let text = Voucher::issue(&key, None, encryption, (&name, enrolled), NOW, DAY).unwrap();
        let changed = text.replace("_apsk.6f", "_apsk.7f");
        assert_eq!(VoucherClaim::parse(&changed).unwrap().enrollment(), Err(VoucherError::Malformed));
        let foreign = text.replace(".a.__e@device", ".a.__e@mallory");
        assert!(matches!(VoucherClaim::parse(&foreign).unwrap().enrollment(), Err(VoucherError::Enrollment(_))));
    }
}
