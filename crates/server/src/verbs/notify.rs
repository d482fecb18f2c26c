//! `notify`, `notify:all`: sending notifications.

use postern_dialogue::server::{Access, Authority};
use postern_proto::verb::{Notify, NotifyAll, Target};
use postern_proto::{
    AtKey, AtSign, ErrorCode, MAX_KEY_CHARS, MessageType, Metadata, Millis, Notification, NotificationId, Operation,
    ProtocolError, Reply, Routing,
};
use postern_store::{Batch, Delivery, Op, StoreError};
use serde_json::{Map, Value as Json};

use super::{Call, Plan, Planned, blocks, cache};
use crate::limits::{NOTIFICATION_LIFE_MAX_MS, NOTIFICATION_LIFE_MS, NOTIFY_ALL_BYTES};

pub(super) fn plan(call: &Call<'_>, notify: &Notify) -> Planned {
    let me = call.who.ok_or_else(|| {
        ProtocolError::new(ErrorCode::Authentication, "Notify command cannot be executed without authentication")
    })?;
    // Without a recipient: news of a public key, for the owner's own programs.
    let to = match &notify.target {
        Target::AtSign(to) => to,
        Target::Public => me.owner(),
    };
    let id = notify.id.clone().unwrap_or_else(|| call.uuid().into());
    let outgoing = outgoing(me, notify, to, id.clone())?;
    let batch = deliver(call, Batch::new(call.now), me.owner(), outgoing)?;
    Plan::change(batch, Reply::Data(id.to_string()))
}

/// One notification for each recipient, in one transaction.
pub(super) fn all(call: &Call<'_>, all: &NotifyAll) -> Planned {
    let me = call.owner()?;
    let bytes = all.notify.key.len() + all.notify.value.as_ref().map_or(0, String::len);
    if bytes.saturating_mul(all.recipients.len()) > NOTIFY_ALL_BYTES {
        let text = "key and value are too long for so many recipients";
        return Err(ProtocolError::new(ErrorCode::IllegalArguments, text).into());
    }
    let mut batch = Batch::new(call.now);
    let mut ids = Map::new();
    for (n, to) in all.recipients.iter().enumerate() {
        let id: NotificationId = call.nth_uuid(n).into();
        ids.insert(to.to_string(), Json::from(id.as_str()));
        batch = deliver(call, batch, me.owner(), outgoing(me, &all.notify, to, id)?)?;
    }
    Plan::change(batch, Reply::spaced_json(&Json::Object(ids)))
}

/// Checks that `me` may send this.
fn outgoing(me: &Authority, notify: &Notify, to: &AtSign, id: NotificationId) -> Result<Outgoing, ProtocolError> {
    if let Some(from) = notify.from.as_ref().filter(|from| *from != me.owner()) {
        let text = format!("{} is not authorized to send notification as {from}", me.owner());
        return Err(ProtocolError::new(ErrorCode::Unauthorized, text));
    }
    let key = full_key(notify, to, me.owner())?;
    me.check_name("notify", &notify.key, &key, Access::Write)?;
    if notify.message_type == MessageType::Key
        && let Ok(named) = AtKey::parse(&key)
    {
        // Others keep copies of what they are told: who may not write a key does not tell of it.
        me.check("notify", &named, Access::Write)?;
    }
    let metadata = notify.metadata.set.clone();
    let is_encrypted = match notify.message_type {
        MessageType::Text => metadata.is_encrypted == Some(true),
        MessageType::Key => !key.starts_with("public:") && metadata.is_encrypted != Some(false),
    };
    Ok(Outgoing {
        id,
        to: to.clone(),
        key,
        value: notify.value.clone(),
        operation: notify.operation,
        message_type: notify.message_type,
        life_ms: life(notify.ttln),
        is_encrypted,
        metadata,
        routing: notify.routing.clone(),
    })
}

/// The name as it is stored and pushed: case kept, length bounded.
pub(super) fn full_key(notify: &Notify, to: &AtSign, me: &AtSign) -> Result<String, ProtocolError> {
    let (bare, public) = match notify.key.strip_prefix("public:") {
        Some(bare) => (bare, true),
        None => (notify.key.as_str(), notify.target == Target::Public),
    };
    if notify.message_type == MessageType::Text {
        return Ok(format!("{to}:{}", notify.key));
    }
    if bare.contains(['@', ':']) {
        // It would read as somebody else's key.
        return Err(ProtocolError::new(ErrorCode::InvalidKey, format!("{bare} is no name of a key")));
    }
    let key = if public { format!("public:{bare}{me}") } else { format!("{to}:{bare}{me}") };
    if key.chars().count() > MAX_KEY_CHARS {
        return Err(ProtocolError::new(ErrorCode::InvalidKey, "key is longer than 248 characters"));
    }
    Ok(key)
}

pub(super) fn life(ttln: Option<i64>) -> Millis {
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
    pub(super) routing: Routing,
}

/// Adds the delivery to a batch.
///
/// To oneself: received at once. To another household of this server: sent, delivered and
/// received in the same transaction, unless that household has blocked the sender. To
/// anybody else: kept as sent, to be delivered by and by, or as failed when this server does
/// not speak to others; the sender may ask for the status.
pub(super) fn deliver(call: &Call<'_>, batch: Batch, from: &AtSign, outgoing: Outgoing) -> Result<Batch, StoreError> {
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
        routing: outgoing.routing,
    };
    if notification.to == *from {
        return Ok(batch.receive(notification));
    }
    if call.accounts.hosts(&notification.to) {
        deliver_here(call, batch, notification)
    } else {
        let delivery = if call.abroad { None } else { Some(Delivery::Errored) };
        Ok(send(batch, notification, delivery))
    }
}

/// To another household of this server.
fn deliver_here(call: &Call<'_>, batch: Batch, notification: Notification) -> Result<Batch, StoreError> {
    if blocks::is_blocked(call, &notification.to, &notification.from)? {
        return Ok(send(batch, notification, Some(Delivery::Errored)));
    }
    let batch = cache::notice_public_key(call, batch, &notification.from, &notification.to)?;
    let batch = send(batch, notification.clone(), Some(Delivery::Delivered));
    arrive(call, batch, notification)
}

/// The sender's side: stored, waiting unless its delivery is known.
fn send(batch: Batch, notification: Notification, delivery: Option<Delivery>) -> Batch {
    let (owner, id) = (notification.from.clone(), notification.id.clone());
    let supersede = notification.routing.latest.map(|keep| Op::Supersede {
        owner: owner.clone(),
        to: notification.to.clone(),
        notifier: notification.routing.notifier.clone(),
        keep,
    });
    let batch = batch.send(notification);
    match (delivery, supersede) {
        (Some(delivery), _) => batch.deliver(&owner, &id, delivery),
        (None, Some(supersede)) => batch.op(supersede),
        (None, None) => batch,
    }
}

/// The recipient's side: stored and pushed, and copies of the sender's records kept in step.
pub(super) fn arrive(call: &Call<'_>, batch: Batch, notification: Notification) -> Result<Batch, StoreError> {
    let known = call.store.notifications(&notification.to, &notification.id)?;
    // A second one of the same sender and id is the same one, whatever it says.
    let again = known.iter().any(|kept| kept.delivery.is_none() && kept.notification.from == notification.from);
    let batch = if again { batch } else { cache::follow(call, batch, &notification)? };
    Ok(batch.receive(notification))
}
