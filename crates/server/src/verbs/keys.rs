//! `keys`: what an enrolment was given at its approval.

use postern_proto::verb::Keys;
use postern_proto::{AtKey, ErrorCode, ProtocolError, Reply};

use super::{Call, Plan, Planned};
use crate::enrollments::{PRIVATE_KEY, SELF_KEY};

/// Keys of the connection's own enrolment, by their exact names.
pub(super) fn plan(call: &Call<'_>, keys: &Keys) -> Planned {
    let me = call.owner()?;
    let id = me.enrollment_id().ok_or_else(|| {
        let text = "keys can be used on connections with an approved enrollment only";
        ProtocolError::new(ErrorCode::InternalException, text)
    })?;
    match keys {
        Keys::Get(key) => {
            let own = [PRIVATE_KEY, SELF_KEY].map(|end| AtKey::own(&format!("{id}{end}"), me.owner()));
            let missing = || ProtocolError::new(ErrorCode::KeyNotFound, format!("key {key} not found in keystore"));
            if !own.contains(key) {
                return Err(missing().into());
            }
            let record = call.active(me.owner(), key)?.ok_or_else(missing)?;
            Plan::reply(Reply::Data(record.value))
        }
        // Clients put no keys of their own here yet, so the groups are empty.
        Keys::List(_) => Plan::reply(Reply::Data("[]".into())),
    }
}
