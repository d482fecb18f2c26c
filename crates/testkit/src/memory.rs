//! Memory of processes, from the kernel's own books.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::Context as _;

use crate::limits::POLL;

/// Resident memory of one process, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The most it ever was.
    pub peak: u64,
}

impl Memory {
    /// Of a running process.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/status");
        let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok())
        };
        let missing = || format!("{path} has no memory figures");
        Ok(Self { resident: field("VmRSS:").with_context(missing)?, peak: field("VmHWM:").with_context(missing)? })
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB now, {} MiB at most", self.resident / 1024, self.peak / 1024)
    }
}

/// Follows the resident memory of some processes and keeps the largest sample of each.
///
/// The kernel's own peak covers the whole life of a process; this covers a stretch of it.
#[derive(Debug)]
pub struct MemoryWatch {
    stop: Arc<AtomicBool>,
    most: Arc<Mutex<BTreeMap<String, u64>>>,
    thread: Option<JoinHandle<()>>,
}

impl MemoryWatch {
    /// Starts following processes, given by a name and a process id.
    pub fn start(processes: &[(&str, u32)]) -> Self {
        let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let processes: Vec<(String, u32)> = processes.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect();
        let (stopped, kept): (_, Arc<Mutex<BTreeMap<String, u64>>>) = (Arc::clone(&stop), Arc::clone(&most));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for (name, id) in &processes {
                    let Ok(memory) = Memory::of(*id) else { continue };
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    let entry = kept.entry(name.clone()).or_default();
                    *entry = memory.resident.max(*entry);
                }
                std::thread::sleep(POLL);
            }
        });
        Self { stop, most, thread: Some(thread) }
    }

    /// The largest samples in KiB, by name. A process that was never seen is missing.
    pub fn finish(mut self) -> BTreeMap<String, u64> {
        self.stop();
        std::mem::take(&mut *self.most.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.stop();
    }
}
