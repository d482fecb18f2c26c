//! A fleet of monitors and a server that is killed under it: how soon they are back, what it costs, and whether
//! anybody was turned away.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use postern_client::{Client, Inbox};
use postern_proto::Request;
use postern_proto::verb::Noop;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::cpu::Accounts;
use crate::crowd::{Crowd, identity};
use crate::host::Site;
use crate::limits::{FLEET_BACK, FLEET_GATHERS, FLEET_HEARTBEAT, FLEET_PATIENCE};
use crate::product::{CLIENT, DEVICE, House};
use crate::table::{Check, Table, progress};

/// What one restart took.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    monitors: usize,
    /// From the kill until half of them were back, and until all were; seconds.
    half_back: f64,
    all_back: f64,
    /// Monitors that were not back after the patience of the bench.
    lost: usize,
    /// Monitors that heard a notification sent after that.
    heard: usize,
    /// Tries that met nobody: the port was closed.
    nobody_there: usize,
    /// Tries that the client gave up because they took too long.
    too_slow: usize,
    /// Connections that the server took and ended before the login: no seat.
    refused: usize,
    /// CPU seconds of the server, from the kill until all were back.
    server_cpu: f64,
    /// What refused tries said, the most frequent few.
    reasons: Vec<String>,
}

impl Figures {
    /// The promises.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let all_back = if self.lost == 0 { self.all_back } else { f64::INFINITY };
        let name = format!("server killed under {} monitors", self.monitors);
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let (refused, heard) = (self.refused as f64, self.heard as f64 / self.monitors as f64);
        vec![
            Check::at_most(format!("{name}: all back"), all_back, FLEET_BACK.as_secs_f64(), "s"),
            Check::at_most(format!("{name}: connections refused"), refused, 0.0, ""),
            Check::at_least(format!("{name}: share that hears a notification afterwards"), heard, 1.0, ""),
        ]
    }

    pub(crate) fn print(&self) {
        let mut table = Table::new(&["restart", ""]);
        let mut row = |name: &str, value: String| table.row(vec![name.to_owned(), value]);
        row("monitors", self.monitors.to_string());
        row("half of them back, s after the kill", format!("{:.1}", self.half_back));
        row("all back, s", format!("{:.1}", self.all_back));
        row("lost", self.lost.to_string());
        row("hear a notification afterwards", self.heard.to_string());
        row("tries while nobody listened", self.nobody_there.to_string());
        row("tries that took too long", self.too_slow.to_string());
        row("connections refused by the new server", self.refused.to_string());
        for reason in &self.reasons {
            row("", reason.clone());
        }
        row("server's CPU seconds until all were back", format!("{:.1}", self.server_cpu));
        table.print("A server is killed (SIGKILL) and started again under its monitors; all come from one address");
    }
}

/// Gathers the fleet, kills the server, waits.
pub(crate) fn run(accounts: &Accounts, site: &Site, monitors: usize) -> anyhow::Result<Figures> {
    let tries = Tries::install()?;
    let mut house = House::stand_server(accounts, site)?;
    let crowd = Crowd::of(&house, FLEET_HEARTBEAT)?;
    progress(&format!("fleet: {monitors} monitors gather"));
    let mut fleet = gather(&crowd, &house, monitors)?;
    let (sender, _inbox) = crowd.run(crowd.connect(&identity(&house, DEVICE)?, false))?;

    progress("fleet: the server is killed");
    tries.forget();
    let (used, killed) = (house.server_used(), Instant::now());
    house.replace_server(site)?;
    let back = crowd.run(wait_for_all(&crowd, &fleet, killed));
    let (nobody_there, rest): (Vec<_>, Vec<_>) =
        tries.forget().into_iter().partition(|text| text.contains("(os error 111)"));
    let (too_slow, refused): (Vec<_>, Vec<_>) = rest.into_iter().partition(|text| text.contains("timed out"));
    let server_cpu = house.server_used().saturating_sub(used).as_secs_f64();

    progress("fleet: a notification for all");
    let to = identity(&house, CLIENT)?.at_sign;
    crowd.run(sender.notify(&to, "roll.bench", "call", None))?;
    let heard = crowd.run(count_hearers(&crowd, &mut fleet));
    let mut times: Vec<f64> = back.iter().flatten().map(Duration::as_secs_f64).collect();
    times.sort_by(f64::total_cmp);
    Ok(Figures {
        monitors,
        half_back: times.get(monitors / 2).copied().unwrap_or(f64::INFINITY),
        all_back: times.last().copied().unwrap_or(f64::INFINITY),
        lost: monitors - times.len(),
        heard,
        refused: refused.len(),
        nobody_there: nobody_there.len(),
        too_slow: too_slow.len(),
        server_cpu,
        reasons: most_frequent(refused),
    })
}

fn gather(crowd: &Crowd, house: &House, monitors: usize) -> anyhow::Result<Vec<(Client, Inbox)>> {
    let me = identity(house, CLIENT)?;
    let gates = Arc::new(Semaphore::new(FLEET_GATHERS));
    let coming: Vec<_> = (0..monitors)
        .map(|_| {
            let (login, gates) = (crowd.connect(&me, true), Arc::clone(&gates));
            let work = async move {
                let _gate = gates.acquire_owned().await;
                login.await
            };
            crowd.start(work)
        })
        .collect();
    coming
        .into_iter()
        .map(|task| crowd.run(task).context("a task of the bench died")?.context("a login while gathering"))
        .collect()
}

/// When each was back: when the server answered a question of it again.
async fn wait_for_all(crowd: &Crowd, fleet: &[(Client, Inbox)], killed: Instant) -> Vec<Option<Duration>> {
    let waiting: Vec<_> = fleet
        .iter()
        .map(|(client, _)| {
            let client = client.clone();
            crowd.start(async move {
                while killed.elapsed() < FLEET_PATIENCE {
                    if client.request(Request::Noop(Noop { ms: 0 })).await.is_ok() {
                        return Some(killed.elapsed());
                    }
                }
                None
            })
        })
        .collect();
    let mut back = Vec::with_capacity(waiting.len());
    for task in waiting {
        back.push(task.await.ok().flatten());
    }
    back
}

async fn count_hearers(crowd: &Crowd, fleet: &mut Vec<(Client, Inbox)>) -> usize {
    let heard = Arc::new(AtomicUsize::new(0));
    let listening: Vec<_> = fleet
        .drain(..)
        .map(|(client, mut inbox)| {
            let heard = Arc::clone(&heard);
            crowd.start(async move {
                let wanted = async {
                    while let Some(push) = inbox.next().await {
                        if push.key.to_string().contains("roll.bench") {
                            return true;
                        }
                    }
                    false
                };
                if tokio::time::timeout(FLEET_BACK, wanted).await.unwrap_or(false) {
                    heard.fetch_add(1, Ordering::Relaxed);
                }
                drop(client);
            })
        })
        .collect();
    for task in listening {
        let _ = task.await;
    }
    heard.load(Ordering::Relaxed)
}

fn most_frequent(reasons: Vec<String>) -> Vec<String> {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for reason in reasons {
        *counts.entry(reason).or_default() += 1;
    }
    let mut counts: Vec<(usize, String)> = counts.into_iter().map(|(reason, count)| (count, reason)).collect();
    counts.sort_by(|a, b| b.cmp(a));
    counts.into_iter().take(4).map(|(count, reason)| format!("{count} × {reason}")).collect()
}

/// What the client library says of tries that failed.
#[derive(Clone, Default)]
struct Tries(Arc<Mutex<Vec<String>>>);

impl Tries {
    /// Listens from now on to what the client library says, and to nothing else.
    fn install() -> anyhow::Result<Self> {
        let tries = Self::default();
        tracing::subscriber::set_global_default(tries.clone()).map_err(|error| anyhow!("{error}"))?;
        ensure!(tries.forget().is_empty(), "nobody has tried yet");
        Ok(tries)
    }

    /// What was said so far; forgotten.
    fn forget(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl tracing::Subscriber for Tries {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("postern_client") && metadata.is_event()
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        if said.message == "reconnecting" {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(said.error);
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[derive(Default)]
struct Said {
    message: String,
    error: String,
}

impl tracing::field::Visit for Said {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "error" => self.error = format!("{value:?}"),
            _ => {}
        }
    }
}
