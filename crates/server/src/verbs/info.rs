//! `info`: version and uptime.

use postern_proto::Reply;
use postern_proto::verb::Info;
use serde_json::json;

use super::{Call, Plan, Planned};
use crate::enrollments;

pub(super) fn plan(call: &Call<'_>, info: Info) -> Planned {
    let version = env!("CARGO_PKG_VERSION");
    let up = call.uptime;
    if info.brief {
        let millis = u64::try_from(up.as_millis()).unwrap_or(u64::MAX);
        // For devices whose clock may be wrong.
        let brief = json!({"version": version, "uptimeAsMillis": millis, "currentTimeAsMillis": call.now});
        return Plan::reply(Reply::json(&brief));
    }
    let s = up.as_secs();
    let words = format!("{} days {} hours {} minutes {} seconds", s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60);
    // For `postern doctor`: whose clock is wrong?
    let mut shown = json!({"version": version, "uptimeAsWords": words, "currentTimeAsMillis": call.now});
    if let Some(me) = call.who
        && let Some(id) = me.enrollment_id()
        && let Some(kept) = enrollments::load(call.store, me.owner(), id, call.now)?
    {
        let mut enrollment = kept.shown();
        enrollment["enrollmentId"] = id.as_str().into();
        shown["apkam_metadata"] = enrollment;
    }
    Plan::reply(Reply::json(&shown))
}
