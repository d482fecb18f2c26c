//! Deciding on enrolments: what a client with the right to manage does for others.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use postern_crypto::{AesKey, Iv};
use postern_proto::verb::{Enroll, EnrollOperation, EnrollParams, Otp};
use postern_proto::{Notification, Request, Uuid};
use serde_json::Value as Json;

use crate::error::ClientError;
use crate::handle::Client;
use crate::sharing::millis;

/// Behind the id in the name of an enrolment's record. Source: the atProtocol, `enroll`.
const RECORD: &str = ".new.enrollments.__manage";

/// An enrolment as its server shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrollmentInfo {
    /// Which.
    pub id: Uuid,
    /// The application's name.
    pub app: String,
    /// The device's name.
    pub device: String,
    /// Namespace to `r` or `rw`.
    pub namespaces: BTreeMap<String, String>,
    /// Where it stands.
    pub status: EnrollmentStatus,
    /// The new device's key, encrypted to the atSign; missing at the first device.
    pub encrypted_symmetric_key: Option<String>,
    /// The new device reads initial counter blocks, so that its two keys need not be encrypted with one key stream.
    pub takes_iv: bool,
}

/// Where an enrolment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EnrollmentStatus {
    /// Waits for a decision.
    Pending,
    /// Granted.
    Approved,
    /// Refused.
    Denied,
    /// Taken back.
    Revoked,
    /// Its time is over.
    Expired,
}

impl EnrollmentStatus {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Approved, Self::Denied, Self::Revoked, Self::Expired];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for EnrollmentStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EnrollmentStatus {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|status| status.as_str().eq_ignore_ascii_case(text)).ok_or(())
    }
}

impl EnrollmentInfo {
    /// What a new request tells those who listen: the owner's own server says that a device asks to be let in.
    /// `None` for every other notification, those of other atSigns included.
    pub fn from_push(push: &Notification) -> Option<Self> {
        let id = push.key.strip_suffix(push.to.as_str())?.strip_suffix(RECORD)?;
        let json: Json = serde_json::from_str(push.value.as_deref()?).ok()?;
        (push.from == push.to).then(|| Self::from_json(id, &json)).flatten()
    }

    fn from_json(id: &str, json: &Json) -> Option<Self> {
        let text = |name: &str| json.get(name).and_then(Json::as_str);
        let namespaces = json.get("namespace").and_then(Json::as_object)?;
        Some(Self {
            id: Uuid::parse(id)?,
            app: text("appName")?.to_owned(),
            device: text("deviceName")?.to_owned(),
            namespaces: namespaces
                .iter()
                .filter_map(|(name, access)| Some((name.clone(), access.as_str()?.to_owned())))
                .collect(),
            // News of a request does not say that it is pending.
            status: text("status").map_or(Ok(EnrollmentStatus::Pending), str::parse).ok()?,
            encrypted_symmetric_key: text("encryptedAPKAMSymmetricKey").map(str::to_owned),
            takes_iv: json.get("takesIV").and_then(Json::as_bool) == Some(true),
        })
    }
}

impl Client {
    /// Enrolments in any of these states; with none given, all that have not expired. Without the right to manage
    /// one sees one's own alone.
    ///
    /// # Errors
    /// The server's refusal, or an answer that is no list.
    pub async fn enrollments(&self, states: &[EnrollmentStatus]) -> Result<Vec<EnrollmentInfo>, ClientError> {
        let filter = (!states.is_empty()).then(|| states.iter().map(ToString::to_string).collect());
        let params = EnrollParams { enrollment_status_filter: filter, ..EnrollParams::default() };
        let text = self.enroll(EnrollOperation::List, false, params).await?;
        let malformed = || ClientError::Malformed("the list of enrolments");
        let json: Json = serde_json::from_str(&text).map_err(|_| malformed())?;
        let all = json.as_object().ok_or_else(malformed)?.iter();
        all.map(|(key, value)| {
            let id = key.split(RECORD).next().unwrap_or_default();
            EnrollmentInfo::from_json(id, value).ok_or_else(malformed)
        })
        .collect()
    }

    /// One enrolment.
    ///
    /// # Errors
    /// `AT0028` when there is none, or it is not ours to see.
    pub async fn enrollment(&self, id: &Uuid) -> Result<EnrollmentInfo, ClientError> {
        let text = self.enroll(EnrollOperation::Fetch, false, of(id)).await?;
        let json: Option<Json> = serde_json::from_str(&text).ok();
        json.and_then(|json| EnrollmentInfo::from_json(id.as_str(), &json))
            .ok_or(ClientError::Malformed("an enrolment"))
    }

    /// Grants a pending enrolment: hands the atSign's keys to the new device, encrypted so that the server cannot read
    /// them. Gives the server's answer.
    ///
    /// # Errors
    /// The request carries no key that opens with ours, or the server's refusal.
    pub async fn approve(&self, enrollment: &EnrollmentInfo) -> Result<String, ClientError> {
        let keys = &self.inner.identity.keys;
        let sealed = enrollment.encrypted_symmetric_key.as_deref();
        let sealed = sealed.ok_or(ClientError::Malformed("an enrolment without a symmetric key"))?;
        let seal = || {
            let under = keys.encryption.decrypt_aes_key(sealed)?;
            // The old format wants a zero IV for both, which lets the server read the self key: it knows how the other
            // text begins. Whoever can do better says so.
            let iv = || if enrollment.takes_iv { Iv::generate() } else { Iv::ZERO };
            let told = |iv: Iv| enrollment.takes_iv.then(|| iv.to_base64());
            let (for_private, for_own) = (iv(), iv());
            let private = under.encrypt_text(for_private, &keys.encryption.to_base64())?;
            let own = under.encrypt_text(for_own, &keys.self_encryption.to_base64())?;
            Ok(EnrollParams {
                encrypted_default_encryption_private_key: Some(private),
                enc_private_key_iv: told(for_private),
                encrypted_default_self_encryption_key: Some(own),
                self_enc_key_iv: told(for_own),
                ..of(&enrollment.id)
            })
        };
        let params =
            seal().map_err(|_: postern_crypto::CryptoError| ClientError::Crypto("the keys for the new device"))?;
        self.enroll(EnrollOperation::Approve, false, params).await
    }

    /// Whether the new device asked under this symmetric key: whoever made it up did the asking.
    pub fn is_asked_under(&self, enrollment: &EnrollmentInfo, symmetric: &AesKey) -> bool {
        let sealed = enrollment.encrypted_symmetric_key.as_deref();
        let shown = sealed.and_then(|sealed| self.inner.identity.keys.encryption.decrypt_aes_key(sealed).ok());
        shown.is_some_and(|shown| {
            postern_crypto::equal_in_constant_time(shown.to_base64().as_bytes(), symmetric.to_base64().as_bytes())
        })
    }

    /// Refuses an enrolment. Gives the server's answer.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn deny(&self, id: &Uuid) -> Result<String, ClientError> {
        self.enroll(EnrollOperation::Deny, false, of(id)).await
    }

    /// Takes an enrolment back: its connections end. One's own needs `force`. Gives the server's answer.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn revoke(&self, id: &Uuid, force: bool) -> Result<String, ClientError> {
        self.enroll(EnrollOperation::Revoke, force, of(id)).await
    }

    /// Grants a revoked enrolment again. Gives the server's answer.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn unrevoke(&self, id: &Uuid) -> Result<String, ClientError> {
        self.enroll(EnrollOperation::Unrevoke, false, of(id)).await
    }

    /// Forgets a denied or revoked enrolment. Gives the server's answer.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn delete_enrollment(&self, id: &Uuid) -> Result<String, ClientError> {
        self.enroll(EnrollOperation::Delete, false, of(id)).await
    }

    /// A passcode that lets one device ask for an enrolment; lives `life`, by default five minutes.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn one_time_passcode(&self, life: Option<Duration>) -> Result<String, ClientError> {
        self.request(Request::Otp(Otp::Get { ttl: life.map(millis) })).await
    }

    /// Sets the passcode that any number of devices may use; lives `life`, by default for ever. 6 to 64 letters and
    /// digits. Gives the server's answer.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn set_passcode(&self, code: &str, life: Option<Duration>) -> Result<String, ClientError> {
        self.request(Request::Otp(Otp::Put { code: code.to_owned(), ttl: life.map(millis) })).await
    }

    async fn enroll(
        &self,
        operation: EnrollOperation,
        force: bool,
        params: EnrollParams,
    ) -> Result<String, ClientError> {
        self.request(Request::Enroll(Enroll { operation, force, params })).await
    }
}

fn of(id: &Uuid) -> EnrollParams {
    EnrollParams { enrollment_id: Some(id.to_string()), ..EnrollParams::default() }
}
