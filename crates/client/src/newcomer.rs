//! Becoming a further device of an atSign: ask, wait, fetch the keys.

use std::collections::BTreeMap;
use std::time::Duration;

use postern_crypto::{AesKey, AtKeys, CryptoError, Iv, RsaPrivateKey, RsaPublicKey};
use postern_proto::verb::{Enroll, EnrollOperation, EnrollParams, Keys, Lookup};
use postern_proto::{AtKey, AtSign, Detail, ErrorCode, Request, SigningKeyName, Uuid};
use serde_json::Value as Json;
use zeroize::Zeroizing;

use crate::error::ClientError;
use crate::limits::LOGIN;
use crate::settings::Settings;
use crate::sharing::millis;
use crate::wire::Wire;

/// What a new device asks for.
pub struct EnrollmentRequest {
    /// The application's name; with `device` unique among the atSign's enrolments.
    pub app: String,
    /// The device's name.
    pub device: String,
    /// Namespace to `r` or `rw`.
    pub namespaces: BTreeMap<String, String>,
    /// From [`Client::one_time_passcode`](crate::Client::one_time_passcode) or its lasting kind.
    pub passcode: Zeroizing<String>,
    /// How long the keys are to live once approved; `None`: for ever.
    pub keys_life: Option<Duration>,
}

/// What has become of a request.
pub enum Decision {
    /// Nothing yet.
    Pending,
    /// The server does not take our key: some say this of a request that waits.
    KeyRefused {
        /// It is approved, and the server publishes another key than ours for it.
        replaced: bool,
    },
    /// The atSign's keys.
    Approved(Box<AtKeys>),
}

/// A request that waits for a decision. Its private key exists here alone: dropping this gives the enrolment up.
pub struct PendingEnrollment {
    settings: Settings,
    at_sign: AtSign,
    id: Uuid,
    pkam: RsaPrivateKey,
    symmetric: AesKey,
    published: RsaPublicKey,
}

impl PendingEnrollment {
    /// Makes a key for this device and asks that it be let in.
    ///
    /// # Errors
    /// The atSign is not activated, the passcode is wrong, the names are taken, or the server cannot be reached.
    pub async fn request(
        settings: &Settings,
        at_sign: &AtSign,
        wanted: EnrollmentRequest,
    ) -> Result<Self, ClientError> {
        Self::request_under(settings, at_sign, wanted, AesKey::generate(), |_| true).await
    }

    /// The same under a symmetric key by which the approver knows us, if the atSign's public key is one that we take:
    /// that key is encrypted to it.
    ///
    /// # Errors
    /// As [`Self::request`]; [`ClientError::Malformed`] when the public key is not taken.
    pub async fn request_under(
        settings: &Settings,
        at_sign: &AtSign,
        wanted: EnrollmentRequest,
        symmetric: AesKey,
        takes: impl Fn(&RsaPublicKey) -> bool,
    ) -> Result<Self, ClientError> {
        let making = tokio::task::spawn_blocking(RsaPrivateKey::generate);
        // The claim tells the server whom we mean; what follows needs no proof.
        let (mut wire, _) = Wire::challenged(settings, at_sign, None, LOGIN).await?;
        let lookup =
            Lookup { bypass_cache: false, detail: Detail::Value, name: "publickey".into(), owner: at_sign.clone() };
        let published = wire.ask(&Request::Lookup(lookup)).await?;
        let published =
            RsaPublicKey::from_base64(&published).map_err(|_| ClientError::Malformed("the atSign's public key"))?;
        if !takes(&published) {
            return Err(ClientError::Malformed("the atSign's public key, which is not the one it should be"));
        }
        let cannot = |_| ClientError::Crypto("the keys of the enrolment");
        let pkam = making.await.map_err(|_| cannot(CryptoError))?.map_err(cannot)?;
        let public_key = pkam.public_key().map_err(cannot)?.to_base64();
        let params = EnrollParams {
            app_name: Some(wanted.app),
            device_name: Some(wanted.device),
            namespaces: Some(wanted.namespaces),
            otp: Some(wanted.passcode.to_string()),
            apsk_legacy: Some(public_key.clone()),
            apkam_public_key: Some(public_key),
            takes_iv: Some(true),
            encrypted_apkam_symmetric_key: Some(published.encrypt_aes_key(&symmetric).map_err(cannot)?),
            apkam_keys_expiry_in_millis: wanted.keys_life.map(millis),
            ..EnrollParams::default()
        };
        let enroll = Enroll { operation: EnrollOperation::Request, force: false, params };
        let reply = wire.ask(&Request::Enroll(enroll)).await?;
        let json: Option<Json> = serde_json::from_str(&reply).ok();
        let id = json.as_ref().and_then(|json| json.get("enrollmentId")).and_then(Json::as_str).and_then(Uuid::parse);
        let id = id.ok_or(ClientError::Malformed("the answer to the enrolment request"))?;
        Ok(Self { settings: settings.clone(), at_sign: at_sign.clone(), id, pkam, symmetric, published })
    }

    /// What must be kept to go on after a restart, without the symmetric key: one line of JSON with a private key in it.
    pub fn keep(&self) -> Zeroizing<String> {
        let [pkam, published] = [&*self.pkam.to_base64(), &self.published.to_base64()];
        // Base64 and a UUID: nothing in them needs an escape, and no copy is left behind.
        Zeroizing::new(format!(r#"{{"id":"{}","pkam":"{pkam}","published":"{published}"}}"#, self.id))
    }

    /// Goes on with what [`Self::keep`] wrote; `None`: it is not that.
    pub fn again(settings: &Settings, at_sign: &AtSign, kept: &str, symmetric: AesKey) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Kept<'a> {
            id: &'a str,
            pkam: &'a str,
            published: &'a str,
        }
        let kept: Kept<'_> = serde_json::from_str(kept).ok()?;
        Some(Self {
            settings: settings.clone(),
            at_sign: at_sign.clone(),
            id: Uuid::parse(kept.id)?,
            pkam: RsaPrivateKey::from_base64(kept.pkam).ok()?,
            symmetric,
            published: RsaPublicKey::from_base64(kept.published).ok()?,
        })
    }

    /// What whoever decides names it by.
    pub fn id(&self) -> &Uuid {
        &self.id
    }

    /// Asks once whether it is decided: the atSign's keys when it is approved, `None` while it waits.
    ///
    /// # Errors
    /// It was denied, revoked or has expired ([`ClientError::Server`] with `AT0025`, `AT0027`, `AT0028`); what the
    /// approver handed over does not open or does not belong to the atSign; or the server cannot be reached
    /// ([`ClientError::is_passing`]).
    pub async fn poll(&self) -> Result<Option<AtKeys>, ClientError> {
        match self.look().await? {
            Decision::Approved(keys) => Ok(Some(*keys)),
            Decision::Pending | Decision::KeyRefused { .. } => Ok(None),
        }
    }

    /// The same, and whether the server says that it waits or merely refuses our key, as some do meanwhile.
    ///
    /// # Errors
    /// As [`Self::poll`].
    pub async fn look(&self) -> Result<Decision, ClientError> {
        let (mut wire, challenge) = Wire::challenged(&self.settings, &self.at_sign, None, LOGIN).await?;
        let proof =
            challenge.answer_with_key(&self.pkam, Some(&self.id)).map_err(|_| ClientError::Crypto("the challenge"))?;
        match wire.ask(&Request::Pkam(proof)).await {
            Ok(_) => {}
            Err(ClientError::Server(error)) => match error.code {
                Some(ErrorCode::EnrollmentPending) => return Ok(Decision::Pending),
                Some(ErrorCode::Authentication) => {
                    return Ok(Decision::KeyRefused { replaced: self.is_replaced().await.unwrap_or_default() });
                }
                _ => return Err(ClientError::Server(error)),
            },
            Err(error) => return Err(error),
        }
        let private = self.handed_over(&mut wire, "default_enc_private_key").await?;
        let own = self.handed_over(&mut wire, "default_self_enc_key").await?;
        let open = || -> Result<AtKeys, CryptoError> {
            let encryption = RsaPrivateKey::from_base64(&private)?;
            let encryption_public = encryption.public_key()?;
            if encryption_public != self.published {
                return Err(CryptoError);
            }
            Ok(AtKeys {
                pkam: RsaPrivateKey::from_base64(&self.pkam.to_base64())?,
                encryption,
                encryption_public,
                self_encryption: AesKey::from_base64(&own)?,
                apkam_symmetric: Some(self.symmetric.clone()),
                enrollment_id: Some(self.id.to_string()),
            })
        };
        open()
            .map(|keys| Decision::Approved(Box::new(keys)))
            .map_err(|_| ClientError::Crypto("the keys that the approver handed over"))
    }

    /// Whether another key than ours is published for this very enrolment. Servers that publish none tell nothing.
    async fn is_replaced(&self) -> Result<bool, ClientError> {
        let Some(name) = SigningKeyName::new(Some(self.id.as_str()), &self.at_sign) else { return Ok(false) };
        let (mut wire, _) = Wire::challenged(&self.settings, &self.at_sign, None, LOGIN).await?;
        let (name, owner) = (name.record(), self.at_sign.clone());
        let lookup = Lookup { bypass_cache: false, detail: Detail::Value, name, owner };
        let published = wire.ask(&Request::Lookup(lookup)).await?;
        let ours = self.pkam.public_key().map_err(|_| ClientError::Crypto("our key"))?.to_base64();
        Ok(published != ours)
    }

    /// `keys:get` and its key opened.
    async fn handed_over(&self, wire: &mut Wire, name: &str) -> Result<Zeroizing<String>, ClientError> {
        let key = AtKey::own(&format!("{}.{name}.__manage", self.id), &self.at_sign);
        let reply = wire.ask(&Request::Keys(Keys::Get(key))).await?;
        let json: Option<Json> = serde_json::from_str(&reply).ok();
        let member = |name: &str| json.as_ref().and_then(|json| json.get(name)).and_then(Json::as_str);
        let sealed = member("value").ok_or(ClientError::Malformed("a key that the approver handed over"))?;
        let iv = member("iv").map_or(Ok(Iv::ZERO), Iv::from_base64);
        iv.and_then(|iv| self.symmetric.decrypt_text(iv, sealed))
            .map_err(|_| ClientError::Crypto("the keys that the approver handed over"))
    }
}
