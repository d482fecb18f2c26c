//! What the server does with one verb over and over: on one connection that waits for each answer, and on a hundred
//! of them at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use postern_client::Client;
use postern_proto::verb::{Llookup, Lookup, Noop, Notify, Update};
use postern_proto::{AtKey, AtSign, Detail, Metadata, NotificationId, Request};
use serde::Serialize;

use crate::cpu::Accounts;
use crate::crowd::{Crowd, identity};
use crate::host::Site;
use crate::limits::VERB_CROWD;
use crate::product::{CLIENT, DEVICE, House};
use crate::table::{Table, progress};

/// A value as clients store them: some encrypted words in base64.
const VALUE: &str = "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4mrze8BI0VniavN7wEjRWeJ";

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// One verb with one number of connections.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    verb: &'static str,
    connections: usize,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// CPU time of the server for one request, microseconds.
    server_cpu_us: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Noop,
    Llookup,
    Update,
    Lookup,
    Notify,
}

impl Verb {
    const ALL: [Self; 5] = [Self::Noop, Self::Llookup, Self::Update, Self::Lookup, Self::Notify];

    fn name(self) -> &'static str {
        match self {
            Self::Noop => "noop",
            Self::Llookup => "llookup",
            Self::Update => "update",
            Self::Lookup => "lookup of another's record",
            Self::Notify => "notify another",
        }
    }

    /// The request that connection `number` makes for the `turn`th time.
    fn request(self, me: &AtSign, other: &AtSign, number: usize, turn: usize) -> anyhow::Result<Request> {
        let own = AtKey::own(&format!("verb{number}.bench"), me);
        Ok(match self {
            Self::Noop => Request::Noop(Noop { ms: 0 }),
            Self::Llookup => Request::Llookup(Llookup::value(own)),
            Self::Update => Request::Update(Update {
                key: own,
                metadata: Metadata::default().into(),
                value: format!("{VALUE}{turn}"),
            }),
            Self::Lookup => Request::Lookup(Lookup {
                bypass_cache: true,
                detail: Detail::All,
                name: "shared.bench".into(),
                owner: other.clone(),
            }),
            Self::Notify => {
                // One that was there before would be taken for a repetition.
                let id = format!("bench-{}", NEXT_ID.fetch_add(1, Ordering::Relaxed));
                let id = NotificationId::parse(&id).context("a short id of plain characters")?;
                Request::Notify(Box::new(Notify::update(id, other, "bell.bench", me, Some(VALUE.into()))))
            }
        })
    }
}

/// Measures all verbs.
pub(crate) fn run(accounts: &Accounts, site: &Site, span: Duration) -> anyhow::Result<Vec<Row>> {
    let house = House::stand_server(accounts, site)?;
    let crowd = Crowd::of(&house, Duration::from_secs(60))?;
    let (me, other) = (identity(&house, CLIENT)?, identity(&house, DEVICE)?);
    crowd.run(async {
        let (theirs, _inbox) = crowd.connect(&other, false).await?;
        theirs.put_shared(&me.at_sign, "shared.bench", VALUE, None).await?;
        anyhow::Ok(())
    })?;
    let mut clients = Vec::new();
    for _ in 0..VERB_CROWD {
        clients.push(crowd.run(crowd.connect(&me, false))?.0);
    }
    // What llookup finds.
    for (number, client) in clients.iter().enumerate() {
        let update = Verb::Update.request(&me.at_sign, &other.at_sign, number, 0)?;
        crowd.run(client.request(update))?;
    }
    let mut rows = Vec::new();
    for verb in Verb::ALL {
        for connections in [1, VERB_CROWD] {
            progress(&format!("verbs: {} on {connections}", verb.name()));
            rows.push(measure(&house, &crowd, &clients[..connections], verb, &other.at_sign, span)?);
        }
    }
    Ok(rows)
}

fn measure(
    house: &House,
    crowd: &Crowd,
    clients: &[Client],
    verb: Verb,
    other: &AtSign,
    span: Duration,
) -> anyhow::Result<Row> {
    let (used, start) = (house.server_used(), Instant::now());
    let other = Arc::new(other.clone());
    let running: Vec<_> = clients
        .iter()
        .enumerate()
        .map(|(number, client)| {
            let (client, other) = (client.clone(), Arc::clone(&other));
            let work = async move {
                let mut took = Vec::new();
                while start.elapsed() < span {
                    let request = verb.request(client.at_sign(), &other, number, took.len())?;
                    let asked = Instant::now();
                    client.request(request).await?;
                    took.push(asked.elapsed());
                }
                anyhow::Ok(took)
            };
            crowd.start(work)
        })
        .collect();
    let mut all = Vec::new();
    for task in running {
        all.extend(crowd.run(task).context("a task of the bench died")??);
    }
    let (wall, cpu) = (start.elapsed(), house.server_used().saturating_sub(used));
    ensure!(!all.is_empty(), "not one request was answered");
    all.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
    let count = all.len() as f64;
    Ok(Row {
        verb: verb.name(),
        connections: clients.len(),
        per_second: count / wall.as_secs_f64(),
        p50_ms: part(&all, 50),
        p99_ms: part(&all, 99),
        server_cpu_us: cpu.as_secs_f64() * 1e6 / count,
    })
}

/// The given part of sorted times, in percent; milliseconds.
fn part(sorted: &[Duration], percent: usize) -> f64 {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
}

/// Prints the rows.
pub(crate) fn print(rows: &[Row]) {
    let mut table = Table::new(&["verb", "connections", "per second", "p50 ms", "p99 ms", "server CPU µs each"]);
    for row in rows {
        table.row(vec![
            row.verb.to_owned(),
            row.connections.to_string(),
            format!("{:.0}", row.per_second),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
            format!("{:.0}", row.server_cpu_us),
        ]);
    }
    table.print("Verbs: each connection waits for its answer before it asks again");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_of_a_hundred_is_nearly_the_last() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!((part(&times, 50), part(&times, 99)), (51.0, 100.0));
        assert!(part(&[], 99).is_nan());
    }
}
