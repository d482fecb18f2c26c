//! `notify:…`: sends a notification; `notify:remove:⟨id⟩` forgets one.

use std::fmt;

use super::update::take_metadata;
use crate::metadata::Metadata;
use crate::params::Params;
use crate::{AtSign, ErrorCode, MessageType, MetadataChange, NotificationId, Operation, ProtocolError};

/// `notify[:id:⟨id⟩][:update|:delete][:messageType:…][:ttln:⟨ms⟩]…⟨metadata⟩:@⟨to⟩:⟨key⟩[@⟨from⟩][:⟨value⟩]`
#[derive(Clone, PartialEq, Eq)]
pub struct Notify {
    /// Chosen by the sender; the server makes one otherwise.
    pub id: Option<NotificationId>,
    /// Update or delete.
    pub operation: Operation,
    /// Key or text.
    pub message_type: MessageType,
    /// Strategy `latest` wants this name; otherwise `SYSTEM`.
    pub notifier: Option<String>,
    /// Only the newest of the same notifier matter.
    pub latest_only: bool,
    /// How long the notification itself lives, in milliseconds.
    pub ttln: Option<i64>,
    /// Metadata of the key.
    pub metadata: MetadataChange,
    /// Who gets it.
    pub target: Target,
    /// Name (or the text of a text message), case kept, without owner.
    pub key: String,
    /// The owner written behind the key.
    pub from: Option<AtSign>,
    /// Ciphertext or plain text.
    pub value: Option<String>,
}

/// Whom a notification is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One atSign.
    AtSign(AtSign),
    /// `public`, without a recipient.
    Public,
}

/// `notify:remove:⟨id⟩`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifyRemove {
    /// Which.
    pub id: NotificationId,
}

impl Notify {
    /// A key update from `from` to `to`.
    pub fn update(id: NotificationId, to: &AtSign, key: &str, from: &AtSign, value: Option<String>) -> Self {
        Self {
            id: Some(id),
            operation: Operation::Update,
            message_type: MessageType::Key,
            notifier: None,
            latest_only: false,
            ttln: None,
            metadata: MetadataChange::default(),
            target: Target::AtSign(to.clone()),
            key: key.to_owned(),
            from: Some(from.clone()),
            value,
        }
    }

    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::invalid_command;
        let mut params = Params::new(args);
        let mut n = Self {
            id: None,
            operation: Operation::Update,
            message_type: MessageType::Key,
            notifier: None,
            latest_only: false,
            ttln: None,
            metadata: MetadataChange::default(),
            target: Target::Public,
            key: String::new(),
            from: None,
            value: None,
        };
        loop {
            let piece = params.take().ok_or_else(bad)?;
            if piece.starts_with('@') {
                n.target = Target::AtSign(AtSign::parse(piece).map_err(|_| bad())?);
                break;
            }
            if piece.eq_ignore_ascii_case("public") {
                break;
            }
            n.parameter(piece, &mut params)?;
        }
        if n.latest_only && n.notifier.is_none() {
            return Err(ProtocolError::new(ErrorCode::InvalidSyntax, "strategy latest needs a notifier"));
        }
        n.key_and_value(params.rest().ok_or_else(bad)?)?;
        Ok(n)
    }

    fn parameter(&mut self, name: &str, params: &mut Params<'_>) -> Result<(), ProtocolError> {
        let bad = ProtocolError::invalid_command;
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "update" => self.operation = Operation::Update,
            "delete" => self.operation = Operation::Delete,
            _ => {
                let value = params.take().ok_or_else(bad)?;
                match lower.as_str() {
                    "id" => self.id = Some(NotificationId::parse(value).ok_or_else(bad)?),
                    // The C library spells it with an underscore.
                    "messagetype" | "message_type" => {
                        self.message_type = MessageType::parse(value).ok_or_else(bad)?;
                    }
                    "notifier" => self.notifier = Some(value.to_owned()),
                    "strategy" => self.latest_only = value.eq_ignore_ascii_case("latest"),
                    "ttln" => self.ttln = Some(value.parse().ok().filter(|n| *n >= 0).ok_or_else(bad)?),
                    _ => {
                        if let Some(known) = Metadata::known(name) {
                            take_metadata(&mut self.metadata, known, value)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// `⟨key⟩[@⟨from⟩][:⟨value⟩]`; the text of a text message is taken whole.
    fn key_and_value(&mut self, rest: &str) -> Result<(), ProtocolError> {
        let bad = ProtocolError::invalid_command;
        if rest.is_empty() {
            return Err(bad());
        }
        if self.message_type == MessageType::Text {
            self.key = rest.to_owned();
            return Ok(());
        }
        let (rest, public) = match rest.strip_prefix("public:") {
            Some(rest) => (rest, "public:"),
            None => (rest, ""),
        };
        let (key, value) = match rest.split_once(':') {
            Some((key, value)) => (key, Some(value).filter(|v| !v.is_empty())),
            None => (rest, None),
        };
        let (name, from) = match key.rsplit_once('@') {
            Some((name, from)) => (name, Some(AtSign::parse(from).map_err(|_| bad())?)),
            None => (key, None),
        };
        if name.is_empty() || name.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(bad());
        }
        self.key = format!("{public}{name}");
        self.from = from;
        self.value = value.map(str::to_owned);
        Ok(())
    }
}

impl NotifyRemove {
    pub(crate) fn parse(id: &str) -> Result<Self, ProtocolError> {
        NotificationId::parse(id).map(|id| Self { id }).ok_or_else(ProtocolError::invalid_command)
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("notify")?;
        if let Some(id) = &self.id {
            write!(f, ":id:{id}")?;
        }
        write!(f, ":{}", self.operation.as_str())?;
        if self.message_type == MessageType::Text {
            f.write_str(":messageType:text")?;
        }
        if self.latest_only {
            f.write_str(":strategy:latest")?;
        }
        if let Some(notifier) = &self.notifier {
            write!(f, ":notifier:{notifier}")?;
        }
        if let Some(ttln) = self.ttln {
            write!(f, ":ttln:{ttln}")?;
        }
        write!(f, "{}", self.metadata)?;
        match &self.target {
            Target::AtSign(to) => write!(f, ":{to}:{}", self.key)?,
            Target::Public => write!(f, ":public:{}", self.key)?,
        }
        if let Some(from) = &self.from {
            write!(f, "{from}")?;
        }
        match &self.value {
            Some(value) => write!(f, ":{value}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for NotifyRemove {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "notify:remove:{}", self.id)
    }
}
