//! Replies: what the server prints and what a client makes of it.

use std::fmt::{self, Write as _};

use serde_json::{Value as Json, json};

use crate::{AtSign, ErrorCode, Notification, ProtocolError};

/// How much of a record a lookup returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Detail {
    /// The value.
    #[default]
    Value,
    /// The metadata as JSON.
    Meta,
    /// Key, value and metadata as JSON.
    All,
}

/// What stands behind every reply: who this connection is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Prompt {
    /// `@`: nobody yet.
    #[default]
    Anonymous,
    /// `@alice@`: the owner.
    Owner(AtSign),
    /// `@bob@`: another atServer, for its owner. Errors to it are printed as to nobody.
    Peer(AtSign),
    /// Nothing: a monitoring connection gets lines only, or readers that go line by
    /// line would take the prompt for the beginning of the next push.
    Monitoring,
}

/// How this client wants exceptions printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorShape {
    /// `error:AT0015-key not found : …`
    #[default]
    Text,
    /// `error:{"errorCode":…}`: clients that announced a version above 3.0.37.
    Json,
}

/// A reply, before it is known who it is printed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `data:⟨text⟩`
    Data(String),
    /// `data:null`
    Null,
    /// `error:…`
    Error(ProtocolError),
    /// The prompt alone, without a line (`pol`).
    PromptOnly,
    /// No bytes at all (`monitor`).
    Silence,
}

impl Reply {
    /// `data:success`
    pub fn success() -> Self {
        Self::Data("success".into())
    }

    /// `data:⟨json⟩`
    pub fn json(value: &Json) -> Self {
        Self::Data(json_line(value))
    }

    /// `data: ⟨json⟩`, the space as `stats` and `notify:all` have it.
    pub fn spaced_json(value: &Json) -> Self {
        Self::Data(format!(" {}", json_line(value)))
    }

    /// Reply and prompt in one piece, to be written as one record.
    pub fn print(&self, prompt: &Prompt, shape: ErrorShape) -> String {
        let mut out = String::new();
        match self {
            Self::Data(text) => {
                let _ = writeln!(out, "data:{text}");
            }
            Self::Null => out.push_str("data:null\n"),
            Self::Error(error) => {
                let prompt = if matches!(prompt, Prompt::Peer(_)) { &Prompt::Anonymous } else { prompt };
                print_error(&mut out, error, prompt, shape);
                let _ = write!(out, "{prompt}");
                return out;
            }
            Self::PromptOnly => {}
            Self::Silence => return out,
        }
        let _ = write!(out, "{prompt}");
        out
    }
}

fn print_error(out: &mut String, error: &ProtocolError, prompt: &Prompt, shape: ErrorShape) {
    let (code, message) = (error.code.code(), one_line(&error.message));
    let standard = error.code.description();
    let _ = if error.colon_shape {
        writeln!(out, "error:{code}:{message}")
    } else if shape == ErrorShape::Json {
        let json = json!({"errorCode": code, "errorDescription": format!("{standard} : {message}")});
        writeln!(out, "error:{}", json_line(&json))
    } else if *prompt == Prompt::Anonymous {
        writeln!(out, "error:{code}-Exception: {message}")
    } else {
        writeln!(out, "error:{code}-{standard} : {message}")
    };
}

/// JSON on one line, whatever a client takes for the end of one: Java's `Scanner` knows three more than `\n` and `\r`,
/// and a text that holds one would forge the lines behind it. In JSON they stand inside strings only.
pub(crate) fn json_line(json: &Json) -> String {
    let text = json.to_string();
    if !text.contains(['\u{85}', '\u{2028}', '\u{2029}']) {
        return text;
    }
    text.replace('\u{85}', "\\u0085").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// A message quotes what a stranger sent; a line break in it would forge a reply.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl fmt::Display for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("@"),
            Self::Owner(who) | Self::Peer(who) => write!(f, "{who}@"),
            Self::Monitoring => Ok(()),
        }
    }
}

/// A line from an atServer, as a client reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerLine {
    /// `data:…`
    Data(String),
    /// `error:…` in any of its three shapes.
    Error(WireError),
    /// A pushed notification.
    Push(Box<Notification>),
    /// Statistics, prompts, anything newer than we are.
    Other,
}

/// An error as a client received it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireError {
    /// The code when it is one we know.
    pub code: Option<ErrorCode>,
    /// `AT0015` as printed.
    pub code_text: String,
    /// The rest.
    pub message: String,
}

impl ServerLine {
    /// Reads a line without its end. Prompts left in front are dropped.
    pub fn parse(line: &str) -> Self {
        let line = without_prompt(line);
        if let Some(data) = line.strip_prefix("data:") {
            return Self::Data(data.strip_prefix(' ').unwrap_or(data).to_owned());
        }
        if let Some(error) = line.strip_prefix("error:") {
            return Self::Error(WireError::parse(error));
        }
        match line.strip_prefix("notification:").and_then(|json| Notification::from_push(json.trim())) {
            Some(push) => Self::Push(Box::new(push)),
            None => Self::Other,
        }
    }
}

/// Drops `@` or `@alice@` in front of a reply word.
fn without_prompt(line: &str) -> &str {
    if !line.starts_with('@') {
        return line;
    }
    let head = line.split(':').next().unwrap_or(line);
    head.rfind('@').map_or(line, |at| line.get(at + 1..).unwrap_or(line))
}

impl WireError {
    fn parse(text: &str) -> Self {
        if let Ok(json) = serde_json::from_str::<Json>(text) {
            let field = |name: &str| json.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
            return Self::made(field("errorCode"), field("errorDescription"));
        }
        let (code, message) = text.split_once(['-', ':']).unwrap_or((text, ""));
        Self::made(code.trim().to_owned(), message.trim().to_owned())
    }

    fn made(code_text: String, message: String) -> Self {
        Self { code: ErrorCode::from_code(&code_text), code_text, message }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code_text, self.message)
    }
}

impl std::error::Error for WireError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> AtSign {
        AtSign::parse("@alice").unwrap()
    }

    #[test]
    fn bytes_of_the_reference() {
        let owner = Prompt::Owner(alice());
        let plain = ErrorShape::Text;
        assert_eq!(Reply::success().print(&owner, plain), "data:success\n@alice@");
        assert_eq!(Reply::Null.print(&Prompt::Anonymous, plain), "data:null\n@");
        assert_eq!(Reply::Data("ok".into()).print(&Prompt::Monitoring, plain), "data:ok\n");
        let missing = Reply::Error(ProtocolError::no_such_key("shared_key.bob@alice"));
        assert_eq!(
            missing.print(&owner, plain),
            "error:AT0015-key not found : shared_key.bob@alice does not exist in keystore\n@alice@"
        );
        assert_eq!(
            missing.print(&owner, ErrorShape::Json),
            "error:{\"errorCode\":\"AT0015\",\"errorDescription\":\"key not found : shared_key.bob@alice does not exist in keystore\"}\n@alice@"
        );
        let invalid = Reply::Error(ProtocolError::invalid_command());
        assert_eq!(invalid.print(&Prompt::Anonymous, plain), "error:AT0003-Exception: invalid command\n@");
        let denied =
            Reply::Error(ProtocolError::enrollment(ErrorCode::EnrollmentDenied, "enrollment_id: 1234 is denied"));
        assert_eq!(denied.print(&Prompt::Anonymous, ErrorShape::Json), "error:AT0025:enrollment_id: 1234 is denied\n@");
        let peer = Prompt::Peer(alice());
        assert_eq!(Reply::PromptOnly.print(&peer, plain), "@alice@");
        assert_eq!(Reply::success().print(&peer, plain), "data:success\n@alice@");
        assert_eq!(
            missing.print(&peer, plain),
            "error:AT0015-Exception: shared_key.bob@alice does not exist in keystore\n@"
        );
        let auth = Reply::Error(ProtocolError::needs_auth());
        assert_eq!(
            auth.print(&Prompt::Anonymous, plain),
            "error:AT0401-Exception: Command cannot be executed without auth\n@"
        );
    }

    #[test]
    fn a_client_reads_all_three_shapes_behind_any_prompt() {
        for (line, code) in [
            ("error:AT0015-key not found : x", "AT0015"),
            ("@alice@error:AT0025:enrollment_id: 1 is denied", "AT0025"),
            ("@error:{\"errorCode\":\"AT0401\",\"errorDescription\":\"no\"}", "AT0401"),
        ] {
            let ServerLine::Error(error) = ServerLine::parse(line) else { panic!("{line}") };
            assert_eq!(error.code_text, code);
        }
        assert_eq!(ServerLine::parse("@alice@data:null"), ServerLine::Data("null".into()));
        assert_eq!(ServerLine::parse("@alice@"), ServerLine::Other);
        assert_eq!(ServerLine::parse("notification: {\"id\":\"-1\"}"), ServerLine::Other);
    }

    #[test]
    fn quoted_line_breaks_cannot_forge_a_reply() {
        let reply = Reply::Error(ProtocolError::new(ErrorCode::InvalidKey, "a\ndata:success\r"));
        assert_eq!(reply.print(&Prompt::Anonymous, ErrorShape::Text), "error:AT0016-Exception: a data:success \n@");
    }
}
