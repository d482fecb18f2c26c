//! `enroll:list`, `enroll:fetch`.

use postern_dialogue::server::{Authority, EnrollmentState};
use postern_proto::Reply;
use postern_proto::verb::EnrollParams;
use serde_json::{Map, Value as Json};

use super::{meant, unknown};
use crate::enrollments::{self, Kept, state_word};
use crate::verbs::{Call, Plan, Planned};

/// All that count, or those in the states asked for; without the right to manage, one's own.
pub(super) fn list(call: &Call<'_>, me: &Authority, params: &EnrollParams) -> Planned {
    let wanted = |kept: &Kept| match &params.enrollment_status_filter {
        Some(states) => states.iter().any(|state| state.eq_ignore_ascii_case(state_word(kept.state))),
        None => kept.state != EnrollmentState::Expired,
    };
    let mut shown = Map::new();
    for kept in enrollments::all(call.store, me.owner(), call.now)? {
        if may_see(me, &kept) && wanted(&kept) {
            shown.insert(enrollments::record_key(&kept.id, me.owner()).to_string(), kept.shown());
        }
    }
    Plan::reply(Reply::json(&Json::Object(shown)))
}

/// One of them. Somebody else's is as unknown as none.
pub(super) fn fetch(call: &Call<'_>, me: &Authority, params: &EnrollParams) -> Planned {
    let kept = meant(call, me.owner(), params)?;
    if kept.state == EnrollmentState::Expired || !may_see(me, &kept) {
        return Err(unknown(kept.id.as_str()).into());
    }
    Plan::reply(Reply::json(&kept.shown()))
}

fn may_see(me: &Authority, kept: &Kept) -> bool {
    me.manages() || me.enrollment_id() == Some(&kept.id)
}
