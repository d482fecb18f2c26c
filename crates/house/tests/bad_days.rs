//! Bad days of machines: a full disk, a read-only home, a busy port, a wrong clock. Each has its clear text, and leaves
//! things as they were.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use postern_client::RecordOptions;
use postern_house::caller::Caller;
use postern_house::{in_house, with_clock};
use postern_testkit::limits::SESSION;
use postern_testkit::{Options, Piece, World, run, say};
use serde_json::Value as Json;

/// A file system of its own, taken away at the end.
struct Mount(PathBuf);

impl Mount {
    /// A small disk at `at`; `None`: we may not mount, which is printed (and a failure in CI).
    fn small_disk(at: &Path, bytes: usize) -> anyhow::Result<Option<Self>> {
        fs::create_dir_all(at)?;
        Self::new(&["-t", "tmpfs", "-o", &format!("size={bytes},mode=0700"), "tmpfs"], at)
    }

    /// The same folder, to be read alone.
    fn read_only(at: &Path) -> anyhow::Result<Option<Self>> {
        let path = at.to_str().context("no text")?;
        let Some(mount) = Self::new(&["--bind", path], at)? else { return Ok(None) };
        run_mount(&["-o", "remount,bind,ro"], at)?;
        Ok(Some(mount))
    }

    fn new(words: &[&str], at: &Path) -> anyhow::Result<Option<Self>> {
        match run_mount(words, at) {
            Ok(()) => Ok(Some(Self(at.to_owned()))),
            Err(reason) if std::env::var_os("CI").is_none() => {
                say(format_args!("SKIPPED: {reason:#}"));
                Ok(None)
            }
            Err(reason) => Err(reason),
        }
    }
}

fn run_mount(words: &[&str], at: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("mount");
    command.args(words).arg(at);
    run(command, SESSION)?.success().map(drop)
}

impl Drop for Mount {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        command.arg("--lazy").arg(&self.0);
        let _ = run(command, SESSION);
    }
}

/// Leaves `room` bytes on the disk of `dir`.
fn fill(dir: &Path, room: u64) -> anyhow::Result<PathBuf> {
    let space = free(dir)?;
    let filler = dir.join("filler");
    let bytes = usize::try_from(space.saturating_sub(room))?;
    fs::write(&filler, vec![0; bytes])?;
    Ok(filler)
}

/// Free bytes, by `df`.
fn free(dir: &Path) -> anyhow::Result<u64> {
    let mut df = Command::new("df");
    df.args(["--output=avail", "-B1"]).arg(dir);
    let text = run(df, SESSION)?.success()?.text();
    text.lines().last().and_then(|line| line.trim().parse().ok()).with_context(|| format!("df said {text:?}"))
}

#[test]
fn a_full_disk_takes_no_activation_secret() -> anyhow::Result<()> {
    in_house(Options { own_daemon: false, ..Options::default() }, |world| {
        let secret = world.add_at_sign("@late")?;
        let home = world.dir().join("late");
        let Some(_disk) = Mount::small_disk(&home, 256 * 1024)? else { return Ok(()) };
        let filler = fill(&home, 4096)?;
        let activate = || {
            let mut command = world.postern(World::CLIENT);
            command.args(["at_activate", "onboard", "-a", "@late", "-c", &secret, "-r", &world.root(), "-k"]);
            command.arg(home.join("keys/@late_key.atKeys"));
            run(command, SESSION)
        };
        let failed = activate()?;
        ensure!(!failed.status.success() && failed.stderr.contains("No space left on device"), "{}", failed.stderr);
        ensure!(!home.join("keys/@late_key.atKeys").exists(), "half a key file");
        // Nothing has happened yet: with room the same secret still activates.
        fs::remove_file(filler)?;
        activate()?.success()?;
        Ok(())
    })
}

#[test]
fn a_full_disk_of_the_server_loses_nothing_that_was_acknowledged() -> anyhow::Result<()> {
    in_house(Options { own_daemon: false, ..Options::default() }, |world| {
        // The server's folder moves to a small disk.
        world.kill_piece(Piece::Server)?;
        let (dir, aside) = (world.dir().join("server"), world.dir().join("aside"));
        fs::rename(&dir, &aside)?;
        let Some(_disk) = Mount::small_disk(&dir, 8 * 1024 * 1024)? else { return Ok(()) };
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(aside.join(".")).arg(&dir);
        run(copy, SESSION)?.success()?;
        world.start_piece(Piece::Server)?;

        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let kept = runtime.block_on(write_until_refused(world, &dir))?;
        say(format_args!("{kept} records were acknowledged before the disk was full"));
        // It goes on reading, and after a restart on the same disk everything is there; with room it writes again.
        world.kill_piece(Piece::Server)?;
        fs::remove_file(dir.join("filler"))?;
        world.start_piece(Piece::Server)?;
        runtime.block_on(async {
            let caller = Caller::connect(world, World::CLIENT, world.dir().join("state-2")).await?;
            for n in 0..kept {
                let text =
                    caller.client().get_own(&format!("r{n}.days")).await.with_context(|| format!("record {n}"))?;
                ensure!(text.starts_with(&format!("{n} ")), "record {n} is another");
            }
            caller.client().put_own("after.days", "x", RecordOptions::default()).await?;
            Ok(())
        })
    })
}

async fn write_until_refused(world: &World, dir: &Path) -> anyhow::Result<usize> {
    let caller = Caller::connect(world, World::CLIENT, world.dir().join("state-1")).await?;
    let _filler = fill(dir, 1024 * 1024)?;
    let text = "x".repeat(16 * 1024);
    for n in 0..500 {
        let written =
            caller.client().put_own(&format!("r{n}.days"), &format!("{n} {text}"), RecordOptions::default()).await;
        let Err(error) = written else { continue };
        ensure!(n > 0, "not even one record: {error}");
        // What was written can be read while nothing can be written.
        let first = caller.client().get_own("r0.days").await?;
        ensure!(first.starts_with("0 "), "the first is another");
        say(format_args!("then the server said: {error}"));
        return Ok(n);
    }
    bail!("the disk was never full")
}

#[test]
fn a_read_only_home_costs_memory_of_keys_and_no_session() -> anyhow::Result<()> {
    in_house(Options { own_daemon: false, ..Options::default() }, |world| {
        let Some(_home) = Mount::read_only(&world.home_of(World::DEVICE))? else { return Ok(()) };
        let daemon = world.start_daemon(world.sshnpd(World::DEVICE_NAME))?;
        world.on_device(&["true"])?.success()?;
        ensure!(daemon.tail().contains("WARN"), "nothing was said of it:\n{}", daemon.tail());
        let mut doctor = world.sshnpd(World::DEVICE_NAME);
        doctor.arg("--doctor");
        let told = run(doctor, SESSION)?.exited(1)?.text();
        ensure!(told.contains("read-only file system"), "{told}");
        Ok(())
    })
}

#[test]
fn a_busy_port_is_named_by_everybody_who_wants_it() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let taken = TcpListener::bind("127.0.0.1:0")?;
        let port = taken.local_addr()?.port().to_string();
        let address = format!("127.0.0.1:{port}");

        let mut server = world.postern(World::CLIENT);
        server.args(["server", "run", "--listen", &address, "--dir"]).arg(world.dir().join("server"));
        let mut relay = world.srvd(World::RELAY);
        relay.args(["--bind-port", &port]);
        let mut npt = world.npt(world.ssh_port());
        npt.args(["-l", &port, "-x"]);
        // The relay wants it on all addresses.
        for (who, command) in [("server", server), ("srvd", relay), ("npt", npt)] {
            let output = run(command, SESSION)?.exited(1)?;
            let told = &output.stderr;
            ensure!(told.contains(&port) && told.contains("in use"), "{who} does not name the port:\n{told}");
        }
        Ok(())
    })
}

#[test]
fn a_client_whose_clock_is_years_off_is_told_so() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let offset = "-3y";
        let mut sshnp = world.sshnp();
        sshnp.args(["--", "true"]);
        if !with_clock(&mut sshnp, offset)? {
            return Ok(());
        }
        let output = run(sshnp, SESSION)?;
        ensure!(!output.status.success() && output.stderr.contains("clock"), "{offset}: {}", output.stderr);
        // Nothing was remembered that stands in the way of the right time.
        world.on_device(&["true"])?.success()?;
        Ok(())
    })
}

/// `sshnpd status` until it exits like this.
fn until_health_is(world: &World, code: i32) -> anyhow::Result<String> {
    let begun = Instant::now();
    loop {
        let mut status = world.postern(World::DEVICE);
        status.args(["sshnpd", "status", "--json"]);
        let output = run(status, SESSION)?;
        if output.status.code() == Some(code) {
            return Ok(output.text());
        }
        ensure!(begun.elapsed() < 3 * SESSION, "instead of {code}: {output:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_daemon_whose_server_is_gone_fails_its_health_check_until_it_is_back() -> anyhow::Result<()> {
    let options = Options { device_words: vec!["--keep-alive".into(), "1s".into()], ..Options::default() };
    in_house(options, |world| {
        let link = |text: &str| anyhow::Ok(serde_json::from_str::<Json>(text.trim())?["link"].clone());
        let well = link(&until_health_is(world, 0)?)?;
        ensure!(well["state"] == "connected" && well["connectedSince"].is_string(), "{well}");
        ensure!(well["lastHeard"].is_string() && well["well"] == true, "{well}");
        world.kill_piece(Piece::Server)?;
        let lost = link(&until_health_is(world, 3)?)?;
        ensure!(lost["state"] == "lost" && lost["well"] == false && lost.get("connectedSince").is_none(), "{lost}");
        world.start_piece(Piece::Server)?;
        let back = link(&until_health_is(world, 0)?)?;
        ensure!(back["state"] == "connected", "{back}");
        Ok(())
    })
}

/// What the daemon keeps: journal, pins, bytes.
#[test]
fn a_daemon_on_a_full_disk_serves_and_its_journal_stays_whole() -> anyhow::Result<()> {
    in_house(Options { own_daemon: false, ..Options::default() }, |world| {
        let room = world.dir().join("room");
        let Some(_disk) = Mount::small_disk(&room, 256 * 1024)? else { return Ok(()) };
        let daemon = || {
            let mut sshnpd = world.sshnpd(World::DEVICE_NAME);
            sshnpd.env("XDG_STATE_HOME", room.join("state")).env("XDG_CONFIG_HOME", room.join("config"));
            world.start_daemon(sshnpd)
        };
        // The first start makes the identity key.
        daemon()?.terminate(SESSION)?;
        let filler = fill(&room, 0)?;
        let mut running = daemon()?;
        for _ in 0..2 {
            world.on_device(&["true"])?.success()?;
        }
        let unwritten = "the journal cannot be written";
        let said = running.wait_for_line(SESSION, |line| line.contains(unwritten))?;
        ensure!(said.contains("No space left on device"), "{said}");
        let times = running.tail().matches(unwritten).count();
        ensure!(times == 1, "said {times} times:\n{}", running.tail());

        // With room it goes on, and says how much it did not keep.
        fs::remove_file(filler)?;
        world.on_device(&["true"])?.success()?;
        running.wait_for_line(SESSION, |line| line.contains("the journal is written again"))?;
        // Once more, with lines in it: what was written stays.
        let journals = room.join("state/postern/journal");
        let journal = fs::read_dir(&journals)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|end| end == "jsonl"))
            .context("no journal")?;
        let before = fs::read_to_string(&journal)?;
        ensure!(before.contains("\"missed\":"), "{before}");
        let filler = fill(&room, 0)?;
        world.on_device(&["true"])?.success()?;
        fs::remove_file(filler)?;
        world.on_device(&["true"])?.success()?;
        let ended = running.terminate(SESSION)?;
        ensure!(ended.status.success(), "{ended:?}");
        let after = fs::read_to_string(&journal)?;
        ensure!(after.starts_with(&before) && after.len() > before.len(), "{before}\n->\n{after}");
        let mut verify = world.postern(World::DEVICE);
        verify.args(["audit", "verify"]).arg(&journal);
        run(verify, SESSION)?.success()?;
        Ok(())
    })
}
