//! Where rules are kept: a file, records at our atServer, or nowhere.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use postern_client::{Client, ClientError, RecordOptions};
use postern_config::ConfigError;
use postern_proto::{AtKey, Visibility};
use postern_rules::{BadRule, FileRules, Group, GroupRules, Row, RowKind, RuleFile, Tables};
use serde::de::DeserializeOwned;

use crate::book::Book;
use crate::limits::READS;

/// Where rules are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// A file of user groups, which people write.
    RuleFile(PathBuf),
    /// A file of tables, which we write.
    TableFile(PathBuf),
    /// Records of groups.
    Groups,
    /// Records of rows.
    Rows,
    /// Memory: what managers put is forgotten when the service ends.
    Nowhere,
}

/// Why rules cannot be read or written.
#[derive(Debug)]
pub(crate) enum KeepError {
    Missing(PathBuf),
    File(ConfigError),
    Rule(PathBuf, BadRule),
    Write(PathBuf, std::io::Error),
    Records(ClientError),
}

/// When a file has changed, this has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileMark(Option<(i64, i64, u64, u64)>);

/// Name of the file of tables in its directory.
pub(crate) const TABLE_FILE: &str = "tables.json";

impl Keep {
    /// Reads the rules. What cannot be among records is left out and logged: they are not ours alone to write.
    pub(crate) async fn load(&self, client: &Client, base: &str) -> Result<Book, KeepError> {
        match self {
            Self::RuleFile(path) => read_rule_file(path).map(Book::File),
            Self::TableFile(path) => read_table_file(path).map(Book::Tables),
            Self::Groups => Ok(Book::Groups(read_groups(client, base).await?)),
            Self::Rows => {
                let mut rows = Vec::new();
                for kind in RowKind::ALL {
                    let found = read_records::<serde_json::Value>(client, kind.record(), base).await?;
                    rows.extend(found.iter().filter_map(|json| kind.row(json)));
                }
                let (tables, bad) = Tables::from_rows(rows);
                for error in bad {
                    tracing::warn!(%error, "a rule is left out");
                }
                Ok(Book::Tables(tables))
            }
            Self::Nowhere => Ok(Book::Tables(Tables::default())),
        }
    }

    /// The file that may change under us.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::RuleFile(path) | Self::TableFile(path) => Some(path),
            Self::Groups | Self::Rows | Self::Nowhere => None,
        }
    }

    /// Writes a new row; `tables` has it already.
    pub(crate) async fn put(&self, client: &Client, base: &str, tables: &Tables, row: &Row) -> Result<(), KeepError> {
        match self {
            Self::TableFile(path) => write_table_file(path, tables),
            Self::Rows => {
                let name = record_name(row.id(), row.kind().record(), base);
                let text = row.to_json().to_string();
                client.put_own(&name, &text, RecordOptions::default()).await.map_err(KeepError::Records)
            }
            Self::RuleFile(_) | Self::Groups | Self::Nowhere => Ok(()),
        }
    }

    /// Removes rows, those that need others first; `tables` lacks them already.
    pub(crate) async fn delete(
        &self,
        client: &Client,
        base: &str,
        tables: &Tables,
        gone: &[(RowKind, String)],
    ) -> Result<(), KeepError> {
        match self {
            Self::TableFile(path) => write_table_file(path, tables),
            Self::Rows => {
                for (kind, id) in gone.iter().rev() {
                    let name = record_name(id, kind.record(), base);
                    client.delete(&AtKey::own(&name, client.at_sign())).await.map_err(KeepError::Records)?;
                }
                Ok(())
            }
            Self::RuleFile(_) | Self::Groups | Self::Nowhere => Ok(()),
        }
    }

    /// Ends of the names of records that tell us of changes made by others.
    pub(crate) fn watched(&self) -> Vec<&'static str> {
        match self {
            Self::Groups => vec![GROUPS],
            Self::Rows => RowKind::ALL.map(RowKind::record).to_vec(),
            Self::RuleFile(_) | Self::TableFile(_) | Self::Nowhere => Vec::new(),
        }
    }
}

/// What records of groups are called.
pub(crate) const GROUPS: &str = "groups";

/// `7.groups.policy.sshnp`
pub(crate) fn record_name(id: &str, what: &str, base: &str) -> String {
    format!("{id}.{what}.policy.{base}")
}

/// All groups; those that cannot be are left out and logged.
pub(crate) async fn read_groups(client: &Client, base: &str) -> Result<GroupRules, KeepError> {
    let groups = read_records::<Group>(client, GROUPS, base).await?;
    let checked = groups
        .into_iter()
        .filter_map(|group| group.check().inspect_err(|error| tracing::warn!(%error, "a rule is left out")).ok());
    Ok(GroupRules::new(checked))
}

async fn read_records<T: DeserializeOwned>(client: &Client, what: &str, base: &str) -> Result<Vec<T>, KeepError> {
    let end = format!(".{what}.policy.{base}");
    let regex = format!("{}@", end.replace('.', r"\."));
    let keys = client.scan(Some(&regex)).await.map_err(KeepError::Records)?;
    let is_number = |name: &&str| {
        name.strip_suffix(&end).is_some_and(|id| !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit()))
    };
    let own = keys.iter().filter(|key| *key.visibility() == Visibility::Own);
    let names: Vec<&str> = own.map(AtKey::name).filter(is_number).collect();
    let mut records = Vec::with_capacity(names.len());
    for some in names.chunks(READS) {
        let reads = all_of(some.iter().map(|name| client.get_own(name))).await;
        for (name, read) in some.iter().zip(reads) {
            let text = match read {
                Ok(text) => text,
                // Deleted between the list and the look.
                Err(error) if error.is_no_such_key() => continue,
                Err(error @ (ClientError::Crypto(_) | ClientError::Malformed(_))) => {
                    tracing::warn!(record = name, %error, "a rule is left out");
                    continue;
                }
                Err(error) => return Err(KeepError::Records(error)),
            };
            match serde_json::from_str(&text) {
                Ok(record) => records.push(record),
                Err(error) => tracing::warn!(record = name, %error, "a rule is left out"),
            }
        }
    }
    Ok(records)
}

/// Waits for all, which share one connection; in the order given.
async fn all_of<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut all = true;
        for (future, done) in &mut waiting {
            if done.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(output) => *done = Some(output),
                    std::task::Poll::Pending => all = false,
                }
            }
        }
        if all { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, done)| done).collect()
}

/// Reads a file of user groups.
pub(crate) fn read_rule_file(path: &Path) -> Result<FileRules, KeepError> {
    let file: Option<RuleFile> = postern_config::read(path).map_err(KeepError::File)?;
    let file = file.ok_or_else(|| KeepError::Missing(path.to_owned()))?;
    FileRules::check(&file).map_err(|error| KeepError::Rule(path.to_owned(), error))
}

/// Reads a file of tables; none is empty tables.
pub(crate) fn read_table_file(path: &Path) -> Result<Tables, KeepError> {
    let tables: Option<Tables> = postern_config::read(path).map_err(KeepError::File)?;
    tables.unwrap_or_default().check().map_err(|error| KeepError::Rule(path.to_owned(), error))
}

/// Whole or not at all, and nobody else's to read.
fn write_table_file(path: &Path, tables: &Tables) -> Result<(), KeepError> {
    let trouble = |error| KeepError::Write(path.to_owned(), error);
    let mut text = serde_json::to_string_pretty(tables).map_err(|error| trouble(error.into()))?;
    text.push('\n');
    let new = path.with_extension("json.new");
    let write = || {
        let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().map_err(trouble)
}

impl FileMark {
    /// How the file looks now.
    pub(crate) fn of(path: &Path) -> Self {
        let metadata = std::fs::metadata(path).ok();
        Self(metadata.map(|meta| (meta.mtime(), meta.mtime_nsec(), meta.len(), meta.ino())))
    }
}

impl fmt::Display for KeepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "there is no file {}", path.display()),
            Self::File(error) => error.fmt(f),
            Self::Rule(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Write(path, error) => write!(f, "cannot write {}: {error}", path.display()),
            Self::Records(error) => write!(f, "cannot read or write the rules at the atServer: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn tables_are_written_whole_and_for_us_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(TABLE_FILE);
        assert_eq!(read_table_file(&path).unwrap(), Tables::default());
        let before = FileMark::of(&path);
        let mut tables = Tables::default();
        let row = RowKind::Client.row(&serde_json::json!({"atSign": "@c"})).unwrap();
        tables.put(row).unwrap();
        write_table_file(&path, &tables).unwrap();
        assert_eq!(read_table_file(&path).unwrap(), tables);
        assert_ne!(FileMark::of(&path), before);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, r#"{"services": {"1": {"id":"1","daemonId":"9","deviceName":"pi"}}}"#).unwrap();
        let told = read_table_file(&path).unwrap_err().to_string();
        assert!(told.contains("no Daemon with the id \"9\""), "{told}");
    }

    #[test]
    fn a_rule_file_tells_its_mistakes_with_their_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules.yaml");
        assert!(read_rule_file(&path).unwrap_err().to_string().starts_with("there is no file"));
        for (text, place) in [
            ("userGroups:\n  a:\n    userAtSigns: [@x]\n", "line 3 column 19"),
            ("userGroups:\n  a:\n    users: ['@x']\n", "unknown field `users`"),
            ("userGroups:\n  a:\n    userAtSigns: ['@x y']\n", "userGroups.a.userAtSigns"),
        ] {
            std::fs::write(&path, text).unwrap();
            let told = read_rule_file(&path).unwrap_err().to_string();
            assert!(told.contains(place), "{told}");
        }
    }
}
