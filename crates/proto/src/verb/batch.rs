//! `batch:[{"id":1,"command":"update:…"},…]`

use std::fmt;

use serde_json::{Value as Json, json};

use crate::{ErrorCode, ProtocolError};

/// Several requests in one line, answered in one.
#[derive(Clone, PartialEq, Eq)]
pub struct BatchRequest {
    /// Carried out in order.
    pub commands: Vec<BatchCommand>,
}

/// One of them.
#[derive(Clone, PartialEq, Eq)]
pub struct BatchCommand {
    /// The client's number for it.
    pub id: i64,
    /// The line, not yet understood.
    pub line: String,
}

/// Most commands in one batch: each is a transaction of its own, for which the connection waits.
pub const MAX_BATCH: usize = 100;

impl BatchRequest {
    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::invalid_command;
        let Ok(Json::Array(items)) = serde_json::from_str(args) else { return Err(bad()) };
        if items.len() > MAX_BATCH {
            let text = format!("a batch has at most {MAX_BATCH} commands");
            return Err(ProtocolError::new(ErrorCode::IllegalArguments, text));
        }
        let command = |item: &Json| {
            let id = item.get("id").and_then(Json::as_i64).ok_or_else(bad)?;
            let line = item.get("command").and_then(Json::as_str).ok_or_else(bad)?;
            Ok(BatchCommand { id, line: line.to_owned() })
        };
        Ok(Self { commands: items.iter().map(command).collect::<Result<_, _>>()? })
    }
}

impl fmt::Display for BatchRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<Json> = self.commands.iter().map(|c| json!({"id": c.id, "command": c.line})).collect();
        write!(f, "batch:{}", Json::Array(items))
    }
}
