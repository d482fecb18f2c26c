//! `status`: one screen for who sits there. What runs here, who is in, whom we know, and what went wrong last.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use postern_observe::presence::{self, Present};
use postern_observe::state_dir;
use serde_json::{Map, Value as Json, json};

use crate::applets::flags;

/// Shows which programs of this user run here, who is in, which names are known, and what was refused last.
///
/// Nobody is asked over the network. A daemon of another user is seen by that user, or by root.
///
/// Exit status: 0 something runs here, 1 nothing does, 2 wrong usage.
#[derive(Parser)]
#[command(name = "status", version, max_term_width = 100)]
struct Flags {
    /// Print JSON: one object.
    #[arg(long)]
    json: bool,
}

/// The command line, for completions.
pub(crate) fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

/// A program that runs.
struct Running {
    role: &'static str,
    lines: Vec<String>,
    json: Json,
}

/// How much of a journal's end is looked at for what was refused.
const TAIL_BYTES: i64 = 64 * 1024;
/// Refusals that are shown of each journal.
const REFUSALS: usize = 3;

/// Runs `status` with its arguments, the program name first.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let flags: Flags = match flags(args) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    let (running, known, refused) = (running(), known(), refused());
    let code = if running.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    let mut out = String::new();
    if flags.json {
        let mut programs: Map<String, Json> = Map::new();
        for Running { role, json, .. } in running {
            if let Json::Array(list) = programs.entry(role).or_insert_with(|| json!([])) {
                list.push(json);
            }
        }
        let refused: Vec<Json> = refused.into_iter().flat_map(|(_, entries)| entries).collect();
        out = json!({"v": 1, "running": programs, "known": known, "refused": refused}).to_string();
        out.push('\n');
    } else {
        if running.is_empty() {
            out.push_str("nothing of Postern runs here as this user\n");
        }
        for Running { role, lines, .. } in running {
            let mut lines = lines.into_iter();
            out.push_str(&format!("{role:<7} {}\n", lines.next().unwrap_or_default()));
            lines.for_each(|line| out.push_str(&format!("        {line}\n")));
        }
        for (what, names) in &known {
            if !names.is_empty() {
                out.push_str(&format!("{what:<7} {}\n", names.join(" ")));
            }
        }
        for (journal, entries) in refused {
            for entry in entries {
                out.push_str(&format!("refused {} ({journal})\n", in_words(&entry)));
            }
        }
    }
    // A reader that went away counts as success.
    let _ = io::stdout().write_all(out.as_bytes());
    code
}

fn running() -> Vec<Running> {
    let mut running = Vec::new();
    let told = |role, (lines, text): (Vec<String>, String)| {
        let json = serde_json::from_str(&text).unwrap_or_default();
        Running { role, lines, json }
    };
    #[cfg(feature = "device")]
    running.extend(postern_device::status_of_all().into_iter().map(|status| told("device", status)));
    #[cfg(feature = "clients")]
    running.extend(postern_tunnel::agent_status().map(|status| told("agent", status)));
    for present in presence::present() {
        let role = match present.role.as_str() {
            "relay" => "relay",
            "server" => "server",
            _ => "other",
        };
        let text = serde_json::to_string(&present).unwrap_or_default();
        running.push(told(role, (vec![described(&present)], text)));
    }
    running
}

fn described(present: &Present) -> String {
    let Present { name, pid, since, version, facts, .. } = present;
    let facts: Vec<String> = facts.iter().map(|(what, value)| format!("{what} {value}, ")).collect();
    let age = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_secs(*since)).unwrap_or_default();
    format!("{name}: {}pid {pid}, version {version}, for {}", facts.concat(), span(age.as_secs()))
}

/// In the largest two units: `3 d 4 h`.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(feature = "clients")]
fn known() -> Vec<(&'static str, Vec<String>)> {
    let names = postern_tunnel::KnownNames::find();
    let list = |set: std::collections::BTreeSet<String>| set.into_iter().collect();
    vec![("keys", list(names.own)), ("hosts", list(names.hosts)), ("pins", list(names.pinned))]
}

#[cfg(not(feature = "clients"))]
fn known() -> Vec<(&'static str, Vec<String>)> {
    Vec::new()
}

/// The last refusals of each journal of this user.
fn refused() -> Vec<(String, Vec<Json>)> {
    let Some(dir) = state_dir().map(|dir| dir.join("journal")) else { return Vec::new() };
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "jsonl"));
    paths.sort();
    let of = |path: &PathBuf| {
        let name = path.file_stem()?.to_str()?.to_owned();
        Some((name, last_refusals(path).ok()?))
    };
    paths.iter().filter_map(of).filter(|(_, entries)| !entries.is_empty()).collect()
}

fn last_refusals(path: &Path) -> io::Result<Vec<Json>> {
    let mut file = File::open(path)?;
    let length = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
    file.seek(SeekFrom::End(-length.min(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES.unsigned_abs()).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let entries = text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    let mut refused: Vec<Json> = entries.filter(|entry| entry["event"] == "refused").collect();
    Ok(refused.split_off(refused.len().saturating_sub(REFUSALS)))
}

/// Texts of a journal are printable, for the journal makes them so.
fn in_words(entry: &Json) -> String {
    let words = ["time", "who", "device", "target", "why"].iter();
    let words: Vec<&str> = words.filter_map(|name| entry[*name].as_str()).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_refusals_of_a_journal() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.jsonl");
        let line = |n: u32, event: &str| format!("{{\"event\":\"{event}\",\"who\":\"@a\",\"why\":\"{n}\"}}\n");
        let mut text: String = (0..1000).map(|n| line(n, "refused")).collect();
        text.push_str(&line(1000, "began"));
        text.push_str("{\"event\":\"refu");
        std::fs::write(&path, text).expect("written");
        let last: Vec<String> = last_refusals(&path).expect("read").iter().map(in_words).collect();
        assert_eq!(last, ["@a, 997", "@a, 998", "@a, 999"]);
    }

    #[test]
    fn times_for_people() {
        assert_eq!([5, 65, 3700, 90_000].map(span), ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]);
    }
}
