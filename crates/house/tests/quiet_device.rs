//! A device that nobody uses: it costs little, writes nothing, finds out that its link is dead, and comes back with all the
//! others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use postern_testkit::limits::{COMMAND, READY};
use postern_testkit::{Options, Piece, Place, Places, Process, StarNetwork, World, run, say};

/// The devices' interfaces.
const LINKS: [&str; 2] = ["eth0", "wwan0"];
/// Daemons that lose their server together.
const FLEET: usize = 8;
/// In which all of them are to be back.
const BACK: Duration = Duration::from_secs(60);

fn daemon(world: &World, place: &Place, name: &str, words: &[&str]) -> anyhow::Result<Process> {
    let mut daemon = world.sshnpd_at(place, name);
    daemon.args(words);
    world.start_daemon(daemon)
}

fn on_wires(test: impl FnOnce(&StarNetwork, &mut World) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let Some(network) = StarNetwork::build_or_skip(&LINKS)? else { return Ok(()) };
    let device = network.device(0);
    let places = Places { client: device.clone(), server: network.server(), device };
    let mut world = World::start(Options { places, own_daemon: false, ..Options::default() })?;
    let outcome = test(&network, &mut world);
    if outcome.is_err() {
        say(format_args!("{}", world.last_words()));
    }
    outcome
}

#[test]
fn a_dead_link_is_noticed_by_the_next_sign_of_life_and_the_profile_is_the_link_s() -> anyhow::Result<()> {
    on_wires(|network, world| {
        // Three seconds of silence; on the modem nine.
        let mut wired = daemon(world, &network.device(0), "wired_one", &["--hasten", "100"])?;
        let mut modem = daemon(world, &network.device(1), "modem_one", &["--hasten", "100"])?;
        wired.wait_for_line(READY, |line| line.contains("profile of the link") && line.contains("profile=auto"))?;
        modem.wait_for_line(READY, |line| {
            line.contains("profile=metered") && line.contains("the default route is a modem's")
        })?;
        let mark = wired.mark();
        network.cut(0)?;
        let start = Instant::now();
        wired.wait_for_line_after(mark, Duration::from_secs(30), |line| line.contains("connection lost"))?;
        say(format_args!("a silence of 3 s and 9 s for the answer: noticed after {:.1?}", start.elapsed()));
        network.mend(0)?;
        wired.wait_for_line_after(mark, READY, |line| line.contains("connection available"))?;
        ensure!(modem.is_running());
        Ok(())
    })
}

#[test]
fn nothing_is_written_while_nobody_is_in_and_the_bytes_are_known() -> anyhow::Result<()> {
    on_wires(|network, world| {
        let runtime = world.dir().join("runtime");
        std::fs::create_dir(&runtime)?;
        let start = || {
            let mut command = world.sshnpd_at(&network.device(0), "still");
            command.args(["--hasten", "300"]).env("XDG_RUNTIME_DIR", &runtime);
            world.start_daemon(command)
        };
        let process = start()?;
        let pid = process.id();
        let usage = |words: &[&str]| {
            let mut command = world.postern(World::DEVICE);
            command.arg("usage").args(words).env("XDG_RUNTIME_DIR", &runtime);
            run(command, COMMAND)
        };
        let control = |text: &str| -> anyhow::Result<u64> {
            let json: serde_json::Value = serde_json::from_str(text)?;
            json.pointer("/today/control").and_then(serde_json::Value::as_u64).context("no bytes of today")
        };
        let home = world.home_of(World::DEVICE);
        // The first records are written by now, or soon.
        let first = control(&usage(&["--json"])?.success()?.text())?;
        ensure!(first > 3000, "a login costs more than {first} bytes");
        let (before, written) = (files(&home)?, written_by(pid)?);
        std::thread::sleep(Duration::from_secs(8)); // a silence is one to five seconds long
        ensure!(files(&home)? == before, "files changed: {before:?}, {:?}", files(&home)?);
        ensure!(written_by(pid)? == written, "something was written");
        let later = control(&usage(&["--json"])?.success()?.text())?;
        ensure!(later > first, "no sign of life in eight seconds: {first}, {later}");
        let shown = usage(&[])?.success()?.text();
        ensure!(shown.contains("still@device") && shown.contains("this month"), "{shown}");

        process.terminate(READY)?.success()?;
        let _again = start()?;
        let sum = control(&usage(&["--json"])?.success()?.text())?;
        ensure!(sum >= later + 3000, "yesterday's process is forgotten: {later}, {sum}");
        ensure!(usage(&["-d", "nobody"])?.status.code() == Some(1));
        Ok(())
    })
}

#[test]
fn a_fleet_that_lost_its_server_is_back_within_a_minute() -> anyhow::Result<()> {
    on_wires(|network, world| {
        let mut fleet = Vec::new();
        for i in 0..FLEET {
            fleet.push(daemon(world, &network.device(0), &format!("fleet-{i}"), &[])?);
        }
        let marks: Vec<_> = fleet.iter().map(Process::mark).collect();
        world.kill_piece(Piece::Server)?;
        for (process, mark) in fleet.iter_mut().zip(&marks) {
            process.wait_for_line_after(*mark, READY, |line| line.contains("connection lost"))?;
        }
        world.start_piece(Piece::Server)?;
        let start = Instant::now();
        for (process, mark) in fleet.iter_mut().zip(&marks) {
            let left = BACK.saturating_sub(start.elapsed());
            process.wait_for_line_after(*mark, left, |line| line.contains("connection available"))?;
        }
        say(format_args!("{FLEET} daemons were back after {:.1?}", start.elapsed()));
        Ok(())
    })
}

/// Everything below a directory, with size and time.
fn files(dir: &Path) -> anyhow::Result<BTreeMap<PathBuf, (u64, SystemTime)>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let about = entry.metadata()?;
            if about.is_dir() {
                dirs.push(entry.path());
            }
            found.insert(entry.path(), (about.len(), about.modified()?));
        }
    }
    Ok(found)
}

/// Bytes that a process has given to disks.
fn written_by(pid: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).context("no write_bytes")?;
    Ok(line.trim().parse()?)
}
