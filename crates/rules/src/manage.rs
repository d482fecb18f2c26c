//! What managers ask of a policy service. Source: NoPorts policy, the manager RPC of npp v2.

use postern_proto::AtSign;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::question::Question;
use crate::tables::{Row, RowKind};

/// A manager's wish.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Are you there?
    Ping,
    /// All rows of a table.
    Get(RowKind),
    /// Write a row; one without an id is new.
    Put(Row),
    /// Delete a row.
    Delete(RowKind, String),
    /// What would you answer?
    Simulate(Question),
}

/// A wish that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadOperation(&'static str);

#[derive(Deserialize)]
struct Wire {
    operation: String,
    #[serde(default)]
    target: Option<String>,
    #[serde(default)]
    value: Json,
}

impl Operation {
    /// Reads the payload of a request.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(payload: &Json) -> Result<Self, BadOperation> {
        let wire = Wire::deserialize(payload).map_err(|_| BadOperation("no operation"))?;
        let target = wire.target.as_deref().unwrap_or_default();
        match wire.operation.as_str() {
            "ping" => Ok(Self::Ping),
            "get" => kind_of_list(target).map(Self::Get).ok_or(BadOperation("nothing of that name to get")),
            "put" => {
                let kind = kind_of_row(target).ok_or(BadOperation("nothing of that name to put"))?;
                kind.row(&wire.value).map(Self::Put).ok_or(BadOperation("the value lacks something"))
            }
            "delete" => {
                let kind = kind_of_row(target).ok_or(BadOperation("nothing of that name to delete"))?;
                let id = wire.value.get(kind.id_name()).and_then(Json::as_str);
                id.map(|id| Self::Delete(kind, id.to_owned())).ok_or(BadOperation("the value lacks the id"))
            }
            "simulate" => {
                Question::from_json(&wire.value).map(Self::Simulate).ok_or(BadOperation("the value is no question"))
            }
            _ => Err(BadOperation("no such operation")),
        }
    }

    /// The payload of a request.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Ping => json!({"operation": "ping"}),
            Self::Get(kind) => json!({"operation": "get", "target": list_name(*kind)}),
            Self::Put(row) => json!({"operation": "put", "target": row.kind().as_str(), "value": row.to_json()}),
            Self::Delete(kind, id) => {
                json!({"operation": "delete", "target": kind.as_str(), "value": {(kind.id_name()): id}})
            }
            Self::Simulate(question) => json!({"operation": "simulate", "value": question.to_json()}),
        }
    }

    /// True when it only looks.
    pub fn only_reads(&self) -> bool {
        matches!(self, Self::Ping | Self::Get(_) | Self::Simulate(_))
    }
}

/// The payload that answers [`Operation::Get`].
pub fn listed(rows: &[Row]) -> Json {
    json!({"amount": rows.len(), "list": rows.iter().map(Row::to_json).collect::<Vec<_>>()})
}

/// The payload that answers [`Operation::Put`] and [`Operation::Delete`].
pub fn done(kind: RowKind, id: &str) -> Json {
    json!({"success": true, (kind.id_name()): id})
}

/// The payload that says that nothing was changed.
pub fn not_done(why: &str) -> Json {
    json!({"success": false, "message": why})
}

/// Who may manage: nobody, or those on the list.
pub fn may_manage(list: &[AtSign], who: &AtSign) -> bool {
    list.contains(who)
}

/// `allClientGroups`
fn list_name(kind: RowKind) -> String {
    format!("all{}s", kind.as_str())
}

fn kind_of_list(name: &str) -> Option<RowKind> {
    RowKind::ALL.into_iter().find(|kind| list_name(*kind) == name)
}

fn kind_of_row(name: &str) -> Option<RowKind> {
    RowKind::ALL.into_iter().find(|kind| kind.as_str() == name)
}

impl std::fmt::Display for BadOperation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadOperation {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_forms() {
        let row = RowKind::Daemon.row(&json!({"atSign": "@d"})).unwrap();
        for (operation, text) in [
            (Operation::Ping, r#"{"operation":"ping"}"#),
            (Operation::Get(RowKind::ServiceAcl), r#"{"operation":"get","target":"allServiceACLs"}"#),
            (Operation::Put(row), r#"{"operation":"put","target":"Daemon","value":{"id":"","atSign":"@d"}}"#),
            (
                Operation::Delete(RowKind::ClientGroup, "3".into()),
                r#"{"operation":"delete","target":"ClientGroup","value":{"clientGroupId":"3"}}"#,
            ),
        ] {
            assert_eq!(operation.to_json().to_string(), text);
            assert_eq!(Operation::from_json(&serde_json::from_str(text).unwrap()), Ok(operation));
        }
        let lists = RowKind::ALL.map(list_name);
        assert_eq!(
            lists,
            ["allClients", "allClientGroups", "allClientGroupMembers", "allDaemons", "allServices", "allServiceACLs"]
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, why) in [
            ("{}", "no operation"),
            (r#"{"operation":"drop"}"#, "no such operation"),
            (r#"{"operation":"get","target":"Client"}"#, "nothing of that name to get"),
            (r#"{"operation":"put","target":"Client","value":{}}"#, "the value lacks something"),
            (r#"{"operation":"delete","target":"Client","value":{"id":"1"}}"#, "the value lacks the id"),
            (r#"{"operation":"simulate"}"#, "the value is no question"),
        ] {
            let told = Operation::from_json(&serde_json::from_str(text).unwrap()).unwrap_err();
            assert_eq!(told.to_string(), why, "{text}");
        }
    }

    #[test]
    fn answers() {
        assert_eq!(done(RowKind::Client, "4").to_string(), r#"{"success":true,"clientId":"4"}"#);
        assert_eq!(listed(&[]).to_string(), r#"{"amount":0,"list":[]}"#);
    }
}
