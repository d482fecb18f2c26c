//! Notifications: what is pushed to a monitor.

use serde_json::{Map, Value as Json, json};

use crate::reply::json_line;
use crate::{AtSign, Metadata, Millis, NotificationId};

/// What happened to the key that a notification names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operation {
    /// A value was set or sent.
    #[default]
    Update,
    /// A key was deleted.
    Delete,
}

/// What the notification carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MessageType {
    /// A key, usually with a value.
    #[default]
    Key,
    /// A text in place of the key.
    Text,
}

/// How urgent a notification is; the queue to another server goes by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// `low`
    #[default]
    Low,
    /// `medium`
    Medium,
    /// `high`
    High,
}

/// What the sender said about the way, not about the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// How urgent.
    pub priority: Priority,
    /// Who sends, as the sender's programs tell each other apart; absent: `SYSTEM`.
    pub notifier: Option<String>,
    /// Strategy `latest`: of those that still wait for the same recipient and come from the same notifier, only so
    /// many of the newest matter. Absent: strategy `all`.
    pub latest: Option<u32>,
}

/// A notification as sent, stored and pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Chosen by the sender; unique per sender.
    pub id: NotificationId,
    /// Who sent it.
    pub from: AtSign,
    /// Who gets it.
    pub to: AtSign,
    /// Full text, case kept: `@to:request.dev1.sshnp@from`.
    pub key: String,
    /// Ciphertext or plain text.
    pub value: Option<String>,
    /// Update or delete.
    pub operation: Operation,
    /// Key or text.
    pub message_type: MessageType,
    /// When it arrived, milliseconds since the epoch.
    pub at: Millis,
    /// When it is forgotten.
    pub expires_at: Millis,
    /// The value is ciphertext.
    pub is_encrypted: bool,
    /// The server made it for its own owner (enrolment requests); only monitors that ask see it.
    pub is_self: bool,
    /// Metadata that travels with it.
    pub metadata: Metadata,
    /// What the sender said about the way.
    pub routing: Routing,
}

impl Priority {
    const ALL: [Self; 3] = [Self::Low, Self::Medium, Self::High];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// From `low`, `medium` or `high`, any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.as_str().eq_ignore_ascii_case(text))
    }
}

impl Routing {
    /// The notifier when none was named. Source: the reference.
    pub const SYSTEM: &'static str = "SYSTEM";

    /// Who sends.
    pub fn notifier(&self) -> &str {
        self.notifier.as_deref().unwrap_or(Self::SYSTEM)
    }

    /// `all` or `latest`.
    pub fn strategy(&self) -> &'static str {
        if self.latest.is_some() { "latest" } else { "all" }
    }
}

impl Operation {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl MessageType {
    /// The word in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Text => "text",
        }
    }

    /// From `key` or `text`, any case.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Key, Self::Text].into_iter().find(|t| t.as_str().eq_ignore_ascii_case(text))
    }
}

impl Notification {
    /// The pushed line without its end: `notification: {…}`.
    ///
    /// Replays carry the same members as live pushes, `sharedKeyEnc` too, so that
    /// they can be decrypted without another question.
    pub fn push_line(&self) -> String {
        format!("notification: {}", json_line(&self.json()))
    }

    /// The members of a push, which `notify:list` shows too.
    pub fn json(&self) -> Json {
        let m = &self.metadata;
        let metadata = json!({
            "encKeyName": m.enc_key_name,
            "encAlgo": m.enc_algo,
            "ivNonce": m.iv_nonce,
            "skeEncKeyName": m.ske_enc_key_name,
            "skeEncAlgo": m.ske_enc_algo,
            "sharedKeyEnc": m.shared_key_enc,
            "pubKeyCS": m.pub_key_cs,
        });
        json!({
            "id": self.id.as_str(),
            "from": self.from.as_str(),
            "to": self.to.as_str(),
            "key": self.key,
            "value": self.value,
            "operation": self.operation.as_str(),
            "epochMillis": self.at,
            "messageType": format!("MessageType.{}", self.message_type.as_str()),
            "isEncrypted": self.is_encrypted,
            "metadata": metadata,
        })
    }

    /// Reads the JSON of a pushed line. `None` for anything that is no real
    /// notification: wrong shapes, and the statistics that carry the id `-1`.
    pub fn from_push(json: &str) -> Option<Self> {
        let json: Json = serde_json::from_str(json).ok()?;
        let text = |name: &str| json.get(name).and_then(Json::as_str);
        let id = text("id").filter(|id| *id != "-1")?;
        let at = json.get("epochMillis").and_then(Json::as_i64).unwrap_or_default();
        let empty = Map::new();
        let meta = json.get("metadata").and_then(Json::as_object).unwrap_or(&empty);
        let meta_text = |name: &str| meta.get(name).and_then(Json::as_str).filter(|t| *t != "null").map(str::to_owned);
        Some(Self {
            id: NotificationId::parse(id)?,
            from: AtSign::parse(text("from")?).ok()?,
            to: AtSign::parse(text("to")?).ok()?,
            key: text("key")?.to_owned(),
            value: text("value").map(str::to_owned),
            operation: if text("operation") == Some("delete") { Operation::Delete } else { Operation::Update },
            message_type: match text("messageType") {
                Some(t) if t.ends_with("text") => MessageType::Text,
                _ => MessageType::Key,
            },
            at,
            expires_at: at,
            is_encrypted: json.get("isEncrypted").and_then(Json::as_bool).unwrap_or(false),
            is_self: false,
            metadata: Metadata {
                enc_key_name: meta_text("encKeyName"),
                enc_algo: meta_text("encAlgo"),
                iv_nonce: meta_text("ivNonce"),
                ske_enc_key_name: meta_text("skeEncKeyName"),
                ske_enc_algo: meta_text("skeEncAlgo"),
                shared_key_enc: meta_text("sharedKeyEnc"),
                pub_key_cs: meta_text("pubKeyCS"),
                ..Metadata::default()
            },
            routing: Routing::default(),
        })
    }

    /// The key without recipient and sender: `request.dev1.sshnp`, lower case.
    pub fn bare_key(&self) -> String {
        let key = self.key.to_lowercase();
        let key = match key.split_once(':') {
            Some((to, rest)) if to.starts_with('@') => rest,
            _ => key.as_str(),
        };
        let from = self.from.as_str();
        key.strip_suffix(from).unwrap_or(key).to_owned()
    }
}

/// The statistics line pushed to monitors: the last commit id, `id` the text `-1`, `metadata` null.
pub fn stats_line(owner: &AtSign, last_commit: i64, operation: Operation, now: Millis) -> String {
    let json = json!({
        "id": "-1",
        "from": owner.as_str(),
        "to": owner.as_str(),
        "key": format!("statsNotification.{owner}"),
        "value": last_commit.to_string(),
        "operation": operation.as_str(),
        "epochMillis": now,
        "messageType": "MessageType.key",
        "isEncrypted": false,
        "metadata": null,
    });
    format!("notification: {json}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Notification {
        Notification {
            id: NotificationId::parse("0c1e").unwrap(),
            from: AtSign::parse("@bob").unwrap(),
            to: AtSign::parse("@alice").unwrap(),
            key: "@alice:Ping.dev1.sshnp@bob".into(),
            value: Some("kJ3==".into()),
            operation: Operation::Update,
            message_type: MessageType::Key,
            at: 1_729_760_400_123,
            expires_at: 1_729_760_400_123,
            is_encrypted: true,
            is_self: false,
            metadata: Metadata { iv_nonce: Some("AbC==".into()), ..Metadata::default() },
            routing: Routing::default(),
        }
    }

    #[test]
    fn the_line_is_what_clients_read() {
        assert_eq!(
            sample().push_line(),
            r#"notification: {"id":"0c1e","from":"@bob","to":"@alice","key":"@alice:Ping.dev1.sshnp@bob","value":"kJ3==","operation":"update","epochMillis":1729760400123,"messageType":"MessageType.key","isEncrypted":true,"metadata":{"encKeyName":null,"encAlgo":null,"ivNonce":"AbC==","skeEncKeyName":null,"skeEncAlgo":null,"sharedKeyEnc":null,"pubKeyCS":null}}"#
        );
    }

    #[test]
    fn printed_and_read_is_the_same() {
        let line = sample().push_line();
        let read = Notification::from_push(line.strip_prefix("notification: ").unwrap()).unwrap();
        assert_eq!(read, sample());
        assert_eq!(read.bare_key(), "ping.dev1.sshnp");
    }

    #[test]
    fn statistics_are_not_notifications() {
        let line = stats_line(&AtSign::parse("alice").unwrap(), 11, Operation::Update, 5);
        assert!(line.contains(r#""metadata":null"#));
        assert_eq!(Notification::from_push(line.strip_prefix("notification: ").unwrap()), None);
    }
}
