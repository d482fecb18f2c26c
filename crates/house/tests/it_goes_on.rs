//! A shell of `sshnp` and a copy of 200 MiB by the person's own scp, behind two NATs: the relay is killed and started again,
//! the client has another address, another relay takes over, the device has another address. Both go on.
//!
//! Where nothing may go on, a loss is the end.

use std::io::Write as _;
use std::path::Path;
use std::process::{ChildStdin, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use postern_house::{OwnTools, Sharing, Told, behind_nat, checksum, in_house, random_file};
use postern_testkit::limits::{COMMAND, POLL, SESSION};
use postern_testkit::{Mark, Options, Piece, Process, World, run, say};

/// Size of the copied file, in MiB.
const FILE_MIB: u64 = 200;
/// scp's own limit in Kbit/s, so that there is time to do harm: 30 MB/s.
const SCP_LIMIT: &str = "240000";
/// A relay that the client knows of as well.
const SECOND: &str = "@relay2";
/// Sessions that are live.
const SESSIONS: usize = 2;
/// What the device says of each that was resumed.
const GOES_ON: &str = "sealed session goes on";
/// A lost connection has ended a session that may not go on. The relay's end is known at once; the rest is what busy cores
/// may need.
const OVER: Duration = Duration::from_secs(10);
/// A device has noticed that its own link to the atServer is dead: well before the next heartbeat (60 s), since its session
/// was lost.
const FOUND_AGAIN: Duration = Duration::from_secs(50);

#[test]
fn a_shell_and_a_copy_go_on_whatever_happens_on_the_way() -> anyhow::Result<()> {
    behind_nat(|house| {
        add_relay(house)?;
        let mut second = house.start_relay(house.srvd(SECOND))?;
        let relays = format!("{},{SECOND}", World::RELAY);
        let tools = OwnTools::prepare_with(house, Told { relays: Some(&relays), ..Told::default() })?;
        let mut shell = Shell::open(house, &["-r", &relays])?;
        shell.answers()?;

        let (original, copy) = (house.dir().join("original"), house.dir().join("copy"));
        random_file(original.clone(), FILE_MIB)?;
        let mut scp = tools.ssh(house, "scp", Sharing::Alone);
        scp.args(["-q", "-l", SCP_LIMIT]).arg(format!("{}:{}", OwnTools::host(), original.display())).arg(&copy);
        let mut scp = Process::start(scp)?;

        until(&mut scp, &copy, 20)?;
        let mark = house.piece(Piece::Device)?.mark();
        house.kill_piece(Piece::Relay)?;
        house.start_piece(Piece::Relay)?;
        all_go_on(house, mark, "the relay was killed and started again")?;
        shell.answers()?;

        until(&mut scp, &copy, 60)?;
        let mark = house.piece(Piece::Device)?.mark();
        house.network().change_client_address()?;
        shell.answers()?;
        all_go_on(house, mark, "the client has another address")?;

        until(&mut scp, &copy, 100)?;
        let mark = house.piece(Piece::Device)?.mark();
        house.kill_piece(Piece::Relay)?;
        all_go_on(house, mark, "another relay took over")?;
        shell.answers()?;
        ensure!(second.is_running(), "{}", second.tail());

        until(&mut scp, &copy, 140)?;
        let mark = house.piece(Piece::Device)?.mark();
        house.network().change_device_address()?;
        let changed = Instant::now();
        shell.answers()?;
        all_go_on(house, mark, "the device has another address")?;
        ensure!(changed.elapsed() < FOUND_AGAIN, "it took {:?}", changed.elapsed());

        scp.wait(3 * SESSION)?.success()?;
        ensure!(checksum(&copy)? == checksum(&original)?, "the copy is another");
        shell.answers()?;
        shell.leaves()
    })
}

/// With `--resume 0` at either end.
#[test]
fn where_nothing_may_go_on_a_loss_is_the_end() -> anyhow::Result<()> {
    let never = ["--resume", "0"];
    let device_never = Options { device_words: never.map(str::to_owned).to_vec(), ..Options::default() };
    for (options, words) in [(Options::default(), &never[..]), (device_never, &[])] {
        in_house(options, |world| {
            let mut shell = Shell::open(world, words)?;
            shell.answers()?;
            let mark = world.piece(Piece::Device)?.mark();
            world.kill_piece(Piece::Relay)?;
            let lost = Instant::now();
            world.start_piece(Piece::Relay)?;
            let ended = shell.process.wait(SESSION)?;
            say(format_args!("over after {:.1?}: {}", lost.elapsed(), ended.stderr));
            ensure!(!ended.status.success(), "a shell that was cut off ended well");
            ensure!(lost.elapsed() < OVER, "it took {:?}", lost.elapsed());
            let device = world.piece(Piece::Device)?;
            device.wait_for_line_after(mark, OVER, |line| line.contains("sealed session ended"))?;
            ensure!(!said_after(device, mark, GOES_ON), "it went on all the same");
            Ok(())
        })?;
    }
    Ok(())
}

/// A person in a shell on the device.
struct Shell {
    process: Process,
    keyboard: ChildStdin,
    asked: u32,
}

impl Shell {
    fn open(world: &World, words: &[&str]) -> anyhow::Result<Self> {
        let mut command = world.sshnp();
        command.args(words).args(["-o", "-tt"]);
        let mut process = Process::start_with(command, Stdio::piped())?;
        let keyboard = process.stdin().context("standard input was asked for")?;
        process.wait_for_line(SESSION, |line| line.contains("sealed session: "))?;
        Ok(Self { process, keyboard, asked: 0 })
    }

    /// Types something, and waits for what the device's shell makes of it.
    fn answers(&mut self) -> anyhow::Result<()> {
        self.asked += 1;
        let begun = Instant::now();
        self.keyboard.write_all(format!("echo sum-$(({}+1000))\n", self.asked).as_bytes())?;
        let answer = format!("sum-{}", self.asked + 1000);
        self.process.wait_for_stdout(SESSION, |screen| screen.contains(&answer))?;
        say(format_args!("the shell answered after {:.1?}", begun.elapsed()));
        Ok(())
    }

    fn leaves(mut self) -> anyhow::Result<()> {
        self.keyboard.write_all(b"exit 9\n")?;
        self.process.wait(10 * SESSION)?.exited(9).map(drop)
    }
}

/// Waits until the copy has grown to so many mebibytes.
fn until(scp: &mut Process, copy: &Path, mib: u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    let size = || std::fs::metadata(copy).map_or(0, |file| file.len());
    while size() < mib << 20 {
        ensure!(scp.is_running(), "scp ended early: {}", scp.tail());
        ensure!(begun.elapsed() < SESSION, "the copy does not grow beyond {}: {}", size(), scp.tail());
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Waits until the device has said of all sessions that they go on.
fn all_go_on(world: &mut World, mark: Mark, why: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    let device = world.piece(Piece::Device)?;
    let mut sessions: Vec<String> = Vec::new();
    while sessions.len() < SESSIONS {
        let line = device.wait_for_line_after(mark, SESSION, |line| {
            line.contains(GOES_ON) && session_of(line).is_some_and(|id| !sessions.contains(&id))
        });
        let line = line.with_context(|| format!("{why}, and {} sessions went on", sessions.len()))?;
        sessions.extend(session_of(&line));
    }
    say(format_args!("{why}: all go on after {:.1?}", begun.elapsed()));
    Ok(())
}

fn session_of(line: &str) -> Option<String> {
    line.split("session=").nth(1)?.split(' ').next().map(str::to_owned)
}

fn said_after(device: &mut Process, mark: Mark, words: &str) -> bool {
    device.wait_for_line_after(mark, Duration::ZERO, |line| line.contains(words)).is_ok()
}

/// Makes keys for the second relay.
fn add_relay(world: &World) -> anyhow::Result<()> {
    let secret = world.add_at_sign(SECOND)?;
    let mut activate = world.postern(SECOND);
    activate.args(["at_activate", "onboard", "-a", SECOND, "-c", &secret, "-r", &world.root()]);
    activate.arg("-k").arg(world.key_file(SECOND));
    run(activate, COMMAND)?.success().map(drop)
}
