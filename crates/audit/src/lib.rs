//! `postern audit`: was anything in the journals of sessions changed, and what do they say?

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use postern_observe::journal::{Report, read_lines, verify};
use postern_observe::{print, say, state_dir};
use serde::Serialize;
use serde_json::Value as Json;

/// Exit status: something is wrong with a journal.
const FAULTY: u8 = 1;
/// Exit status: arguments, or a journal that cannot be read.
const UNREADABLE: u8 = 2;

/// Reads and checks the journals of sessions, which daemons, clients and relays keep.
///
/// Without FILE: all journals in $STATE_DIRECTORY/journal, else $XDG_STATE_HOME/postern/journal (by default
/// ~/.local/state/postern/journal).
///
/// Exit status: 0 whole, 1 something was changed, removed, put in, moved or cut off, 2 a journal cannot be read (or there is
/// none, or the arguments are wrong).
#[derive(Parser)]
#[command(name = "audit", version, max_term_width = 100)]
struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Check the chain of every journal from its first line to its last.
    Verify {
        /// Journals: the file that ends in .jsonl, without a number.
        files: Vec<PathBuf>,
        /// A JSON object for each journal, one a line.
        #[arg(long)]
        json: bool,
    },
    /// Print what the journals say, the oldest first.
    Show {
        /// Journals: the file that ends in .jsonl, without a number.
        files: Vec<PathBuf>,
        /// The lines as they stand in the files.
        #[arg(long)]
        json: bool,
    },
}

/// What `--json` says about a journal.
#[derive(Serialize)]
struct Told<'a> {
    file: &'a Path,
    whole: bool,
    #[serde(flatten)]
    report: &'a Report,
}

/// Runs `postern audit` with its arguments, the program name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let flags = match Flags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(UNREADABLE) } else { ExitCode::SUCCESS };
        }
    };
    let (files, json, each): (_, _, fn(&Path, bool) -> io::Result<bool>) = match flags.what {
        What::Verify { files, json } => (files, json, check),
        What::Show { files, json } => (files, json, show),
    };
    let files = match if files.is_empty() { journals_here() } else { Ok(files) } {
        Ok(files) => files,
        Err(why) => {
            say(format_args!("postern audit: {why}"));
            return ExitCode::from(UNREADABLE);
        }
    };
    let mut code = 0;
    for file in files {
        match each(&file, json) {
            Ok(true) => {}
            Ok(false) => code = code.max(FAULTY),
            Err(error) => {
                say(format_args!("postern audit: cannot read {}: {error}", file.display()));
                code = UNREADABLE;
            }
        }
    }
    ExitCode::from(code)
}

/// The command line, for completions.
pub fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

/// Every journal of this user on this machine.
fn journals_here() -> Result<Vec<PathBuf>, String> {
    let dir = state_dir().ok_or("HOME is not set; name the journals")?.join("journal");
    let names = std::fs::read_dir(&dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("there are no journals in {}; name the files", dir.display()),
        _ => format!("cannot read {}: {error}", dir.display()),
    })?;
    let mut found: BTreeMap<PathBuf, ()> = BTreeMap::new();
    for path in names.filter_map(Result::ok).map(|entry| entry.path()) {
        // A side file without its journal is one that was taken away.
        let is_journal = match path.extension().and_then(|ext| ext.to_str()) {
            Some("jsonl") => !is_older(&path),
            Some("head") => true,
            _ => false,
        };
        if is_journal {
            found.insert(path.with_extension("jsonl"), ());
        }
    }
    if found.is_empty() {
        return Err(format!("there are no journals in {}; name the files", dir.display()));
    }
    Ok(found.into_keys().collect())
}

/// `x.3.jsonl` of the journal `x.jsonl`.
fn is_older(path: &Path) -> bool {
    let stem = path.file_stem().map(Path::new);
    let age = stem.and_then(Path::extension).and_then(|ext| ext.to_str());
    let is_number = age.is_some_and(|age| !age.is_empty() && age.bytes().all(|b| b.is_ascii_digit()));
    is_number && stem.is_some_and(|stem| path.with_file_name(stem).with_extension("jsonl").exists())
}

fn check(file: &Path, json: bool) -> io::Result<bool> {
    let report = verify(file)?;
    let whole = report.is_whole();
    if json {
        print(serde_json::to_string(&Told { file, whole, report: &report })?);
        return Ok(whole);
    }
    let name = file.display();
    let range = match (report.first, report.last) {
        (Some(first), Some(last)) => format!("lines {first} to {last}"),
        _ => "no line".to_owned(),
    };
    if whole {
        print(format_args!("{name}: whole, {range}, head {}", report.head.as_deref().unwrap_or("-")));
    } else {
        print(format_args!("{name}: NOT AS IT WAS WRITTEN, {range}"));
    }
    for fault in &report.faults {
        print(format_args!("  {fault}"));
    }
    Ok(whole)
}

fn show(file: &Path, json: bool) -> io::Result<bool> {
    if !file.exists() {
        return Err(io::ErrorKind::NotFound.into());
    }
    read_lines(file, |line| {
        if json {
            print(line);
        } else {
            print(in_words(line).unwrap_or_else(|| format!("(cannot be read) {}", printable(line))));
        }
    })?;
    Ok(true)
}

/// A line for a person: time, event, and what else there is, as `name=value`.
fn in_words(line: &str) -> Option<String> {
    let json: serde_json::Map<String, Json> = serde_json::from_str(line).ok()?;
    let text = |name: &str| json.get(name).and_then(Json::as_str);
    let mut words = vec![printable(text("time")?), format!("{:<8}", printable(text("event")?))];
    for (name, value) in json.iter().filter(|(name, _)| !["n", "time", "prev", "event"].contains(&name.as_str())) {
        let value = match value {
            Json::String(text) if text.contains(' ') => format!("{text:?}"),
            Json::String(text) => text.clone(),
            other => other.to_string(),
        };
        words.push(format!("{}={}", printable(name), printable(&value)));
    }
    Some(words.join(" "))
}

/// A journal may have been written by anybody: nothing of it moves the cursor of a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use postern_observe::journal::{Entry, Event, Journal};

    use super::*;

    #[test]
    fn a_line_for_people() {
        let line = r#"{"n":1,"time":"2026-11-23T10:00:00.000Z","prev":"00","event":"ended","who":"@a","why":"the \u001b[31m end","sent":7}"#;
        assert_eq!(
            in_words(line).unwrap(),
            "2026-11-23T10:00:00.000Z ended    who=@a why=\"the \\u{1b}[31m end\" sent=7"
        );
        assert_eq!(in_words("{}"), None);
    }

    #[test]
    fn older_files_belong_to_their_journal() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("sshnpd.gw@d.jsonl"), "").unwrap();
        assert!(is_older(&dir.path().join("sshnpd.gw@d.2.jsonl")));
        assert!(!is_older(&dir.path().join("sshnpd.gw@d.jsonl")));
        // A device whose name is a number.
        assert!(!is_older(&dir.path().join("sshnpd.17.jsonl")));
    }

    #[test]
    fn a_check_says_by_its_status_what_it_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.jsonl");
        let journal = Journal::open(path.clone());
        journal.record(Entry::of(Event::Began));
        journal.record(Entry::of(Event::Ended));
        drop(journal);
        let verify = |path: &Path| main(vec!["audit".into(), "verify".into(), path.into()]);
        assert_eq!(verify(&path), ExitCode::SUCCESS);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("began", "ended")).unwrap();
        assert_eq!(verify(&path), ExitCode::from(FAULTY));
        assert_eq!(verify(&dir.path().join("none.jsonl")), ExitCode::from(UNREADABLE));
        assert_eq!(main(vec!["audit".into()]), ExitCode::from(UNREADABLE));
    }
}
