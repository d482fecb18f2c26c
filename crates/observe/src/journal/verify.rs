//! Whether a journal is what was written.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::chain::{Head, Link, NOTHING, hash, head_path, older, read_head};
use crate::limits::{FAULTS, LINE_BYTES};

/// Files that are looked for, whatever bounds the writer had.
const MOST_FILES: usize = 1000;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Lines in all files.
    pub lines: u64,
    /// Number of the first line that is kept.
    pub first: Option<u64>,
    /// Number of the last one.
    pub last: Option<u64>,
    /// Hash of the last line: keep it elsewhere, and nobody can write another past.
    pub head: Option<String>,
    /// What is wrong, at most [`FAULTS`] of it.
    pub faults: Vec<Fault>,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "fault")]
#[non_exhaustive]
pub enum Fault {
    /// It cannot be read as a line of a journal.
    Unreadable {
        /// Behind which line.
        after: u64,
    },
    /// This line is not the one that the next one was chained to.
    Changed {
        /// Which.
        line: u64,
    },
    /// These lines are not there.
    Missing {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// This line stands where it does not belong.
    OutOfOrder {
        /// Its number.
        line: u64,
        /// Behind which line it stands.
        after: u64,
    },
    /// The last line is not whole: a crash, which the next start notes, or a cut.
    Torn {
        /// What there is of it.
        bytes: u64,
    },
    /// The side file with the last line's hash is not there or cannot be read: whether the end is missing is unknown.
    NoHead,
}

impl Report {
    /// Nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.faults.is_empty()
    }
}

/// The files of the journal `path`, the oldest first.
pub fn files(path: &Path) -> Vec<PathBuf> {
    (0..MOST_FILES).rev().map(|age| older(path, age)).filter(|path| path.exists()).collect()
}

/// Hands every line of a journal to `each`, the oldest first, as far as it can be read.
///
/// # Errors
/// A file cannot be read.
pub fn read_lines(path: &Path, mut each: impl FnMut(&str)) -> io::Result<()> {
    for file in files(path) {
        lines(&file, |line| each(&String::from_utf8_lossy(line.whole().unwrap_or_default())))?;
    }
    Ok(())
}

/// Checks a journal from its first line to its head.
///
/// # Errors
/// A file cannot be read, or there is none.
pub fn verify(path: &Path) -> io::Result<Report> {
    // Nobody writes meanwhile. Where we may not lock, we look all the same.
    let mut side = File::open(head_path(path)).ok();
    let _locked = side.as_ref().map(File::lock_shared);
    let head = side.as_mut().and_then(|side| read_head(side).ok().flatten());
    let files = files(path);
    if files.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut check = Check::new(head);
    for file in files {
        lines(&file, |line| check.take(line))?;
    }
    Ok(check.finish())
}

struct Check {
    report: Report,
    head: Option<Head>,
    /// Number and hash of the line before.
    before: Option<(u64, String)>,
    /// The head's line has been seen.
    seen_head: bool,
}

/// A line as it stands in the file.
enum Seen<'a> {
    Whole(&'a [u8]),
    /// Without a newline at its end.
    Torn(&'a [u8]),
    TooLong,
}

impl Seen<'_> {
    fn whole(&self) -> Option<&[u8]> {
        match self {
            Self::Whole(line) => Some(line),
            Self::Torn(_) | Self::TooLong => None,
        }
    }
}

impl Check {
    fn new(head: Option<Head>) -> Self {
        let report = Report { lines: 0, first: None, last: None, head: None, faults: Vec::new() };
        Self { report, head, before: None, seen_head: false }
    }

    fn take(&mut self, line: Seen<'_>) {
        let line = match line {
            Seen::Whole(line) => line,
            Seen::Torn(line) => return self.fault(Fault::Torn { bytes: line.len() as u64 }),
            Seen::TooLong => b"",
        };
        self.report.lines += 1;
        let own = hash(line);
        let Ok(Link { n, prev }) = serde_json::from_slice::<Link>(line) else {
            let after = self.before.as_ref().map_or(0, |(n, _)| *n);
            return self.fault(Fault::Unreadable { after });
        };
        if self.report.first.is_none() {
            self.report.first = Some(n);
        }
        match self.before.take() {
            None => self.begins(n, &prev),
            Some((before, hash)) if n == before.saturating_add(1) && prev == hash => {}
            Some((before, _)) if n <= before => self.fault(Fault::OutOfOrder { line: n, after: before }),
            Some((before, _)) if n > before.saturating_add(1) => {
                self.fault(Fault::Missing { from: before + 1, to: n - 1 })
            }
            Some((before, _)) => self.fault(Fault::Changed { line: before }),
        }
        if let Some(head) = self.head.as_ref().filter(|head| head.n == n) {
            self.seen_head = true;
            if head.hash != own {
                self.fault(Fault::Changed { line: n });
            }
        }
        self.report.last = Some(self.report.last.unwrap_or(0).max(n));
        self.report.head = Some(own.clone());
        self.before = Some((n, own));
    }

    /// The oldest line that is kept.
    fn begins(&mut self, n: u64, prev: &str) {
        // Lines above the first unreadable one: its fault has been told.
        if self.report.lines > 1 {
            return;
        }
        let first = self.head.as_ref().map_or(1, |head| head.first);
        if n > first {
            self.fault(Fault::Missing { from: first, to: n - 1 });
        } else if n == 1 && prev != NOTHING {
            self.fault(Fault::Changed { line: 1 });
        }
    }

    fn finish(mut self) -> Report {
        let last = self.report.last.unwrap_or(0);
        match self.head.take() {
            Some(head) if head.n > last => self.fault(Fault::Missing { from: last + 1, to: head.n }),
            Some(head) if !self.seen_head && head.n > 0 => self.fault(Fault::Missing { from: head.n, to: head.n }),
            Some(_) => {}
            None if self.report.lines == 0 => {}
            None => self.fault(Fault::NoHead),
        }
        self.report
    }

    fn fault(&mut self, fault: Fault) {
        if self.report.faults.len() < FAULTS && !self.report.faults.contains(&fault) {
            self.report.faults.push(fault);
        }
    }
}

fn lines(path: &Path, mut each: impl FnMut(Seen<'_>)) -> io::Result<()> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut reader).take(LINE_BYTES as u64).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            each(Seen::Whole(&line));
        } else if line.len() == LINE_BYTES {
            reader.skip_until(b'\n')?;
            each(Seen::TooLong);
        } else {
            each(Seen::Torn(&line));
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { after } => write!(f, "what follows line {after} cannot be read"),
            Self::Changed { line } => write!(f, "line {line} was changed, or replaced by another"),
            Self::Missing { from, to } if from == to => write!(f, "line {from} is missing"),
            Self::Missing { from, to } => write!(f, "lines {from} to {to} are missing"),
            Self::OutOfOrder { line, after } => {
                write!(f, "line {line} stands behind line {after}: put in, or moved")
            }
            Self::Torn { bytes } => {
                write!(
                    f,
                    "the last line is unfinished ({bytes} bytes): a crash, or it was cut; the next start notes it"
                )
            }
            Self::NoHead => {
                f.write_str("the head file is missing: whether lines at the end were cut off cannot be told")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, Event, Journal};
    use super::*;

    /// A journal of six lines whose text `change` rewrites.
    fn after(change: impl FnOnce(&mut Vec<String>)) -> Vec<Fault> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.jsonl");
        let journal = Journal::open(path.clone());
        for n in 0..6_u64 {
            journal.record(Entry { sent: Some(n), who: Some("@a".into()), ..Entry::of(Event::Ended) });
        }
        drop(journal);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        change(&mut lines);
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&path, text).unwrap();
        verify(&path).unwrap().faults
    }

    #[test]
    fn what_was_written_is_whole() {
        assert_eq!(after(|_| {}), []);
    }

    #[test]
    fn every_kind_of_change_is_found() {
        assert_eq!(after(|l| l[2] = l[2].replace("@a", "@b")), [Fault::Changed { line: 3 }], "changed");
        assert_eq!(after(|l| l[5] = l[5].replace("@a", "@b")), [Fault::Changed { line: 6 }], "the last one changed");
        assert_eq!(after(|l| drop(l.remove(3))), [Fault::Missing { from: 4, to: 4 }], "removed");
        assert_eq!(after(|l| drop(l.remove(0))), [Fault::Missing { from: 1, to: 1 }], "the first removed");
        assert_eq!(after(|l| l.truncate(4)), [Fault::Missing { from: 5, to: 6 }], "cut");
        let half = after(|l| l[1].truncate(20));
        assert_eq!(half, [Fault::Unreadable { after: 1 }, Fault::Missing { from: 2, to: 2 }], "half a line");
        assert_eq!(after(Vec::clear), [Fault::Missing { from: 1, to: 6 }], "emptied");
        assert!(after(|l| l.swap(2, 3)).contains(&Fault::OutOfOrder { line: 3, after: 4 }), "reordered");
        let twice = after(|l| l.insert(3, l[2].clone()));
        assert_eq!(twice, [Fault::OutOfOrder { line: 3, after: 3 }], "said twice");
        let forged = r#"{"n":4,"time":"","prev":"00","event":"ended"}"#;
        assert!(!after(|l| l.insert(3, forged.into())).is_empty(), "put in");
        assert!(!after(|l| l.push(forged.replace('4', "7"))).is_empty(), "put behind");
    }

    #[test]
    fn a_journal_without_its_head_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.jsonl");
        let journal = Journal::open(path.clone());
        journal.record(Entry::of(Event::Began));
        drop(journal);
        std::fs::remove_file(head_path(&path)).unwrap();
        assert_eq!(verify(&path).unwrap().faults, [Fault::NoHead]);
        assert!(verify(&dir.path().join("none.jsonl")).is_err());
    }

    #[test]
    fn any_bytes_are_no_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.jsonl");
        for bytes in [&b"\0\xff\n\n{}\n{\"n\":18446744073709551615,\"prev\":\"\"}\n{\"n\":18446744073709551615,\"prev\":\"\"}\n{\"n\":1"[..], b"", b"\n"] {
            std::fs::write(&path, bytes).unwrap();
            assert!(verify(&path).unwrap().faults.len() <= 6);
        }
        std::fs::write(&path, vec![b'x'; 5 * LINE_BYTES]).unwrap();
        assert!(!verify(&path).unwrap().is_whole());
    }
}
