//! `stats`: figures of a household.
//!
//! No log of who read what is kept here, so there is nothing to say of the most visited.

use postern_dialogue::server::Authority;
use postern_proto::verb::{Metric, Stats};
use postern_proto::{Millis, Reply, wire_date};
use postern_store::{StoreError, Usage};
use serde_json::{Map, Value as Json, json};

use super::sync::{each_entry, operation};
use super::{Call, Plan, Planned};
use crate::limits::SYNC_BYTES;
use crate::pattern::Pattern;

pub(super) fn plan(call: &Call<'_>, stats: &Stats) -> Planned {
    let me = call.owner()?;
    let pattern = Pattern::parse(stats.regex.as_deref())?;
    let all = || Metric::ALL.iter().map(|(metric, _)| *metric).collect();
    let metrics = if stats.metrics.is_empty() { all() } else { stats.metrics.clone() };
    // Counting looks at everything: once, and only when it is asked for.
    let counted = [Metric::StorageSize, Metric::DiskSize, Metric::Notifications];
    let usage = if metrics.iter().any(|metric| counted.contains(metric)) {
        call.store.usage(me.owner())?
    } else {
        Usage::default()
    };
    let mut shown = Vec::new();
    for metric in metrics {
        let value = value(call, me, metric, &pattern, &usage)?;
        shown.push(json!({"id": metric.number().to_string(), "name": metric.name(), "value": value}));
    }
    Plan::reply(Reply::spaced_json(&Json::Array(shown)))
}

/// Every value is a text, some the text of more JSON.
fn value(
    call: &Call<'_>,
    me: &Authority,
    metric: Metric,
    pattern: &Pattern,
    usage: &Usage,
) -> Result<String, StoreError> {
    let house = call.house.unwrap_or_default();
    Ok(match metric {
        Metric::InboundConnections => house.connections.to_string(),
        Metric::OutboundConnections => house.outbound.to_string(),
        Metric::LastCommit if pattern.is_everything() && me.limits().is_none() => {
            call.store.last_commit(me.owner())?.to_string()
        }
        Metric::LastCommit => last_commit(call, me, pattern)?.to_string(),
        Metric::StorageSize => usage.bytes.to_string(),
        Metric::DiskSize => in_units(usage.bytes).to_string(),
        Metric::Version => env!("CARGO_PKG_VERSION").into(),
        Metric::LastLogin | Metric::LastPkam => house.last_login.map_or_else(|| "Not Available".to_owned(), wire_date),
        Metric::Notifications => notifications(usage, call.now).to_string(),
        Metric::LatestCommits => latest_commits(call, me, pattern)?.to_string(),
        Metric::TopAtSigns
        | Metric::TopKeys
        | Metric::CommitLogCompaction
        | Metric::AccessLogCompaction
        | Metric::NotificationCompaction => "{}".into(),
    })
}

/// The latest commit that `me` may see, of keys that match.
fn last_commit(call: &Call<'_>, me: &Authority, pattern: &Pattern) -> Result<i64, StoreError> {
    let mut last = -1;
    each_entry(call, me, -1, &mut |entry, _| {
        if pattern.is_in(&entry.key) {
            last = entry.commit;
        }
        Ok(true)
    })?;
    Ok(last)
}

/// Key to commit and sign, as much as one answer holds.
fn latest_commits(call: &Call<'_>, me: &Authority, pattern: &Pattern) -> Result<Json, StoreError> {
    let mut bytes = 0;
    let mut shown = Map::new();
    each_entry(call, me, -1, &mut |entry, _| {
        if pattern.is_in(&entry.key) {
            bytes += entry.key.len();
            shown.insert(entry.key.clone(), json!([entry.commit, operation(entry.kind)]));
        }
        Ok(bytes < SYNC_BYTES)
    })?;
    Ok(Json::Object(shown))
}

fn notifications(usage: &Usage, now: Millis) -> Json {
    let total = usage.sent() + usage.received;
    json!({
        "total": total,
        "type": {"sent": usage.sent(), "received": usage.received},
        "status": {
            "delivered": usage.delivered + usage.received,
            "failed": usage.errored + usage.expired,
            "queued": usage.queued,
        },
        "operations": {"update": total - usage.deletes, "delete": usage.deletes},
        "messageType": {"key": total - usage.texts, "text": usage.texts},
        "createdOn": now,
    })
}

/// Two decimals, rounded down.
fn in_units(bytes: u64) -> Json {
    let units = ["B", "KB", "MB", "GB", "TB", "PB", "EB"];
    let mut hundredths = u128::from(bytes) * 100;
    let mut unit = 0;
    while hundredths >= 102_400 && unit + 1 < units.len() {
        hundredths /= 1024;
        unit += 1;
    }
    let size = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    json!({"size": size, "units": units.get(unit).unwrap_or(&"")})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people() {
        for (bytes, size, unit) in
            [(0, "0.00", "B"), (1023, "1023.00", "B"), (1536, "1.50", "KB"), (5 << 30, "5.00", "GB")]
        {
            assert_eq!(in_units(bytes), json!({"size": size, "units": unit}));
        }
        assert_eq!(in_units(u64::MAX)["units"], "EB");
    }
}
