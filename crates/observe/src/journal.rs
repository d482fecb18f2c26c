//! The journal: who came in, to what, when, how many bytes, by which rule. JSON lines, each of which names the hash of the
//! one before, so that a line cannot be changed, taken out, put in or moved without a trace ([`verify`]).
//!
//! A side file holds the number and hash of the last line: a cut tail shows. Whoever can write both files can write
//! another journal; copy the head elsewhere (`postern audit verify --json`) if that has to be seen too.
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! use postern_observe::journal::{Entry, Event, Journal, verify};
//! let path = dir.path().join("sshnpd.jsonl");
//! let journal = Journal::open(path.clone());
//! journal.record(Entry { who: Some("@alice".into()), ..Entry::of(Event::Began) });
//! drop(journal); // waits for the disk
//! assert!(verify(&path).unwrap().is_whole());
//! ```

mod chain;
mod entry;
mod verify;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use chain::Bounds;
pub use entry::{Entry, Event};
pub use verify::{Fault, Report, files, read_lines, verify};

use crate::limits::{REFUSALS_A_MINUTE, WAITING};
use crate::places::state_dir;
use chain::Chain;

/// A journal that is being written. Copies write to the same one; when the last of them is dropped, everything is on disk.
#[derive(Clone)]
pub struct Journal {
    /// `None`: none is kept.
    inner: Option<Arc<Inner>>,
}

struct Inner {
    /// `None` only while it is dropped.
    /// The channel makes room for all that may wait at once: boxed, an idle daemon has 16 KiB of it and not 300.
    lines: Option<SyncSender<Box<Entry>>>,
    writer: Option<JoinHandle<()>>,
    counts: Mutex<Counts>,
}

/// What was not kept since the last entry that was.
struct Counts {
    missed: u64,
    refusals: u32,
    since: Instant,
}

impl Journal {
    /// Writes to `path`; other processes may write to the same one. Nothing here waits for the disk, and no disk that is full
    /// or read-only stops anything: it is said once, as a warning.
    pub fn open(path: PathBuf) -> Self {
        Self::open_with(path, Bounds::default())
    }

    /// The same with other bounds.
    pub fn open_with(path: PathBuf, bounds: Bounds) -> Self {
        Self::write_to(Chain::new(path, bounds))
    }

    fn write_to(chain: Chain) -> Self {
        let (lines, waiting) = sync_channel(WAITING);
        let writer = std::thread::Builder::new().name("journal".into()).spawn(move || write(&chain, &waiting));
        let writer =
            writer.inspect_err(|error| tracing::warn!(%error, "no journal is kept: its thread cannot be started")).ok();
        let counts = Mutex::new(Counts { missed: 0, refusals: 0, since: Instant::now() });
        Self { inner: Some(Arc::new(Inner { lines: Some(lines), writer, counts })) }
    }

    /// The journal of this program: `$XDG_STATE_HOME/postern/journal/NAME.jsonl`, or systemd's state directory. `None`: there
    /// is no home to put it in.
    pub fn standard_path(name: &str) -> Option<PathBuf> {
        let safe: String = name.chars().map(|c| if c == '/' || c.is_control() { '_' } else { c }).collect();
        Some(state_dir()?.join("journal").join(format!("{safe}.jsonl")))
    }

    /// The one at [`Self::standard_path`], or none where there is no such place.
    pub fn standard(name: &str) -> Self {
        Self::standard_path(name).map_or_else(Self::off, Self::open)
    }

    /// The same with another clock than the system's, which tells milliseconds since 1970: for machines where that is wrong.
    pub fn standard_by(name: &str, now: fn() -> u64) -> Self {
        let chain = |path| Chain::new(path, Bounds::default()).with_clock(now);
        Self::standard_path(name).map_or_else(Self::off, |path| Self::write_to(chain(path)))
    }

    /// None is kept.
    pub fn off() -> Self {
        Self { inner: None }
    }

    /// Hands an entry to the writer. Too many refusals a minute, or too many entries for the disk, are counted, and the
    /// next entry that is kept says how many were not.
    pub fn record(&self, mut entry: Entry) {
        let Some(inner) = &self.inner else { return };
        let Some(lines) = &inner.lines else { return };
        let mut counts = inner.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if entry.event == Event::Refused && !counts.takes_refusal(Instant::now()) {
            counts.missed += 1;
            return;
        }
        entry.missed = (counts.missed > 0).then_some(counts.missed);
        match lines.try_send(Box::new(entry)) {
            Ok(()) => counts.missed = 0,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => counts.missed += 1,
        }
    }
}

impl Counts {
    fn takes_refusal(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(60) {
            (self.since, self.refusals) = (now, 0);
        }
        self.refusals += 1;
        self.refusals <= REFUSALS_A_MINUTE
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.lines.take());
        if let Some(writer) = self.writer.take() {
            // It cannot panic on entries; if it did, the panic hook has said so.
            let _ = writer.join();
        }
    }
}

/// Takes what waits, all at once: many sessions that end together cost one sync.
fn write(chain: &Chain, waiting: &Receiver<Box<Entry>>) {
    let mut is_failing = false;
    let mut lost = 0;
    while let Ok(first) = waiting.recv() {
        let mut batch: Vec<Entry> =
            std::iter::once(first).chain(waiting.try_iter()).take(WAITING).map(|entry| *entry).collect();
        if lost > 0
            && let Some(first) = batch.first_mut()
        {
            first.missed = Some(first.missed.unwrap_or(0) + lost);
        }
        match chain.append(&batch) {
            Ok(()) => {
                if std::mem::take(&mut is_failing) {
                    tracing::warn!(lost, "the journal is written again");
                }
                lost = 0;
            }
            Err(error) => {
                lost += batch.len() as u64;
                if !std::mem::replace(&mut is_failing, true) {
                    let path = chain.path().display();
                    tracing::warn!(%path, %error, "the journal cannot be written: sessions go on unrecorded");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Entry {
        Entry { why: Some("no".into()), ..Entry::of(Event::Refused) }
    }

    #[test]
    fn many_refusals_are_counted_and_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.jsonl");
        let journal = Journal::open(path.clone());
        for _ in 0..REFUSALS_A_MINUTE + 7 {
            journal.record(refused());
        }
        journal.record(Entry::of(Event::Began));
        drop(journal);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), REFUSALS_A_MINUTE as usize + 1);
        assert!(text.lines().last().unwrap().contains(r#""event":"began","missed":7"#), "{text}");
    }

    #[test]
    fn copies_and_processes_write_one_chain() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/j.jsonl");
        // Two journals of one path stand for two processes: they share nothing but the files.
        let journals = [Journal::open(path.clone()), Journal::open(path.clone())];
        for _ in 0..50 {
            for journal in &journals {
                journal.clone().record(Entry::of(Event::Began));
            }
        }
        drop(journals);
        let report = verify(&path).unwrap();
        assert!(report.is_whole(), "{report:?}");
        assert_eq!(report.lines, 100);
    }

    #[test]
    fn a_journal_that_cannot_be_written_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.jsonl");
        std::fs::create_dir(&path).unwrap();
        let journal = Journal::open(path.clone());
        journal.record(Entry::of(Event::Began));
        journal.record(Entry::of(Event::Ended));
        drop(journal);
        assert!(path.is_dir());
        Journal::off().record(refused());
    }
}
