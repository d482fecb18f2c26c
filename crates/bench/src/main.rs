//! Figures of Postern beside the physical floor and the rivals, measured in
//! one run on one machine. See `docs/benchmarks.md`.

mod bulk;
mod connect;
mod cpu;
mod crowd;
mod fleet;
mod floor;
mod host;
mod idle;
mod limits;
mod line;
mod load;
mod peers;
mod process;
mod product;
mod published;
mod relay;
mod sealed;
mod setup;
mod streams;
mod table;
mod verbs;

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::bulk::{Floor, FloorRelay, Tunnel};
use crate::connect::{ConnectWay, Warmth};
use crate::cpu::Accounts;
use crate::floor::Cipher;
use crate::host::Site;
use crate::peers::{Recipe, SshKit, SshTunnel};
use crate::product::{PosternTunnel, PosternWay};
use crate::sealed::SealedTunnel;
use crate::table::{Check, progress, say};

#[derive(Debug, Parser)]
#[command(about, version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Action>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Measure, print tables, fail when a bound is missed (what happens without a command, too)
    Run(RunArgs),
    /// The sealing end of the floor
    FloorClient(floor::ClientArgs),
    /// The relay of the floor
    FloorRelay(floor::RelayArgs),
    /// The opening end of the floor
    FloorDevice(floor::DeviceArgs),
    /// The client's end of a sealed session
    SealedClient(sealed::ClientArgs),
    /// The device's end of a sealed session
    SealedDevice(sealed::DeviceArgs),
    /// The service that takes and gives bulk
    Sink {
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// Move bulk through something that leads to a sink
    Source {
        #[arg(long)]
        connect: SocketAddr,
        #[arg(long)]
        direction: load::Direction,
        #[arg(long, default_value_t = limits::BULK_BYTES)]
        bytes: u64,
    },
    /// Keep the delay line up, for experiments by hand
    Line(line::LineArgs),
    /// Become another program inside a group and a namespace
    #[command(hide = true)]
    Enter(process::EnterArgs),
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Few bytes and few rounds: shows that all of it works; bounds are printed, not enforced
    #[arg(long)]
    quick: bool,
    /// Only these subjects
    #[arg(long, value_delimiter = ',')]
    only: Vec<Subject>,
    /// Only rows whose name contains one of these
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Rounds of the bulk table
    #[arg(long)]
    rounds: Option<usize>,
    /// Bytes of the bulk table, each way
    #[arg(long)]
    bytes: Option<u64>,
    /// Write everything to this file as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Do not take the processor before other work on this machine
    #[arg(long)]
    no_priority: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    Bulk,
    Setup,
    Delay,
    Idle,
    /// Verbs on one connection and on a hundred
    Verbs,
    /// A put and a get between two atSigns by the published Python SDK
    Published,
    /// A restart of the server under 5,000 monitors
    Fleet,
    /// One sealed session: 200 streams, a stalled one, an echo, a path of 100 ms
    Streams,
    /// 5,000 live sessions by ticket at one relay
    Relay,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    machine: String,
    cpu_kept_by: String,
    load_before: String,
    load_after: String,
    bulk: Vec<bulk::Row>,
    setup: Vec<setup::Row>,
    idle: Vec<idle::Row>,
    verbs: Vec<verbs::Row>,
    published: Vec<published::Row>,
    fleet: Option<fleet::Figures>,
    streams: Option<streams::Figures>,
    relay: Option<relay::Figures>,
    checks: Vec<Check>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.command.unwrap_or(Action::Run(args.run)) {
        Action::Run(args) => run(&args),
        Action::FloorClient(args) => floor::client(&args).map(|()| true),
        Action::FloorRelay(args) => floor::relay(&args).map(|()| true),
        Action::FloorDevice(args) => floor::device(&args).map(|()| true),
        Action::SealedClient(args) => sealed::client(&args).map(|()| true),
        Action::SealedDevice(args) => sealed::device(&args).map(|()| true),
        Action::Sink { listen } => sink(listen).map(|()| true),
        Action::Source { connect, direction, bytes } => source(connect, direction, bytes).map(|()| true),
        Action::Line(args) => line::by_hand(&args).map(|()| true),
        Action::Enter(args) => Err(process::enter(&args)),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            progress(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &RunArgs) -> anyhow::Result<bool> {
    let wanted = |subject: Subject| args.only.is_empty() || args.only.contains(&subject);
    let dir = tempfile::Builder::new().prefix("postern-bench-").tempdir()?;
    let accounts = Accounts::open(!args.no_priority);
    let site = Site::loopback(dir.path());
    let kit = SshKit::new(dir.path()).map(Rc::new).map_err(|error| format!("{error:#}"));
    let named = |name: &str| args.rows.is_empty() || args.rows.iter().any(|row| name.contains(row));
    let mut report = Report {
        machine: machine(),
        cpu_kept_by: accounts.describe(),
        load_before: load_average(),
        ..Report::default()
    };

    if wanted(Subject::Bulk) {
        let (bytes, rounds) = if args.quick {
            (limits::BULK_BYTES_QUICK, limits::BULK_ROUNDS_QUICK)
        } else {
            (limits::BULK_BYTES, limits::BULK_ROUNDS)
        };
        // The first three are what the others are compared with.
        let mut tunnels = tunnels(&kit);
        let rest = tunnels.split_off(bulk::CHACHA_ROW + 1);
        tunnels.extend(rest.into_iter().filter(|tunnel| named(&tunnel.name())));
        let (bytes, rounds) = (args.bytes.unwrap_or(bytes), args.rounds.unwrap_or(rounds));
        report.bulk = bulk::run(&accounts, &site, &tunnels, bytes, rounds)?;
        for (tunnel, row) in tunnels.iter().zip(&report.bulk) {
            report.checks.extend(tunnel.checks(row));
        }
    }
    if wanted(Subject::Setup) || wanted(Subject::Delay) {
        let rounds = if args.quick { limits::SETUP_ROUNDS_QUICK } else { limits::SETUP_ROUNDS };
        let mut ways = ways(&kit);
        ways.retain(|way| named(&way.name()));
        report.setup = setup::loopback(&accounts, &site, &ways, rounds);
        if wanted(Subject::Delay) {
            let line = setup::delayed(&accounts, &site, &ways, rounds, &mut report.setup);
            report.checks.push(line.unwrap_or_else(|error| {
                // No rights for namespaces: the other subjects still count.
                let why = format!("delay line: {error:#}");
                progress(&why);
                Check::not_measured(why)
            }));
        }
        for (way, row) in ways.iter().zip(&report.setup) {
            report.checks.extend(way.checks(row));
            if wanted(Subject::Delay) {
                report.checks.extend(way.delayed_checks(row));
            }
        }
    }
    if wanted(Subject::Idle) {
        match &kit {
            Ok(kit) => {
                let own = product::idle(&accounts, &site, kit);
                report.checks.extend(own.iter().map(idle::Row::check));
                report.idle = own;
                report.idle.extend(idle::rivals(&accounts, &site, kit));
            }
            Err(why) => {
                report.idle = vec![idle::Row::failed("idle daemons", why)];
                report.checks.extend(report.idle.iter().map(idle::Row::check));
            }
        }
        if !args.quick {
            report.checks.push(idle::per_monitor());
        }
    }
    if wanted(Subject::Verbs) {
        let span = if args.quick { limits::VERB_SPAN_QUICK } else { limits::VERB_SPAN };
        report.verbs = verbs::run(&accounts, &site, span)?;
    }
    if wanted(Subject::Published) {
        let rounds = if args.quick { limits::PUBLISHED_ROUNDS_QUICK } else { limits::PUBLISHED_ROUNDS };
        report.published = published::run(&accounts, &site, rounds);
    }
    if wanted(Subject::Fleet) {
        let monitors = if args.quick { limits::FLEET_QUICK } else { limits::FLEET };
        let figures = fleet::run(&accounts, &site, monitors)?;
        report.checks.extend(figures.checks());
        report.fleet = Some(figures);
    }
    if wanted(Subject::Streams) {
        let figures = streams::run(&accounts, &site, args.quick)?;
        report.checks.extend(figures.checks());
        report.streams = Some(figures);
    }
    if wanted(Subject::Relay) {
        let sessions = if args.quick { limits::RELAY_SESSIONS_QUICK } else { limits::RELAY_SESSIONS };
        let figures = relay::run(&accounts, &site, sessions)?;
        report.checks.extend(figures.checks());
        report.relay = Some(figures);
    }
    report.load_after = load_average();

    print(&report);
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text + "\n").with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(args.quick || report.checks.iter().all(|check| check.holds))
}

/// Rows of the bulk table; the first three are what others are compared with.
fn tunnels(kit: &Result<Rc<SshKit>, String>) -> Vec<Box<dyn Tunnel>> {
    let gcm = Some("aes128-gcm@openssh.com");
    vec![
        Box::new(Floor { relay: FloorRelay::Splice, cipher: Cipher::Aes }),
        Box::new(Floor { relay: FloorRelay::Copy64, cipher: Cipher::Aes }),
        Box::new(Floor { relay: FloorRelay::Splice, cipher: Cipher::Chacha }),
        Box::new(SealedTunnel { cipher: Cipher::Aes, resume: false }),
        Box::new(SealedTunnel { cipher: Cipher::Aes, resume: true }),
        Box::new(SealedTunnel { cipher: Cipher::Chacha, resume: false }),
        Box::new(Floor { relay: FloorRelay::Product, cipher: Cipher::Aes }),
        Box::new(PosternTunnel),
        Box::new(SshTunnel { recipe: Recipe::JumpReverse, cipher: None, kit: kit.clone() }),
        Box::new(SshTunnel { recipe: Recipe::Rathole, cipher: gcm, kit: kit.clone() }),
    ]
}

/// Rows of the set-up table.
fn ways(kit: &Result<Rc<SshKit>, String>) -> Vec<Box<dyn setup::Way>> {
    let recipes = [Recipe::Straight, Recipe::JumpReverse, Recipe::Rathole];
    let product =
        [None, Some("5.6")].map(|dialect| Box::new(PosternWay { kit: kit.clone(), dialect }) as Box<dyn setup::Way>);
    let recipes = recipes.into_iter().map(|recipe| Box::new((recipe, kit.clone())) as Box<dyn setup::Way>);
    let connect = [Warmth::Cold, Warmth::Login, Warmth::Session]
        .map(|warmth| Box::new(ConnectWay { kit: kit.clone(), warmth }) as Box<dyn setup::Way>);
    product.into_iter().chain(connect).chain(recipes).collect()
}

fn print(report: &Report) {
    say(&format!("Machine: {}", report.machine));
    say(&format!(
        "CPU time by {}; load {} before, {} after",
        report.cpu_kept_by, report.load_before, report.load_after
    ));
    if !report.bulk.is_empty() {
        bulk::print(&report.bulk);
    }
    if !report.setup.is_empty() {
        setup::print(&report.setup);
    }
    if !report.idle.is_empty() {
        idle::print(&report.idle);
    }
    if !report.verbs.is_empty() {
        verbs::print(&report.verbs);
    }
    if !report.published.is_empty() {
        published::print(&report.published);
    }
    if let Some(figures) = &report.fleet {
        figures.print();
    }
    if let Some(figures) = &report.streams {
        figures.print();
    }
    if let Some(figures) = &report.relay {
        figures.print();
    }
    if !report.checks.is_empty() {
        say("\nBounds");
        for check in &report.checks {
            say(&check.show());
        }
    }
}

fn sink(listen: SocketAddr) -> anyhow::Result<()> {
    let sink = load::Sink::start(listen)?;
    say(&format!("listening {}", sink.address()));
    loop {
        std::thread::park();
    }
}

#[expect(clippy::cast_precision_loss, reason = "byte counts here are far below 2^52")]
fn source(connect: SocketAddr, direction: load::Direction, bytes: u64) -> anyhow::Result<()> {
    let took = load::Transfer::open(TcpStream::connect(connect)?, direction, bytes)?.run()?;
    say(&format!("{:.0} MiB/s", bytes as f64 / f64::from(1 << 20) / took.as_secs_f64()));
    Ok(())
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1)).unwrap_or("?");
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{cores} cores, {model}, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("?").to_owned()
}
