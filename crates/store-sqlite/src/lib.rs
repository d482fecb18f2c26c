//! The storage promise kept with SQLite.
//!
//! One thread owns the connection that writes. It takes what waits, up to a bound,
//! into one transaction with a savepoint for each batch, flushes once and answers all:
//! many writers share one wait for the disk. Reads use a few connections of their own
//! and never wait for the writer.
//!
//! The file can be opened with `sqlite3` while the store runs; see the comments in its schema.

mod apply;
mod error;
mod limits;
mod read;
mod rows;
mod schema;
mod writer;

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use postern_proto::{AtKey, AtSign, Millis, Notification, NotificationId, Record};
use postern_store::{
    Account, Batch, Committed, Delivery, Kept, LogEntry, Pending, Store, StoreError, Swept, Usage, Visit,
};
use rusqlite::{Connection, OpenFlags};

use crate::error::{Result, sql};
use crate::writer::Writer;

/// A store in one SQLite file (with `-wal` and `-shm` beside it while open).
///
/// Dropping it finishes every accepted write first. An `Io` answer to a commit leaves
/// open whether the batch was kept; `Conflict` and `Full` do not.
pub struct SqliteStore {
    readers: Vec<Mutex<Connection>>,
    /// Spreads reads over the connections.
    turn: AtomicUsize,
    writer: Writer,
}

impl SqliteStore {
    /// Opens the store, making the file (mode 0600) and its tables when it is new, and
    /// bringing an older schema up to date.
    ///
    /// Errors: `TooNew` when a newer program wrote it, `Corrupt` when it is no store of
    /// ours, `Io` when the file cannot be made or opened.
    pub fn open(path: &Path) -> Result<Self> {
        create(path)?;
        let mut write = Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_WRITE)).map_err(sql)?;
        configure(&write, limits::WRITER_CACHE_KIB)?;
        let mode: String = write.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(sql)?;
        if mode != "wal" {
            return Err(StoreError::Io("the file system does not support a write-ahead log".into()));
        }
        write.pragma_update(None, "synchronous", "full").map_err(sql)?;
        write.pragma_update(None, "foreign_keys", true).map_err(sql)?;
        write.pragma_update_and_check(None, "journal_size_limit", limits::WAL_KEPT_BYTES, |_| Ok(())).map_err(sql)?;
        schema::migrate(&mut write)?;

        let reader = || {
            let read = Connection::open_with_flags(path, flags(OpenFlags::SQLITE_OPEN_READ_ONLY)).map_err(sql)?;
            configure(&read, limits::READER_CACHE_KIB)?;
            Ok(Mutex::new(read))
        };
        let readers = (0..limits::READERS).map(|_| reader()).collect::<Result<Vec<_>>>()?;
        Ok(Self { readers, turn: AtomicUsize::new(0), writer: Writer::start(write)? })
    }

    /// A connection that nobody uses now, else the one whose turn it is.
    fn reader(&self) -> MutexGuard<'_, Connection> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (before, from) = self.readers.split_at(turn % self.readers.len());
        for reader in from.iter().chain(before) {
            match reader.try_lock() {
                Ok(free) => return free,
                // A caller's panic in `scan` leaves a connection that reads on as before.
                Err(TryLockError::Poisoned(free)) => return free.into_inner(),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        from[0].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for SqliteStore {
    fn accounts(&self) -> Result<Vec<Account>> {
        read::accounts(&self.reader())
    }

    fn get(&self, owner: &AtSign, key: &AtKey) -> Result<Option<Record>> {
        read::record(&self.reader(), owner, key)
    }

    fn scan(&self, owner: &AtSign, each: Visit<'_>) -> Result<()> {
        read::scan(&self.reader(), owner, each)
    }

    fn last_commit(&self, owner: &AtSign) -> Result<i64> {
        read::last_commit(&self.reader(), owner)
    }

    fn log_since(&self, owner: &AtSign, after: i64, limit: usize) -> Result<Vec<LogEntry>> {
        read::log_since(&self.reader(), owner, after, limit)
    }

    fn received_since(&self, owner: &AtSign, after: Millis, now: Millis, limit: usize) -> Result<Vec<Notification>> {
        read::received_since(&self.reader(), owner, after, now, limit)
    }

    fn queued(&self, now: Millis, limit: usize) -> Result<Vec<Notification>> {
        read::queued(&self.reader(), now, limit)
    }

    fn waiting_pairs(&self, limit: usize) -> Result<Vec<(AtSign, AtSign)>> {
        read::waiting_pairs(&self.reader(), limit)
    }

    fn next_waiting(&self, from: &AtSign, to: &AtSign) -> Result<Option<Notification>> {
        read::next_waiting(&self.reader(), from, to)
    }

    fn outgoing_status(&self, owner: &AtSign, id: &NotificationId) -> Result<Option<Delivery>> {
        read::outgoing_status(&self.reader(), owner, id)
    }

    fn notifications(&self, owner: &AtSign, id: &NotificationId) -> Result<Vec<Kept>> {
        read::notifications(&self.reader(), owner, id)
    }

    fn usage(&self, owner: &AtSign) -> Result<Usage> {
        read::usage(&self.reader(), owner)
    }

    fn commit(&self, batch: Batch) -> Pending<Result<Committed>> {
        self.writer.commit(batch)
    }

    fn sweep(&self, now: Millis) -> Pending<Result<Swept>> {
        self.writer.sweep(now)
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // The last connection to close folds the log into the file; it must be the writer's.
        self.readers.clear();
        self.writer.stop();
    }
}

/// Makes the file ours alone before SQLite writes to it; SQLite gives the log the same mode.
fn create(path: &Path) -> Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(StoreError::Io(format!("cannot create the file: {}", error.kind()))),
    }
}

/// Each connection is used by one thread at a time, which Rust proves; SQLite need not lock.
fn flags(access: OpenFlags) -> OpenFlags {
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn configure(connection: &Connection, cache_kib: i64) -> Result<()> {
    connection.busy_timeout(limits::BUSY).map_err(sql)?;
    connection.set_prepared_statement_cache_capacity(limits::STATEMENTS);
    connection.pragma_update(None, "cache_size", -cache_kib).map_err(sql)?;
    connection.pragma_update(None, "trusted_schema", false).map_err(sql)
}
