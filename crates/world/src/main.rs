//! `cargo xtask world [--openings] --runs N --seed S`: as many schedules as one likes.

use std::ops::AddAssign;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use postern_testkit::say;
use postern_world::{Campaign, Outcome, Violation, opening, run};

fn main() -> anyhow::Result<ExitCode> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut seed, mut runs, mut openings) = (1, None, false);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        if name == "--openings" {
            openings = true;
            continue;
        }
        let value = args.next().and_then(|text| text.parse::<u64>().ok()).with_context(|| format!("{name} NUMBER"))?;
        match name.as_str() {
            "--runs" => runs = Some(value),
            "--seed" => seed = value,
            _ => bail!("cargo xtask world [--openings] [--runs N] [--seed S], not {name}"),
        }
    }
    // Real keys cost a thousand times what a record costs.
    let runs = runs.unwrap_or(if openings { 1_000 } else { 100_000 });
    let campaign = Campaign { seed, runs, threads };
    Ok(if openings {
        tell(
            &campaign,
            |seed| opening::run(seed, None),
            |told| {
                format!(
                    "{} requests of honest clients, {} let in; {} deeds of the attacker, {} of them refused; {} sessions verified \
                 at both ends",
                    told.requests, told.admitted, told.deeds, told.refused, told.completed
                )
            },
        )
    } else {
        tell(
            &campaign,
            |seed| run(seed, None),
            |told| {
                format!(
                    "{} sessions over {} connections, {} deeds of the attacker; {} sessions came to their end, {} payload bytes \
                 arrived",
                    told.sessions, told.connections, told.deeds, told.completed, told.bytes
                )
            },
        )
    })
}

/// Runs a world and says what came of it.
fn tell<T, W>(campaign: &Campaign, world: W, words: impl Fn(&T) -> String) -> ExitCode
where
    T: Default + AddAssign + Send,
    W: Fn(u64) -> Result<T, Box<Violation>> + Sync,
{
    let Outcome { runs, told, took, violation } = campaign.run(world);
    let (seconds, threads) = (took.as_secs_f64(), campaign.threads);
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = runs as f64 / seconds;
    say(format_args!(
        "{runs} schedules from seed {} in {seconds:.1} s on {threads} threads: {rate:.0} a second, 100,000 take {:.1} minutes",
        campaign.seed,
        100_000.0 / rate / 60.0
    ));
    say(format_args!("{}", words(&told)));
    match violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            say(format_args!("\n{violation}"));
            ExitCode::FAILURE
        }
    }
}
