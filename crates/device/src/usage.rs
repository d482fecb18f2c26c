//! Bytes of this device by day: counted in memory, written down once a day and at the end; and `postern usage`, which asks the
//! daemon for them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use clap::Parser;
use jiff::Timestamp;
use postern_client::Habits;
use postern_net::clock::{self, Standing};
use postern_net::usage::{Plane, totals};
use postern_observe::{print, say, state_dir};
use serde::{Deserialize, Serialize};

use crate::daemon::Daemon;
use crate::limits::{ASK_DAEMON, USAGE_BYTES, USAGE_DAYS, USAGE_EVERY, USAGE_PROJECTED_FROM, USAGE_WRITTEN_EVERY};
use crate::status;

/// Shows what this device's connection to its atServer and its sessions cost in bytes, headers reckoned.
///
/// Exit status: 0 within the budget or none given, 1 no daemon runs (or arguments), 2 the month will be above the budget.
#[derive(Parser)]
#[command(name = "usage", version, max_term_width = 100)]
struct Flags {
    /// Only the daemon of this device name.
    #[arg(short = 'd', long, value_name = "NAME")]
    device: Option<String>,
    /// Warn when thirty days at this rate are more: 2MB, 500kB, 1000000.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    budget: Option<u64>,
    /// Print JSON: one object a line, one line a daemon.
    #[arg(long)]
    json: bool,
}

/// Bytes by what they were for, both directions, headers reckoned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bytes {
    /// The connection to the atServer.
    control: u64,
    /// Sessions.
    data: u64,
}

impl Bytes {
    fn so_far() -> Self {
        let sum = |plane| {
            let totals = totals(plane);
            totals.sent + totals.received + totals.headers
        };
        Self { control: sum(Plane::Control), data: sum(Plane::Data) }
    }

    fn plus(self, other: Self) -> Self {
        Self { control: self.control.saturating_add(other.control), data: self.data.saturating_add(other.data) }
    }

    fn minus(self, other: Self) -> Self {
        Self { control: self.control.saturating_sub(other.control), data: self.data.saturating_sub(other.data) }
    }

    fn sum(self) -> u64 {
        self.control.saturating_add(self.data)
    }
}

/// What is kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ledger {
    v: u32,
    /// By date, UTC.
    days: BTreeMap<String, Bytes>,
    /// What the heartbeat learnt of networks.
    networks: Vec<String>,
    /// When the clocks of machine and atServer last agreed, in milliseconds since 1970; 0: never.
    #[serde(default)]
    time: u64,
}

/// What is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Usage {
    today: Bytes,
    /// Of the calendar month so far.
    month: Bytes,
    /// Thirty days at this rate; `None`: the daemon is too young to say.
    projected: Option<Bytes>,
    /// How often the daemon was asked.
    asked: u64,
}

impl Usage {
    /// Whether a question was answered since `before`.
    pub(crate) fn is_answer_after(&self, before: &Self) -> bool {
        self.asked > before.asked
    }
}

/// The daemon's counter.
pub(crate) struct Meter {
    place: Option<PathBuf>,
    habits: Habits,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    ledger: Ledger,
    /// What was counted when it was last looked at.
    seen: Bytes,
    /// The ledger as it is on disk.
    saved: Ledger,
    saved_at: Instant,
    asked: u64,
}

impl Meter {
    /// Goes on where the file of this device ends.
    pub(crate) fn open(device: &str, at_sign: &str, habits: &Habits) -> Self {
        Self::at(state_dir().map(|dir| dir.join(format!("usage.{device}{at_sign}.json"))), habits)
    }

    fn at(place: Option<PathBuf>, habits: &Habits) -> Self {
        let ledger = place.as_deref().and_then(read).unwrap_or_default();
        clock::not_before(ledger.time);
        habits.take_lines(ledger.networks.iter().map(String::as_str));
        let now = Instant::now();
        let state = State { saved: ledger.clone(), ledger, seen: Bytes::default(), saved_at: now, asked: 0 };
        Self { place, habits: habits.clone(), started: now, state: Mutex::new(state) }
    }

    /// What is known now; somebody asked for it.
    pub(crate) fn show(&self, asked: bool) -> Usage {
        let today = today();
        let mut state = self.rolled(&today);
        state.asked += u64::from(asked);
        let days = &state.ledger.days;
        let month = today.get(..7).unwrap_or_default();
        let sum = |days: &mut dyn Iterator<Item = &Bytes>| days.fold(Bytes::default(), |sum, day| sum.plus(*day));
        // The first day and this one are parts of days.
        let whole: Vec<&Bytes> =
            days.iter().skip(1).filter(|(day, _)| **day != today).map(|(_, bytes)| bytes).collect();
        let uptime = self.started.elapsed();
        let projected = if !whole.is_empty() {
            let all = sum(&mut whole.iter().copied());
            let share = |bytes: u64| bytes.saturating_mul(30) / whole.len() as u64;
            Some(Bytes { control: share(all.control), data: share(all.data) })
        } else if uptime >= USAGE_PROJECTED_FROM {
            let share = |bytes: u64| bytes.saturating_mul(30 * 86_400) / uptime.as_secs().max(1);
            Some(Bytes { control: share(state.seen.control), data: share(state.seen.data) })
        } else {
            None
        };
        Usage {
            today: days.get(&today).copied().unwrap_or_default(),
            month: sum(&mut days.iter().filter(|(day, _)| day.starts_with(month)).map(|(_, bytes)| bytes)),
            projected,
            asked: state.asked,
        }
    }

    /// Writes it down, if there is something new.
    pub(crate) fn save(&self) {
        let mut state = self.rolled(&today());
        state.ledger.v = 1;
        state.ledger.networks = self.habits.to_lines();
        state.saved_at = Instant::now();
        if clock::look() == Standing::Agrees {
            state.ledger.time = clock::now_ms();
        }
        let Some(place) = self.place.as_deref().filter(|_| state.ledger != state.saved) else { return };
        match write(place, &state.ledger) {
            Ok(()) => state.saved = state.ledger.clone(),
            Err(error) => tracing::debug!(%error, "the bytes of this device cannot be written down"),
        }
    }

    fn save_if_it_is_time(&self) {
        let saved_at = self.rolled(&today()).saved_at;
        if saved_at.elapsed() >= USAGE_WRITTEN_EVERY {
            self.save();
        }
    }

    /// With everything that was counted so far on its day.
    fn rolled(&self, today: &str) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Bytes::so_far();
        let more = now.minus(state.seen);
        state.seen = now;
        let day = state.ledger.days.entry(today.to_owned()).or_default();
        *day = day.plus(more);
        while state.ledger.days.len() > USAGE_DAYS {
            state.ledger.days.pop_first();
        }
        state
    }
}

impl Daemon {
    /// Puts what was counted on its day, and writes it down once a day.
    pub(crate) async fn keep_usage(self: Arc<Self>) {
        loop {
            tokio::select! {
                biased;
                () = self.tasks.token().cancelled() => return,
                () = tokio::time::sleep(USAGE_EVERY) => self.meter.save_if_it_is_time(),
            }
        }
    }
}

fn today() -> String {
    let now = i64::try_from(clock::now_ms()).unwrap_or(i64::MAX);
    let text = Timestamp::from_millisecond(now).map(|now| now.to_string()).unwrap_or_default();
    text.get(..10).unwrap_or("1970-01-01").to_owned()
}

fn read(path: &Path) -> Option<Ledger> {
    serde_json::from_reader(File::open(path).ok()?.take(USAGE_BYTES)).ok()
}

/// Readers and the next start see the old one or the new one.
fn write(path: &Path, ledger: &Ledger) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let draft = path.with_extension("new");
    let file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    serde_json::to_writer(&file, ledger)?;
    file.sync_all()?;
    fs::rename(&draft, path)
}

/// `2MB`, `500kB`, `1GB` or plain bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" => Some(1000),
        "m" | "mb" => Some(1_000_000),
        "g" | "gb" => Some(1_000_000_000),
        _ => None,
    };
    let size = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    size.ok_or_else(|| format!("{text:?} is no size: write 2MB, 500kB or a number of bytes"))
}

/// Runs `postern usage`; the first word is the program's name.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let flags = match Flags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let found = status::ask(flags.device.as_deref(), ASK_DAEMON);
    if found.is_empty() {
        status::say_none();
        return ExitCode::FAILURE;
    }
    let mut above = false;
    for (name, usage) in &found {
        let projected = usage.projected.map(Bytes::sum);
        if flags.json {
            let mut object = serde_json::json!(usage);
            if let Some(object) = object.as_object_mut() {
                object.remove("asked");
                object.insert("device".to_owned(), name.as_str().into());
            }
            print(object);
        } else {
            print(shown(name, usage).join("\n"));
        }
        if let Some(budget) = flags.budget
            && projected.is_some_and(|projected| projected > budget)
        {
            above = true;
            say(format_args!(
                "usage: {name} will need {} in thirty days, {} are its budget; `--profile metered` costs the least, and the \
                 sessions are yours to spare",
                size(projected.unwrap_or_default()),
                size(budget)
            ));
        }
    }
    if above { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

/// The command line, for completions.
pub(crate) fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

fn shown(name: &str, usage: &Usage) -> Vec<String> {
    let line = |what: &str, bytes: Bytes| {
        format!(
            "  {what:<10} {:>10}  (to the atServer {}, sessions {})",
            size(bytes.sum()),
            size(bytes.control),
            size(bytes.data)
        )
    };
    let mut lines = vec![name.to_owned(), line("today", usage.today), line("this month", usage.month)];
    lines.push(match usage.projected {
        Some(projected) => line("30 days", projected),
        None => "  30 days     not known yet: the daemon runs since a moment".to_owned(),
    });
    lines
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.2} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_client::Profile;

    #[test]
    fn days_survive_a_restart_and_nothing_is_written_twice() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("state/usage.json");
        let habits = Habits::new(Profile::Auto);
        habits.take_lines(["mobile 375 300 -"]);
        let meter = Meter::at(Some(place.clone()), &habits);
        postern_net::usage::moved(Plane::Data, 1000, 2000);
        let before = meter.show(true);
        assert!(before.today.data >= 3000 && before.month.data >= before.today.data, "{before:?}");
        assert_eq!((before.projected, before.asked), (None, 1));
        meter.save();
        let written = fs::metadata(&place).unwrap().modified().unwrap();
        let again = Habits::new(Profile::Auto);
        let next = Meter::at(Some(place.clone()), &again);
        assert_eq!(again.to_lines(), ["mobile 375 300 -"]);
        // Counters belong to the process: this one's are counted once more, as those of a new process would be.
        assert!(next.show(false).today.data >= before.today.data);
        meter.save();
        assert_eq!(fs::metadata(&place).unwrap().modified().unwrap(), written);
        fs::write(&place, "{").unwrap();
        assert!(read(&place).is_none());
        // No place, no trouble.
        Meter::at(None, &habits).save();
        Meter::at(Some("/proc/no/usage.json".into()), &habits).save();
    }

    #[test]
    fn a_month_is_reckoned_from_whole_days() {
        let day = |control| Bytes { control, data: 0 };
        let meter = Meter::at(None, &Habits::new(Profile::Auto));
        {
            let mut state = meter.state.lock().unwrap();
            state.ledger.days =
                [("2020-01-01".into(), day(7)), ("2020-01-02".into(), day(100)), ("2020-01-03".into(), day(300))]
                    .into();
        }
        assert_eq!(meter.show(false).projected, Some(day(6000)));
    }

    #[test]
    fn sizes() {
        assert_eq!(
            ["2MB", "500kB", "17", "1 GB"].map(parse_size),
            [Ok(2_000_000), Ok(500_000), Ok(17), Ok(1_000_000_000)]
        );
        for bad in ["", "MB", "-1", "2MiB", "99999999999999999999", "99999999999GB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!([size(999), size(1500), size(2_340_000)], ["999 B", "1.5 kB", "2.34 MB"]);
    }
}
