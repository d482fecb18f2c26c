//! Bulk through client, relay and device: the floor, the product and the
//! rivals in interleaved rounds, compared within the round.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;

use crate::cpu::{Account, Accounts, Role};
use crate::floor::Cipher;
use crate::host::Site;
use crate::limits::SLOW_SHARE;
use crate::load::{Direction, Sink, Transfer};
use crate::process::{Process, Spawn};
use crate::table::{Check, Samples, Table, progress};

/// Something that carries a TCP connection from the client to a service at
/// the device, through something in the middle.
pub(crate) trait Tunnel {
    /// Row name.
    fn name(&self) -> String;

    /// Whether a quarter of the bytes is enough waiting.
    fn slow(&self) -> bool {
        false
    }

    /// Brings all of it up towards `target`, a service at the device; returns
    /// when a local program can connect.
    ///
    /// # Errors
    /// Text for the row's note: a rival that is not installed is a row too.
    fn start(&self, accounts: &Accounts, site: &Site, target: SocketAddr) -> anyhow::Result<Running>;

    /// The row that it is compared with.
    fn base(&self) -> usize {
        FLOOR_ROW
    }

    /// The bounds its row is held to.
    fn checks(&self, _row: &Row) -> Vec<Check> {
        Vec::new()
    }
}

/// A tunnel that is up. Dropped in this order: programs, then the accounts
/// with what may be left in them.
pub(crate) struct Running {
    /// Where the client's local programs connect.
    pub(crate) entry: SocketAddr,
    /// What keeps it up.
    pub(crate) processes: Vec<Process>,
    /// CPU by role.
    pub(crate) accounts: Vec<Account>,
}

/// One tunnel's row.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Why figures are missing.
    pub(crate) note: Option<String>,
    /// MiB/s.
    pub(crate) down: Samples,
    pub(crate) up: Samples,
    /// CPU-seconds per GiB, both ways together.
    pub(crate) cpu: Samples,
    pub(crate) cpu_by_role: BTreeMap<&'static str, Samples>,
    /// Throughput and CPU over the floor's of the same round.
    pub(crate) down_ratio: Samples,
    pub(crate) up_ratio: Samples,
    pub(crate) cpu_ratio: Samples,
    /// Relay CPU over the copying relay's of the same round.
    pub(crate) relay_ratio: Samples,
}

#[derive(Clone, Debug, Default)]
struct Round {
    down: f64,
    up: f64,
    cpu: f64,
    by_role: BTreeMap<&'static str, f64>,
}

/// Which rows others are compared with: the floor, and the floor with the
/// copying relay.
pub(crate) const FLOOR_ROW: usize = 0;
pub(crate) const COPY_ROW: usize = 1;
pub(crate) const CHACHA_ROW: usize = 2;

/// Runs all tunnels, round by round. `tunnels[FLOOR_ROW]` and
/// `tunnels[COPY_ROW]` are what the others are compared with.
pub(crate) fn run(
    accounts: &Accounts,
    site: &Site,
    tunnels: &[Box<dyn Tunnel>],
    bytes: u64,
    rounds: usize,
) -> anyhow::Result<Vec<Row>> {
    let mut rows: Vec<Row> = tunnels.iter().map(|tunnel| Row { name: tunnel.name(), ..Row::default() }).collect();
    let sink = Sink::start(site.device.at(0))?;
    for round in 0..rounds {
        let mut bases: BTreeMap<usize, Round> = BTreeMap::new();
        let mut copy: Option<Round> = None;
        for (index, tunnel) in tunnels.iter().enumerate() {
            let row = &mut rows[index];
            if row.note.is_some() {
                continue;
            }
            let bytes = if tunnel.slow() { bytes / SLOW_SHARE } else { bytes };
            let got = match one(accounts, site, tunnel.as_ref(), sink.address(), bytes) {
                Ok(got) => got,
                Err(error) if index == FLOOR_ROW => {
                    return Err(error.context("the floor itself failed"));
                }
                Err(error) => {
                    progress(&format!("{}: {error:#}", row.name));
                    row.note = Some(format!("{error:#}"));
                    continue;
                }
            };
            progress(&format!(
                "round {} of {rounds}: {}: down {:.0}, up {:.0} MiB/s, {:.2} CPU-s/GiB",
                round + 1,
                row.name,
                got.down,
                got.up,
                got.cpu
            ));
            bases.insert(index, got.clone());
            if index == COPY_ROW {
                copy = Some(got.clone());
            }
            row.add(&got, bases.get(&tunnel.base()), copy.as_ref());
        }
        // The floor runs before the copying relay of its round.
        if let (Some(base), Some(copy)) = (bases.get(&FLOOR_ROW), copy) {
            rows[FLOOR_ROW].add_relay_ratio(base, &copy);
        }
    }
    Ok(rows)
}

fn one(accounts: &Accounts, site: &Site, tunnel: &dyn Tunnel, target: SocketAddr, bytes: u64) -> anyhow::Result<Round> {
    let mut running = tunnel.start(accounts, site, target)?;
    let mut round = Round::default();
    let mut used: BTreeMap<&'static str, Duration> = BTreeMap::new();
    for direction in [Direction::Down, Direction::Up] {
        let mut watched: Vec<&mut Process> = running.processes.iter_mut().collect();
        let stream = site.client.wait_for_port(running.entry, "the tunnel's entry", &mut watched)?;
        let transfer = Transfer::open(stream, direction, bytes)?;
        let before: Vec<Duration> = running.accounts.iter().map(Account::used).collect();
        let took = transfer.run().with_context(|| format!("{direction:?}"))?;
        for (account, before) in running.accounts.iter().zip(before) {
            *used.entry(account.role().name()).or_default() += account.used().saturating_sub(before);
        }
        ensure!(took > Duration::ZERO, "no time passed");
        let rate = mib(bytes) / took.as_secs_f64();
        match direction {
            Direction::Down => round.down = rate,
            Direction::Up => round.up = rate,
        }
    }
    let gib = 2.0 * mib(bytes) / 1024.0;
    round.by_role = used.into_iter().map(|(role, used)| (role, used.as_secs_f64() / gib)).collect();
    round.cpu = round.by_role.values().sum();
    drop(running);
    Ok(round)
}

#[expect(clippy::cast_precision_loss, reason = "byte counts here are far below 2^52")]
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl Row {
    fn add(&mut self, got: &Round, base: Option<&Round>, copy: Option<&Round>) {
        self.down.push(got.down);
        self.up.push(got.up);
        self.cpu.push(got.cpu);
        for (role, cpu) in &got.by_role {
            self.cpu_by_role.entry(role).or_default().push(*cpu);
        }
        if let Some(base) = base {
            self.down_ratio.push(got.down / base.down);
            self.up_ratio.push(got.up / base.up);
            self.cpu_ratio.push(got.cpu / base.cpu);
        }
        if let Some(copy) = copy {
            self.add_relay_ratio(got, copy);
        }
    }

    fn add_relay_ratio(&mut self, got: &Round, copy: &Round) {
        let relay = Role::Relay.name();
        if let (Some(own), Some(copied)) = (got.by_role.get(relay), copy.by_role.get(relay)) {
            self.relay_ratio.push(own / copied);
        }
    }
}

/// Prints the rows.
pub(crate) fn print(rows: &[Row]) {
    let mut table = Table::new(&[
        "bulk through client, relay, device",
        "down MiB/s",
        "up MiB/s",
        "/floor down",
        "/floor up",
        "CPU-s/GiB",
        "/floor",
        "client",
        "relay",
        "device",
        "relay/copy64",
    ]);
    for row in rows {
        if row.down.is_empty() {
            table.row(vec![row.name.clone(), row.note.clone().unwrap_or_default()]);
            continue;
        }
        let role = |role: Role| row.cpu_by_role.get(role.name()).map_or_else(|| "-".to_owned(), |cpu| cpu.show(2));
        table.row(vec![
            row.name.clone(),
            row.down.show(0),
            row.up.show(0),
            format!("{:.2}", row.down_ratio.median()),
            format!("{:.2}", row.up_ratio.median()),
            row.cpu.show(2),
            format!("{:.2}", row.cpu_ratio.median()),
            role(Role::Client),
            role(Role::Relay),
            role(Role::Device),
            row.relay_ratio.show(2),
        ]);
    }
    table.print("Bulk: median (range) over rounds; ratios within a round");
}

/// The bounds a row of our own is held to.
pub(crate) fn checks(row: &Row) -> Vec<Check> {
    let name = &row.name;
    vec![
        Check::at_least(format!("{name}: throughput down over the floor's"), row.down_ratio.median(), 0.75, "x"),
        Check::at_least(format!("{name}: throughput up over the floor's"), row.up_ratio.median(), 0.75, "x"),
        Check::at_most(format!("{name}: CPU per GiB over the floor's"), row.cpu_ratio.median(), 1.4, "x"),
    ]
}

/// The floor as a tunnel: see [`crate::floor`].
#[derive(Debug)]
pub(crate) struct Floor {
    pub(crate) relay: FloorRelay,
    pub(crate) cipher: Cipher,
}

/// What stands between the floor's ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloorRelay {
    /// The floor's own.
    Splice,
    /// What a relay's CPU is compared with.
    Copy64,
    /// The product's pump alone: the same traffic as the other two.
    Product,
}

impl Tunnel for Floor {
    fn name(&self) -> String {
        let relay = match self.relay {
            FloorRelay::Splice => "splice",
            FloorRelay::Copy64 => "copy 64 KiB",
            FloorRelay::Product => "postern's pump",
        };
        let cipher = if self.cipher == Cipher::Aes { "" } else { " (ChaCha20-Poly1305)" };
        format!("floor: seal, {relay}, open{cipher}")
    }

    fn start(&self, accounts: &Accounts, site: &Site, target: SocketAddr) -> anyhow::Result<Running> {
        let key = key_file(&site.dir)?;
        let (client, relay, device) =
            (accounts.account(Role::Client), accounts.account(Role::Relay), accounts.account(Role::Device));
        let log = site.dir.join("floor.log");
        let mut relay_spawn = Spawn::own("floor-relay")?;
        match self.relay {
            FloorRelay::Splice => {}
            FloorRelay::Copy64 => relay_spawn = relay_spawn.args(["--copy64"]),
            FloorRelay::Product => relay_spawn = relay_spawn.args(["--pump"]),
        }
        let mut relay_process = relay_spawn.account(&relay).log(&log).stdout().start()?;
        let relay_at = listening(&mut relay_process)?;
        let device_process = Spawn::own("floor-device")?
            .args(["--cipher", self.cipher.name(), "--relay", &relay_at.to_string()])
            .args(["--target", &target.to_string(), "--key"])
            .args([&key])
            .account(&device)
            .log(&log)
            .start()?;
        let mut client_process = Spawn::own("floor-client")?
            .args(["--cipher", self.cipher.name(), "--relay", &relay_at.to_string(), "--key"])
            .args([&key])
            .account(&client)
            .log(&log)
            .stdout()
            .start()?;
        let entry = listening(&mut client_process)?;
        Ok(Running {
            entry,
            processes: vec![client_process, relay_process, device_process],
            accounts: vec![client, relay, device],
        })
    }

    fn checks(&self, row: &Row) -> Vec<Check> {
        if self.relay != FloorRelay::Product {
            return Vec::new();
        }
        let figure = "relay alone, the same traffic: CPU over a 64 KiB copy's";
        vec![Check::at_most(figure, row.relay_ratio.median(), 0.5, "x")]
    }
}

pub(crate) fn listening(process: &mut Process) -> anyhow::Result<SocketAddr> {
    let line = process.line()?;
    let address = line.strip_prefix("listening ").with_context(|| format!("unexpected ready line {line:?}"))?;
    Ok(address.parse()?)
}

pub(crate) fn key_file(dir: &Path) -> anyhow::Result<std::path::PathBuf> {
    let path = dir.join("floor.key");
    if !path.exists() {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).ok().context("no randomness")?;
        std::fs::write(&path, key)?;
    }
    Ok(path)
}
