//! Client behind NAT, device behind NAT with nothing let in, sshd on its 127.0.0.1 only: ssh works.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use postern_house::{Copy, at_terminal, behind_nat, checksum, random_file, scp};
use postern_testkit::limits::{POLL, SESSION};
use postern_testkit::{Process, quote_for_shell, run, say};

/// Size of the copied file, in MiB.
const FILE_MIB: u64 = 100;
/// Sessions that are all open at the same moment.
const SESSIONS: usize = 20;

#[test]
fn a_command_runs_on_the_device_and_its_exit_code_comes_back() -> anyhow::Result<()> {
    behind_nat(|house| {
        let start = Instant::now();
        let output = house.on_device(&["echo inside; echo aside >&2; exit 7"])?.exited(7)?;
        say(format_args!("a command in {:.2?}", start.elapsed()));
        ensure!(output.stdout == b"inside\n", "stdout: {:?}", output.text());
        ensure!(output.stderr.contains("aside"), "stderr: {}", output.stderr);

        // What goes in comes out: eight-bit clean, with its end.
        let mut sshnp = house.sshnp();
        sshnp.args(["-q", "--", "cat"]);
        let mut process = Process::start_with(sshnp, Stdio::piped())?;
        let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
        let mut stdin = process.stdin().context("standard input was asked for")?;
        stdin.write_all(&bytes)?;
        drop(stdin);
        let output = process.wait(SESSION)?.success()?;
        ensure!(output.stdout == bytes, "cat gave back {} bytes of {}", output.stdout.len(), bytes.len());
        Ok(())
    })
}

#[test]
fn an_interactive_shell_has_a_terminal() -> anyhow::Result<()> {
    behind_nat(|house| {
        let sshnp = house.sshnp();
        let script = at_terminal(&sshnp, "dumb");
        let start = Instant::now();
        let mut shell = Process::start_with(script, Stdio::piped())?;
        let mut keyboard = shell.stdin().context("standard input was asked for")?;
        // The terminal echoes what is typed; only the shell does sums.
        let mut typed = |line: &str| keyboard.write_all(line.as_bytes()).context("the terminal is gone");
        typed("tty; echo ready-$((40+2))\n")?;
        let screen = shell.wait_for_stdout(SESSION, |screen| screen.contains("ready-42"))?;
        say(format_args!("an interactive shell answers after {:.2?}", start.elapsed()));
        ensure!(screen.contains("/dev/pts/"), "no terminal on the device: {screen:?}");
        // One process that speaks and sleeps: between two of them the shell itself would get the ^C and wait on.
        typed("sh -c 'echo asleep-$((1+1)); exec sleep 1000'\n")?;
        shell.wait_for_stdout(SESSION, |screen| screen.contains("asleep-2"))?;
        typed("\u{3}")?;
        typed("echo awake-$((2+1))\n")?;
        shell.wait_for_stdout(SESSION, |screen| screen.contains("awake-3"))?;
        typed("exit 5\n")?;
        shell.wait(SESSION)?.exited(5)?;
        Ok(())
    })
}

#[test]
fn scp_copies_a_large_file_both_ways() -> anyhow::Result<()> {
    behind_nat(|house| {
        let original = random_file(house.dir().join("original"), FILE_MIB)?;
        let (there, back) = (house.dir().join("device/there"), house.dir().join("back"));
        let rate = |start: Instant| f64::from(u32::try_from(FILE_MIB).unwrap_or(0)) / start.elapsed().as_secs_f64();

        let (npt, port) = house.start_npt(house.npt(house.ssh_port()))?;
        let start = Instant::now();
        scp(house, port, Copy::Up(&original, &there))?;
        say(format_args!("scp to the device, by npt: {:.0} MiB/s", rate(start)));
        drop(npt);

        // The command that sshnp prints leads to the same place.
        let mut sshnp = house.sshnp();
        sshnp.arg("-x");
        let printed = run(sshnp, SESSION)?.success()?.text();
        ensure!(printed.lines().count() == 1 && printed.contains("ssh "), "not one command: {printed:?}");
        let port = printed.split_whitespace().skip_while(|word| *word != "-p").nth(1);
        let port = port.and_then(|port| port.parse().ok()).with_context(|| format!("no port in {printed:?}"))?;
        let start = Instant::now();
        scp(house, port, Copy::Down(&there, &back))?;
        say(format_args!("scp from the device, by sshnp -x: {:.0} MiB/s", rate(start)));

        let sums = [checksum(&original)?, checksum(&there)?, checksum(&back)?];
        ensure!(sums[0] == sums[1] && sums[0] == sums[2], "checksums differ: {sums:?}");
        Ok(())
    })
}

#[test]
fn twenty_sessions_are_open_at_once() -> anyhow::Result<()> {
    behind_nat(|house| {
        let here = house.dir().join("device/here");
        std::fs::create_dir(&here)?;
        let here = quote_for_shell(&here.display().to_string());
        let start = Instant::now();
        let mut sessions = Vec::new();
        for number in 0..SESSIONS {
            let mut sshnp = house.sshnp();
            // Each waits on the device until all have come.
            let wait =
                format!("touch {here}/{number}; while [ $(ls {here} | wc -l) -lt {SESSIONS} ]; do sleep 0.1; done");
            sshnp.args(["--", &format!("{wait}; echo session {number}")]);
            sessions.push(Process::start(sshnp)?);
        }
        // One that fails keeps all others waiting: it is the one to hear.
        while sessions.iter_mut().any(Process::is_running) {
            for (number, session) in sessions.iter_mut().enumerate() {
                let failed = session.try_wait()?.is_some_and(|status| !status.success());
                ensure!(!failed, "session {number} failed\n{}", session.tail());
                let late = start.elapsed() > SESSION && session.is_running();
                ensure!(!late, "session {number} is late\n{}", session.tail());
            }
            std::thread::sleep(POLL);
        }
        for (number, session) in sessions.into_iter().enumerate() {
            let output = session.wait(SESSION)?.success()?;
            ensure!(output.text() == format!("session {number}"), "session {number} said {:?}", output.text());
        }
        say(format_args!("{SESSIONS} sessions, all open at once, done in {:.2?}", start.elapsed()));
        Ok(())
    })
}
