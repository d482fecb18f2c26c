//! How sessions begin, with real keys and handshakes: a thousand schedules in every test run.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use postern_testkit::say;
use postern_world::opening::{Counted, Lost, run};
use postern_world::{Campaign, Outcome};

/// Every kind of deed in every state, some hundred times. A schedule costs some thirty milliseconds.
const RUNS: u64 = 1_000;
/// A guard that is away is missed long before.
const RUNS_WITHOUT: u64 = 400;
/// Where nothing is to be missed.
const RUNS_ENOUGH: u64 = 200;

fn campaign(runs: u64, lost: Option<Lost>) -> Outcome<Counted> {
    let seed = std::env::var("WORLD_SEED").map_or(1, |text| text.parse().unwrap());
    let outcome = Campaign { seed, runs, threads: 2 }.run(|seed| run(seed, lost));
    say(format_args!("{lost:?}: {} runs in {:?}, {:?}", outcome.runs, outcome.took, outcome.told));
    outcome
}

#[test]
fn nobody_comes_in_as_somebody_else_and_honest_clients_always_do() {
    let outcome = campaign(RUNS, None);
    if let Some(violation) = outcome.violation {
        panic!("{violation}");
    }
    let told = outcome.told;
    assert_eq!(told.completed as u64, 3 * RUNS, "{told:?}");
    assert!(told.deeds as u64 > 10 * RUNS && told.refused * 4 > told.deeds, "the attacker slept: {told:?}");
}

#[test]
fn every_guard_of_a_beginning_is_missed_when_it_is_taken_away() {
    for lost in Lost::ALL {
        let outcome = campaign(RUNS_WITHOUT, Some(lost));
        let violation = outcome.violation.unwrap_or_else(|| panic!("{lost:?} was not noticed"));
        say(format_args!("{lost:?} after {} runs: {:?}: {}", outcome.runs, violation.broke, violation.what));
    }
}

/// What binds a reply is said three times: each word alone keeps a reply to somebody else away.
#[test]
fn each_word_of_a_reply_is_enough_without_the_others() {
    for lost in Lost::ENOUGH {
        if let Some(violation) = campaign(RUNS_ENOUGH, Some(lost)).violation {
            panic!("{lost:?}: {violation}");
        }
    }
}
