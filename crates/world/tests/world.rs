//! A hundred thousand schedules in every test run, some twenty seconds; `cargo xtask world` runs as many as one likes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use postern_testkit::say;
use postern_world::{Campaign, Outcome, Told, Traitor, run};

/// Every kind of deed in every state, some thousand times.
const RUNS: u64 = 100_000;
/// A guard that is away is missed long before.
const RUNS_OF_A_TRAITOR: u64 = 5_000;

fn campaign(runs: u64, traitor: Option<Traitor>) -> Outcome<Told> {
    let seed = std::env::var("WORLD_SEED").map_or(1, |text| text.parse().unwrap());
    let outcome = Campaign { seed, runs, threads: 2 }.run(|seed| run(seed, traitor));
    say(format_args!("{traitor:?}: {} runs in {:?}, {:?}", outcome.runs, outcome.took, outcome.told));
    outcome
}

#[test]
fn no_byte_goes_astray_and_every_session_completes() {
    let outcome = campaign(RUNS, None);
    if let Some(violation) = outcome.violation {
        panic!("{violation}");
    }
    let told = outcome.told;
    assert!(told.deeds as u64 > RUNS && told.connections > told.sessions, "the attacker slept: {told:?}");
    assert!(told.completed * 2 > told.sessions, "the attacker ends nearly everything: {told:?}");
}

#[test]
fn every_guard_that_is_taken_away_is_missed() {
    for traitor in Traitor::ALL {
        let outcome = campaign(RUNS_OF_A_TRAITOR, Some(traitor));
        let violation = outcome.violation.unwrap_or_else(|| panic!("{traitor:?} was not noticed"));
        say(format_args!("{traitor:?} after {} runs: {:?}: {}", outcome.runs, violation.broke, violation.what));
        // The seed shows it again.
        let again = run(violation.seed, Some(traitor)).unwrap_err();
        assert_eq!((again.broke, again.what), (violation.broke, violation.what));
    }
}
