//! `enroll:request`: a new key asks to be let in.

use std::collections::BTreeMap;

use postern_crypto::{RsaPublicKey, equal_in_constant_time};
use postern_dialogue::server::{Authority, Enrollment, EnrollmentState, Namespaces};
use postern_proto::verb::EnrollParams;
use postern_proto::{
    AtKey, AtSign, ErrorCode, MessageType, Metadata, Notification, Operation, ProtocolError, Reply, Routing, Uuid,
};
use postern_store::{Assert, Batch};
use serde_json::json;

use super::{internal, mandatory};
use crate::enrollments::{self, Approval, EnrollmentRecord, PRIVATE_KEY, RECORD, SELF_KEY, handed_over, state_word};
use crate::limits::{
    ENROLLMENT_NAMESPACES, ENROLLMENT_NEWS_MS, ENROLLMENT_TEXT_CHARS, PENDING_ENROLLMENT_MS, PENDING_ENROLLMENTS,
    SIGNING_KEY_BYTES,
};
use crate::verbs::{Call, Plan, Planned, Refusal};

pub(super) fn plan(call: &Call<'_>, params: &EnrollParams) -> Planned {
    match call.who {
        Some(me) if me.is_cram() => first_device(call, me, params),
        Some(me) => ask(call, me.owner(), Batch::new(call.now), params),
        None => {
            let household = call.household.ok_or_else(|| {
                let text = "this server does not know whose enrollment is asked for : send from:@name first";
                ProtocolError::new(ErrorCode::IllegalArguments, text)
            })?;
            call.hosted(household)?;
            // Read before the passcode, so that a slip of the pen does not cost one.
            Wanted::read(params)?;
            let batch = spend_passcode(call, household, params.otp.as_deref().unwrap_or_default())?;
            match ask(call, household, batch.clone(), params) {
                // A passcode counts once, whatever comes of it.
                Err(Refusal::Protocol(error)) => Plan::change(batch, Reply::Error(error)),
                outcome => outcome,
            }
        }
    }
}

/// The device that holds the activation secret: approved at once, with all rights. Its key
/// becomes the legacy key too, for programs that know no enrolments.
fn first_device(call: &Call<'_>, me: &Authority, params: &EnrollParams) -> Planned {
    let wanted = Wanted::read_first(params)?;
    refuse_twin(call, me.owner(), &wanted)?;
    let id = call.uuid();
    let mut namespaces = wanted.namespaces.clone();
    namespaces.extend([("__manage", "rw"), ("*", "rw")].map(|(name, access)| (name.into(), access.into())));
    let life = wanted.life;
    let record = EnrollmentRecord {
        approval: Approval { state: "approved".into() },
        namespaces: namespaces.clone(),
        ..wanted.record(params)
    };
    let public_key = record.apkam_public_key.clone();
    let mut batch = call.keep_enrollment(Batch::new(call.now), me.owner(), &id, &record, life)?;
    for (end, value, iv) in [
        (PRIVATE_KEY, &params.encrypted_default_encryption_private_key, &params.enc_private_key_iv),
        (SELF_KEY, &params.encrypted_default_self_encryption_key, &params.self_enc_key_iv),
    ] {
        if let Some(value) = value {
            let key = AtKey::own(&format!("{id}{end}"), me.owner());
            batch = call.keep(batch, me.owner(), &key, handed_over(value, iv.as_deref()), life)?;
        }
    }
    batch = call.publish_signing_key(batch, me.owner(), &id, &record, life)?;
    batch = call.keep(batch, me.owner(), &AtKey::private_key("at_pkam_publickey"), public_key.clone(), None)?;
    let reply = Reply::json(&json!({"enrollmentId": id.as_str(), "status": "approved"}));
    let mut plan = Plan::change(batch, reply)?;
    plan.adopt = Some(Enrollment {
        namespaces: Namespaces::from_map(&namespaces),
        state: EnrollmentState::Approved,
        expires_at: life.map(|life| call.now.saturating_add(life)),
        public_key,
        id,
    });
    Ok(plan)
}

/// Any further one waits for an approval; who may approve is told.
fn ask(call: &Call<'_>, owner: &AtSign, batch: Batch, params: &EnrollParams) -> Planned {
    let wanted = Wanted::read(params)?;
    refuse_twin(call, owner, &wanted)?;
    let id = call.uuid();
    let record = wanted.record(params);
    let batch = call.keep_enrollment(batch, owner, &id, &record, Some(PENDING_ENROLLMENT_MS))?;
    let batch = batch.receive(news(call, owner, &id, &record));
    Plan::change(batch, Reply::json(&json!({"enrollmentId": id.as_str(), "status": "pending"})))
}

/// What monitors with `selfNotifications` hear.
fn news(call: &Call<'_>, owner: &AtSign, id: &Uuid, record: &EnrollmentRecord) -> Notification {
    let mut value = json!({
        "encryptedApkamSymmetricKey": record.encrypted_apkam_symmetric_key,
        "encryptedAPKAMSymmetricKey": record.encrypted_apkam_symmetric_key,
        "appName": record.app_name,
        "deviceName": record.device_name,
        "namespace": record.namespaces,
    });
    if let Some(value) = value.as_object_mut().filter(|_| record.takes_iv) {
        value.insert("takesIV".into(), true.into());
    }
    Notification {
        id: id.clone().into(),
        from: owner.clone(),
        to: owner.clone(),
        key: format!("{id}{RECORD}{owner}"),
        value: Some(value.to_string()),
        operation: Operation::Update,
        message_type: MessageType::Key,
        at: call.now,
        expires_at: call.now.saturating_add(ENROLLMENT_NEWS_MS),
        is_encrypted: false,
        is_self: true,
        metadata: Metadata::default(),
        routing: Routing::default(),
    }
}

/// Takes the one-time passcode out of the store, or knows the lasting one.
fn spend_passcode(call: &Call<'_>, owner: &AtSign, passcode: &str) -> Result<Batch, Refusal> {
    let batch = Batch::new(call.now);
    // It becomes part of a key's name. The lasting one is kept under a shorter name than any passcode has.
    let shaped =
        (6..=64).contains(&passcode.len()) && passcode.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !shaped {
        return Err(Refusal::WrongPasscode);
    }
    let once = AtKey::private(&format!("{passcode}.__otp"), owner);
    if let Some(record) = call.active(owner, &once)? {
        let unspent = Assert::KeyVersion(owner.clone(), once.clone(), record.version);
        return Ok(batch.assert(unspent).remove_unlogged(owner, &once));
    }
    let lasting = call.active(owner, &AtKey::private("spp.__otp", owner))?;
    let known = lasting.is_some_and(|record| {
        equal_in_constant_time(record.value.to_uppercase().as_bytes(), passcode.to_uppercase().as_bytes())
    });
    if known { Ok(batch) } else { Err(Refusal::WrongPasscode) }
}

/// One living enrolment for each app on each device, and not too many that wait.
fn refuse_twin(call: &Call<'_>, owner: &AtSign, wanted: &Wanted) -> Result<(), Refusal> {
    let Wanted { app, device, .. } = wanted;
    let mut waiting = 0;
    for kept in enrollments::all(call.store, owner, call.now)? {
        let counts = matches!(kept.state, EnrollmentState::Approved | EnrollmentState::Pending);
        if counts && kept.record.app_name == *app && kept.record.device_name == *device {
            let (id, state) = (&kept.id, state_word(kept.state));
            let text = format!(
                "Another enrollment with id {id} exists with the app name: {app} and device name: {device} in {state} state"
            );
            return Err(internal(text).into());
        }
        waiting += usize::from(kept.state == EnrollmentState::Pending);
    }
    if waiting >= PENDING_ENROLLMENTS {
        let text = format!("{waiting} enrollments wait for a decision : approve or deny some first");
        return Err(internal(text).into());
    }
    Ok(())
}

/// What a request asks for, checked.
struct Wanted {
    app: String,
    device: String,
    public_key: String,
    namespaces: BTreeMap<String, String>,
    /// Milliseconds from the approval on.
    life: Option<i64>,
    /// What is to be published.
    signing_key: Option<String>,
}

impl Wanted {
    /// Of any device but the first.
    fn read(params: &EnrollParams) -> Result<Self, ProtocolError> {
        let wanted = Self::read_first(params)?;
        mandatory(&params.encrypted_apkam_symmetric_key, "encryptedAPKAMSymmetricKey", "request")?;
        if wanted.namespaces.is_empty() {
            return Err(bad("namespaces are mandatory for enroll:request"));
        }
        Ok(wanted)
    }

    fn read_first(params: &EnrollParams) -> Result<Self, ProtocolError> {
        let name = |value: &Option<String>, what: &str| {
            let text = mandatory(value, what, "request")?;
            let fits = text.chars().count() <= ENROLLMENT_TEXT_CHARS && !text.chars().any(char::is_control);
            if fits { Ok(text) } else { Err(bad(format!("{what} is too long or no plain text"))) }
        };
        let (app, device) = (name(&params.app_name, "appName")?, name(&params.device_name, "deviceName")?);
        let public_key = mandatory(&params.apkam_public_key, "apkamPublicKey", "request")?;
        RsaPublicKey::from_base64(&public_key).map_err(|_| bad("apkamPublicKey is no RSA public key"))?;
        let namespaces = params.namespaces.clone().unwrap_or_default();
        if namespaces.len() > ENROLLMENT_NAMESPACES {
            return Err(bad(format!("more than {ENROLLMENT_NAMESPACES} namespaces")));
        }
        for (namespace, access) in &namespaces {
            let plain = |c: char| !c.is_control() && !c.is_whitespace() && c != ':' && c != '@';
            if namespace.is_empty()
                || namespace.chars().count() > ENROLLMENT_TEXT_CHARS
                || !namespace.chars().all(plain)
            {
                return Err(bad(format!("{namespace:?} is no namespace")));
            }
            if !matches!(access.as_str(), "r" | "rw") {
                return Err(bad(format!("the access to {namespace} is r or rw, not {access:?}")));
            }
        }
        let life = match params.apkam_keys_expiry_in_millis {
            Some(ms) if ms < 0 => return Err(bad("apkamKeysExpiryInMillis is negative")),
            life => life.filter(|ms| *ms > 0),
        };
        let signing_key = match (&params.apsk_legacy, &params.apsk) {
            (Some(_), Some(_)) => return Err(bad("apsk and apskLegacy exclude each other")),
            (Some(text), None) if text.is_empty() || text.contains(char::is_control) => {
                return Err(bad("apskLegacy is no plain text"));
            }
            (Some(text), None) => Some(text.clone()),
            (None, apsk) => apsk.as_ref().map(ToString::to_string),
        };
        if signing_key.as_ref().is_some_and(|text| text.len() > SIGNING_KEY_BYTES) {
            return Err(bad("the signing key to be published is too long"));
        }
        Ok(Self { app, device, public_key, namespaces, life, signing_key })
    }

    /// Pending.
    fn record(self, params: &EnrollParams) -> EnrollmentRecord {
        EnrollmentRecord {
            app_name: self.app,
            device_name: self.device,
            apkam_public_key: self.public_key,
            namespaces: self.namespaces,
            encrypted_apkam_symmetric_key: params.encrypted_apkam_symmetric_key.clone(),
            apkam_keys_expiry: self.life,
            takes_iv: params.takes_iv == Some(true),
            signing_key: self.signing_key,
            ..EnrollmentRecord::default()
        }
    }
}

fn bad(text: impl Into<String>) -> ProtocolError {
    ProtocolError::new(ErrorCode::IllegalArguments, text)
}
