//! `notify:status`, `notify:list`, `notify:fetch`, `notify:remove`: looking at what was sent and received.

use postern_dialogue::server::{Access, Authority};
use postern_proto::verb::{NotifyFetch, NotifyList, NotifyRemove, NotifyStatus};
use postern_proto::{Millis, Notification, ProtocolError, Reply, wire_date};
use postern_store::{Batch, Delivery, Kept, Op};
use serde_json::{Value as Json, json};

use super::{Call, Plan, Planned};
use crate::limits::{NOTIFY_LIST_BYTES, REPLAY_PAGE};
use crate::pattern::Pattern;

const DAY_MS: Millis = 24 * 3600 * 1000;

/// How far a notification got; nothing when it is unknown or forgotten.
pub(super) fn status(call: &Call<'_>, status: &NotifyStatus) -> Planned {
    let me = call.owner()?;
    let kept = call.store.notifications(me.owner(), &status.id)?;
    // What went to oneself was received, never sent.
    let own = kept.iter().find(|kept| kept.notification.from == *me.owner());
    let Some(kept) = own else { return Plan::reply(Reply::Null) };
    check(me, "notify:status", &kept.notification, Access::Read)?;
    Plan::reply(Reply::Data(word(kept, call.now).into()))
}

fn word(kept: &Kept, now: Millis) -> &'static str {
    match kept.delivery {
        Some(Delivery::Queued) if kept.notification.expires_at <= now => "expired",
        Some(Delivery::Queued) => "queued",
        Some(Delivery::Errored) => "errored",
        Some(Delivery::Expired) => "expired",
        Some(Delivery::Delivered) | None => "delivered",
    }
}

/// What was received and is kept, oldest first, as much of it as one answer holds. To strangers: nothing.
pub(super) fn list(call: &Call<'_>, list: &NotifyList) -> Planned {
    let Some(me) = call.who else { return Plan::reply(Reply::Null) };
    let pattern = Pattern::parse(list.regex.as_deref())?;
    let end = list.to.map_or(Millis::MAX, |day| day.saturating_add(DAY_MS));
    let mut after = list.from.map_or(Millis::MIN, |day| day.saturating_sub(1));
    let mut found = Vec::new();
    let mut bytes = 0;
    loop {
        let page = call.store.received_since(me.owner(), after, call.now, REPLAY_PAGE)?;
        for notification in &page {
            after = notification.at;
            let wanted = !notification.is_self
                && (pattern.is_in(&notification.key) || pattern.is_in(notification.from.body()))
                && check(me, "notify:list", notification, Access::Read).is_ok();
            if notification.at >= end || bytes > NOTIFY_LIST_BYTES {
                return show(found);
            }
            if wanted {
                bytes += notification.key.len() + notification.value.as_ref().map_or(0, String::len);
                found.push(notification.json());
            }
        }
        if page.len() < REPLAY_PAGE {
            return show(found);
        }
    }
}

fn show(found: Vec<Json>) -> Planned {
    Plan::reply(if found.is_empty() { Reply::Null } else { Reply::json(&Json::Array(found)) })
}

/// Everything that is known of one, every member a text.
pub(super) fn fetch(call: &Call<'_>, fetch: &NotifyFetch) -> Planned {
    let me = call.owner()?;
    let kept = call.store.notifications(me.owner(), &fetch.id)?;
    let Some(kept) = kept.into_iter().rfind(|kept| kept.notification.expires_at > call.now) else {
        let expired = json!({"id": fetch.id.as_str(), "notificationStatus": "NotificationStatus.expired"});
        return Plan::reply(Reply::json(&expired));
    };
    check(me, "notify:fetch", &kept.notification, Access::Read)?;
    Plan::reply(Reply::json(&everything(&kept, call.now)))
}

fn everything(kept: &Kept, now: Millis) -> Json {
    let n = &kept.notification;
    let kind = match kept.delivery {
        _ if n.is_self => "self",
        Some(_) => "sent",
        None => "received",
    };
    let metadata: serde_json::Map<String, Json> =
        n.metadata.entries().into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
    json!({
        "id": n.id.as_str(),
        "fromAtSign": n.from.as_str(),
        "notificationDateTime": wire_date(n.at),
        "toAtSign": n.to.as_str(),
        "notification": n.key,
        "type": format!("NotificationType.{kind}"),
        "opType": format!("OperationType.{}", n.operation.as_str()),
        "messageType": format!("MessageType.{}", n.message_type.as_str()),
        "priority": format!("NotificationPriority.{}", n.routing.priority.as_str()),
        "notificationStatus": format!("NotificationStatus.{}", word(kept, now)),
        "retryCount": "0",
        "strategy": n.routing.strategy(),
        "depth": n.routing.latest.unwrap_or(1).to_string(),
        "notifier": n.routing.notifier(),
        "expiresAt": wire_date(n.expires_at),
        "atValue": n.value.as_deref().unwrap_or("null"),
        "atMetadata": Json::Object(metadata).to_string(),
        "ttl": n.expires_at.saturating_sub(n.at).to_string(),
    })
}

/// Forgets a notification, sent or received. What is not there is forgotten already.
pub(super) fn remove(call: &Call<'_>, remove: &NotifyRemove) -> Planned {
    let me = call.owner()?;
    for kept in call.store.notifications(me.owner(), &remove.id)? {
        check(me, "notify:remove", &kept.notification, Access::Write)?;
    }
    let forget = Op::RemoveNotification { owner: me.owner().clone(), id: remove.id.clone() };
    Plan::change(Batch::new(call.now).op(forget), Reply::success())
}

/// An enrolment looks at what it may hear and removes what it may send.
fn check(me: &Authority, verb: &str, n: &Notification, wanted: Access) -> Result<(), ProtocolError> {
    // The server's own messages to its owner: for those who decide on enrolments.
    if n.is_self && me.manages() {
        return Ok(());
    }
    me.check_name(verb, &n.bare_key(), &n.key, wanted)
}
