//! One batch or one sweep, inside a transaction that the writer opened.

use postern_proto::{AtKey, AtSign, Millis, Notification, NotificationId, Record};
use postern_store::limits::SWEEP_ROWS;
use postern_store::{Account, Assert, Batch, Committed, Delivery, Logged, Op, StoreError, Swept};
use rusqlite::{Connection, Params, params};

use crate::error::{Result, sql};
use crate::read::one;
use crate::rows;

pub(crate) fn batch(db: &Connection, batch: &Batch) -> Result<Committed> {
    for assert in &batch.asserts {
        if !holds(db, assert)? {
            return Err(StoreError::Conflict);
        }
    }
    let mut committed = Committed::default();
    for op in &batch.ops {
        if let Some(household) = op.household()
            && !exists(db, household)?
        {
            return Err(StoreError::Conflict);
        }
        let (commit, fresh) = step(db, op, batch.at)?;
        committed.commits.push(commit);
        committed.fresh.push(fresh);
    }
    Ok(committed)
}

pub(crate) fn sweep(db: &Connection, now: Millis) -> Result<Swept> {
    let rows = i64::try_from(SWEEP_ROWS).expect("a small constant");
    let drop_from = |text: &str| change(db, text, params![now, rows]);
    let records =
        drop_from("DELETE FROM records WHERE rowid IN (SELECT rowid FROM records WHERE expires_at <= ?1 LIMIT ?2)")?;
    let received =
        drop_from("DELETE FROM received WHERE rowid IN (SELECT rowid FROM received WHERE expires_at <= ?1 LIMIT ?2)")?;
    let sent = drop_from("DELETE FROM sent WHERE rowid IN (SELECT rowid FROM sent WHERE expires_at <= ?1 LIMIT ?2)")?;
    let more = [records, received, sent].contains(&SWEEP_ROWS);
    Ok(Swept { records, notifications: received + sent, more })
}

fn holds(db: &Connection, assert: &Assert) -> Result<bool> {
    Ok(match assert {
        Assert::KeyAbsent(owner, key) => version(db, owner, key)?.is_none(),
        Assert::KeyPresent(owner, key) => version(db, owner, key)?.is_some(),
        Assert::KeyVersion(owner, key, wanted) => version(db, owner, key)? == Some(*wanted),
        Assert::AccountAbsent(at_sign) => !exists(db, at_sign)?,
    })
}

fn version(db: &Connection, owner: &AtSign, key: &AtKey) -> Result<Option<u64>> {
    let text = "SELECT version FROM records WHERE owner = ?1 AND key = ?2";
    let version = one(db, text, params![owner.as_str(), key.to_string()], |row| row.get(0).map_err(sql))?;
    Ok(version.map(i64::cast_unsigned))
}

fn exists(db: &Connection, at_sign: &AtSign) -> Result<bool> {
    Ok(one(db, "SELECT 1 FROM accounts WHERE at_sign = ?1", [at_sign.as_str()], |_| Ok(()))?.is_some())
}

/// The commit id, if the step is logged, and whether it did something new.
fn step(db: &Connection, op: &Op, at: Millis) -> Result<(Option<i64>, bool)> {
    match op {
        Op::Put { owner, key, record, log } => {
            let key = key.to_string();
            put(db, owner, &key, record)?;
            let commit = log.kind().map(|kind| log_entry(db, owner, &key, kind, at)).transpose()?;
            return Ok((commit, true));
        }
        Op::Remove { owner, key, log } => {
            let key = key.to_string();
            change(db, "DELETE FROM records WHERE owner = ?1 AND key = ?2", [owner.as_str(), &key])?;
            let commit = log.then(|| log_entry(db, owner, &key, Logged::Remove, at)).transpose()?;
            return Ok((commit, true));
        }
        Op::Receive(notification) => return Ok((None, receive(db, notification)?)),
        Op::Send(notification) => return Ok((None, send(db, notification)?)),
        Op::AddAccount(account) => add_account(db, account)?,
        Op::SetPort { at_sign, port } => {
            let text = "UPDATE accounts SET port = ?2 WHERE at_sign = ?1";
            change(db, text, params![at_sign.as_str(), port])?;
        }
        Op::RemoveAccount(at_sign) => {
            change(db, "DELETE FROM accounts WHERE at_sign = ?1", [at_sign.as_str()])?;
        }
        Op::Deliver { owner, id, delivery } => {
            let text = "UPDATE sent SET delivery = ?3 WHERE owner = ?1 AND id = ?2";
            change(db, text, [owner.as_str(), id.as_str(), rows::delivery_text(*delivery)])?;
        }
        Op::Supersede { owner, to, notifier, keep } => {
            let text = "UPDATE sent SET delivery = 'expired' WHERE arrival IN (
                    SELECT arrival FROM sent WHERE owner = ?1 AND recipient = ?2 AND notifier IS ?3
                        AND latest IS NOT NULL AND delivery = 'queued'
                    ORDER BY at DESC, arrival DESC LIMIT -1 OFFSET ?4)";
            change(db, text, params![owner.as_str(), to.as_str(), notifier, keep])?;
        }
        Op::RemoveNotification { owner, id } => forget(db, owner, id)?,
    }
    Ok((None, true))
}

fn put(db: &Connection, owner: &AtSign, key: &str, record: &Record) -> Result<()> {
    let text = "INSERT INTO records (owner, key, version, created_at, updated_at, available_at, expires_at,
            refresh_at, metadata, value)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
        ON CONFLICT (owner, key) DO UPDATE SET version = excluded.version, created_at = excluded.created_at,
            updated_at = excluded.updated_at, available_at = excluded.available_at,
            expires_at = excluded.expires_at, refresh_at = excluded.refresh_at,
            metadata = excluded.metadata, value = excluded.value";
    let values = params![
        owner.as_str(),
        key,
        record.version.cast_signed(),
        record.created_at,
        record.updated_at,
        record.available_at,
        record.expires_at,
        record.refresh_at,
        rows::metadata_json(&record.metadata),
        record.value,
    ];
    change(db, text, values).map(|_| ())
}

/// Takes the household's next id and puts the entry in place of the key's earlier one.
fn log_entry(db: &Connection, owner: &AtSign, key: &str, kind: Logged, at: Millis) -> Result<i64> {
    let text = "UPDATE accounts SET last_commit = last_commit + 1 WHERE at_sign = ?1 RETURNING last_commit";
    let commit = one(db, text, [owner.as_str()], |row| row.get(0).map_err(sql))?.ok_or(StoreError::Conflict)?;
    let text = "INSERT INTO commit_log (owner, key, commit_id, kind, at) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT (owner, key) DO UPDATE SET commit_id = excluded.commit_id, kind = excluded.kind, at = excluded.at";
    change(db, text, params![owner.as_str(), key, commit, rows::kind_text(kind), at])?;
    Ok(commit)
}

fn add_account(db: &Connection, account: &Account) -> Result<()> {
    let text = "INSERT INTO accounts (at_sign, port, created_at, last_commit) VALUES (?1, ?2, ?3, -1)
        ON CONFLICT DO NOTHING";
    let added = change(db, text, params![account.at_sign.as_str(), account.port, account.created_at])?;
    if added == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

fn receive(db: &Connection, n: &Notification) -> Result<bool> {
    let text = "INSERT INTO received (owner, sender, id, at, expires_at, operation, message_type, is_encrypted,
            is_self, key, metadata, value, priority, notifier, latest)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)
        ON CONFLICT (owner, id, sender) DO NOTHING";
    store_notification(db, text, &n.to, &n.from, n)
}

fn send(db: &Connection, n: &Notification) -> Result<bool> {
    let text = "INSERT INTO sent (owner, recipient, id, at, expires_at, operation, message_type, is_encrypted,
            is_self, key, metadata, value, priority, notifier, latest, delivery)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, 'queued')
        ON CONFLICT (owner, id) DO NOTHING";
    debug_assert_eq!(rows::delivery_text(Delivery::Queued), "queued");
    store_notification(db, text, &n.from, &n.to, n)
}

/// `false` when it was there already.
fn store_notification(db: &Connection, text: &str, owner: &AtSign, other: &AtSign, n: &Notification) -> Result<bool> {
    let values = params![
        owner.as_str(),
        other.as_str(),
        n.id.as_str(),
        n.at,
        n.expires_at,
        n.operation.as_str(),
        n.message_type.as_str(),
        n.is_encrypted,
        n.is_self,
        n.key,
        rows::metadata_json(&n.metadata),
        n.value,
        rows::priority_number(n.routing.priority),
        n.routing.notifier,
        n.routing.latest,
    ];
    Ok(change(db, text, values)? == 1)
}

fn forget(db: &Connection, owner: &AtSign, id: &NotificationId) -> Result<()> {
    change(db, "DELETE FROM received WHERE owner = ?1 AND id = ?2", [owner.as_str(), id.as_str()])?;
    change(db, "DELETE FROM sent WHERE owner = ?1 AND id = ?2", [owner.as_str(), id.as_str()])?;
    Ok(())
}

/// Rows changed.
fn change(db: &Connection, text: &str, values: impl Params) -> Result<usize> {
    db.prepare_cached(text).map_err(sql)?.execute(values).map_err(sql)
}
