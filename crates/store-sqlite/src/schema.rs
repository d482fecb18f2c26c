//! Tables, and the way from older ones to these.

use postern_store::StoreError;
use rusqlite::{Connection, TransactionBehavior};

use crate::error::{Result, sql};

/// Marks the file as ours: "Pstn".
const APPLICATION_ID: i64 = 0x5073_746e;

/// Step `n` leads from version `n` to `n + 1`. Never edit one that was released; append.
const MIGRATIONS: [&str; 4] = [VERSION_1, WAITING_BY_PAIR, ROUTING, WAITING_BY_PRIORITY];

/// The comments are kept in the file and shown by `.schema`. In `records` and the
/// notification tables the short columns come first: a scan then does not touch the
/// pages of long values.
const VERSION_1: &str = "
CREATE TABLE accounts (
    at_sign     TEXT NOT NULL PRIMARY KEY,
    port        INTEGER,            -- of its own; NULL: the common one
    created_at  INTEGER NOT NULL,   -- all times: milliseconds since 1970, UTC
    last_commit INTEGER NOT NULL    -- highest id given in commit_log; -1: none
) STRICT, WITHOUT ROWID;

CREATE TABLE records (
    owner        TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE,
    key          TEXT NOT NULL,     -- full text, e.g. @bob:shared_key@alice
    version      INTEGER NOT NULL,  -- counts writes from 0
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    available_at INTEGER,           -- hidden before
    expires_at   INTEGER,           -- hidden from then on, swept later
    refresh_at   INTEGER,
    metadata     TEXT NOT NULL,     -- JSON: names and texts as on the wire
    value        TEXT NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT;
CREATE INDEX records_ending ON records (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE commit_log (           -- the latest change of each key
    owner     TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE,
    key       TEXT NOT NULL,
    commit_id INTEGER NOT NULL,
    kind      TEXT NOT NULL CHECK (kind IN ('put', 'meta', 'remove')),
    at        INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX commit_log_order ON commit_log (owner, commit_id);

CREATE TABLE received (             -- notifications to owner
    arrival      INTEGER PRIMARY KEY,
    owner        TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE,
    sender       TEXT NOT NULL,
    id           TEXT NOT NULL,
    at           INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    operation    TEXT NOT NULL CHECK (operation IN ('update', 'delete')),
    message_type TEXT NOT NULL CHECK (message_type IN ('key', 'text')),
    is_encrypted INTEGER NOT NULL,
    is_self      INTEGER NOT NULL,  -- made by the server for its owner
    key          TEXT NOT NULL,
    metadata     TEXT NOT NULL,
    value        TEXT
) STRICT;
CREATE UNIQUE INDEX received_once ON received (owner, id, sender);
CREATE INDEX received_order ON received (owner, at);
CREATE INDEX received_ending ON received (expires_at);

CREATE TABLE sent (                 -- notifications of owner
    arrival      INTEGER PRIMARY KEY,
    owner        TEXT NOT NULL REFERENCES accounts ON DELETE CASCADE,
    recipient    TEXT NOT NULL,
    id           TEXT NOT NULL,
    delivery     TEXT NOT NULL CHECK (delivery IN ('queued', 'delivered', 'errored', 'expired')),
    at           INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    operation    TEXT NOT NULL CHECK (operation IN ('update', 'delete')),
    message_type TEXT NOT NULL CHECK (message_type IN ('key', 'text')),
    is_encrypted INTEGER NOT NULL,
    is_self      INTEGER NOT NULL,
    key          TEXT NOT NULL,
    metadata     TEXT NOT NULL,
    value        TEXT
) STRICT;
CREATE UNIQUE INDEX sent_once ON sent (owner, id);
CREATE INDEX sent_queue ON sent (at) WHERE delivery = 'queued';
CREATE INDEX sent_ending ON sent (expires_at);
";

/// The next one from a sender to a recipient is found at once, however much waits for others.
const WAITING_BY_PAIR: &str = "
CREATE INDEX sent_waiting ON sent (owner, recipient, at, arrival) WHERE delivery = 'queued';
";

/// What senders say about the way.
const ROUTING: &str = "
ALTER TABLE received ADD COLUMN priority INTEGER NOT NULL DEFAULT 0; -- 0 low, 1 medium, 2 high
ALTER TABLE received ADD COLUMN notifier TEXT;                       -- NULL: SYSTEM
ALTER TABLE received ADD COLUMN latest   INTEGER;                    -- strategy latest, so many; NULL: all
ALTER TABLE sent     ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sent     ADD COLUMN notifier TEXT;
ALTER TABLE sent     ADD COLUMN latest   INTEGER;
";

/// The most urgent goes first.
const WAITING_BY_PRIORITY: &str = "
DROP INDEX sent_waiting;
CREATE INDEX sent_waiting ON sent (owner, recipient, priority DESC, at, arrival) WHERE delivery = 'queued';
";

/// Brings the file to the newest version in one transaction.
pub(crate) fn migrate(connection: &mut Connection) -> Result<()> {
    let known = i64::try_from(MIGRATIONS.len()).expect("the list is short");
    // Immediate: of two processes that open a new file at once, the second finds it done.
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
    let number = |what: &str| change.query_row(what, [], |row| row.get::<_, i64>(0)).map_err(sql);
    let found = number("PRAGMA user_version")?;
    let ours = if found == 0 {
        number("SELECT count(*) FROM sqlite_schema")? == 0
    } else {
        number("PRAGMA application_id")? == APPLICATION_ID
    };
    if !ours {
        return Err(StoreError::Corrupt("the file is another program's database".into()));
    }
    if found == known {
        return Ok(());
    }
    let Some(steps) = usize::try_from(found).ok().and_then(|done| MIGRATIONS.get(done..)) else {
        return Err(StoreError::TooNew { found, known });
    };
    for step in steps {
        change.execute_batch(step).map_err(sql)?;
    }
    change.pragma_update(None, "application_id", APPLICATION_ID).map_err(sql)?;
    change.pragma_update(None, "user_version", known).map_err(sql)?;
    change.commit().map_err(sql)
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_proto::{AtSign, Routing};

    #[test]
    fn a_file_of_version_1_keeps_its_notifications() {
        let mut db = Connection::open_in_memory().unwrap();
        db.execute_batch(VERSION_1).unwrap();
        db.execute_batch(
            "INSERT INTO accounts VALUES ('@alice', NULL, 0, -1);
            INSERT INTO received (owner, sender, id, at, expires_at, operation, message_type, is_encrypted, is_self,
                key, metadata, value) VALUES ('@alice', '@bob', 'n', 1, 9, 'update', 'key', 1, 0, 'k', '{}', 'v');",
        )
        .unwrap();
        db.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        db.pragma_update(None, "user_version", 1).unwrap();
        migrate(&mut db).unwrap();
        let alice = AtSign::parse("alice").unwrap();
        let kept = crate::read::received_since(&db, &alice, 0, 0, 9).unwrap();
        assert_eq!((kept.len(), kept[0].value.as_deref(), &kept[0].routing), (1, Some("v"), &Routing::default()));
        migrate(&mut db).unwrap();
    }
}
