//! Many schedules, on all processors.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Told, Traitor, Violation, run};

/// Which schedules to run.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// The first seed; the others follow it.
    pub seed: u64,
    /// How many.
    pub runs: u64,
    /// Threads.
    pub threads: usize,
    /// Who has a guard less.
    pub traitor: Option<Traitor>,
}

/// What came of them.
#[derive(Debug)]
pub struct Outcome {
    /// Schedules run.
    pub runs: u64,
    /// All of them together.
    pub told: Told,
    /// How long it took.
    pub took: Duration,
    /// The first violation that was met.
    pub violation: Option<Box<Violation>>,
}

impl Campaign {
    /// Runs them until one breaks a promise.
    #[must_use]
    pub fn run(&self) -> Outcome {
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let (sum, found) = (Mutex::new((0, Told::default())), Mutex::new(None));
        let start = Instant::now();
        let work = || {
            let (mut runs, mut all) = (0, Told::default());
            while !stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= self.runs {
                    break;
                }
                runs += 1;
                match run(self.seed.wrapping_add(number), self.traitor) {
                    Ok(told) => all.add(&told),
                    Err(violation) => {
                        stop.store(true, Ordering::Relaxed);
                        found.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(violation);
                    }
                }
            }
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.0 += runs;
            sum.1.add(&all);
        };
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(work);
            }
        });
        let (runs, told) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
        let violation = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        Outcome { runs, told, took: start.elapsed(), violation }
    }
}

impl Told {
    fn add(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.completed += other.completed;
        self.connections += other.connections;
        self.deeds += other.deeds;
        self.bytes += other.bytes;
    }
}
