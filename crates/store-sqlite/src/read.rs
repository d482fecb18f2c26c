//! The reads of the promise.

use postern_proto::{AtKey, AtSign, Millis, Notification, NotificationId, Record};
use postern_store::{Account, Delivery, Kept, LogEntry, Usage, Visit};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use crate::error::{Result, sql, unreadable};
use crate::rows::{self, NOTIFICATION, RECORD};

pub(crate) fn accounts(db: &Connection) -> Result<Vec<Account>> {
    list(db, "SELECT at_sign, port, created_at FROM accounts ORDER BY at_sign", [], |row| {
        Ok(Account {
            at_sign: rows::at_sign(&row.get::<_, String>(0).map_err(sql)?)?,
            port: row.get(1).map_err(sql)?,
            created_at: row.get(2).map_err(sql)?,
        })
    })
}

pub(crate) fn record(db: &Connection, owner: &AtSign, key: &AtKey) -> Result<Option<Record>> {
    let text = format!("SELECT {RECORD} FROM records WHERE owner = ?1 AND key = ?2");
    one(db, &text, params![owner.as_str(), key.to_string()], rows::record)
}

pub(crate) fn scan(db: &Connection, owner: &AtSign, each: Visit<'_>) -> Result<()> {
    let text = "SELECT key, available_at, expires_at FROM records WHERE owner = ?1 ORDER BY key";
    let mut statement = db.prepare_cached(text).map_err(sql)?;
    let mut found = statement.query([owner.as_str()]).map_err(sql)?;
    while let Some(row) = found.next().map_err(sql)? {
        let key = row.get_ref(0).map_err(sql)?.as_str().map_err(|_| unreadable("key"))?;
        each(key, row.get(1).map_err(sql)?, row.get(2).map_err(sql)?);
    }
    Ok(())
}

pub(crate) fn last_commit(db: &Connection, owner: &AtSign) -> Result<i64> {
    let text = "SELECT last_commit FROM accounts WHERE at_sign = ?1";
    Ok(one(db, text, [owner.as_str()], |row| row.get(0).map_err(sql))?.unwrap_or(-1))
}

pub(crate) fn log_since(db: &Connection, owner: &AtSign, after: i64, limit: usize) -> Result<Vec<LogEntry>> {
    let text = "SELECT commit_id, key, kind, at FROM commit_log
        WHERE owner = ?1 AND commit_id > ?2 ORDER BY commit_id LIMIT ?3";
    list(db, text, params![owner.as_str(), after, rows_at_most(limit)], |row| {
        Ok(LogEntry {
            commit: row.get(0).map_err(sql)?,
            key: row.get(1).map_err(sql)?,
            kind: rows::kind(&row.get::<_, String>(2).map_err(sql)?)?,
            at: row.get(3).map_err(sql)?,
        })
    })
}

pub(crate) fn received_since(
    db: &Connection,
    owner: &AtSign,
    after: Millis,
    now: Millis,
    limit: usize,
) -> Result<Vec<Notification>> {
    let text = format!(
        "SELECT sender, owner, {NOTIFICATION} FROM received
        WHERE owner = ?1 AND at > ?2 AND expires_at > ?3 ORDER BY at, arrival LIMIT ?4"
    );
    list(db, &text, params![owner.as_str(), after, now, rows_at_most(limit)], rows::notification)
}

pub(crate) fn queued(db: &Connection, now: Millis, limit: usize) -> Result<Vec<Notification>> {
    let text = format!(
        "SELECT owner, recipient, {NOTIFICATION} FROM sent
        WHERE delivery = 'queued' AND expires_at > ?1 ORDER BY at, arrival LIMIT ?2"
    );
    list(db, &text, params![now, rows_at_most(limit)], rows::notification)
}

pub(crate) fn waiting_pairs(db: &Connection, limit: usize) -> Result<Vec<(AtSign, AtSign)>> {
    let text =
        "SELECT DISTINCT owner, recipient FROM sent WHERE delivery = 'queued' ORDER BY owner, recipient LIMIT ?1";
    list(db, text, [rows_at_most(limit)], |row| {
        let name = |column: usize| rows::at_sign(&row.get::<_, String>(column).map_err(sql)?);
        Ok((name(0)?, name(1)?))
    })
}

pub(crate) fn next_waiting(db: &Connection, from: &AtSign, to: &AtSign) -> Result<Option<Notification>> {
    let text = format!(
        "SELECT owner, recipient, {NOTIFICATION} FROM sent
        WHERE owner = ?1 AND recipient = ?2 AND delivery = 'queued' ORDER BY priority DESC, at, arrival LIMIT 1"
    );
    one(db, &text, [from.as_str(), to.as_str()], rows::notification)
}

pub(crate) fn outgoing_status(db: &Connection, owner: &AtSign, id: &NotificationId) -> Result<Option<Delivery>> {
    let text = "SELECT delivery FROM sent WHERE owner = ?1 AND id = ?2";
    one(db, text, [owner.as_str(), id.as_str()], |row| rows::delivery(&row.get::<_, String>(0).map_err(sql)?))
}

pub(crate) fn notifications(db: &Connection, owner: &AtSign, id: &NotificationId) -> Result<Vec<Kept>> {
    let values = [owner.as_str(), id.as_str()];
    let text = format!("SELECT owner, recipient, {NOTIFICATION}, delivery FROM sent WHERE owner = ?1 AND id = ?2");
    let mut all = list(db, &text, values, |row| {
        let delivery = rows::delivery(&row.get::<_, String>("delivery").map_err(sql)?)?;
        Ok(Kept { notification: rows::notification(row)?, delivery: Some(delivery) })
    })?;
    let text = received_by_id();
    all.extend(list(db, &text, values, |row| Ok(Kept { notification: rows::notification(row)?, delivery: None }))?);
    Ok(all)
}

/// The plus: otherwise SQLite walks through all of the household in the order of `at` to spare itself the sorting of
/// the one or two that have this id.
fn received_by_id() -> String {
    format!("SELECT sender, owner, {NOTIFICATION} FROM received WHERE owner = ?1 AND id = ?2 ORDER BY +at, arrival")
}

pub(crate) fn usage(db: &Connection, owner: &AtSign) -> Result<Usage> {
    let mut usage = Usage::default();
    let number = |row: &Row<'_>, column: usize| row.get::<_, i64>(column).map(i64::cast_unsigned).map_err(sql);
    let text = "SELECT count(*), coalesce(sum(octet_length(key) + octet_length(value)), 0)
        FROM records WHERE owner = ?1";
    if let Some((records, bytes)) = one(db, text, [owner.as_str()], |row| Ok((number(row, 0)?, number(row, 1)?)))? {
        (usage.records, usage.bytes) = (records, bytes);
    }
    for (table, delivery) in [("received", "NULL"), ("sent", "delivery")] {
        let text = format!(
            "SELECT count(*), operation, message_type, {delivery} FROM {table} WHERE owner = ?1 GROUP BY 2, 3, 4"
        );
        let counted = list(db, &text, [owner.as_str()], |row| {
            let word = |column: usize| row.get::<_, Option<String>>(column).map_err(sql);
            let delivery = word(3)?.as_deref().map(rows::delivery).transpose()?;
            let operation = rows::operation(&word(1)?.unwrap_or_default())?;
            Ok((delivery, operation, rows::message_type(&word(2)?.unwrap_or_default())?, number(row, 0)?))
        })?;
        for (delivery, operation, message_type, n) in counted {
            usage.count(delivery, operation, message_type, n);
        }
    }
    Ok(usage)
}

/// The first row, if there is one.
pub(crate) fn one<T>(
    db: &Connection,
    text: &str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> Result<T>,
) -> Result<Option<T>> {
    let mut statement = db.prepare_cached(text).map_err(sql)?;
    statement.query_row(params, |row| Ok(read(row))).optional().map_err(sql)?.transpose()
}

fn list<T>(db: &Connection, text: &str, params: impl Params, read: impl Fn(&Row<'_>) -> Result<T>) -> Result<Vec<T>> {
    let mut statement = db.prepare_cached(text).map_err(sql)?;
    let mut found = statement.query(params).map_err(sql)?;
    let mut all = Vec::new();
    while let Some(row) = found.next().map_err(sql)? {
        all.push(read(row)?);
    }
    Ok(all)
}

fn rows_at_most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema;

    #[test]
    fn regression_a_notification_is_found_without_a_look_at_all_others() {
        let mut db = Connection::open_in_memory().unwrap();
        schema::migrate(&mut db).unwrap();
        let explain = format!("EXPLAIN QUERY PLAN {}", received_by_id());
        let plan: String = db.query_row(&explain, ["@alice", "id"], |row| row.get("detail")).unwrap();
        assert!(plan.contains("received_once (owner=? AND id=?)"), "{plan}");
    }
}
