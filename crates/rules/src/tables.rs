//! Rules as tables that refer to each other. Source: NoPorts policy, npp v2.
//!
//! Clients are members of client groups; a service is a device of a daemon; an ACL opens one permit of a service to a
//! client group. Rows name each other by id, so what a row needs must exist, and what needs a row goes with it: a number
//! that is given again must not bring back what its former owner could reach.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use postern_proto::AtSign;
use serde::{Deserialize, Serialize};

use crate::limits::ROWS;
use crate::names::{self, BadRule};
use crate::question::{Answer, Question};

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKind {
    /// [`Client`]
    Client,
    /// [`ClientGroup`]
    ClientGroup,
    /// [`ClientGroupMember`]
    ClientGroupMember,
    /// [`Daemon`]
    Daemon,
    /// [`Service`]
    Service,
    /// [`ServiceAcl`]
    ServiceAcl,
}

/// Somebody who knocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// Its number; empty until it is stored.
    #[serde(default)]
    pub id: String,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Who.
    pub at_sign: String,
}

/// Clients that may do the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientGroup {
    /// Its number.
    #[serde(default)]
    pub id: String,
    /// For people.
    pub name: String,
}

/// A client in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientGroupMember {
    /// Its number.
    #[serde(default)]
    pub id: String,
    /// Who.
    pub client_id: String,
    /// In which.
    pub client_group_id: String,
}

/// A device's atSign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Daemon {
    /// Its number.
    #[serde(default)]
    pub id: String,
    /// Who.
    pub at_sign: String,
}

/// A device: it must have this name **and** this group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Its number.
    #[serde(default)]
    pub id: String,
    /// Whose.
    pub daemon_id: String,
    /// Its name.
    pub device_name: String,
    /// Its group.
    #[serde(default = "no_group")]
    pub device_group_name: String,
}

/// What a group may reach there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAcl {
    /// Its number.
    #[serde(default)]
    pub id: String,
    /// Where.
    pub service_id: String,
    /// Who.
    pub client_group_id: String,
    /// A permit-open entry.
    pub permit_open: String,
}

/// A row of any table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named like what they hold")]
pub enum Row {
    Client(Client),
    ClientGroup(ClientGroup),
    ClientGroupMember(ClientGroupMember),
    Daemon(Daemon),
    Service(Service),
    ServiceAcl(ServiceAcl),
}

/// All tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tables {
    clients: BTreeMap<String, Client>,
    client_groups: BTreeMap<String, ClientGroup>,
    client_group_members: BTreeMap<String, ClientGroupMember>,
    daemons: BTreeMap<String, Daemon>,
    services: BTreeMap<String, Service>,
    #[serde(rename = "serviceACLs")]
    service_acls: BTreeMap<String, ServiceAcl>,
}

/// A row that another one names and that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingRow(pub RowKind, pub String);

fn no_group() -> String {
    "__none__".to_owned()
}

impl RowKind {
    /// All of them, those that are named first before those that name them.
    pub const ALL: [Self; 6] =
        [Self::Client, Self::ClientGroup, Self::ClientGroupMember, Self::Daemon, Self::Service, Self::ServiceAcl];

    /// As managers write it: `ClientGroup`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "Client",
            Self::ClientGroup => "ClientGroup",
            Self::ClientGroupMember => "ClientGroupMember",
            Self::Daemon => "Daemon",
            Self::Service => "Service",
            Self::ServiceAcl => "ServiceACL",
        }
    }

    /// As the record's name has it: `client_group_members`.
    pub fn record(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::ClientGroup => "client_group",
            Self::ClientGroupMember => "client_group_members",
            Self::Daemon => "daemon",
            Self::Service => "service",
            Self::ServiceAcl => "service_acl",
        }
    }

    /// As replies name the number: `clientGroupId`.
    pub fn id_name(self) -> &'static str {
        match self {
            Self::Client => "clientId",
            Self::ClientGroup => "clientGroupId",
            Self::ClientGroupMember => "clientGroupMemberId",
            Self::Daemon => "daemonId",
            Self::Service => "serviceId",
            Self::ServiceAcl => "serviceACLId",
        }
    }

    /// Reads a row of this table.
    pub fn row(self, json: &serde_json::Value) -> Option<Row> {
        Some(match self {
            Self::Client => Row::Client(Client::deserialize(json).ok()?),
            Self::ClientGroup => Row::ClientGroup(ClientGroup::deserialize(json).ok()?),
            Self::ClientGroupMember => Row::ClientGroupMember(ClientGroupMember::deserialize(json).ok()?),
            Self::Daemon => Row::Daemon(Daemon::deserialize(json).ok()?),
            Self::Service => Row::Service(Service::deserialize(json).ok()?),
            Self::ServiceAcl => Row::ServiceAcl(ServiceAcl::deserialize(json).ok()?),
        })
    }
}

impl Row {
    /// Which table it belongs to.
    pub fn kind(&self) -> RowKind {
        match self {
            Self::Client(_) => RowKind::Client,
            Self::ClientGroup(_) => RowKind::ClientGroup,
            Self::ClientGroupMember(_) => RowKind::ClientGroupMember,
            Self::Daemon(_) => RowKind::Daemon,
            Self::Service(_) => RowKind::Service,
            Self::ServiceAcl(_) => RowKind::ServiceAcl,
        }
    }

    /// Its number; empty until it is stored.
    pub fn id(&self) -> &str {
        match self {
            Self::Client(row) => &row.id,
            Self::ClientGroup(row) => &row.id,
            Self::ClientGroupMember(row) => &row.id,
            Self::Daemon(row) => &row.id,
            Self::Service(row) => &row.id,
            Self::ServiceAcl(row) => &row.id,
        }
    }

    fn id_mut(&mut self) -> &mut String {
        match self {
            Self::Client(row) => &mut row.id,
            Self::ClientGroup(row) => &mut row.id,
            Self::ClientGroupMember(row) => &mut row.id,
            Self::Daemon(row) => &mut row.id,
            Self::Service(row) => &mut row.id,
            Self::ServiceAcl(row) => &mut row.id,
        }
    }

    /// As it is stored and listed.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Client(row) => serde_json::to_value(row),
            Self::ClientGroup(row) => serde_json::to_value(row),
            Self::ClientGroupMember(row) => serde_json::to_value(row),
            Self::Daemon(row) => serde_json::to_value(row),
            Self::Service(row) => serde_json::to_value(row),
            Self::ServiceAcl(row) => serde_json::to_value(row),
        }
        .unwrap_or_default()
    }

    /// Rows that must be there for this one.
    fn needs(&self) -> Vec<(RowKind, &str)> {
        match self {
            Self::Client(_) | Self::ClientGroup(_) | Self::Daemon(_) => Vec::new(),
            Self::ClientGroupMember(row) => {
                vec![(RowKind::Client, &row.client_id), (RowKind::ClientGroup, &row.client_group_id)]
            }
            Self::Service(row) => vec![(RowKind::Daemon, &row.daemon_id)],
            Self::ServiceAcl(row) => {
                vec![(RowKind::Service, &row.service_id), (RowKind::ClientGroup, &row.client_group_id)]
            }
        }
    }

    /// Every name and permit in its normal form.
    fn check(self) -> Result<Self, BadRule> {
        let kind = self.kind().as_str();
        let place = || kind.to_owned();
        let name = |text: &str| names::at_sign(text, &place).map(|name| name.to_string());
        let id = self.id();
        if id.len() > 19 || !id.bytes().all(|b| b.is_ascii_digit()) {
            return Err(BadRule::new(place(), format!("the id {id:?} is no number")));
        }
        Ok(match self {
            Self::Client(row) => {
                Self::Client(Client { at_sign: name(&row.at_sign)?, name: names::text(&row.name, &place)?, ..row })
            }
            Self::ClientGroup(row) => Self::ClientGroup(ClientGroup { name: names::text(&row.name, &place)?, ..row }),
            Self::ClientGroupMember(row) => Self::ClientGroupMember(row),
            Self::Daemon(row) => Self::Daemon(Daemon { at_sign: name(&row.at_sign)?, ..row }),
            Self::Service(row) => Self::Service(Service {
                device_name: names::device(&row.device_name, &place)?,
                device_group_name: names::group(&row.device_group_name, &place)?,
                ..row
            }),
            Self::ServiceAcl(row) => {
                Self::ServiceAcl(ServiceAcl { permit_open: names::permit(&row.permit_open, &place)?, ..row })
            }
        })
    }
}

impl Tables {
    /// Tables of rows that were stored one by one. A row that cannot be, or names what is not there, is left out and told.
    pub fn from_rows(rows: impl IntoIterator<Item = Row>) -> (Self, Vec<BadRule>) {
        let mut rows: Vec<Row> = rows.into_iter().collect();
        rows.sort_by_key(Row::kind);
        let (mut tables, mut bad) = (Self::default(), Vec::new());
        for row in rows {
            if let Err(error) = tables.put(row) {
                bad.push(error);
            }
        }
        (tables, bad)
    }

    /// Tables that were stored whole, checked anew.
    ///
    /// # Errors
    /// The first row that cannot be.
    pub fn check(self) -> Result<Self, BadRule> {
        let kinds = RowKind::ALL.into_iter().flat_map(|kind| self.rows(kind));
        let (tables, bad) = Self::from_rows(kinds.collect::<Vec<_>>());
        bad.into_iter().next().map_or(Ok(tables), Err)
    }

    /// All rows of a table, by number.
    pub fn rows(&self, kind: RowKind) -> Vec<Row> {
        let mut rows: Vec<Row> = match kind {
            RowKind::Client => self.clients.values().cloned().map(Row::Client).collect(),
            RowKind::ClientGroup => self.client_groups.values().cloned().map(Row::ClientGroup).collect(),
            RowKind::ClientGroupMember => {
                self.client_group_members.values().cloned().map(Row::ClientGroupMember).collect()
            }
            RowKind::Daemon => self.daemons.values().cloned().map(Row::Daemon).collect(),
            RowKind::Service => self.services.values().cloned().map(Row::Service).collect(),
            RowKind::ServiceAcl => self.service_acls.values().cloned().map(Row::ServiceAcl).collect(),
        };
        rows.sort_by_key(|row| row.id().parse::<u64>().unwrap_or(0));
        rows
    }

    /// Writes a row; one without a number gets the next. Returns it as it was written.
    ///
    /// # Errors
    /// Something in it cannot be, or what it names is not there.
    pub fn put(&mut self, row: Row) -> Result<Row, BadRule> {
        let mut row = row.check()?;
        let kind = row.kind();
        for (needed, id) in row.needs() {
            if !self.has(needed, id) {
                return Err(BadRule::new(kind.as_str(), MissingRow(needed, id.to_owned())));
            }
        }
        if row.id().is_empty() {
            *row.id_mut() = self.next_id(kind);
        }
        if !self.has(kind, row.id()) && self.rows_len(kind) >= ROWS {
            return Err(BadRule::new(kind.as_str(), format!("there are {ROWS} already")));
        }
        let id = row.id().to_owned();
        match row.clone() {
            Row::Client(row) => drop(self.clients.insert(id, row)),
            Row::ClientGroup(row) => drop(self.client_groups.insert(id, row)),
            Row::ClientGroupMember(row) => drop(self.client_group_members.insert(id, row)),
            Row::Daemon(row) => drop(self.daemons.insert(id, row)),
            Row::Service(row) => drop(self.services.insert(id, row)),
            Row::ServiceAcl(row) => drop(self.service_acls.insert(id, row)),
        }
        Ok(row)
    }

    /// Deletes a row and everything that needs it. Returns what is gone; nothing when there was no such row.
    pub fn delete(&mut self, kind: RowKind, id: &str) -> Vec<(RowKind, String)> {
        if !self.remove(kind, id) {
            return Vec::new();
        }
        let mut gone = vec![(kind, id.to_owned())];
        let needing: Vec<(RowKind, String)> = RowKind::ALL
            .into_iter()
            .flat_map(|kind| self.rows(kind))
            .filter(|row| row.needs().contains(&(kind, id)))
            .map(|row| (row.kind(), row.id().to_owned()))
            .collect();
        for (kind, id) in needing {
            gone.extend(self.delete(kind, &id));
        }
        gone
    }

    /// Decides: every permit of every ACL of the device's service for a group that the client is in.
    pub fn answer(&self, question: &Question) -> Answer {
        let clients: BTreeSet<&str> = ids(&self.clients, |row| row.at_sign == question.client.as_str());
        let daemons = ids(&self.daemons, |row| row.at_sign == question.daemon.as_str());
        let services = ids(&self.services, |row| {
            daemons.contains(&*row.daemon_id)
                && row.device_name == question.device
                && row.device_group_name == question.group
        });
        let memberships = self.client_group_members.values().filter(|row| clients.contains(&*row.client_id));
        let groups: BTreeSet<&str> = memberships.map(|row| &*row.client_group_id).collect();
        let acls = self
            .service_acls
            .values()
            .filter(|row| services.contains(&*row.service_id) && groups.contains(&*row.client_group_id));
        Answer::by_permits(question, acls.map(|row| row.permit_open.clone()))
    }

    /// Whether there is a row for this device's atSign.
    pub fn knows_daemon(&self, daemon: &AtSign) -> bool {
        self.daemons.values().any(|row| row.at_sign == daemon.as_str())
    }

    fn has(&self, kind: RowKind, id: &str) -> bool {
        match kind {
            RowKind::Client => self.clients.contains_key(id),
            RowKind::ClientGroup => self.client_groups.contains_key(id),
            RowKind::ClientGroupMember => self.client_group_members.contains_key(id),
            RowKind::Daemon => self.daemons.contains_key(id),
            RowKind::Service => self.services.contains_key(id),
            RowKind::ServiceAcl => self.service_acls.contains_key(id),
        }
    }

    fn remove(&mut self, kind: RowKind, id: &str) -> bool {
        match kind {
            RowKind::Client => self.clients.remove(id).is_some(),
            RowKind::ClientGroup => self.client_groups.remove(id).is_some(),
            RowKind::ClientGroupMember => self.client_group_members.remove(id).is_some(),
            RowKind::Daemon => self.daemons.remove(id).is_some(),
            RowKind::Service => self.services.remove(id).is_some(),
            RowKind::ServiceAcl => self.service_acls.remove(id).is_some(),
        }
    }

    fn rows_len(&self, kind: RowKind) -> usize {
        self.ids_of(kind).count()
    }

    fn next_id(&self, kind: RowKind) -> String {
        let highest = self.ids_of(kind).filter_map(|id| id.parse::<u64>().ok()).max();
        highest.unwrap_or(0).saturating_add(1).to_string()
    }

    fn ids_of(&self, kind: RowKind) -> Box<dyn Iterator<Item = &String> + '_> {
        match kind {
            RowKind::Client => Box::new(self.clients.keys()),
            RowKind::ClientGroup => Box::new(self.client_groups.keys()),
            RowKind::ClientGroupMember => Box::new(self.client_group_members.keys()),
            RowKind::Daemon => Box::new(self.daemons.keys()),
            RowKind::Service => Box::new(self.services.keys()),
            RowKind::ServiceAcl => Box::new(self.service_acls.keys()),
        }
    }
}

fn ids<T>(table: &BTreeMap<String, T>, wanted: impl Fn(&T) -> bool) -> BTreeSet<&str> {
    table.iter().filter(|(_, row)| wanted(row)).map(|(id, _)| id.as_str()).collect()
}

impl fmt::Display for MissingRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no {} with the id {:?}", self.0.as_str(), self.1)
    }
}

#[cfg(test)]
mod tests;
