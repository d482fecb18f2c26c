//! Values and their columns.

use postern_proto::{
    AtSign, MessageType, Metadata, Millis, Notification, NotificationId, Operation, Priority, Record, Routing,
};
use postern_store::{Delivery, Logged};
use rusqlite::Row;
use serde_json::{Map, Value as Json};

use crate::error::{Result, sql, unreadable};

/// The columns of a record in the order that [`record`] reads.
pub(crate) const RECORD: &str =
    "version, created_at, updated_at, available_at, expires_at, refresh_at, metadata, value";

/// Reads a row of [`RECORD`].
pub(crate) fn record(row: &Row<'_>) -> Result<Record> {
    let time = |column: usize| row.get::<_, Millis>(column).map_err(sql);
    let maybe = |column: usize| row.get::<_, Option<Millis>>(column).map_err(sql);
    Ok(Record {
        version: time(0)?.cast_unsigned(),
        created_at: time(1)?,
        updated_at: time(2)?,
        available_at: maybe(3)?,
        expires_at: maybe(4)?,
        refresh_at: maybe(5)?,
        metadata: metadata(row.get_ref(6).map_err(sql)?.as_str().map_err(|_| unreadable("metadata"))?)?,
        value: row.get(7).map_err(sql)?,
    })
}

/// The columns of a notification after owner and other side, in the order that [`notification`] reads.
pub(crate) const NOTIFICATION: &str = "id, at, expires_at, operation, message_type, is_encrypted, is_self, key, metadata, value, priority, notifier, latest";

/// Reads a row of from, to, [`NOTIFICATION`].
pub(crate) fn notification(row: &Row<'_>) -> Result<Notification> {
    let text = |column: usize| row.get::<_, String>(column).map_err(sql);
    let flag = |column: usize| row.get::<_, bool>(column).map_err(sql);
    Ok(Notification {
        from: at_sign(&text(0)?)?,
        to: at_sign(&text(1)?)?,
        id: NotificationId::parse(&text(2)?).ok_or_else(|| unreadable("notification id"))?,
        at: row.get(3).map_err(sql)?,
        expires_at: row.get(4).map_err(sql)?,
        operation: operation(&text(5)?)?,
        message_type: message_type(&text(6)?)?,
        is_encrypted: flag(7)?,
        is_self: flag(8)?,
        key: text(9)?,
        metadata: metadata(&text(10)?)?,
        value: row.get(11).map_err(sql)?,
        routing: Routing {
            priority: priority(row.get(12).map_err(sql)?)?,
            notifier: row.get(13).map_err(sql)?,
            latest: row.get(14).map_err(sql)?,
        },
    })
}

pub(crate) fn operation(text: &str) -> Result<Operation> {
    let all = [Operation::Update, Operation::Delete];
    all.into_iter().find(|o| o.as_str() == text).ok_or_else(|| unreadable("operation"))
}

pub(crate) fn message_type(text: &str) -> Result<MessageType> {
    MessageType::parse(text).ok_or_else(|| unreadable("message type"))
}

pub(crate) fn priority_number(priority: Priority) -> i64 {
    match priority {
        Priority::Low => 0,
        Priority::Medium => 1,
        Priority::High => 2,
    }
}

fn priority(number: i64) -> Result<Priority> {
    let all = [Priority::Low, Priority::Medium, Priority::High];
    all.into_iter().find(|p| priority_number(*p) == number).ok_or_else(|| unreadable("priority"))
}

pub(crate) fn at_sign(text: &str) -> Result<AtSign> {
    AtSign::parse(text).map_err(|_| unreadable("atSign"))
}

/// `{"ttl":"1000","isEncrypted":"true"}`: what the wire says, in the wire's order.
pub(crate) fn metadata_json(metadata: &Metadata) -> String {
    let entries = metadata.entries().into_iter();
    Json::Object(entries.map(|(name, text)| (name.to_owned(), Json::String(text))).collect()).to_string()
}

fn metadata(json: &str) -> Result<Metadata> {
    let bad = || unreadable("metadata");
    let mut metadata = Metadata::default();
    let entries: Map<String, Json> = serde_json::from_str(json).map_err(|_| bad())?;
    for (name, value) in &entries {
        let (name, text) = (Metadata::known(name).ok_or_else(bad)?, value.as_str().ok_or_else(bad)?);
        // Numbers outside the wire's range were refused long before; one that is there is kept.
        match (name, text.parse().ok()) {
            ("ttl", Some(number)) => metadata.ttl = Some(number),
            ("ttb", Some(number)) => metadata.ttb = Some(number),
            ("ttr", Some(number)) => metadata.ttr = Some(number),
            _ => metadata.set(name, text).map_err(|_| bad())?,
        }
    }
    Ok(metadata)
}

pub(crate) fn kind_text(kind: Logged) -> &'static str {
    match kind {
        Logged::Put => "put",
        Logged::Meta => "meta",
        Logged::Remove => "remove",
    }
}

pub(crate) fn kind(text: &str) -> Result<Logged> {
    let all = [Logged::Put, Logged::Meta, Logged::Remove];
    all.into_iter().find(|k| kind_text(*k) == text).ok_or_else(|| unreadable("kind of log entry"))
}

pub(crate) fn delivery_text(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Queued => "queued",
        Delivery::Delivered => "delivered",
        Delivery::Errored => "errored",
        Delivery::Expired => "expired",
    }
}

pub(crate) fn delivery(text: &str) -> Result<Delivery> {
    let all = [Delivery::Queued, Delivery::Delivered, Delivery::Errored, Delivery::Expired];
    all.into_iter().find(|d| delivery_text(*d) == text).ok_or_else(|| unreadable("delivery"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_reads_what_it_wrote() {
        let given = Metadata {
            ttl: Some(-5),
            ttr: Some(i64::MIN),
            ccd: Some(true),
            iv_nonce: Some("a\0\"\\🗝".into()),
            enc_algo: Some("7".into()),
            ..Metadata::default()
        };
        let json = metadata_json(&given);
        assert!(json.starts_with(r#"{"ttl":"-5","ttr":"-9223372036854775808","ccd":"true","encAlgo":"7","#), "{json}");
        assert_eq!(metadata(&json), Ok(given));
    }

    #[test]
    fn damaged_metadata_is_said_to_be() {
        for json in ["", "[]", "{\"ttl\":5}", "{\"ttl\":\"x\"}", "{\"unknown\":\"x\"}", "{\"ccd\":\"maybe\"}"] {
            assert!(matches!(metadata(json), Err(postern_store::StoreError::Corrupt(_))), "{json}");
        }
    }
}
