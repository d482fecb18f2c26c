//! `notify`: sending a notification; `notify:remove`: forgetting one.

use postern_dialogue::server::Access;
use postern_proto::verb::{Notify, NotifyRemove, Target};
use postern_proto::{
    AtSign, ErrorCode, MAX_KEY_CHARS, MessageType, Metadata, Millis, Notification, NotificationId, Operation,
    ProtocolError, Reply,
};
use postern_store::{Batch, Delivery, Op};

use super::{Call, Plan, Planned};
use crate::limits::{NOTIFICATION_LIFE_MAX_MS, NOTIFICATION_LIFE_MS};

pub(super) fn plan(call: &Call<'_>, notify: &Notify) -> Planned {
    let me = call.who.ok_or_else(|| {
        ProtocolError::new(ErrorCode::Authentication, "Notify command cannot be executed without authentication")
    })?;
    if let Some(from) = notify.from.as_ref().filter(|from| *from != me.owner()) {
        let text = format!("{} is not authorized to send notification as {from}", me.owner());
        return Err(ProtocolError::new(ErrorCode::Unauthorized, text).into());
    }
    let Target::AtSign(to) = &notify.target else {
        return Err(ProtocolError::new(ErrorCode::InvalidSyntax, "a notification needs a recipient").into());
    };
    let key = full_key(notify, to, me.owner())?;
    me.check_name("notify", &notify.key, &key, Access::Write)?;
    let metadata = notify.metadata.set.clone();
    let is_encrypted = match notify.message_type {
        MessageType::Text => metadata.is_encrypted == Some(true),
        MessageType::Key => !key.starts_with("public:") && metadata.is_encrypted != Some(false),
    };
    let id = notify.id.clone().unwrap_or_else(|| call.uuid().into());
    let outgoing = Outgoing {
        id: id.clone(),
        to: to.clone(),
        key,
        value: notify.value.clone(),
        operation: notify.operation,
        message_type: notify.message_type,
        life_ms: life(notify.ttln),
        is_encrypted,
        metadata,
    };
    let batch = deliver(call, Batch::new(call.now), me.owner(), outgoing);
    Plan::change(batch, Reply::Data(id.to_string()))
}

/// The name as it is stored and pushed: case kept, length bounded.
fn full_key(notify: &Notify, to: &AtSign, me: &AtSign) -> Result<String, ProtocolError> {
    let bare = notify.key.strip_prefix("public:").unwrap_or(&notify.key);
    if notify.message_type == MessageType::Key && bare.contains(['@', ':']) {
        // It would read as somebody else's key.
        return Err(ProtocolError::new(ErrorCode::InvalidKey, format!("{bare} is no name of a key")));
    }
    let key = match notify.message_type {
        MessageType::Text => return Ok(format!("{to}:{}", notify.key)),
        MessageType::Key if notify.key.starts_with("public:") => format!("{}{me}", notify.key),
        MessageType::Key => format!("{to}:{}{me}", notify.key),
    };
    if key.chars().count() > MAX_KEY_CHARS {
        return Err(ProtocolError::new(ErrorCode::InvalidKey, "key is longer than 248 characters"));
    }
    Ok(key)
}

fn life(ttln: Option<i64>) -> Millis {
    match ttln {
        None | Some(0) => NOTIFICATION_LIFE_MS,
        Some(ms) => ms.min(NOTIFICATION_LIFE_MAX_MS),
    }
}

/// A notification on its way out.
pub(super) struct Outgoing {
    pub(super) id: NotificationId,
    pub(super) to: AtSign,
    pub(super) key: String,
    pub(super) value: Option<String>,
    pub(super) operation: Operation,
    pub(super) message_type: MessageType,
    pub(super) life_ms: Millis,
    pub(super) is_encrypted: bool,
    pub(super) metadata: Metadata,
}

/// Adds the delivery to a batch.
///
/// To oneself: received at once. To another household of this server: sent, delivered and
/// received in the same transaction. To anybody else: kept as sent and failed, since this
/// server does not speak to others yet; the sender may ask for the status.
pub(super) fn deliver(call: &Call<'_>, batch: Batch, from: &AtSign, outgoing: Outgoing) -> Batch {
    let notification = Notification {
        id: outgoing.id,
        from: from.clone(),
        to: outgoing.to,
        key: outgoing.key,
        value: outgoing.value,
        operation: outgoing.operation,
        message_type: outgoing.message_type,
        at: call.now,
        expires_at: call.now.saturating_add(outgoing.life_ms),
        is_encrypted: outgoing.is_encrypted,
        is_self: false,
        metadata: outgoing.metadata,
    };
    if notification.to == *from {
        return batch.receive(notification);
    }
    let id = notification.id.clone();
    let hosted = call.accounts.hosts(&notification.to);
    let delivery = if hosted { Delivery::Delivered } else { Delivery::Errored };
    let batch = batch.send(notification.clone()).deliver(from, &id, delivery);
    if hosted { batch.receive(notification) } else { batch }
}

pub(super) fn remove(call: &Call<'_>, remove: &NotifyRemove) -> Planned {
    let me = call.owner()?;
    // An enrolment may forget what it may send and hear; which key an id belongs to is
    // not worth a search, so only unlimited writers remove.
    if me.limits().is_some_and(|rights| !rights.can_write_anything()) {
        let text = format!("Connection is not authorized to remove notification {}", remove.id);
        return Err(ProtocolError::new(ErrorCode::Unauthorized, text).into());
    }
    let forget = Op::RemoveNotification { owner: me.owner().clone(), id: remove.id.clone() };
    Plan::change(Batch::new(call.now).op(forget), Reply::success())
}
