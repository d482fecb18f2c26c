//! People's own ssh, scp, sftp, rsync and git go to a device by its name alone: `StrictHostKeyChecking yes`, nothing is
//! asked, each with a connection of its own and over one that ssh keeps. Nobody wrote a host key down: the device signs them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use postern_house::enrolment::{decide, enrol};
use postern_house::{OwnTools, Sharing, Told, checksum, in_house, programs_or_skip, random_file};
use postern_testkit::limits::SESSION;
use postern_testkit::{Options, Output, Process, SshServer, World, run, say};

/// Mebibytes of a copied file: many records of every cipher on the way, many windows of ssh's own.
const FILE_MIB: u64 = 4;
/// A session is over this long after what it stands on was taken away, and the processes around it.
const GONE: Duration = Duration::from_secs(12);

#[test]
fn ssh_scp_sftp_rsync_and_git_work_and_nothing_is_asked() -> anyhow::Result<()> {
    if !programs_or_skip(&["ssh", "scp", "sftp", "rsync", "git"])? {
        return Ok(());
    }
    in_house(Options::default(), |world| everything_works(world))
}

/// The same on a device without an ssh server, an sftp server or an authorised key.
#[test]
fn the_built_in_ssh_server_does_all_of_it_too() -> anyhow::Result<()> {
    if !programs_or_skip(&["ssh", "scp", "sftp", "rsync", "git"])? {
        return Ok(());
    }
    in_house(Options { ssh_server: SshServer::BuiltIn, authorize_client: false, ..Options::default() }, |world| {
        everything_works(world)
    })
}

/// OpenWrt's ssh server, without one for sftp: what its own users do with it.
#[test]
fn dropbear_is_known_by_its_signed_host_key_and_does_what_it_can() -> anyhow::Result<()> {
    if !programs_or_skip(&["ssh", "scp", "rsync", "git", "dropbear", "dropbearkey", "unshare"])? {
        return Ok(());
    }
    in_house(Options { ssh_server: SshServer::Dropbear, ..Options::default() }, |world| {
        let tools = OwnTools::prepare(world)?;
        for sharing in Sharing::BOTH {
            let bench = Bench::new(world, &tools, sharing)?;
            bench.ssh()?;
            bench.scp(&["-O"])?;
            bench.rsync()?;
            bench.git()?;
        }
        let asked = tools.asked();
        ensure!(asked.is_empty(), "ssh asked: {asked}");
        Ok(())
    })
}

fn everything_works(world: &World) -> anyhow::Result<()> {
    let tools = OwnTools::prepare(world)?;
    for sharing in Sharing::BOTH {
        let bench = Bench::new(world, &tools, sharing)?;
        bench.ssh()?;
        bench.scp(&[])?;
        bench.sftp()?;
        bench.rsync()?;
        bench.git()?;
        ensure!(tools.is_kept(world)? == (sharing == Sharing::Kept), "{sharing:?}, and it was not so");
    }
    tools.forget(world)?;
    let asked = tools.asked();
    ensure!(asked.is_empty(), "ssh asked: {asked}");
    Ok(())
}

/// Proof that the test above would see a question.
#[test]
fn a_question_would_be_seen() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let tools = OwnTools::prepare(world)?;
        let mut command = tools.ssh(world, "ssh", Sharing::Alone);
        // Without a file to write to, ssh does not even ask.
        let file = format!("UserKnownHostsFile={}", world.dir().join("known_hosts").display());
        command.args(["-o", "StrictHostKeyChecking=ask", "-o", "KnownHostsCommand=none", "-o", &file]);
        command.args([&OwnTools::host(), "true"]);
        let output = run(command, SESSION)?.exited(255)?;
        let asked = tools.asked();
        ensure!(
            asked.contains("Are you sure you want to continue connecting"),
            "ssh asked only: {asked:?}\n{}",
            output.stderr
        );
        Ok(())
    })
}

/// The laptop is lost: its enrolment is revoked, and its shell is over, with the reason.
#[test]
fn a_revoked_enrolment_ends_a_live_ssh() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let (keys, id) = enrol(world)?;
        let tools = OwnTools::prepare_with(world, Told { key_file: Some(&keys), ..Told::default() })?;
        let mut shell = tools.ssh(world, "ssh", Sharing::Alone);
        shell.args(["-tt", &OwnTools::host()]);
        let mut shell = Process::start_with(shell, Stdio::piped())?;
        let mut keyboard = shell.stdin().context("standard input was asked for")?;
        keyboard.write_all(b"echo sum-$((40+2))\n")?;
        shell.wait_for_stdout(SESSION, |screen| screen.contains("sum-42"))?;
        decide(world, "revoke", &id)?;
        let revoked = Instant::now();
        let ended = shell.wait(SESSION)?.exited(255)?;
        say(format_args!("over after {:.1?}: {}", revoked.elapsed(), ended.stderr));
        ensure!(revoked.elapsed() < GONE, "it took {:?}", revoked.elapsed());
        ensure!(ended.stderr.contains("revoked"), "{}", ended.stderr);
        let again = tools.on_device(world, Sharing::Alone, "echo inside")?.exited(255)?;
        ensure!(again.stdout.is_empty(), "{:?}", again.text());
        Ok(())
    })
}

/// One way of sharing connections, with a directory for what is copied.
struct Bench<'a> {
    world: &'a World,
    tools: &'a OwnTools,
    sharing: Sharing,
    room: PathBuf,
}

impl<'a> Bench<'a> {
    fn new(world: &'a World, tools: &'a OwnTools, sharing: Sharing) -> anyhow::Result<Self> {
        let room = world.dir().join(format!("{sharing:?}"));
        std::fs::create_dir(&room)?;
        Ok(Self { world, tools, sharing, room })
    }

    /// A command's output, input and status go through; so does a shell with a terminal.
    fn ssh(&self) -> anyhow::Result<()> {
        let host = OwnTools::host();
        let mut command = self.tools.ssh(self.world, "ssh", self.sharing);
        command.args([&host, "cat; echo talk >&2; exit 7"]);
        let mut process = Process::start_with(command, Stdio::piped())?;
        process.stdin().context("standard input was asked for")?.write_all(b"from here\n")?;
        let output = process.wait(SESSION)?.exited(7)?;
        ensure!(output.stdout == b"from here\n", "{:?}", output.text());
        ensure!(output.stderr.lines().any(|line| line == "talk"), "{}", output.stderr);
        self.say("ssh", &output);

        let mut shell = self.tools.ssh(self.world, "ssh", self.sharing);
        shell.args(["-tt", &host]);
        let mut shell = Process::start_with(shell, Stdio::piped())?;
        let mut keyboard = shell.stdin().context("standard input was asked for")?;
        keyboard.write_all(b"tty; echo sum-$((40+2))\n")?;
        shell.wait_for_stdout(SESSION, |screen| screen.contains("/dev/pts/") && screen.contains("sum-42"))?;
        keyboard.write_all(b"exit 5\n")?;
        shell.wait(SESSION)?.exited(5)?;
        Ok(())
    }

    /// A directory there, a file back.
    fn scp(&self, words: &[&str]) -> anyhow::Result<()> {
        let (host, from, to) = (OwnTools::host(), self.room.join("scp"), self.room.join("scp-there"));
        std::fs::create_dir_all(from.join("deep"))?;
        let file = random_file(from.join("deep/file"), FILE_MIB)?;
        let mut up = self.tools.ssh(self.world, "scp", self.sharing);
        up.args(words).arg("-qrp").arg(&from).arg(format!("{host}:{}", to.display()));
        self.say("scp up", &run(up, SESSION)?.success()?);
        let back = self.room.join("scp-back");
        let mut down = self.tools.ssh(self.world, "scp", self.sharing);
        down.args(words).arg("-q").arg(format!("{host}:{}", to.join("deep/file").display())).arg(&back);
        self.say("scp down", &run(down, SESSION)?.success()?);
        same(&file, &back)
    }

    /// A session of several commands.
    fn sftp(&self) -> anyhow::Result<()> {
        let file = random_file(self.room.join("sftp"), FILE_MIB)?;
        let (there, back) = (self.room.join("sftp-there"), self.room.join("sftp-back"));
        let batch = format!(
            "mkdir {there}\nput {file} {there}/file\nrename {there}/file {there}/other\nget {there}/other {back}\nls -1 {there}\n",
            there = there.display(),
            file = file.display(),
            back = back.display()
        );
        let mut command = self.tools.ssh(self.world, "sftp", self.sharing);
        // Without -b, which is also BatchMode: nothing would be asked then.
        command.args(["-q", &OwnTools::host()]);
        let mut process = Process::start_with(command, Stdio::piped())?;
        process.stdin().context("standard input was asked for")?.write_all(batch.as_bytes())?;
        let output = process.wait(SESSION)?.success()?;
        self.say("sftp", &output);
        ensure!(output.text().contains(&there.join("other").display().to_string()), "{}", output.text());
        same(&file, &back)
    }

    /// A tree, and again after a change: only what changed is sent, and what is gone goes there too.
    fn rsync(&self) -> anyhow::Result<()> {
        let (from, to) = (self.room.join("rsync"), self.room.join("rsync-there"));
        std::fs::create_dir(&from)?;
        let file = random_file(from.join("file"), FILE_MIB)?;
        std::fs::write(from.join("gone"), "soon")?;
        let copy = || -> anyhow::Result<Output> {
            let mut command = self.tools.over(self.world, "rsync", self.sharing);
            command.args(["-a", "--delete", "--no-whole-file", "--stats"]).arg(format!("{}/", from.display()));
            command.arg(format!("{}:{}/", OwnTools::host(), to.display()));
            run(command, SESSION)?.success()
        };
        self.say("rsync", &copy()?);
        same(&file, &to.join("file"))?;
        std::fs::OpenOptions::new().append(true).open(&file)?.write_all(b"one line more\n")?;
        std::fs::remove_file(from.join("gone"))?;
        let again = copy()?;
        self.say("rsync again", &again);
        same(&file, &to.join("file"))?;
        ensure!(!to.join("gone").exists(), "what is gone here is still there");
        let text = again.text();
        let sent = text.lines().find_map(|line| line.strip_prefix("Literal data: ")?.split(' ').next());
        let sent: u64 = sent.context("no count of what was sent")?.replace(',', "").parse()?;
        ensure!(sent < 64 << 10, "{sent} bytes for one line more");
        Ok(())
    }

    /// A repository here, and something new there.
    fn git(&self) -> anyhow::Result<()> {
        let (there, here) = (self.room.join("repository.git"), self.room.join("clone"));
        self.run_git(Path::new("/"), &["init", "-q", "--bare", "-b", "main", path(&there)?])?;
        let seed = self.room.join("seed");
        self.run_git(Path::new("/"), &["init", "-q", "-b", "main", path(&seed)?])?;
        random_file(seed.join("file"), 1)?;
        self.run_git(&seed, &["add", "file"])?;
        self.run_git(&seed, &["commit", "-q", "-m", "one"])?;
        self.run_git(&seed, &["push", "-q", path(&there)?, "main"])?;

        let url = format!("{}:{}", OwnTools::host(), there.display());
        self.say("git clone", &self.run_git(Path::new("/"), &["clone", "-q", &url, path(&here)?])?);
        same(&seed.join("file"), &here.join("file"))?;
        std::fs::write(here.join("new"), "line\n")?;
        self.run_git(&here, &["add", "new"])?;
        self.run_git(&here, &["commit", "-q", "-m", "two"])?;
        self.say("git push", &self.run_git(&here, &["push", "-q"])?);
        let subject = self.run_git(&there, &["log", "-1", "--format=%s", "main"])?.text();
        ensure!(subject == "two", "the last commit there is {subject:?}");
        Ok(())
    }

    fn run_git(&self, dir: &Path, words: &[&str]) -> anyhow::Result<Output> {
        let mut command: Command = self.tools.over(self.world, "git", self.sharing);
        // The settings of the person who runs the test stay out of it.
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "Nobody").env(format!("GIT_{who}_EMAIL"), "nobody@example.org");
        }
        command.arg("-C").arg(dir).args(words);
        run(command, SESSION)?.success().with_context(|| format!("git {}", words.join(" ")))
    }

    fn say(&self, what: &str, output: &Output) {
        say(format_args!("{:?}: {what}: {:.1?}", self.sharing, output.took));
    }
}

fn path(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is no text")
}

fn same(one: &Path, other: &Path) -> anyhow::Result<()> {
    ensure!(checksum(one)? == checksum(other)?, "{} and {} differ", one.display(), other.display());
    Ok(())
}
