//! `at_activate onboard`: the first keys of an atSign.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use postern_client::{ClientError, Identity, KeyFile, KeyFileTrouble, Wire};
use postern_crypto::{AesKey, AtKeys, CryptoError, Iv};
use postern_observe::say;
use postern_proto::verb::{Delete, Enroll, EnrollOperation, EnrollParams, Update};
use postern_proto::{AtKey, ErrorCode, Metadata, Request};
use serde_json::Value as Json;

use crate::cli::Target;
use crate::patience::patiently;
use crate::status::public_key_of;

/// Why an activation did not happen or did not finish.
#[derive(Debug)]
pub(crate) enum OnboardError {
    KeyFile(KeyFileTrouble),
    Client(ClientError),
    Crypto,
    Activated(String),
    WrongSecret(String),
    NotApproved,
    /// The server has the keys, the file could not be written.
    Unwritten(KeyFileTrouble),
}

/// Time for one connection to be made and challenged.
const CONNECT: Duration = Duration::from_secs(10);

/// Activates.
pub(crate) async fn run(target: &Target, secret: &str) -> Result<(), OnboardError> {
    let (who, settings) = (&target.at_sign, &target.settings);
    KeyFile::check_free(&target.key_file).map_err(OnboardError::KeyFile)?;
    say("[Information] Onboarding your atSign. This may take up to 2 minutes.");
    // Two RSA keys take a while on a small machine: made beside the conversation.
    let making = tokio::task::spawn_blocking(AtKeys::generate);
    let (mut wire, challenge) = patiently(target, async || Wire::challenged(settings, who, None, CONNECT).await)
        .await
        .map_err(OnboardError::Client)?;

    let cram = challenge.answer_with_secret(secret);
    match wire.ask(&Request::Cram(cram)).await {
        Ok(_) => {}
        Err(ClientError::Server(error)) if error.code == Some(ErrorCode::KeyNotFound) => {
            return Err(OnboardError::Activated(who.to_string()));
        }
        Err(ClientError::Server(error)) if error.code == Some(ErrorCode::Authentication) => {
            return Err(match wire.ask(&public_key_of(who)).await {
                Ok(_) => OnboardError::Activated(who.to_string()),
                Err(_) => OnboardError::WrongSecret(who.to_string()),
            });
        }
        Err(error) => return Err(OnboardError::Client(error)),
    }

    let mut keys = making.await.map_err(|_| OnboardError::Crypto)?.map_err(|_| OnboardError::Crypto)?;
    let reply = wire.ask(&Request::Enroll(first_enrollment(&keys)?)).await.map_err(OnboardError::Client)?;
    let reply: Json = serde_json::from_str(&reply).map_err(|_| OnboardError::NotApproved)?;
    let member = |name: &str| reply.get(name).and_then(Json::as_str);
    match (member("status"), member("enrollmentId")) {
        (Some("approved"), Some(id)) => keys.enrollment_id = Some(id.to_owned()),
        _ => return Err(OnboardError::NotApproved),
    }
    // From here on the server knows these keys: they go to disk before anything else can fail.
    let text = keys.print(who.as_str()).map_err(|_| OnboardError::Crypto)?;
    KeyFile::create(&target.key_file, &text).map_err(OnboardError::Unwritten)?;
    drop(wire);

    // Proves that the new keys open the door before the secret is thrown away.
    let identity = Identity { at_sign: who.clone(), keys: Arc::new(keys) };
    let (mut wire, challenge) = Wire::challenged(settings, who, None, CONNECT).await.map_err(OnboardError::Client)?;
    let proof = challenge.answer(&identity.keys).map_err(|_| OnboardError::Crypto)?;
    wire.ask(&Request::Pkam(proof)).await.map_err(OnboardError::Client)?;
    let metadata = Metadata { is_encrypted: Some(false), ..Metadata::default() };
    let publish = Update {
        key: AtKey::public("publickey", who),
        metadata: metadata.into(),
        value: identity.keys.encryption_public.to_base64(),
    };
    wire.ask(&Request::Update(publish)).await.map_err(OnboardError::Client)?;
    let forget = Delete::of(AtKey::private_key("at_secret"));
    wire.ask(&Request::Delete(forget)).await.map_err(OnboardError::Client)?;
    say(format_args!("[Success] Your .atKeys file saved at {}", target.key_file.display()));
    Ok(())
}

/// The enrolment of the first device: approved at once, for the secret proved the owner.
fn first_enrollment(keys: &AtKeys) -> Result<Enroll, OnboardError> {
    let seal = || -> Result<EnrollParams, CryptoError> {
        let under = keys.apkam_symmetric.as_ref().ok_or(CryptoError)?;
        Ok(EnrollParams {
            app_name: Some("firstApp".into()),
            device_name: Some("firstDevice".into()),
            apkam_public_key: Some(keys.pkam.public_key()?.to_base64()),
            apsk_legacy: Some(keys.pkam.public_key()?.to_base64()),
            encrypted_default_encryption_private_key: Some(under.encrypt_text(Iv::ZERO, &keys.encryption.to_base64())?),
            // The format prescribes a zero IV for both. Under one key the server could add the two ciphertexts and
            // read most of the self encryption key; nobody ever asks for the first device's copy, so it is
            // sealed under a key that is thrown away.
            encrypted_default_self_encryption_key: Some(
                AesKey::generate().encrypt_text(Iv::ZERO, &keys.self_encryption.to_base64())?,
            ),
            ..EnrollParams::default()
        })
    };
    let params = seal().map_err(|_| OnboardError::Crypto)?;
    Ok(Enroll { operation: EnrollOperation::Request, force: false, params })
}

impl fmt::Display for OnboardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyFile(trouble) => trouble.fmt(f),
            Self::Client(error) => error.fmt(f),
            Self::Crypto => f.write_str("making the keys failed"),
            Self::Activated(who) => {
                write!(f, "{who} is activated already; use its key file, or ask the server's operator to reset it")
            }
            Self::WrongSecret(who) => write!(f, "the CRAM secret is not the one of {who}"),
            Self::NotApproved => f.write_str("the atServer did not approve the first enrolment"),
            Self::Unwritten(trouble) => write!(
                f,
                "the atServer has the new keys but they could not be saved: {trouble}; ask the server's operator to reset the atSign"
            ),
        }
    }
}
