//! The ssh server inside the daemon, for devices that have none: people's own ssh against it, and what it refuses.
//!
//! That ssh, scp, sftp, rsync and git work there as with any server is shown in `tools.rs`.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use postern_house::enrolment::{decide, enrol};
use postern_house::{OwnTools, Sharing, Told, checksum, in_house, random_file};
use postern_testkit::limits::{COMMAND, SESSION};
use postern_testkit::{Options, Output, Piece, Process, SshServer, World, run, say, user_name};

/// A revoked enrolment is noticed within 10 s, and programs have seconds to go.
const GONE: Duration = Duration::from_secs(20);

fn builtin(more: &[&str]) -> Options {
    let device_words = more.iter().map(|word| (*word).to_owned()).collect();
    Options { device_words, ssh_server: SshServer::BuiltIn, authorize_client: false, ..Options::default() }
}

/// A house whose device has no other ssh server.
fn in_builtin(more: &[&str], test: impl FnOnce(&mut World, &OwnTools) -> anyhow::Result<()>) -> anyhow::Result<()> {
    in_house(builtin(more), |world| {
        let tools = OwnTools::prepare(world)?;
        test(world, &tools)
    })
}

fn ssh(world: &World, tools: &OwnTools, words: &[&str]) -> anyhow::Result<Output> {
    let mut command = tools.ssh(world, "ssh", Sharing::Alone);
    command.args(words).stdin(Stdio::null());
    run(command, SESSION)
}

#[test]
fn a_command_has_the_users_surroundings_and_its_end_is_told() -> anyhow::Result<()> {
    in_builtin(&[], |world, tools| {
        let host = OwnTools::host();
        let line = "echo $USER $POSTERN_CLIENT; [ \"$PWD\" = \"$HOME\" ] && echo at home; umask; echo ${LANG-none} ${SECRET-none}; tty";
        let words = ["-o", "SetEnv=LANG=en_GB.UTF-8 SECRET=x", &host, line];
        let text = ssh(world, tools, &words)?.exited(1)?.text();
        let lines: Vec<&str> = text.lines().collect();
        let who = format!("{} {}", user_name(), World::CLIENT);
        ensure!(lines == [&who, "at home", "0022", "en_GB.UTF-8 none", "not a tty"], "{text}");

        // Killed by a signal: ssh's own exit code for it, and no other.
        ssh(world, tools, &[&host, "kill -TERM $$; sleep 9"])?.exited(255)?;
        ssh(world, tools, &[&host, "exit 42"])?.exited(42)?;
        let shell = ssh(world, tools, &["-tt", &host, "stty size; echo $TERM; ps -o stat= -p $$"])?.success()?.text();
        ensure!(shell.contains("0 0") || shell.contains("24 80"), "{shell}");
        // Leads its session, in the foreground.
        ensure!(shell.contains("s+"), "{shell}");
        // A session ends with its ssh: the device does not wait for it to come back.
        let start = Instant::now();
        while journal(world).matches(r#""event":"began""#).count()
            > journal(world).matches(r#""event":"ended""#).count()
        {
            ensure!(start.elapsed() < GONE, "a session goes on without its ssh: {}", journal(world));
            std::thread::sleep(Duration::from_millis(200));
        }
        // What is left behind does not hold the person up on a terminal.
        let left = ssh(world, tools, &["-tt", &host, "sleep 60 & echo started"])?.success()?;
        ensure!(left.text().contains("started") && left.took < SESSION / 2, "{:?}", left.took);
        Ok(())
    })
}

/// What the daemon has written of its sessions so far.
fn journal(world: &World) -> String {
    let journal = world.home_of(World::DEVICE).join(".local/state/postern/journal/sshnpd.gateway@device.jsonl");
    std::fs::read_to_string(journal).unwrap_or_default()
}

/// scp's old way runs a program there; 20 MiB each way, by either.
#[test]
fn scp_copies_both_ways_by_its_old_protocol_as_well() -> anyhow::Result<()> {
    in_builtin(&[], |world, tools| {
        let from = random_file(world.dir().join("from"), 20)?;
        for way in [&["-q"][..], &["-q", "-O"]] {
            let (there, back) = (world.dir().join("there"), world.dir().join("back"));
            let remote = format!("{}:{}", OwnTools::host(), there.display());
            for (source, to) in [(from.display().to_string(), remote.clone()), (remote, back.display().to_string())] {
                let mut scp = tools.ssh(world, "scp", Sharing::Alone);
                scp.args(way).args([&source, &to]);
                let took = run(scp, SESSION)?.success()?.took;
                say(format_args!("scp {way:?}: 20 MiB in {took:.1?}"));
            }
            ensure!(checksum(&from)? == checksum(&back)?, "scp {way:?}: what came back differs");
            std::fs::remove_file(there)?;
            std::fs::remove_file(back)?;
        }
        Ok(())
    })
}

/// The client does not read what the program says, and the program does not read on: neither the connection nor what was
/// sent may be lost by that.
#[test]
fn regression_a_reader_that_pauses_stops_nobody_for_ever() -> anyhow::Result<()> {
    in_builtin(&[], |world, tools| {
        let host = OwnTools::host();
        ssh_kept(world, tools, &[&host, "true"])?.success()?;
        let sent = random_file(world.dir().join("sent"), 24)?;
        let mut cat = tools.ssh(world, "ssh", Sharing::Kept);
        cat.args([&host, "cat"]).stdin(File::open(&sent)?).stdout(Stdio::piped());
        let mut cat = Running(cat.spawn()?);
        let mut out = cat.0.stdout.take().context("standard output was asked for")?;
        // It has begun, and then nobody reads.
        let mut head = vec![0; 1024];
        out.read_exact(&mut head)?;
        for n in 0..5 {
            // The same connection carries others meanwhile.
            let word = format!("word-{n}");
            let other = ssh_kept(world, tools, &[&host, &format!("sleep 0.2; echo {word}")])?.success()?;
            ensure!(other.text().trim() == word, "{}", other.text());
            if n == 4 {
                say(format_args!("beside a reader that pauses: {:.1?}", other.took));
            }
        }
        let daemon = world.piece(Piece::Device)?.id();
        ensure!(listeners_of(daemon)?.is_empty(), "the daemon listens: {:?}", listeners_of(daemon)?);
        ensure!(!listeners_of(world.piece(Piece::Relay)?.id())?.is_empty(), "nobody listens, so the look is no look");
        let received = world.dir().join("received");
        let mut file = File::create(&received)?;
        file.write_all(&head)?;
        std::io::copy(&mut out, &mut file)?;
        ensure!(cat.0.wait()?.success());
        ensure!(checksum(&sent)? == checksum(&received)?, "what came back differs");
        tools.forget(world)
    })
}

#[test]
fn ports_are_forwarded_as_far_as_permit_open_goes() -> anyhow::Result<()> {
    let target = TcpListener::bind("127.0.0.1:0")?;
    let port = target.local_addr()?.port();
    let forbidden = TcpListener::bind("127.0.0.1:0")?;
    let options = Options { permit_open: vec![format!("localhost:{port}")], ..builtin(&[]) };
    in_house(options, |world| {
        let tools = OwnTools::prepare(world)?;
        let echo = std::thread::spawn(move || -> std::io::Result<()> {
            let (mut socket, _) = target.accept()?;
            let mut text = Vec::new();
            socket.read_to_end(&mut text)?;
            socket.write_all(&text)
        });
        let host = OwnTools::host();
        let mut forward = tools.ssh(world, "ssh", Sharing::Alone);
        forward.args(["-W", &format!("localhost:{port}"), &host]);
        let mut forward = Process::start_with(forward, Stdio::piped())?;
        forward.stdin().context("standard input was asked for")?.write_all(b"through\n")?;
        let output = forward.wait(SESSION)?.success()?;
        ensure!(output.text() == "through", "{:?}", output.text());
        echo.join().map_err(|_| anyhow::anyhow!("the target panicked"))??;

        let port = forbidden.local_addr()?.port();
        let refused = ssh(world, &tools, &["-W", &format!("localhost:{port}"), &host])?;
        ensure!(!refused.status.success() && refused.stderr.contains("permit-open"), "{}", refused.stderr);
        // The other direction, and sockets with a name, are not served at all.
        let remote = ssh(world, &tools, &["-o", "ExitOnForwardFailure=yes", "-R", "0:localhost:1", &host, "true"])?;
        ensure!(!remote.status.success() && remote.stderr.contains("forwarding failed"), "{}", remote.stderr);
        forbidden.set_nonblocking(true)?;
        ensure!(forbidden.accept().is_err(), "the forbidden target was dialled");
        Ok(())
    })
}

#[test]
fn who_may_log_in_as_whom_is_what_the_device_says() -> anyhow::Result<()> {
    let own = user_name();
    let listed = format!("{}={own},nobody", World::CLIENT);
    in_builtin(&["--ssh-users", &listed], |world, tools| {
        let at = |user: &str| format!("{user}@{}", OwnTools::host());
        ensure!(ssh(world, tools, &[&at(&own), "echo in"])?.success()?.text() == "in");
        let refused = ssh(world, tools, &[&at("daemon"), "id"])?.exited(255)?;
        say(format_args!("{}", refused.stderr));
        ensure!(refused.stderr.contains("@client may not log in as that user"), "{}", refused.stderr);
        ensure!(
            refused.stderr.contains(&format!("{own} or nobody")) && refused.stdout.is_empty(),
            "{}",
            refused.stderr
        );
        let start = Instant::now();
        loop {
            let text = journal(world);
            if text.contains(&format!("ssh as {own}")) && text.contains("ssh as daemon: ") {
                break;
            }
            ensure!(start.elapsed() < COMMAND, "who logged in is not in the journal: {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
        if own != "root" {
            let refused = ssh(world, tools, &[&at("nobody"), "id"])?.exited(255)?;
            ensure!(refused.stderr.contains("cannot become nobody"), "{}", refused.stderr);
            say(format_args!("SKIPPED: to become another user, the test must run as root"));
            return Ok(());
        }
        nobody_has_nothing_of_root(world, tools, &at("nobody"))
    })
}

/// Its sftp server shows what it is: `nobody` needs no shell for that.
fn nobody_has_nothing_of_root(world: &World, tools: &OwnTools, nobody: &str) -> anyhow::Result<()> {
    // The test's own directory is closed to others.
    let room = tempfile::tempdir()?;
    let open = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(room.path(), open(0o777))?;
    let (secret, status) = (room.path().join("secret"), world.dir().join("status"));
    std::fs::write(&secret, "of root")?;
    std::fs::set_permissions(&secret, open(0o600))?;
    let sftp = |line: String| -> anyhow::Result<Output> {
        let batch = world.dir().join("batch");
        std::fs::write(&batch, line)?;
        let mut command = tools.ssh(world, "sftp", Sharing::Alone);
        command.arg("-b").arg(batch).arg(nobody);
        run(command, SESSION)
    };
    let mine = room.path().join("mine");
    sftp(format!("get /proc/self/status {}\nput {} {}\n", status.display(), secret.display(), mine.display()))?
        .success()?;
    let id = |flag: &str| -> anyhow::Result<String> {
        let mut command = Command::new("id");
        command.args([flag, "nobody"]);
        Ok(run(command, COMMAND)?.success()?.text())
    };
    let status = std::fs::read_to_string(status)?;
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    ensure!(line("Uid:") == vec![id("-u")?; 4] && line("Gid:") == vec![id("-g")?; 4], "{status}");
    ensure!(line("Groups:").join(" ") == id("-G")?, "{status}");
    ensure!(line("CapEff:") == ["0000000000000000"], "{status}");
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&mine)?);
    ensure!(owner.to_string() == id("-u")?, "the file belongs to {owner}");
    let denied = sftp(format!("get {} {}\n", secret.display(), world.dir().join("stolen").display()))?;
    ensure!(!denied.status.success() && denied.stderr.contains("ermission denied"), "{}", denied.stderr);
    Ok(())
}

/// A session of 2024 shows less of who asks; it is told so, and goes nowhere.
#[test]
fn a_session_that_is_not_sealed_does_not_reach_it() -> anyhow::Result<()> {
    in_builtin(&[], |world, _| {
        let mut npt = world.npt(world.ssh_port());
        npt.args(["--no-sealed", "-T", "30s"]);
        let refused = run(npt, SESSION)?;
        ensure!(!refused.status.success(), "it went in");
        let said = format!("{}{}", refused.text(), refused.stderr);
        ensure!(said.contains("takes sealed sessions alone"), "{said}");
        Ok(())
    })
}

/// The laptop is lost: what runs on the device under its name ends, also what does not want to.
#[test]
fn programs_end_with_the_session_that_started_them() -> anyhow::Result<()> {
    in_house(builtin(&[]), |world| {
        let (keys, id) = enrol(world)?;
        let tools = OwnTools::prepare_with(world, Told { key_file: Some(&keys), ..Told::default() })?;
        let host = OwnTools::host();
        let mut pids = Vec::new();
        let mut start = |words: &[&str]| -> anyhow::Result<Process> {
            let mut command = tools.ssh(world, "ssh", Sharing::Alone);
            command.args(words);
            let mut process = Process::start_with(command, Stdio::piped())?;
            let screen = process.wait_for_stdout(SESSION, |screen| screen.contains("pid=") && screen.contains(';'))?;
            let pid = screen.split("pid=").nth(1).and_then(|rest| rest.split(';').next()).context("no pid")?;
            pids.push(pid.trim().to_owned());
            Ok(process)
        };
        // Left by its client: told to go.
        let left = start(&[&host, "echo \"pid=$$;\"; exec sleep 1000"])?;
        drop(left.terminate(SESSION)?);
        // Taken away, with a terminal, without one, and deaf.
        let shell = start(&["-tt", &host, "echo \"pid=$$;\"; exec sleep 1000"])?;
        let deaf = start(&[&host, "trap '' HUP TERM; echo \"pid=$$;\"; sleep 1000; sleep 1000"])?;
        for pid in &pids[..1] {
            until_gone(pid)?;
        }
        ensure!(pids[1..].iter().all(|pid| is_there(pid)), "{pids:?} should run");
        decide(world, "revoke", &id)?;
        let revoked = Instant::now();
        let told = shell.wait(SESSION)?.exited(255)?;
        ensure!(told.stderr.contains("revoked"), "{}", told.stderr);
        deaf.wait(SESSION)?.exited(255)?;
        for pid in &pids {
            until_gone(pid)?;
        }
        say(format_args!("gone after {:.1?}", revoked.elapsed()));
        Ok(())
    })
}

/// Inodes of the TCP sockets on which a process listens. Source: proc(5), `/proc/net/tcp`.
fn listeners_of(pid: u32) -> anyhow::Result<Vec<String>> {
    const LISTEN: &str = "0A";
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let fields = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening: Vec<String> = fields
        .filter(|fields| fields.get(3) == Some(&LISTEN))
        .filter_map(|fields| Some(format!("socket:[{}]", fields.get(9)?)))
        .collect();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten();
    let open = open.filter_map(|fd| Some(std::fs::read_link(fd.path()).ok()?.to_str()?.to_owned()));
    Ok(open.filter(|file| listening.contains(file)).collect())
}

fn is_there(pid: &str) -> bool {
    Path::new("/proc").join(pid).join("cmdline").metadata().is_ok()
        && !std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().is_empty()
}

fn until_gone(pid: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    while is_there(pid) {
        ensure!(start.elapsed() < GONE, "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn ssh_kept(world: &World, tools: &OwnTools, words: &[&str]) -> anyhow::Result<Output> {
    let mut command = tools.ssh(world, "ssh", Sharing::Kept);
    command.args(words).stdin(Stdio::null());
    run(command, SESSION)
}

/// Killed when the test leaves early.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
