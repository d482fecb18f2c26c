//! Set-up: from the user's command to the device's greeting and to the end of
//! a remote `true`, on loopback and over the delay line.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use serde::Serialize;

use crate::cpu::Accounts;
use crate::host::Site;
use crate::limits::{LINE_DELAY, LINE_LOSS_PPM, SETUP_DEADLINE, SLOPE_DELAYS};
use crate::line::Line;
use crate::peers::{Recipe, SshKit};
use crate::process::Spawn;
use crate::table::{Check, Samples, Table, progress};

/// Something that is up and by which a user can reach the device's ssh.
pub(crate) trait Entrance {
    /// Runs `true` at the device as a user would; gives the time from start to end.
    fn remote_true(&self, site: &Site) -> anyhow::Result<Duration>;

    /// From the start of the user's program to the first byte of the device's
    /// ssh; `None` when this way has no such step.
    fn first_byte(&self, site: &Site) -> anyhow::Result<Option<FirstByte>>;
}

/// How the first byte of ssh was reached.
#[derive(Debug)]
pub(crate) struct FirstByte {
    pub(crate) took: Duration,
    /// What the program said it did before, if it says such things.
    pub(crate) steps: Vec<Step>,
}

/// One step of a set-up, as `sshnp --verbose` prints it: name, begin, end and
/// duration in milliseconds from its start, round trips, messages.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    name: String,
    from_ms: f64,
    to_ms: f64,
    trips: u32,
    messages: u32,
}

impl Step {
    /// Reads a line of the step table; `None` for any other line.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, figures) = words.split_at_checked(words.len().checked_sub(5)?)?;
        let [from, to, took, trips, messages] = figures else {
            return None;
        };
        let _: f64 = took.parse().ok()?;
        (!name.is_empty()).then_some(())?;
        Some(Self {
            name: name.join(" "),
            from_ms: from.parse().ok()?,
            to_ms: to.parse().ok()?,
            trips: trips.parse().ok()?,
            messages: messages.parse().ok()?,
        })
    }
}

/// One step over all set-ups of a row, milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct StepRow {
    pub(crate) name: String,
    pub(crate) from_ms: Samples,
    pub(crate) to_ms: Samples,
    pub(crate) trips: u32,
    pub(crate) messages: u32,
}

fn add_steps(rows: &mut Vec<StepRow>, steps: Vec<Step>) {
    for step in steps {
        let index = rows.iter().position(|row| row.name == step.name).unwrap_or_else(|| {
            rows.push(StepRow {
                name: step.name.clone(),
                from_ms: Samples::default(),
                to_ms: Samples::default(),
                trips: step.trips,
                messages: step.messages,
            });
            rows.len() - 1
        });
        let row = &mut rows[index];
        row.from_ms.push(step.from_ms);
        row.to_ms.push(step.to_ms);
        row.trips = row.trips.max(step.trips);
        row.messages = row.messages.max(step.messages);
    }
}

/// A way to be measured; brings its entrance up at a site.
pub(crate) trait Way {
    /// Row name.
    fn name(&self) -> String;

    /// Brings it up.
    ///
    /// # Errors
    /// Text for the row's note.
    fn open(&self, accounts: &Accounts, site: &Site) -> anyhow::Result<Box<dyn Entrance>>;

    /// The bounds it is held to.
    fn checks(&self, _row: &Row) -> Vec<Check> {
        Vec::new()
    }

    /// The bounds it is held to over the line.
    fn delayed_checks(&self, _row: &Row) -> Vec<Check> {
        Vec::new()
    }
}

/// One way's row; times in seconds.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) notes: Vec<String>,
    /// On loopback.
    pub(crate) first_byte: Samples,
    pub(crate) remote_true: Samples,
    /// 50 ms between any two hosts.
    pub(crate) first_byte_delayed: Samples,
    pub(crate) remote_true_delayed: Samples,
    /// The same with 0.5 % of packets lost.
    pub(crate) remote_true_lossy: Samples,
    /// Round trips a `true` costs: what 50 ms a trip add to its time.
    pub(crate) round_trips: Option<f64>,
    /// The same to the first byte.
    pub(crate) first_byte_round_trips: Option<f64>,
    /// To the first byte with the other delays, by milliseconds one way.
    pub(crate) first_byte_by_delay: Vec<(f64, Samples)>,
    /// What a further millisecond of delay adds to the time to the first byte, in round trips of the whole path: client to
    /// device through the relay and back, four delays.
    pub(crate) path_round_trips: Option<f64>,
    /// TCP segments with bytes per `true`: client-server, server-device, client-device.
    pub(crate) segments: Option<[f64; 3]>,
    /// What the program says it does before ssh's first byte, on loopback and
    /// with 50 ms; empty for those that say nothing.
    pub(crate) steps: Vec<StepRow>,
    pub(crate) steps_delayed: Vec<StepRow>,
}

/// Runs every way on loopback.
pub(crate) fn loopback(accounts: &Accounts, site: &Site, ways: &[Box<dyn Way>], rounds: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = ways.iter().map(|way| Row { name: way.name(), ..Row::default() }).collect();
    for (way, row) in ways.iter().zip(&mut rows) {
        progress(&format!("set-up on loopback: {}", row.name));
        let result = way.open(accounts, site).and_then(|entrance| {
            for _ in 0..rounds {
                row.remote_true.push(entrance.remote_true(site)?.as_secs_f64());
                if let Some(first) = entrance.first_byte(site)? {
                    row.first_byte.push(first.took.as_secs_f64());
                    add_steps(&mut row.steps, first.steps);
                }
            }
            Ok(())
        });
        row.note("on loopback", result);
    }
    rows
}

/// Adds the delayed and the lossy figures to the rows of [`loopback`].
///
/// # Errors
/// The line cannot be made, or does not keep its own promise.
pub(crate) fn delayed(
    accounts: &Accounts,
    site: &Site,
    ways: &[Box<dyn Way>],
    rounds: usize,
    rows: &mut [Row],
) -> anyhow::Result<Check> {
    let line = Line::start(LINE_DELAY)?;
    let site = line.site(&site.dir);
    let trip = 2.0 * LINE_DELAY.as_secs_f64();
    let echoes: anyhow::Result<Samples> =
        (0..rounds).map(|_| Ok(line.connect_and_echo(&site.dir)?.as_secs_f64() / trip)).collect();
    let echo = echoes?.median();
    ensure!(echo >= 2.0, "the line is faster than its delay: {echo:.3} round trips for two");
    let kept = Check::at_most("delay line: TCP connect and echo, which is 2 round trips", echo, 2.1, "round trips");
    for (way, row) in ways.iter().zip(rows) {
        progress(&format!("set-up over the line: {}", row.name));
        let result = measure_delayed(&line, accounts, &site, way.as_ref(), rounds, row);
        row.note("over the line", result);
        let trips = |slow: &Samples, fast: &Samples| {
            (!slow.is_empty() && !fast.is_empty()).then(|| (slow.median() - fast.median()) / trip)
        };
        row.round_trips = trips(&row.remote_true_delayed, &row.remote_true);
        row.first_byte_round_trips = trips(&row.first_byte_delayed, &row.first_byte);
        let mut points: Vec<(f64, f64)> =
            row.first_byte_by_delay.iter().map(|(ms, took)| (ms / 1e3, took.median())).collect();
        points.push((LINE_DELAY.as_secs_f64(), row.first_byte_delayed.median()));
        row.path_round_trips = slope(&points).map(|seconds_a_second| seconds_a_second / 4.0);
    }
    let [packets, lost, overflowed] = line.packets();
    progress(&format!("the line carried {packets} packets, lost {lost}, overflowed {overflowed}"));
    Ok(kept)
}

/// Of the straight line nearest to these points; `None` without two different ones.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let points: Vec<_> = points.iter().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    #[expect(clippy::cast_precision_loss, reason = "a handful of points")]
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(|point| of(point)).sum::<f64>() / count;
    let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
    let spread: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    let together: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    (spread > 0.0).then(|| together / spread)
}

fn measure_delayed(
    line: &Line,
    accounts: &Accounts,
    site: &Site,
    way: &dyn Way,
    rounds: usize,
    row: &mut Row,
) -> anyhow::Result<()> {
    line.set_loss(0);
    let entrance = way.open(accounts, site)?;
    let mut segments = [0; 3];
    for _ in 0..rounds {
        let before = line.segments();
        row.remote_true_delayed.push(entrance.remote_true(site)?.as_secs_f64());
        for (sum, (after, before)) in segments.iter_mut().zip(line.segments().iter().zip(before)) {
            *sum += after - before;
        }
        if let Some(first) = entrance.first_byte(site)? {
            row.first_byte_delayed.push(first.took.as_secs_f64());
            add_steps(&mut row.steps_delayed, first.steps);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a few thousand segments")]
    let each = segments.map(|sum| sum as f64 / rounds as f64);
    row.segments = Some(each);
    let others = measure_other_delays(line, site, entrance.as_ref(), rounds, row);
    line.set_delay(LINE_DELAY);
    others?;
    line.set_loss(LINE_LOSS_PPM);
    // Few packets of a set-up are lost: twice the rounds to see any.
    for _ in 0..2 * rounds {
        row.remote_true_lossy.push(entrance.remote_true(site)?.as_secs_f64());
    }
    line.set_loss(0);
    Ok(())
}

fn measure_other_delays(
    line: &Line,
    site: &Site,
    entrance: &dyn Entrance,
    rounds: usize,
    row: &mut Row,
) -> anyhow::Result<()> {
    for delay in SLOPE_DELAYS {
        line.set_delay(delay);
        let mut samples = Samples::default();
        for _ in 0..rounds {
            let Some(first) = entrance.first_byte(site)? else { return Ok(()) };
            samples.push(first.took.as_secs_f64());
        }
        row.first_byte_by_delay.push((delay.as_secs_f64() * 1e3, samples));
    }
    Ok(())
}

impl Row {
    fn note(&mut self, place: &str, result: anyhow::Result<()>) {
        if let Err(error) = result {
            progress(&format!("{}: {place}: {error:#}", self.name));
            self.notes.push(format!("{place}: {error:#}"));
        }
    }
}

/// Prints the rows.
pub(crate) fn print(rows: &[Row]) {
    let mut table = Table::new(&[
        "set-up, seconds",
        "to ssh's first byte",
        "remote true",
        "50 ms: first byte",
        "50 ms: true",
        "50 ms, 0.5 % loss: true",
        "path trips to 1st byte",
        "trips to 1st byte",
        "trips, true",
        "segments c-s / s-d / c-d",
    ]);
    for row in rows {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
        table.row(vec![
            row.name.clone(),
            row.first_byte.show(3),
            row.remote_true.show(3),
            row.first_byte_delayed.show(3),
            row.remote_true_delayed.show(3),
            row.remote_true_lossy.show(3),
            row.path_round_trips.map_or_else(|| "-".to_owned(), |trips| format!("{trips:.2}")),
            number(row.first_byte_round_trips),
            number(row.round_trips),
            row.segments.map_or_else(|| "-".to_owned(), |[a, b, c]| format!("{a:.0} / {b:.0} / {c:.0}")),
        ]);
        for note in &row.notes {
            table.row(vec![format!("  {note}")]);
        }
    }
    table.print(
        "Set-up: median (min-max); 50 ms is the round trip between any two hosts; a path trip is one from client to device through the relay and back, counted as what further delay adds",
    );
    for row in rows {
        print_steps(&format!("{}: steps on loopback", row.name), &row.steps);
        print_steps(&format!("{}: steps with 50 ms", row.name), &row.steps_delayed);
    }
}

fn print_steps(title: &str, steps: &[StepRow]) {
    if steps.is_empty() {
        return;
    }
    let mut table = Table::new(&["step", "from ms", "to ms", "round trips", "messages"]);
    for step in steps {
        table.row(vec![
            step.name.clone(),
            format!("{:.1}", step.from_ms.median()),
            format!("{:.1}", step.to_ms.median()),
            step.trips.to_string(),
            step.messages.to_string(),
        ]);
    }
    table.print(&format!("{title} (medians, from the program's start)"));
}

impl Way for (Recipe, Result<Rc<SshKit>, String>) {
    fn name(&self) -> String {
        self.0.name().to_owned()
    }

    fn open(&self, accounts: &Accounts, site: &Site) -> anyhow::Result<Box<dyn Entrance>> {
        let kit = self.1.as_ref().map_err(|why| anyhow!("{why}"))?;
        let standing = self.0.stand(kit, accounts, site)?;
        Ok(Box::new(SshEntrance { standing, kit: Rc::clone(kit) }))
    }
}

struct SshEntrance {
    standing: crate::peers::Standing,
    kit: Rc<SshKit>,
}

impl Entrance for SshEntrance {
    fn remote_true(&self, site: &Site) -> anyhow::Result<Duration> {
        time_to_end(self.standing.true_command(&self.kit, site))
    }

    fn first_byte(&self, site: &Site) -> anyhow::Result<Option<FirstByte>> {
        let Some(command) = self.standing.greeting_command(&self.kit, site) else {
            return Ok(None);
        };
        let took = time_to_first_byte(command)?;
        Ok(Some(FirstByte { took, steps: Vec::new() }))
    }
}

/// From the start of a program to its end, which must be a success.
pub(crate) fn time_to_end(command: Spawn<'_>) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut process = command.start()?;
    process.succeed(SETUP_DEADLINE)?;
    Ok(start.elapsed())
}

/// From the start of a program to its first byte of output, which must be an
/// ssh server's.
pub(crate) fn time_to_first_byte(command: Spawn<'_>) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut process = command.start()?;
    let byte = process.first_byte()?;
    let took = start.elapsed();
    ensure!(byte == b'S', "not ssh's greeting");
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_what_a_millisecond_adds() {
        let near =
            |points: &[(f64, f64)], wanted: f64| slope(points).is_some_and(|found| (found - wanted).abs() < 1e-9);
        assert!(near(&[(0.010, 0.3), (0.025, 0.36), (0.050, 0.46)], 4.0));
        assert!(near(&[(0.010, 0.3), (0.025, f64::NAN), (0.050, 0.5)], 5.0));
        for too_few in [&[][..], &[(0.025, 1.0)], &[(0.025, 1.0), (0.025, 2.0)]] {
            assert_eq!(slope(too_few), None, "{too_few:?}");
        }
    }

    #[test]
    fn a_line_of_the_step_table_is_read_and_no_other() {
        let line = "user name on the device               8.1    10.0    1.8            1         2";
        let step = Step::parse(line).unwrap();
        assert_eq!(
            (step.name.as_str(), step.from_ms, step.to_ms, step.trips, step.messages),
            ("user name on the device", 8.1, 10.0, 1, 2)
        );
        for other in ["", "     8.0 ms  Fetching host and port from srvd", "1 2 3 4 5", "debug1: a 1 2"] {
            assert_eq!(Step::parse(other), None, "{other}");
        }
    }
}
