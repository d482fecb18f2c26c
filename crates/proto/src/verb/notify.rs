//! `notify:…` and `notify:all:…`: sending notifications.

use std::fmt;

use super::update::take_metadata;
use crate::metadata::Metadata;
use crate::params::Params;
use crate::{
    AtSign, ErrorCode, MessageType, MetadataChange, NotificationId, Operation, Priority, ProtocolError, Routing,
};

/// `notify[:id:⟨id⟩][:update|:delete][:messageType:…][:priority:…][:strategy:…][:latestN:⟨n⟩][:notifier:⟨name⟩]`
/// `[:ttln:⟨ms⟩]⟨metadata⟩:(public|@⟨to⟩):⟨key⟩[@⟨from⟩][:⟨value⟩]`, the parameters in any order.
#[derive(Clone, PartialEq, Eq)]
pub struct Notify {
    /// Chosen by the sender; the server makes one otherwise.
    pub id: Option<NotificationId>,
    /// Update or delete.
    pub operation: Operation,
    /// Key or text.
    pub message_type: MessageType,
    /// Priority, notifier, strategy.
    pub routing: Routing,
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

/// `notify:all:[update:|delete:][messageType:…:]⟨metadata⟩⟨@a,@b,…⟩:⟨key⟩[@⟨from⟩][:⟨value⟩]`
#[derive(Clone, PartialEq, Eq)]
pub struct NotifyAll {
    /// Who gets it: no one twice, in the order given.
    pub recipients: Vec<AtSign>,
    /// What; its target is the first of them.
    pub notify: Notify,
}

/// Most recipients of one `notify:all`. Each costs rows in one transaction, for which other writers wait.
pub const MAX_RECIPIENTS: usize = 100;

impl Notify {
    /// A key update from `from` to `to`.
    pub fn update(id: NotificationId, to: &AtSign, key: &str, from: &AtSign, value: Option<String>) -> Self {
        Self {
            id: Some(id),
            operation: Operation::Update,
            message_type: MessageType::Key,
            routing: Routing::default(),
            ttln: None,
            metadata: MetadataChange::default(),
            target: Target::AtSign(to.clone()),
            key: key.to_owned(),
            from: Some(from.clone()),
            value,
        }
    }

    fn empty() -> Self {
        Self {
            id: None,
            operation: Operation::Update,
            message_type: MessageType::Key,
            routing: Routing::default(),
            ttln: None,
            metadata: MetadataChange::default(),
            target: Target::Public,
            key: String::new(),
            from: None,
            value: None,
        }
    }

    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::invalid_command;
        let mut params = Params::new(args);
        let mut n = Self::empty();
        match n.parameters(&mut params)? {
            "public" => {}
            to => n.target = Target::AtSign(AtSign::parse(to).map_err(|_| bad())?),
        }
        n.key_and_value(params.rest().ok_or_else(bad)?)?;
        Ok(n)
    }

    /// Takes what stands before the recipient, and gives the piece that names it.
    fn parameters<'a>(&mut self, params: &mut Params<'a>) -> Result<&'a str, ProtocolError> {
        let mut latest_n = None;
        let mut latest = false;
        loop {
            let piece = params.take().ok_or_else(ProtocolError::invalid_command)?;
            if piece.starts_with('@') || piece.eq_ignore_ascii_case("public") {
                if latest && self.routing.notifier.is_none() {
                    return Err(ProtocolError::new(ErrorCode::InvalidSyntax, "strategy latest needs a notifier"));
                }
                self.routing.latest = latest.then(|| latest_n.unwrap_or(1));
                return Ok(if piece.starts_with('@') { piece } else { "public" });
            }
            match piece.to_ascii_lowercase().as_str() {
                "strategy" => {
                    latest = match params.take().map(str::to_ascii_lowercase).as_deref() {
                        Some("all") => false,
                        Some("latest") => true,
                        _ => return Err(ProtocolError::invalid_command()),
                    }
                }
                "latestn" => {
                    let n = params.take().and_then(|n| n.parse::<u32>().ok()).filter(|n| *n > 0);
                    latest_n = Some(n.ok_or_else(ProtocolError::invalid_command)?);
                }
                _ => self.parameter(piece, params)?,
            }
        }
    }

    fn parameter(&mut self, name: &str, params: &mut Params<'_>) -> Result<(), ProtocolError> {
        let bad = ProtocolError::invalid_command;
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "update" => self.operation = Operation::Update,
            "delete" => self.operation = Operation::Delete,
            _ => {
                let value = params.take_value_of(name).ok_or_else(bad)?;
                match lower.as_str() {
                    "id" => self.id = Some(NotificationId::parse(value).ok_or_else(bad)?),
                    // The C library spells it with an underscore.
                    "messagetype" | "message_type" => {
                        self.message_type = MessageType::parse(value).ok_or_else(bad)?;
                    }
                    "priority" => self.routing.priority = Priority::parse(value).ok_or_else(bad)?,
                    "notifier" => self.routing.notifier = notifier(value)?,
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

/// Longest name of a notifier in bytes; real ones are a word.
const MAX_NOTIFIER_BYTES: usize = 255;

fn notifier(name: &str) -> Result<Option<String>, ProtocolError> {
    let shaped = !name.is_empty() && name.len() <= MAX_NOTIFIER_BYTES && !name.contains(char::is_whitespace);
    if !shaped {
        return Err(ProtocolError::invalid_command());
    }
    Ok(Some(name.to_owned()))
}

impl NotifyAll {
    /// `args`: behind `notify:all:`.
    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::invalid_command;
        let mut params = Params::new(args);
        let mut notify = Notify::empty();
        let mut recipients: Vec<AtSign> = Vec::new();
        for name in Some(notify.parameters(&mut params)?).filter(|to| *to != "public").ok_or_else(bad)?.split(',') {
            let name = AtSign::parse(name).map_err(|_| bad())?;
            if recipients.contains(&name) {
                continue;
            }
            if recipients.len() == MAX_RECIPIENTS {
                let text = format!("notify:all takes at most {MAX_RECIPIENTS} recipients");
                return Err(ProtocolError::new(ErrorCode::IllegalArguments, text));
            }
            recipients.push(name);
        }
        notify.target = Target::AtSign(recipients.first().cloned().ok_or_else(bad)?);
        notify.key_and_value(params.rest().ok_or_else(bad)?)?;
        if notify.id.is_some() {
            return Err(bad()); // one id for several notifications
        }
        Ok(Self { recipients, notify })
    }
}

impl Notify {
    fn print_parameters(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ":{}", self.operation.as_str())?;
        if self.message_type == MessageType::Text {
            f.write_str(":messageType:text")?;
        }
        if self.routing.priority != Priority::default() {
            write!(f, ":priority:{}", self.routing.priority.as_str())?;
        }
        if let Some(n) = self.routing.latest {
            write!(f, ":strategy:latest:latestN:{n}")?;
        }
        match &self.routing.notifier {
            Some(notifier) => write!(f, ":notifier:{notifier}")?,
            None if self.routing.latest.is_some() => write!(f, ":notifier:{}", Routing::SYSTEM)?,
            None => {}
        }
        if let Some(ttln) = self.ttln {
            write!(f, ":ttln:{ttln}")?;
        }
        write!(f, "{}", self.metadata)
    }

    fn print_key(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ":{}", self.key)?;
        if let Some(from) = &self.from {
            write!(f, "{from}")?;
        }
        match &self.value {
            Some(value) => write!(f, ":{value}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("notify")?;
        if let Some(id) = &self.id {
            write!(f, ":id:{id}")?;
        }
        self.print_parameters(f)?;
        match &self.target {
            Target::AtSign(to) => write!(f, ":{to}")?,
            Target::Public => f.write_str(":public")?,
        }
        self.print_key(f)
    }
}

impl fmt::Display for NotifyAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("notify:all")?;
        self.notify.print_parameters(f)?;
        for (i, to) in self.recipients.iter().enumerate() {
            write!(f, "{}{to}", if i == 0 { ':' } else { ',' })?;
        }
        self.notify.print_key(f)
    }
}
