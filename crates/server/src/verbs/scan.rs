//! `scan`: the names of keys.

use postern_dialogue::server::{Access, Authority};
use postern_proto::verb::Scan;
use postern_proto::{AtKey, AtSign, ErrorCode, ProtocolError, Reply};
use serde_json::Value as Json;

use super::{Call, Plan, Planned, blocks};
use crate::pattern::Pattern;

pub(super) fn plan(call: &Call<'_>, scan: &Scan) -> Planned {
    let pattern = Pattern::parse(scan.regex.as_deref())?;
    match (call.who, &scan.other) {
        (Some(me), Some(other)) if other != me.owner() => shared_with_me(call, me, other, &pattern),
        (Some(me), _) => own(call, me, scan.show_hidden, &pattern),
        (None, Some(_)) => {
            let text = "Scan to another atSign cannot be performed without auth";
            Err(ProtocolError::new(ErrorCode::Authentication, text).into())
        }
        (None, None) => {
            let household = call.household.ok_or_else(ProtocolError::invalid_command)?;
            list(call, household, &pattern, |key| key.strip_prefix("public:").filter(|name| !name.starts_with('_')))
        }
    }
}

/// Everything of the owner's that an enrolment reaches.
fn own(call: &Call<'_>, me: &Authority, show_hidden: bool, pattern: &Pattern) -> Planned {
    list(call, me.owner(), pattern, |key| {
        let server_only = key.starts_with("private:") || key.starts_with("privatekey:");
        let hidden = key.starts_with('_') || key.starts_with("public:_");
        let shown = show_hidden && (key.starts_with('_') || key.starts_with("public:__"));
        (!server_only && (!hidden || shown) && reaches(me, key)).then_some(key)
    })
}

/// What another household of this server shares with the caller.
fn shared_with_me(call: &Call<'_>, me: &Authority, other: &AtSign, pattern: &Pattern) -> Planned {
    call.hosted(other)?;
    if blocks::is_blocked(call, other, me.owner())? {
        return Err(blocks::refused().into());
    }
    let prefix = format!("{}:", me.owner());
    list(call, other, pattern, |key| key.strip_prefix(prefix.as_str()).filter(|_| reaches(me, key)))
}

/// The server's own records are nobody's to list.
fn reaches(me: &Authority, key: &str) -> bool {
    match AtKey::parse(key) {
        Ok(parsed) => !super::is_managed(&parsed) && me.check("scan", &parsed, Access::Read).is_ok(),
        Err(_) => me.limits().is_none(),
    }
}

pub(super) fn list(
    call: &Call<'_>,
    household: &AtSign,
    pattern: &Pattern,
    show: impl for<'k> Fn(&'k str) -> Option<&'k str>,
) -> Planned {
    let mut names = Vec::new();
    call.store.scan(household, &mut |key, born, ends| {
        let active = born.is_none_or(|at| at <= call.now) && ends.is_none_or(|at| call.now < at);
        if active && pattern.is_in(key) {
            names.extend(show(key).map(Json::from));
        }
    })?;
    Plan::reply(Reply::json(&Json::Array(names)))
}
