//! The battery, and what only a file can get wrong.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use postern_proto::{AtKey, AtSign, Metadata, Record};
use postern_store::battery::{Harness, commit, wait};
use postern_store::{Account, Batch, LogAs, Store, StoreError};
use postern_store_sqlite::SqliteStore;
use rusqlite::Connection;
use tempfile::TempDir;

struct File {
    dir: TempDir,
    store: Option<Arc<SqliteStore>>,
}

impl File {
    fn new() -> Self {
        let mut file = Self { dir: tempfile::tempdir().unwrap(), store: None };
        file.open();
        file
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store.db")
    }

    fn open(&mut self) {
        self.store = Some(Arc::new(SqliteStore::open(&self.path()).unwrap()));
    }

    /// Waits until the file is closed.
    fn close(&mut self) {
        assert!(Arc::into_inner(self.store.take().unwrap()).is_some(), "a case kept the store");
    }
}

impl Harness for File {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.store.as_ref().unwrap()) as Arc<dyn Store>
    }

    fn reopen(&mut self) -> bool {
        self.close();
        self.open();
        true
    }
}

fn open() -> Box<dyn Harness> {
    Box::new(File::new())
}

postern_store::battery!(open);

fn alice() -> AtSign {
    AtSign::parse("alice").unwrap()
}

fn settle(store: &dyn Store) {
    let account = Account { at_sign: alice(), port: None, created_at: 0 };
    commit(store, Batch::new(0).add_account(account)).unwrap();
}

fn put(name: &str) -> Batch {
    let key = AtKey::own(name, &alice());
    Batch::new(0).put(&alice(), &key, Record::new("v", Metadata::default(), 0), LogAs::Put)
}

#[test]
fn the_files_are_ours_alone() {
    let mut file = File::new();
    settle(&*file.store());
    let mut names = Vec::new();
    for entry in fs::read_dir(file.dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["store.db", "store.db-shm", "store.db-wal"]);
    file.close();
    assert_eq!(fs::read_dir(file.dir.path()).unwrap().count(), 1, "closing folds the log into the file");
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let tried = |name: &str| SqliteStore::open(&dir.path().join(name)).err().unwrap();

    let foreign = Connection::open(dir.path().join("foreign")).unwrap();
    foreign.execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(matches!(tried("foreign"), StoreError::Corrupt(_)));
    foreign.execute_batch("PRAGMA user_version = 1").unwrap();
    assert!(matches!(tried("foreign"), StoreError::Corrupt(_)));

    fs::write(dir.path().join("text"), "not a database, and long enough to be read as one ".repeat(40)).unwrap();
    assert!(matches!(tried("text"), StoreError::Corrupt(_)));

    drop(SqliteStore::open(&dir.path().join("newer")).unwrap());
    let newer = Connection::open(dir.path().join("newer")).unwrap();
    newer.execute_batch("PRAGMA user_version = 9").unwrap();
    let error = tried("newer");
    assert!(matches!(error, StoreError::TooNew { found: 9, .. }));
    assert!(error.to_string().contains("version 9"));

    symlink("nowhere/at/all", dir.path().join("dangling")).unwrap();
    for name in ["no/such/dir", "dangling", "."] {
        let error = tried(name);
        assert!(matches!(error, StoreError::Io(_)), "{name}: {error}");
        assert!(!error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_file_of_version_1_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("old");
    drop(SqliteStore::open(&path).unwrap());
    let old = Connection::open(&path).unwrap();
    old.execute_batch("DROP INDEX sent_waiting").unwrap();
    for table in ["received", "sent"] {
        for column in ["priority", "notifier", "latest"] {
            old.execute_batch(&format!("ALTER TABLE {table} DROP COLUMN {column}")).unwrap();
        }
    }
    old.execute_batch("PRAGMA user_version = 1").unwrap();
    drop(old);
    drop(SqliteStore::open(&path).unwrap());
    let text = "SELECT count(*) FROM sqlite_schema WHERE name = 'sent_waiting'";
    let found: i64 = Connection::open(&path).unwrap().query_row(text, [], |row| row.get(0)).unwrap();
    assert_eq!(found, 1);
}

#[test]
fn a_full_queue_makes_callers_wait_and_closing_finishes_what_was_accepted() {
    let mut file = File::new();
    let store = file.store();
    settle(&*store);
    // Another process holds the write lock meanwhile.
    let lock = Connection::open(file.path()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let pending: Vec<_> = (0..1500).map(|i| store.commit(put(&format!("k{i}")))).collect();
    lock.execute_batch("COMMIT").unwrap();
    for one in pending {
        wait(one).unwrap();
    }
    assert_eq!(store.last_commit(&alice()), Ok(1499));

    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let accepted: Vec<_> = (0..500).map(|i| store.commit(put(&format!("k{i}")))).collect();
    drop(store);
    let closing = file.store.take().unwrap();
    let closing = std::thread::spawn(move || drop(closing));
    lock.execute_batch("COMMIT").unwrap();
    closing.join().unwrap();
    for one in accepted {
        wait(one).unwrap();
    }
    file.open();
    assert_eq!(file.store().last_commit(&alice()), Ok(1999));
}

#[test]
fn people_can_read_the_tables_while_the_store_is_open() {
    let file = File::new();
    settle(&*file.store());
    commit(&*file.store(), put("k")).unwrap();
    let reader = Connection::open(file.path()).unwrap();
    let row: (String, String, String) = reader
        .query_row("SELECT owner, key, value FROM records", [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
        .unwrap();
    assert_eq!(row, ("@alice".into(), "k@alice".into(), "v".into()));
}

#[test]
fn reads_use_indexes() {
    let file = File::new();
    let reader = Connection::open(file.path()).unwrap();
    for query in [
        "SELECT * FROM records WHERE owner = 'a' ORDER BY key",
        "SELECT * FROM commit_log WHERE owner = 'a' AND commit_id > 1 ORDER BY commit_id",
        "SELECT * FROM received WHERE owner = 'a' AND at > 1 AND expires_at > 1 ORDER BY at, arrival",
        "SELECT * FROM sent WHERE delivery = 'queued' AND expires_at > 1 ORDER BY at, arrival",
        "SELECT rowid FROM records WHERE expires_at <= 1",
        "SELECT rowid FROM received WHERE expires_at <= 1",
        "SELECT rowid FROM sent WHERE expires_at <= 1",
        "SELECT * FROM received WHERE owner = 'a' AND id = 'i'",
    ] {
        let mut plan = reader.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
        let steps: Vec<String> = plan.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        let whole =
            |step: &String| step.contains("TEMP B-TREE") || (step.starts_with("SCAN") && !step.contains("INDEX"));
        assert!(!steps.iter().any(whole), "{query}: {steps:?}");
    }
}
