//! How far relays are: the time that a TCP connection takes.

use std::time::{Duration, Instant};

use postern_net::proxy;
use postern_net::tasks::Tasks;
use postern_rendezvous::hints::{Discovered, Latencies, RelayMap};
use tokio::task::JoinHandle;

use crate::limits::{KNOCK, KNOCKS};

/// Milliseconds to each relay that can be reached, all measured at the same time.
pub async fn latencies(relays: &RelayMap) -> Latencies {
    let tasks = Tasks::new();
    let _stop = tasks.token().clone().drop_guard();
    let running: Vec<_> = relays.0.iter().map(|(name, place)| (name.clone(), start(&tasks, place.clone()))).collect();
    let mut times = Latencies::default();
    for (name, measuring) in running {
        if let Ok(Some(time)) = measuring.await {
            times.0.insert(name, time.as_secs_f64() * 1000.0);
        }
    }
    times
}

fn start(tasks: &Tasks, place: Discovered) -> JoinHandle<Option<Duration>> {
    let stop = tasks.token().clone();
    tasks.spawn(async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            time = latency(place) => time,
        }
    })
}

/// The shortest of a few connections: what is longer was somebody's delay and not the way.
async fn latency(place: Discovered) -> Option<Duration> {
    let (host, port) = (place.ipaddr?, place.port?.get());
    let mut shortest = None;
    for _ in 0..KNOCKS {
        let start = Instant::now();
        proxy::connect_tcp(&host, port, KNOCK).await.ok()?;
        let took = start.elapsed();
        shortest = Some(shortest.map_or(took, |shortest: Duration| shortest.min(took)));
    }
    shortest
}
