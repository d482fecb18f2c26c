//! The files of a journal: one that grows, older ones behind it, and the head beside them.
//!
//! Every append reads where the chain ends from the disk, under a lock: there is no state to lose, and several processes
//! can write.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use postern_crypto::{hex_lower, sha256};
use postern_proto::wire_date;
use serde::{Deserialize, Serialize};

use super::entry::{Entry, Event};
use crate::limits::{FILE_BYTES, FILES, LINE_BYTES};

/// `prev` of the very first line.
pub(super) const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// How much of the past is kept.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of a file before the next one is begun.
    pub file_bytes: u64,
    /// Files, the one that grows included; at least 1.
    pub files: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { file_bytes: FILE_BYTES, files: FILES }
    }
}

/// Where a journal ends, and with which line it begins: what the side file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) n: u64,
    pub(super) hash: String,
    pub(super) first: u64,
}

/// What the chain needs of a line.
#[derive(Deserialize)]
pub(super) struct Link {
    pub(super) n: u64,
    pub(super) prev: String,
}

pub(super) struct Chain {
    path: PathBuf,
    bounds: Bounds,
    /// Milliseconds since 1970.
    now: fn() -> u64,
}

fn system_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// The end of a file.
#[derive(Default)]
struct Tail {
    /// Bytes in whole lines.
    whole: u64,
    /// Bytes behind them.
    torn: u64,
    /// The last whole line without its newline.
    last: Option<Vec<u8>>,
}

impl Chain {
    pub(super) fn new(path: PathBuf, bounds: Bounds) -> Self {
        Self { path, bounds, now: system_now }
    }

    pub(super) fn with_clock(self, now: fn() -> u64) -> Self {
        Self { now, ..self }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds the entries, all or none. They are on the disk when this returns.
    pub(super) fn append(&self, entries: &[Entry]) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let mut side = private().open(head_path(&self.path))?;
        side.lock()?;
        let known = read_head(&mut side)?;
        let (mut file, tail) = self.end()?;
        let mut notes = Vec::new();
        if tail.torn > 0 {
            let why = format!("an unfinished line of {} bytes was cut off", tail.torn);
            notes.push(Entry { why: Some(why), ..Entry::of(Event::Torn) });
            file.set_len(tail.whole)?;
        }
        let mut head = self.head(&tail, known.as_ref(), &mut notes)?;
        let time = wire_date(i64::try_from((self.now)()).unwrap_or(i64::MAX)).replacen(' ', "T", 1);
        let mut text = String::new();
        for entry in notes.iter().chain(entries) {
            let n = head.n.saturating_add(1);
            let line = entry.line(n, &time, &head.hash);
            head = Head { n, hash: hash(line.as_bytes()), first: head.first };
            text.push_str(&line);
            text.push('\n');
        }
        let mut end = tail.whole;
        if end > 0 && end + text.len() as u64 > self.bounds.file_bytes {
            file = self.turn(&mut side, known.unwrap_or_else(|| head.clone()), &mut head)?;
            end = 0;
        }
        file.seek(SeekFrom::Start(end))?;
        if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_data()) {
            // Half a line would be taken for one that a crash cut off.
            let _ = file.set_len(end);
            return Err(error);
        }
        write_head(&mut side, &head)
    }

    fn end(&self) -> io::Result<(File, Tail)> {
        let mut file = private().open(&self.path)?;
        let tail = Tail::read(&mut file)?;
        Ok((file, tail))
    }

    /// Where the chain ends: what the last line says, unless the side file knows of later ones.
    fn head(&self, tail: &Tail, known: Option<&Head>, notes: &mut Vec<Entry>) -> io::Result<Head> {
        let older = match &tail.last {
            Some(_) => None,
            // The file has just been turned, or taken away.
            None => match File::open(older(&self.path, 1)) {
                Ok(mut file) => Tail::read(&mut file)?.last,
                Err(_) => None,
            },
        };
        let last = tail.last.as_ref().or(older.as_ref());
        let (known_n, first) = known.map_or((0, None), |head| (head.n, Some(head.first)));
        let Some(last) = last else {
            let Some(known) = known.filter(|head| head.n > 0) else {
                return Ok(Head { n: 0, hash: NOTHING.into(), first: 1 });
            };
            notes.push(gap(format!("all lines up to {} are gone", known.n)));
            return Ok(known.clone());
        };
        // A line that cannot be read was changed; the check will say so.
        let n = serde_json::from_slice::<Link>(last).map_or(known_n, |link| link.n);
        match known {
            Some(known) if known.n > n => {
                notes.push(gap(format!("lines {} to {} are gone", n + 1, known.n)));
                Ok(known.clone())
            }
            _ => Ok(Head { n, hash: hash(last), first: first.unwrap_or(1) }),
        }
    }

    /// Begins a new file; the oldest one goes when there are too many.
    fn turn(&self, side: &mut File, known: Head, head: &mut Head) -> io::Result<File> {
        let keep = self.bounds.files.max(1);
        // What stays once the oldest has gone begins here: the first file that stays.
        let stays = (0..keep - 1).rev().map(|age| older(&self.path, age)).find(|path| path.exists());
        let begins = stays.and_then(|path| first_line(&path));
        head.first = begins.unwrap_or(known.n.saturating_add(1));
        // Said before it happens: more lines than promised are no fault, fewer are.
        write_head(side, &Head { first: head.first, ..known })?;
        if keep == 1 {
            std::fs::remove_file(&self.path)?;
        }
        for age in (0..keep - 1).rev() {
            let (from, to) = (older(&self.path, age), older(&self.path, age + 1));
            if from.exists() {
                std::fs::rename(from, to)?;
            }
        }
        private().open(&self.path)
    }
}

impl Tail {
    /// Looks at the end of a file.
    fn read(file: &mut File) -> io::Result<Self> {
        let length = file.seek(SeekFrom::End(0))?;
        // A torn line, and the whole one before it.
        let window = length.min(2 * LINE_BYTES as u64);
        file.seek(SeekFrom::Start(length - window))?;
        let mut bytes = Vec::new();
        file.take(window).read_to_end(&mut bytes)?;
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            if length > LINE_BYTES as u64 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no journal"));
            }
            return Ok(Self { whole: 0, torn: length, last: None });
        };
        let torn = (bytes.len() - end - 1) as u64;
        bytes.truncate(end);
        let begin = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Ok(Self { whole: length - torn, torn, last: Some(bytes.split_off(begin)) })
    }
}

/// Number of the first line of a file.
fn first_line(path: &Path) -> Option<u64> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LINE_BYTES as u64).read_to_end(&mut bytes).ok()?;
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    serde_json::from_slice::<Link>(line).ok().map(|link| link.n)
}

/// The side file.
pub(super) fn head_path(path: &Path) -> PathBuf {
    path.with_extension("head")
}

/// An older file: 0 is the one that grows.
pub(super) fn older(path: &Path, age: usize) -> PathBuf {
    match age {
        0 => path.to_owned(),
        _ => path.with_extension(format!("{age}.jsonl")),
    }
}

/// What is hashed is the line without its newline.
pub(super) fn hash(line: &[u8]) -> String {
    hex_lower(&sha256(line))
}

/// `None`: it is empty, or says nothing that can be read.
pub(super) fn read_head(side: &mut File) -> io::Result<Option<Head>> {
    let mut text = String::new();
    side.seek(SeekFrom::Start(0))?;
    match side.take(LINE_BYTES as u64).read_to_string(&mut text) {
        Ok(_) => Ok(serde_json::from_str(&text).ok()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

/// In place: the lock is on this file. It is shorter than a disk's sector, which is written whole or not at all.
fn write_head(side: &mut File, head: &Head) -> io::Result<()> {
    let text = serde_json::to_string(head).map_err(io::Error::other)?;
    side.seek(SeekFrom::Start(0))?;
    side.write_all(text.as_bytes())?;
    side.set_len(text.len() as u64)
}

fn gap(why: String) -> Entry {
    Entry { why: Some(why), ..Entry::of(Event::Gap) }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::verify::{Fault, verify};
    use super::*;

    fn chain(dir: &tempfile::TempDir, bounds: Bounds) -> Chain {
        Chain::new(dir.path().join("j.jsonl"), bounds)
    }

    #[test]
    fn only_the_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let chain = chain(&dir, Bounds::default());
        chain.append(&[Entry::of(Event::Began)]).unwrap();
        for path in [chain.path.clone(), head_path(&chain.path)] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_torn_line_is_cut_off_and_noted() {
        let dir = tempfile::tempdir().unwrap();
        let chain = chain(&dir, Bounds::default());
        chain.append(&[Entry::of(Event::Began)]).unwrap();
        let mut text = std::fs::read_to_string(&chain.path).unwrap();
        text.push_str(r#"{"n":2,"time":"#);
        std::fs::write(&chain.path, &text).unwrap();
        assert_eq!(verify(&chain.path).unwrap().faults, [Fault::Torn { bytes: 14 }]);
        chain.append(&[Entry::of(Event::Ended)]).unwrap();
        let text = std::fs::read_to_string(&chain.path).unwrap();
        assert!(text.contains(r#""event":"torn","why":"an unfinished line of 14 bytes was cut off""#), "{text}");
        let report = verify(&chain.path).unwrap();
        assert!(report.is_whole() && report.lines == 3, "{report:?}");
    }

    #[test]
    fn old_files_go_and_the_chain_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let chain = chain(&dir, Bounds { file_bytes: 1000, files: 3 });
        for _ in 0..100 {
            chain.append(&[Entry::of(Event::Began)]).unwrap();
            let report = verify(&chain.path).unwrap();
            assert!(report.is_whole(), "{report:?}");
        }
        let names: Vec<PathBuf> = super::super::files(&chain.path);
        assert_eq!(names.len(), 3, "{names:?}");
        let report = verify(&chain.path).unwrap();
        assert!(report.last == Some(100) && report.first > Some(80), "{report:?}");
        for name in names {
            assert!(std::fs::metadata(name).unwrap().len() <= 1000);
        }
    }

    #[test]
    fn a_tail_that_was_cut_while_nobody_wrote_leaves_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let chain = chain(&dir, Bounds::default());
        for _ in 0..3 {
            chain.append(&[Entry::of(Event::Began)]).unwrap();
        }
        let text = std::fs::read_to_string(&chain.path).unwrap();
        let cut: String = text.lines().take(1).map(|line| format!("{line}\n")).collect();
        std::fs::write(&chain.path, cut).unwrap();
        chain.append(&[Entry::of(Event::Ended)]).unwrap();
        let report = verify(&chain.path).unwrap();
        assert_eq!(report.faults, [Fault::Missing { from: 2, to: 3 }]);
        let text = std::fs::read_to_string(&chain.path).unwrap();
        assert!(text.contains(r#""event":"gap","why":"lines 2 to 3 are gone""#), "{text}");
    }
}
