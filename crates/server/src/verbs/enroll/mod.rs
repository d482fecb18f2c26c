//! `enroll`: keys for apps and devices, asked for, granted, taken back.

mod decide;
mod request;
mod show;

use postern_dialogue::server::{Authority, EnrollmentState};
use postern_proto::verb::{Enroll, EnrollOperation, EnrollParams};
use postern_proto::{AtKey, AtSign, ErrorCode, Metadata, ProtocolError, Record, Uuid};
use postern_store::{Batch, LogAs, StoreError};

use super::{Call, Planned, Refusal};
use crate::enrollments::{self, EnrollmentRecord, Kept};

pub(super) fn plan(call: &Call<'_>, enroll: &Enroll) -> Planned {
    if enroll.operation == EnrollOperation::Request {
        return request::plan(call, &enroll.params);
    }
    let me = call.who.ok_or_else(|| {
        let text = format!("Cannot {} enrollment without authentication", enroll.operation.as_str());
        ProtocolError::new(ErrorCode::Authentication, text)
    })?;
    match enroll.operation {
        EnrollOperation::List => show::list(call, me, &enroll.params),
        EnrollOperation::Fetch => show::fetch(call, me, &enroll.params),
        _ => decide::plan(call, me, enroll),
    }
}

/// The reference has no code of its own for most of what can be wrong with an enrolment.
fn internal(text: impl Into<String>) -> ProtocolError {
    ProtocolError::new(ErrorCode::InternalException, text)
}

/// The one meant; in the colon shape of `AT0028` when there is none that counts.
fn meant(call: &Call<'_>, owner: &AtSign, params: &EnrollParams) -> Result<Kept, Refusal> {
    let id = params.enrollment_id.as_deref().unwrap_or_default();
    let kept = match Uuid::parse(id) {
        Some(id) => enrollments::load(call.store, owner, &id, call.now)?,
        None => None,
    };
    Ok(kept.ok_or_else(|| unknown(id))?)
}

fn unknown(id: &str) -> ProtocolError {
    ProtocolError::enrollment(ErrorCode::EnrollmentExpired, format!("enrollment_id: {id} is expired or invalid"))
}

/// A text that a request cannot do without.
fn mandatory(value: &Option<String>, name: &str, operation: &str) -> Result<String, ProtocolError> {
    value.clone().filter(|text| !text.is_empty()).ok_or_else(|| {
        ProtocolError::new(ErrorCode::IllegalArguments, format!("{name} is mandatory for enroll:{operation}"))
    })
}

impl Call<'_> {
    /// Adds a write of a record of ours that lives `life` milliseconds; `None`: without end.
    fn keep(
        &self,
        batch: Batch,
        me: &AtSign,
        key: &AtKey,
        value: String,
        life: Option<i64>,
    ) -> Result<Batch, StoreError> {
        let metadata = Metadata { ttl: life, ..Metadata::default() };
        self.write(batch, me, key, LogAs::Nothing, |old| match old {
            Some(old) => old.next(value, metadata, self.now),
            None => Record::new(value, metadata, self.now),
        })
    }

    /// Publishes the signing key that an enrolment brought with its request: relays and devices check its messages
    /// with it before it has ever logged in.
    fn publish_signing_key(
        &self,
        batch: Batch,
        me: &AtSign,
        id: &Uuid,
        record: &EnrollmentRecord,
        life: Option<i64>,
    ) -> Result<Batch, StoreError> {
        match (&record.signing_key, enrollments::signing_record(id, EnrollmentState::Approved, me)) {
            (Some(text), Some(key)) => self.keep(batch, me, &key, text.clone(), life),
            _ => Ok(batch),
        }
    }

    /// The same of an enrolment.
    fn keep_enrollment(
        &self,
        batch: Batch,
        me: &AtSign,
        id: &Uuid,
        record: &EnrollmentRecord,
        life: Option<i64>,
    ) -> Result<Batch, Refusal> {
        let text = serde_json::to_string(record).map_err(|_| internal("enrollment cannot be stored"))?;
        Ok(self.keep(batch, me, &enrollments::record_key(id, me), text, life)?)
    }
}

/// Who may decide on `kept`: who manages enrolments and could have granted this one.
fn may_decide(me: &Authority, kept: &Kept, operation: EnrollOperation) -> Result<(), ProtocolError> {
    // A device that leaves gives up its own key; that takes no right over others.
    if me.enrollment_id() == Some(&kept.id) && operation == EnrollOperation::Revoke {
        return Ok(());
    }
    if !me.manages() {
        let id = me.enrollment_id().map(Uuid::as_str).unwrap_or_default();
        let text =
            format!("Connection with enrollment ID {id} is not authorized to {} enrollments", operation.as_str());
        return Err(ProtocolError::new(ErrorCode::Unauthorized, text));
    }
    if me.enrollment_id() == Some(&kept.id) {
        return Ok(());
    }
    me.covers(&kept.record.namespaces).map_err(|namespace| {
        internal(format!(
            "Failed to {} enrollment id: {}. The approving enrollment does not have access to {namespace} namespace",
            operation.as_str(),
            kept.id
        ))
    })
}
