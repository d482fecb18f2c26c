//! `update`, `update:json` and `update:meta`: writing records.

use std::fmt;

use serde_json::{Map, Value as Json};

use crate::metadata::Metadata;
use crate::params::Params;
use crate::{AtKey, ErrorCode, KeyError, MetadataChange, ProtocolError};

/// `update⟨metadata⟩[:public|:@⟨sharedWith⟩]:⟨key⟩[@⟨owner⟩] ⟨value⟩`, or the same said by
/// `update:json:{"atKey":…,"value":…,"sharedBy":…,"sharedWith":…,"metadata":{…}}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Update {
    /// What it is called; the owner may be missing.
    pub key: AtKey,
    /// Metadata to set or clear.
    pub metadata: MetadataChange,
    /// At least one character, no line break.
    pub value: String,
}

/// `update:meta[:public|:@⟨sharedWith⟩]:⟨key⟩@⟨owner⟩⟨metadata⟩`: the value stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateMeta {
    /// What it is called; the owner may be missing.
    pub key: AtKey,
    /// Metadata to set or clear.
    pub metadata: MetadataChange,
}

impl Update {
    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::invalid_command;
        let args = without_no_commit(args);
        if let Some(json) = crate::request::strip_word(args, "json") {
            return Self::from_json(json);
        }
        let (head, value) = args.split_once(' ').ok_or_else(bad)?;
        if value.is_empty() {
            return Err(bad());
        }
        let mut params = Params::new(head);
        let metadata = metadata_before_key(&mut params)?;
        let key = AtKey::parse(params.rest().ok_or_else(bad)?).map_err(invalid_key)?;
        Ok(Self { key, metadata, value: value.to_owned() })
    }

    fn from_json(json: &str) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::invalid_command;
        let json: Map<String, Json> = serde_json::from_str(json).map_err(|_| bad())?;
        let text = |name: &str| json.get(name).and_then(Json::as_str).filter(|text| !text.is_empty());
        let none = Map::new();
        let members = json.get("metadata").and_then(Json::as_object).unwrap_or(&none);
        let value = match json.get("value").ok_or_else(bad)? {
            Json::String(value) => value.clone(),
            Json::Number(number) => number.to_string(),
            Json::Bool(flag) => flag.to_string(),
            _ => return Err(bad()),
        };
        if value.trim().is_empty() || value.contains(['\n', '\r']) {
            let text = "a value has at least one character and no line break";
            return Err(ProtocolError::new(ErrorCode::InvalidSyntax, text));
        }
        let at = |name: &str| if name.starts_with('@') { name.to_owned() } else { format!("@{name}") };
        let name = text("atKey").ok_or_else(bad)?;
        let is_public = members.get("isPublic").and_then(Json::as_bool) == Some(true);
        let scope = match text("sharedWith") {
            Some(with) => format!("{}:", at(with)),
            None if is_public && !name.starts_with("public:") => "public:".to_owned(),
            None => String::new(),
        };
        let owner = text("sharedBy").filter(|_| !name.contains('@')).map(at).unwrap_or_default();
        let key = AtKey::parse(&format!("{scope}{name}{owner}")).map_err(invalid_key)?;
        Ok(Self { key, metadata: metadata_of(members)?, value: value.trim_end().to_owned() })
    }
}

impl UpdateMeta {
    /// `args`: behind `update:meta:`.
    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::invalid_command;
        let args = without_no_commit(args);
        // The scope belongs to the key; metadata begins behind the piece with the owner.
        let mut params = Params::new(args);
        let mut key = String::new();
        loop {
            let piece = params.take().ok_or_else(bad)?;
            key.push_str(piece);
            if !piece.starts_with('@') && piece.contains('@') {
                break;
            }
            key.push(':');
        }
        let mut metadata = MetadataChange::default();
        while let Some(name) = params.take() {
            let value = params.take_value_of(name).ok_or_else(bad)?;
            if let Some(known) = Metadata::known(name) {
                take_metadata(&mut metadata, known, value)?;
            }
        }
        Ok(Self { key: AtKey::parse(&key).map_err(invalid_key)?, metadata })
    }
}

/// `nc`: a newer client wishes the write not to be synchronised. It is all the same: such a record is read like any other.
fn without_no_commit(args: &str) -> &str {
    crate::request::strip_word(args, "nc").unwrap_or(args)
}

fn invalid_key(error: KeyError) -> ProtocolError {
    ProtocolError::new(ErrorCode::InvalidKey, error.to_string())
}

/// Reads `name:value` pairs up to the key. Known names are checked; unknown ones
/// are newer than we are and skipped with their value.
pub(super) fn metadata_before_key(params: &mut Params<'_>) -> Result<MetadataChange, ProtocolError> {
    let mut change = MetadataChange::default();
    while !params.at_key() {
        let name = params.take().unwrap_or_default();
        let value = params.take_value_of(name).unwrap_or_default();
        if let Some(known) = Metadata::known(name) {
            take_metadata(&mut change, known, value)?;
        }
    }
    Ok(change)
}

/// The members of a JSON object; those that are null say nothing, unknown ones and dates are the server's to know.
fn metadata_of(members: &Map<String, Json>) -> Result<MetadataChange, ProtocolError> {
    let mut change = MetadataChange::default();
    for (name, value) in members {
        let Some(known) = Metadata::known(name) else { continue };
        let text = match value {
            Json::Null => continue,
            Json::String(text) => text.clone(),
            Json::Number(number) => number.to_string(),
            Json::Bool(flag) => flag.to_string(),
            Json::Object(hash) if known == "pubKeyHash" => {
                let member = |name: &str| hash.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
                take_metadata(&mut change, "hashingAlgo", &member("hashingAlgo"))?;
                member("hash")
            }
            Json::Array(_) | Json::Object(_) => return Err(out_of_range(known)),
        };
        take_metadata(&mut change, known, &text)?;
    }
    Ok(change)
}

pub(super) fn take_metadata(
    change: &mut MetadataChange,
    known: &'static str,
    value: &str,
) -> Result<(), ProtocolError> {
    // The grammar of a line; JSON could smuggle more in.
    if value.contains(|c: char| c == ':' || c == '@' || c.is_whitespace() || c.is_control()) {
        return Err(out_of_range(known));
    }
    change.take(known, value).map_err(|bad| out_of_range(bad.name))
}

fn out_of_range(name: &str) -> ProtocolError {
    ProtocolError::new(ErrorCode::InvalidSyntax, format!("invalid value for {name}"))
}

impl fmt::Display for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "update{}:{} {}", self.metadata, self.key, self.value)
    }
}

impl fmt::Display for UpdateMeta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "update:meta:{}{}", self.key, self.metadata)
    }
}
