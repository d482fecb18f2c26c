//! What a device asks, and what it is told.

use postern_proto::AtSign;
use postern_session::{Guest, PermitOpen};
use serde::{Deserialize, Serialize};

use crate::limits::{GROUP_NAME_CHARS, TEXT_CHARS};

/// May this client come to this device?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The device's atSign.
    pub daemon: AtSign,
    /// The device's name.
    pub device: String,
    /// The device's group; `__none__` when it is in none.
    pub group: String,
    /// Who knocks.
    pub client: AtSign,
}

/// Yes or no, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The client may come in.
    pub authorized: bool,
    /// Why; for logs and people.
    #[serde(default)]
    pub message: Option<String>,
    /// What it may reach there, as permit-open entries. A device opens what is here **and** on its own list.
    #[serde(default)]
    pub permit_open: Option<Vec<String>>,
}

/// The question as it travels.
#[derive(Serialize, Deserialize)]
pub(crate) struct QuestionWire {
    #[serde(rename = "daemonAtsign")]
    daemon: String,
    #[serde(rename = "daemonDeviceName")]
    device: String,
    #[serde(rename = "daemonDeviceGroupName")]
    group: String,
    #[serde(rename = "clientAtsign")]
    client: String,
}

impl Question {
    /// The payload of a request.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(QuestionWire::from(self)).unwrap_or_default()
    }

    /// Reads the payload of a request; `None` when something is missing, no atSign, or too long.
    pub fn from_json(payload: &serde_json::Value) -> Option<Self> {
        let wire = QuestionWire::deserialize(payload).ok()?;
        let fits = |text: &str| text.chars().count() <= GROUP_NAME_CHARS && !text.contains(char::is_control);
        if !fits(&wire.device) || !fits(&wire.group) {
            return None;
        }
        Some(Self {
            daemon: AtSign::parse(&wire.daemon).ok()?,
            device: wire.device.to_lowercase(),
            group: wire.group,
            client: AtSign::parse(&wire.client).ok()?,
        })
    }
}

impl From<&Question> for QuestionWire {
    fn from(question: &Question) -> Self {
        Self {
            daemon: question.daemon.to_string(),
            device: question.device.clone(),
            group: question.group.clone(),
            client: question.client.to_string(),
        }
    }
}

impl Answer {
    /// No.
    pub fn deny(message: impl Into<String>) -> Self {
        Self { authorized: false, message: Some(message.into()), permit_open: Some(Vec::new()) }
    }

    /// Yes, to what these permits say; no when there are none.
    pub(crate) fn by_permits(question: &Question, permits: impl IntoIterator<Item = String>) -> Self {
        let mut list: Vec<String> = Vec::new();
        for permit in permits {
            if !list.contains(&permit) {
                list.push(permit);
            }
        }
        let Question { daemon, device, group, client } = question;
        if list.is_empty() {
            return Self::deny(format!(
                "No permissions for {client} at {daemon} for either the device {device} or the deviceGroup {group}"
            ));
        }
        let message =
            format!("{client} has permission for device {device} and/or device group {group} at daemon {daemon}");
        Self { authorized: true, message: Some(message), permit_open: Some(list) }
    }

    /// The payload of a reply.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Reads the payload of a reply; anything unreadable is `None`, which a device takes for no.
    pub fn from_json(payload: &serde_json::Value) -> Option<Self> {
        let mut answer = Self::deserialize(payload).ok()?;
        if let Some(message) = &mut answer.message {
            // It goes to a log.
            *message = message.chars().filter(|c| !c.is_control()).take(TEXT_CHARS).collect();
        }
        Some(answer)
    }

    /// Whom this answer, which was given about `client`, lets in.
    pub fn guest(&self, client: &AtSign) -> Option<Guest> {
        self.authorized.then(|| Guest::by_policy(client, self.permits()))
    }

    /// What the client may reach: nothing unless it is authorized. An entry that cannot be read
    /// allows nothing; the others stand.
    pub fn permits(&self) -> PermitOpen {
        let entries = self.permit_open.iter().flatten().filter(|_| self.authorized);
        let good: Vec<&str> =
            entries.map(String::as_str).filter(|e| !e.contains(',') && PermitOpen::parse(e).is_ok()).collect();
        PermitOpen::parse(&good.join(",")).unwrap_or_else(|_| PermitOpen::nothing())
    }

    /// The reason, for a log.
    pub fn reason(&self) -> &str {
        self.message.as_deref().unwrap_or("no reason given")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn question() -> Question {
        Question {
            daemon: AtSign::parse("@d").unwrap(),
            device: "pi".into(),
            group: "__none__".into(),
            client: AtSign::parse("@c").unwrap(),
        }
    }

    #[test]
    fn the_wire_form() {
        assert_eq!(
            question().to_json().to_string(),
            r#"{"daemonAtsign":"@d","daemonDeviceName":"pi","daemonDeviceGroupName":"__none__","clientAtsign":"@c"}"#
        );
        let yes = Answer::by_permits(&question(), ["localhost:22".to_owned(), "localhost:22".to_owned()]);
        assert_eq!(
            yes.to_json().to_string(),
            r#"{"authorized":true,"message":"@c has permission for device pi and/or device group __none__ at daemon @d","permitOpen":["localhost:22"]}"#
        );
        assert_eq!(
            Answer::by_permits(&question(), []).to_json().to_string(),
            r#"{"authorized":false,"message":"No permissions for @c at @d for either the device pi or the deviceGroup __none__","permitOpen":[]}"#
        );
    }

    #[test]
    fn what_is_missing_or_unreadable_allows_nothing() {
        let target = |port| postern_session::HostPort::localhost(port);
        for (payload, allows) in [
            (json!({"authorized": true, "permitOpen": ["localhost:22"]}), true),
            (json!({"authorized": true, "permitOpen": ["nonsense", "localhost:22"]}), true),
            (json!({"authorized": true, "permitOpen": ["nonsense:0,localhost:22"]}), false),
            (json!({"authorized": true, "permitOpen": []}), false),
            (json!({"authorized": true}), false),
            (json!({"authorized": true, "permitOpen": null}), false),
            (json!({"authorized": false, "permitOpen": ["*:*"]}), false),
        ] {
            let answer = Answer::from_json(&payload).unwrap();
            assert_eq!(answer.permits().allows(&target(22)), allows, "{payload}");
        }
        for payload in
            [json!({}), json!(null), json!({"authorized": "true"}), json!({"authorized": true, "permitOpen": "*:*"})]
        {
            assert_eq!(Answer::from_json(&payload), None, "{payload}");
        }
    }

    #[test]
    fn a_reason_is_one_line() {
        let answer = Answer::from_json(&json!({"authorized": false, "message": "a\nb\u{1b}[31m"})).unwrap();
        assert_eq!(answer.reason(), "ab[31m");
    }

    proptest! {
        #[test]
        fn questions_come_through(daemon in "[a-z0-9_]{1,20}", device in "[a-z0-9_][a-z0-9_-]{1,35}", group in "[A-Za-z0-9 _]{0,20}", client in "[a-z]{1,9}") {
            let question = Question {
                daemon: AtSign::parse(&daemon).unwrap(), device, group, client: AtSign::parse(&client).unwrap(),
            };
            prop_assert_eq!(Question::from_json(&question.to_json()), Some(question));
        }
    }
}
