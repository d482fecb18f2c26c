//! Sizes and counts of this keeper.

use std::time::Duration;

/// Batches that share one transaction and one wait for the disk. More gains nothing:
/// at 64 the disk costs a batch 1/64 of a flush, and the first must wait for the last.
pub(crate) const GROUP: usize = 64;

/// Batches that wait for the writer. A commit that finds the queue full waits for a
/// place; sixteen groups keep the writer busy, more would only hide that it is behind.
pub(crate) const QUEUE: usize = 16 * GROUP;

/// Connections for reads. Reads take microseconds; four serve more threads than we have.
pub(crate) const READERS: usize = 4;

/// Page cache of the writer in KiB.
pub(crate) const WRITER_CACHE_KIB: i64 = 2048;

/// Page cache of each reader in KiB: with the writer's, 6 MiB in all. The system caches the file besides.
pub(crate) const READER_CACHE_KIB: i64 = 1024;

/// What is kept of the write-ahead log after a checkpoint, which SQLite makes every 1000 pages (4 MiB).
pub(crate) const WAL_KEPT_BYTES: i64 = 8 << 20;

/// Prepared statements kept per connection; we have fewer than 40.
pub(crate) const STATEMENTS: usize = 48;

/// How long a lock of another process (an operator's `sqlite3`, a backup) is waited for.
pub(crate) const BUSY: Duration = Duration::from_secs(5);
