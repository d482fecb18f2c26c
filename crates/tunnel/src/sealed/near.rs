//! Which of several relays to meet at: the nearest that answers, by the time that a TCP connection takes from here.

use std::time::Duration;

use postern_net::proxy;
use postern_net::tasks::Tasks;
use postern_proto::AtSign;
use postern_rendezvous::RelayRecord;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::limits::{RELAY_ANSWER, RELAY_NEAR};

/// Sorts relays: in the user's order those that are about as near as the nearest, then farther ones, last those that have
/// not answered yet. A relay alone is not asked. Takes about three times the way to the nearest.
pub(super) async fn nearest_first(records: Vec<(AtSign, RelayRecord)>) -> Vec<(AtSign, RelayRecord)> {
    if records.len() < 2 {
        return records;
    }
    let tasks = Tasks::new();
    let _stop = tasks.token().clone().drop_guard();
    let (tell, mut heard) = mpsc::channel(records.len());
    let start = Instant::now();
    for (place, (_, record)) in records.iter().enumerate() {
        let Some(address) = record.addresses().first().cloned() else { continue };
        let (tell, stop) = (tell.clone(), tasks.token().clone());
        drop(tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                reached = proxy::connect_tcp(address.host(), address.port(), RELAY_ANSWER) => {
                    if reached.is_ok() {
                        let _ = tell.send((place, start.elapsed())).await;
                    }
                }
            }
        }));
    }
    drop(tell);
    let mut times = vec![None; records.len()];
    let mut deadline = start + RELAY_ANSWER;
    while let Ok(Some((place, took))) = timeout_at(deadline, heard.recv()).await {
        times[place] = Some(took);
        deadline = deadline.min(start + took * 3 + RELAY_NEAR);
    }
    tracing::debug!(?times, "ways to the relays");
    sorted(records, &times)
}

fn sorted<T>(relays: Vec<T>, times: &[Option<Duration>]) -> Vec<T> {
    let near = times.iter().flatten().min().map(|best| *best * 3 / 2 + RELAY_NEAR);
    let rank = |time: &Option<Duration>| match (time, near) {
        (Some(time), Some(near)) if *time <= near => (0, Duration::ZERO),
        (Some(time), _) => (1, *time),
        (None, _) => (2, Duration::ZERO),
    };
    let mut ranked: Vec<_> = times.iter().map(rank).zip(relays).collect();
    ranked.sort_by_key(|(rank, _)| *rank); // stable: the user's order within a rank
    ranked.into_iter().map(|(_, relay)| relay).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_rendezvous::RelayAddress;

    #[test]
    fn order_counts_among_those_that_are_about_as_near() {
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(sorted(vec!["a", "b", "c"], &[ms(25), ms(20), ms(22)]), ["a", "b", "c"]);
        assert_eq!(sorted(vec!["a", "b", "c"], &[ms(180), ms(20), ms(90)]), ["b", "c", "a"]);
        assert_eq!(sorted(vec!["a", "b", "c"], &[None, ms(300), ms(40)]), ["c", "b", "a"]);
        assert_eq!(sorted(vec!["a", "b"], &[None, None]), ["a", "b"]);
    }

    #[tokio::test]
    async fn a_relay_that_is_away_is_not_the_first() {
        let here = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let relay = |name: &str, port| {
            let record = RelayRecord::new(vec![RelayAddress::new("127.0.0.1", port, false).unwrap()]);
            (AtSign::parse(name).unwrap(), record)
        };
        let (first, second) = (relay("@first", away), relay("@second", here.local_addr().unwrap().port()));
        let found = nearest_first(vec![first.clone(), second.clone()]).await;
        assert_eq!(found, [second, first]);
    }
}
