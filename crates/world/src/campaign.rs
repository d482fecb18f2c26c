//! Many schedules, on all processors.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Violation;

/// Which schedules to run.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// The first seed; the others follow it.
    pub seed: u64,
    /// How many.
    pub runs: u64,
    /// Threads.
    pub threads: usize,
}

/// What came of them. `T`: what the world counts.
#[derive(Debug)]
pub struct Outcome<T> {
    /// Schedules run.
    pub runs: u64,
    /// All of them together.
    pub told: T,
    /// How long it took.
    pub took: Duration,
    /// The first violation that was met.
    pub violation: Option<Box<Violation>>,
}

impl Campaign {
    /// Runs the schedules of a world until one breaks a promise. `world`: runs the schedule of a seed.
    #[must_use]
    pub fn run<T, W>(&self, world: W) -> Outcome<T>
    where
        T: Default + AddAssign + Send,
        W: Fn(u64) -> Result<T, Box<Violation>> + Sync,
    {
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let (sum, found) = (Mutex::new((0, T::default())), Mutex::new(None));
        let start = Instant::now();
        let work = || {
            let (mut runs, mut all) = (0, T::default());
            while !stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= self.runs {
                    break;
                }
                runs += 1;
                match world(self.seed.wrapping_add(number)) {
                    Ok(told) => all += told,
                    Err(violation) => {
                        stop.store(true, Ordering::Relaxed);
                        found.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(violation);
                    }
                }
            }
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.0 += runs;
            sum.1 += all;
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
