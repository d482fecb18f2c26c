//! Commands of `npp`: looking at rules and changing them.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use postern_observe::Verbosity;
use postern_rules::{Group, Question, Row, RowKind};
use postern_session::{DeviceName, HostPort, PermitOpen};
use serde_json::{Map, Value as Json};

use super::{BASE, DOMAIN, Task, at_sign, namespace, root};
use crate::offline::Query;
use crate::remote::{Action, Remote};

#[derive(Subcommand)]
pub(super) enum Word {
    /// Say whether a file of rules is good, and if not, where.
    Check {
        /// A file of user groups (YAML), or tables.json.
        file: PathBuf,
    },
    /// Say what the rules answer: of a file, or of a running service.
    ///
    /// Exit status: 0 allowed, 3 denied, 1 trouble.
    Simulate(Simulate),
    /// Ask whether a service is there.
    Ping(Connection),
    /// List the rows of a running service.
    List {
        /// Which table [default: all].
        table: Option<Table>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Write a row, say `npp put client atSign=@alice name=Alice`; prints its id.
    Put {
        /// Which table.
        table: Table,
        /// Its fields; `id=...` changes a row that is there.
        #[arg(value_name = "FIELD=VALUE", required = true)]
        fields: Vec<String>,
        #[command(flatten)]
        connection: Connection,
    },
    /// Delete a row and every row that needs it.
    Delete {
        /// Which table.
        table: Table,
        /// Its id.
        id: String,
        #[command(flatten)]
        connection: Connection,
    },
    /// Let a client reach a port of a device: writes the rows that are missing.
    Allow(Allow),
    /// List and change the groups of npp_atserver, records of the policy atSign.
    #[command(subcommand)]
    Groups(Groups),
}

#[derive(Args)]
pub(super) struct Connection {
    /// Who asks: a manager of the service.
    #[arg(short = 'a', long = "atsign", value_name = "@MANAGER")]
    at_sign: Option<String>,
    /// Key file of the atSign [default: ~/.atsign/keys/@MANAGER_key.atKeys].
    #[arg(short = 'k', long, aliases = ["keyFile", "keys"], value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// atSign of the policy service [default: the manager's].
    #[arg(short = 'p', long, value_name = "@POLICY")]
    policy: Option<String>,
    /// The atDirectory, host or host:port [default: root.atsign.org].
    #[arg(long, aliases = ["root-server", "rootDomain"])]
    root_domain: Option<String>,
    /// Namespace of the service [default: sshnp].
    #[arg(long, alias = "namespace")]
    base_namespace: Option<String>,
    /// Domain of the service [default: npp].
    #[arg(long)]
    domain_namespace: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Log what happens.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Log every decision.
    #[arg(long)]
    debug: bool,
}

#[derive(Args)]
pub(super) struct Simulate {
    /// Ask the rules of this file instead of a service.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    #[command(flatten)]
    whom: Whom,
    /// A target the client wants to reach there, host:port.
    #[arg(long, value_name = "HOST:PORT")]
    reach: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Args)]
struct Whom {
    /// Who knocks.
    #[arg(short = 'c', long, value_name = "@CLIENT")]
    client: String,
    /// atSign of the device.
    #[arg(short = 't', long, value_name = "@DEVICE")]
    daemon: String,
    /// Name of the device.
    #[arg(short = 'd', long, default_value = "default")]
    device: String,
    /// Group of the device.
    #[arg(long, default_value = "__none__")]
    device_group: String,
}

#[derive(Args)]
pub(super) struct Allow {
    #[command(flatten)]
    whom: Whom,
    /// What it may reach there: host:port, *:port, host:* or *:*.
    #[arg(long, value_name = "HOST:PORT", required = true, value_delimiter = ',')]
    open: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Subcommand)]
pub(super) enum Groups {
    /// List the groups.
    List(Connection),
    /// Write a group from a JSON file; `-` reads standard input. Prints its id.
    Put {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        connection: Connection,
    },
    /// Delete a group.
    Delete {
        /// Its id.
        id: String,
        #[command(flatten)]
        connection: Connection,
    },
}

/// A table as people write it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Table {
    #[value(alias = "clients")]
    Client,
    #[value(alias = "client-groups")]
    ClientGroup,
    #[value(alias = "client-group-members", alias = "member", alias = "members")]
    ClientGroupMember,
    #[value(alias = "daemons")]
    Daemon,
    #[value(alias = "services")]
    Service,
    #[value(alias = "service-acls", alias = "acl", alias = "acls")]
    ServiceAcl,
}

impl Word {
    pub(super) fn check(self) -> Result<Task, String> {
        match self {
            Self::Check { file } => Ok(Task::Check(file)),
            Self::Simulate(simulate) => simulate.check(),
            Self::Ping(connection) => connection.task(Action::Ping),
            Self::List { table, connection } => connection.task(Action::List(table.map(Table::kind))),
            Self::Put { table, fields, connection } => connection.task(Action::Put(row(table.kind(), &fields)?)),
            Self::Delete { table, id, connection } => connection.task(Action::Delete(table.kind(), id)),
            Self::Allow(Allow { whom, open, connection }) => {
                let question = whom.question()?;
                for permit in &open {
                    PermitOpen::parse(permit).map_err(|error| format!("--open: {error}"))?;
                }
                connection.task(Action::Allow(question, open))
            }
            Self::Groups(Groups::List(connection)) => connection.task(Action::ListGroups),
            Self::Groups(Groups::Put { file, connection }) => {
                let text = if file.as_os_str() == "-" {
                    std::io::read_to_string(std::io::stdin()).map_err(|error| format!("standard input: {error}"))?
                } else {
                    let text = postern_config::read_text(&file).map_err(|error| error.to_string())?;
                    text.ok_or_else(|| format!("there is no file {}", file.display()))?
                };
                let group: Group =
                    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
                let group = group.check().map_err(|error| format!("{}: {error}", file.display()))?;
                connection.task(Action::PutGroup(group))
            }
            Self::Groups(Groups::Delete { id, connection }) => {
                if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(format!("{id:?} is no id: see npp groups list"));
                }
                connection.task(Action::DeleteGroup(id))
            }
        }
    }
}

impl Connection {
    fn task(self, action: Action) -> Result<Task, String> {
        let manager = at_sign(&self.at_sign.ok_or("say who asks, with --atsign")?)?;
        let policy = self.policy.as_deref().map(at_sign).transpose()?.unwrap_or_else(|| manager.clone());
        Ok(Task::Remote(Box::new(Remote {
            manager,
            policy,
            key_file: self.key_file,
            root: root(self.root_domain.as_deref())?,
            base: namespace(self.base_namespace.as_deref().unwrap_or(BASE))?,
            domain: namespace(self.domain_namespace.as_deref().unwrap_or(DOMAIN))?,
            json: self.json,
            verbosity: Verbosity::of(self.verbose, self.debug),
            action,
        })))
    }
}

impl Simulate {
    fn check(self) -> Result<Task, String> {
        let question = self.whom.question()?;
        let reach = self.reach.as_deref().map(target).transpose()?;
        let query = Query { question, reach, json: self.connection.json };
        match self.rules {
            Some(path) => Ok(Task::SimulateFile(path, query)),
            None => self.connection.task(Action::Simulate(query)),
        }
    }
}

impl Whom {
    fn question(self) -> Result<Question, String> {
        Ok(Question {
            client: at_sign(&self.client)?,
            daemon: at_sign(&self.daemon)?,
            device: DeviceName::parse(&self.device).map_err(|error| error.to_string())?.as_str().to_owned(),
            group: self.device_group,
        })
    }
}

impl Table {
    fn kind(self) -> RowKind {
        match self {
            Self::Client => RowKind::Client,
            Self::ClientGroup => RowKind::ClientGroup,
            Self::ClientGroupMember => RowKind::ClientGroupMember,
            Self::Daemon => RowKind::Daemon,
            Self::Service => RowKind::Service,
            Self::ServiceAcl => RowKind::ServiceAcl,
        }
    }
}

/// A target, not a pattern.
fn target(text: &str) -> Result<HostPort, String> {
    let bad = || format!("--reach: {text:?} is no host:port");
    let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?;
    if host.is_empty() { Err(bad()) } else { Ok(HostPort { host: host.to_lowercase(), port }) }
}

/// A row of `name=value` words.
fn row(kind: RowKind, fields: &[String]) -> Result<Row, String> {
    let mut json = Map::new();
    for field in fields {
        let (name, value) = field.split_once('=').ok_or_else(|| format!("{field:?}: write name=value"))?;
        if json.insert(name.to_owned(), Json::from(value)).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    let row = kind.row(&Json::Object(json.clone())).ok_or_else(|| {
        let names = example(kind);
        format!("a {} has the fields {names}", kind.as_str())
    })?;
    let known = row.to_json();
    match json.keys().find(|name| known.get(name.as_str()).is_none()) {
        Some(unknown) => Err(format!("there is no field {unknown}; a {} has {}", kind.as_str(), example(kind))),
        None => Ok(row),
    }
}

fn example(kind: RowKind) -> &'static str {
    match kind {
        RowKind::Client => "atSign, name",
        RowKind::ClientGroup => "name",
        RowKind::ClientGroupMember => "clientId, clientGroupId",
        RowKind::Daemon => "atSign",
        RowKind::Service => "daemonId, deviceName, deviceGroupName",
        RowKind::ServiceAcl => "serviceId, clientGroupId, permitOpen",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_words() {
        let words = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let made = row(RowKind::Service, &words(&["daemonId=1", "deviceName=pi"])).unwrap();
        assert_eq!(
            made.to_json().to_string(),
            r#"{"id":"","daemonId":"1","deviceName":"pi","deviceGroupName":"__none__"}"#
        );
        for (kind, fields, told) in [
            (RowKind::Service, &["daemonId=1"][..], "deviceName"),
            (RowKind::Client, &["atSign=@a", "nmae=x"], "no field nmae"),
            (RowKind::Client, &["atSign"], "name=value"),
            (RowKind::Client, &["atSign=@a", "atSign=@b"], "twice"),
        ] {
            let error = row(kind, &words(fields)).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn targets_are_not_patterns() {
        assert_eq!(target("Localhost:22").unwrap(), HostPort::localhost(22));
        for bad in ["localhost", ":22", "localhost:*", "localhost:0"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }
}
