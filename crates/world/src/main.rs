//! `cargo xtask world --runs N --seed S`: as many schedules as one likes.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use postern_testkit::say;
use postern_world::Campaign;

fn main() -> anyhow::Result<ExitCode> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut campaign = Campaign { seed: 1, runs: 100_000, threads, traitor: None };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().and_then(|text| text.parse::<u64>().ok()).with_context(|| format!("{name} NUMBER"))?;
        match name.as_str() {
            "--runs" => campaign.runs = value,
            "--seed" => campaign.seed = value,
            _ => bail!("cargo xtask world [--runs N] [--seed S], not {name}"),
        }
    }
    let outcome = campaign.run();
    let (told, seconds) = (outcome.told, outcome.took.as_secs_f64());
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = outcome.runs as f64 / seconds;
    say(format_args!(
        "{} schedules from seed {} in {seconds:.1} s on {threads} threads: {rate:.0} a second, 100,000 take {:.1} minutes",
        outcome.runs,
        campaign.seed,
        100_000.0 / rate / 60.0
    ));
    say(format_args!(
        "{} sessions over {} connections, {} deeds of the attacker; {} sessions came to their end, {} payload bytes arrived",
        told.sessions, told.connections, told.deeds, told.completed, told.bytes
    ));
    match outcome.violation {
        None => Ok(ExitCode::SUCCESS),
        Some(violation) => {
            say(format_args!("\n{violation}"));
            Ok(ExitCode::FAILURE)
        }
    }
}
