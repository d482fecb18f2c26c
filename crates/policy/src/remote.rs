//! What managers do from afar.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use postern_client::{Client, ClientError, RecordOptions, Settings, StartError, identity};
use postern_net::tasks::Tasks;
use postern_net::tls::{TlsError, Trust};
use postern_observe::{Verbosity, print, say};
use postern_proto::{AtKey, AtSign, ServerAddress};
use postern_rules::manage::Operation;
use postern_rules::rpc::{Domain, RequestIds};
use postern_rules::{Answer, Group, Question, Row, RowKind};
use serde_json::{Map, Value as Json, json};

use crate::call::{CallError, Manager};
use crate::keep::{GROUPS, KeepError, read_groups, record_name};
use crate::limits::{CHANGE_LIFE, DRAIN, HEARTBEAT};
use crate::offline::{Query, show};

/// Who asks whom for what.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) manager: AtSign,
    pub(crate) policy: AtSign,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) root: ServerAddress,
    pub(crate) base: String,
    pub(crate) domain: String,
    pub(crate) json: bool,
    pub(crate) verbosity: Verbosity,
    pub(crate) action: Action,
}

/// What a manager wants.
#[derive(Debug)]
pub(crate) enum Action {
    Ping,
    List(Option<RowKind>),
    Put(Row),
    Delete(RowKind, String),
    Simulate(Query),
    /// Write whatever rows are missing for this client to reach these permits.
    Allow(Question, Vec<String>),
    ListGroups,
    PutGroup(Group),
    DeleteGroup(String),
}

/// Why it is not done.
#[derive(Debug)]
pub(crate) enum RemoteError {
    Start(StartError),
    Trust(TlsError),
    Client(ClientError),
    Call(CallError),
    Records(KeepError),
    /// The service's word for why it changed nothing.
    NotDone(String),
    Nonsense,
}

/// Connects, does it, prints the outcome.
pub(crate) async fn run(remote: Remote) -> Result<ExitCode, RemoteError> {
    let identity = identity(&remote.manager, remote.key_file.as_deref()).map_err(RemoteError::Start)?;
    let domain = Domain::manage(&remote.domain, &remote.base);
    let settings = Settings {
        root: remote.root.clone(),
        trust: Trust::load().map_err(RemoteError::Trust)?,
        heartbeat: HEARTBEAT,
        monitor: Some(domain.replies_regex()),
    };
    let tasks = Tasks::new();
    let (client, inbox) = Client::connect(identity, settings, &tasks).await.map_err(RemoteError::Client)?;
    let ids = RequestIds::new(u32::from_ne_bytes(postern_crypto::random()));
    let mut manager = Manager { client, inbox, policy: remote.policy.clone(), domain, ids };
    let outcome = act(remote, &mut manager).await;
    tasks.close_and_wait(DRAIN).await;
    outcome
}

async fn act(remote: Remote, manager: &mut Manager) -> Result<ExitCode, RemoteError> {
    let client = manager.client.clone();
    match remote.action {
        Action::Ping => {
            let answer = manager.call(&Operation::Ping).await?;
            print(if remote.json { answer.to_string() } else { format!("{} is there", remote.policy) });
        }
        Action::List(kinds) => {
            let kinds = kinds.map_or(RowKind::ALL.to_vec(), |kind| vec![kind]);
            let mut all = Map::new();
            for kind in kinds {
                let rows = list(manager, kind).await?;
                all.insert(kind.as_str().to_owned(), rows.iter().map(Row::to_json).collect());
            }
            print_rows(&all, remote.json);
        }
        Action::Put(row) => {
            let id = put(manager, row).await?;
            print(if remote.json { json!({"id": id}).to_string() } else { id });
        }
        Action::Delete(kind, id) => {
            done(kind, &manager.call(&Operation::Delete(kind, id)).await?)?;
            if remote.json {
                print(json!({"success": true}));
            }
        }
        Action::Simulate(query) => {
            let answer = manager.call(&Operation::Simulate(query.question.clone())).await?;
            return Ok(show(&Answer::from_json(&answer).ok_or(RemoteError::Nonsense)?, &query));
        }
        Action::Allow(question, permits) => {
            let written = allow(manager, &question, &permits).await?;
            if remote.json {
                print(Json::Object(written));
            } else {
                say(format_args!("{} may reach {} at {}", question.client, permits.join(","), question.device));
            }
        }
        Action::ListGroups => {
            let groups = read_groups(&client, &remote.base).await.map_err(RemoteError::Records)?;
            for group in groups.groups() {
                print(json!(group));
            }
        }
        Action::PutGroup(mut group) => {
            let groups = read_groups(&client, &remote.base).await.map_err(RemoteError::Records)?;
            let id = group.id.get_or_insert_with(|| groups.next_id()).clone();
            let name = record_name(&id, GROUPS, &remote.base);
            let text = json!(group).to_string();
            client.put_own(&name, &text, RecordOptions::default()).await.map_err(RemoteError::Client)?;
            client.notify_own(&name, &text, CHANGE_LIFE).await.map_err(RemoteError::Client)?;
            print(id);
        }
        Action::DeleteGroup(id) => {
            let name = record_name(&id, GROUPS, &remote.base);
            client.delete(&AtKey::own(&name, client.at_sign())).await.map_err(RemoteError::Client)?;
            client.notify_own(&name, "deleted", CHANGE_LIFE).await.map_err(RemoteError::Client)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(manager: &mut Manager, kind: RowKind) -> Result<Vec<Row>, RemoteError> {
    let answer = manager.call(&Operation::Get(kind)).await?;
    let rows = answer.get("list").and_then(Json::as_array).ok_or(RemoteError::Nonsense)?;
    Ok(rows.iter().filter_map(|row| kind.row(row)).collect())
}

async fn put(manager: &mut Manager, row: Row) -> Result<String, RemoteError> {
    let kind = row.kind();
    done(kind, &manager.call(&Operation::Put(row)).await?)
}

/// The id of what was changed.
fn done(kind: RowKind, answer: &Json) -> Result<String, RemoteError> {
    if answer.get("success").and_then(Json::as_bool) == Some(true) {
        return Ok(answer.get(kind.id_name()).and_then(Json::as_str).unwrap_or_default().to_owned());
    }
    let why = answer.get("message").and_then(Json::as_str).unwrap_or("no reason given");
    Err(RemoteError::NotDone(why.chars().filter(|c| !c.is_control()).take(500).collect()))
}

/// Finds or writes: client, a group of the client's own, daemon, service, ACLs.
async fn allow(
    manager: &mut Manager,
    question: &Question,
    permits: &[String],
) -> Result<Map<String, Json>, RemoteError> {
    let Question { daemon, device, group, client } = question;
    let mut written = Map::new();
    let mut find = async |row: Json, kind: RowKind| -> Result<String, RemoteError> {
        let matches = |found: &Row| {
            let found = found.to_json();
            row.as_object().is_some_and(|row| row.iter().all(|(name, value)| found.get(name) == Some(value)))
        };
        if let Some(found) = list(manager, kind).await?.iter().find(|found| matches(found)) {
            return Ok(found.id().to_owned());
        }
        let id = put(manager, kind.row(&row).ok_or(RemoteError::Nonsense)?).await?;
        let list = written.entry(kind.as_str()).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(Json::from(id.as_str()));
        }
        Ok(id)
    };
    let client_id = find(json!({"atSign": client.as_str()}), RowKind::Client).await?;
    let group_id = find(json!({"name": client.as_str()}), RowKind::ClientGroup).await?;
    find(json!({"clientId": client_id, "clientGroupId": group_id}), RowKind::ClientGroupMember).await?;
    let daemon_id = find(json!({"atSign": daemon.as_str()}), RowKind::Daemon).await?;
    let service = json!({"daemonId": daemon_id, "deviceName": device, "deviceGroupName": group});
    let service_id = find(service, RowKind::Service).await?;
    for permit in permits {
        let acl =
            json!({"serviceId": service_id, "clientGroupId": group_id, "permitOpen": permit.trim().to_lowercase()});
        find(acl, RowKind::ServiceAcl).await?;
    }
    Ok(written)
}

fn print_rows(tables: &Map<String, Json>, as_json: bool) {
    if as_json {
        return print(Json::Object(tables.clone()));
    }
    for (kind, rows) in tables {
        for row in rows.as_array().into_iter().flatten() {
            let fields = row.as_object().into_iter().flatten();
            let words: Vec<String> =
                fields.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect();
            print(format_args!("{kind}\t{}", words.join("\t")));
        }
    }
}

impl From<CallError> for RemoteError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Trust(error) => error.fmt(f),
            Self::Client(error) => error.fmt(f),
            Self::Call(error) => error.fmt(f),
            Self::Records(error) => error.fmt(f),
            Self::NotDone(why) => write!(f, "nothing was changed: {why}"),
            Self::Nonsense => f.write_str("the policy service answered something unreadable"),
        }
    }
}
