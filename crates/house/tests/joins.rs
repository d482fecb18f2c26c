//! One line to join: invited on the workstation, joined with nothing prepared, reached by name.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use postern_crypto::{AesKey, RsaPrivateKey};
use postern_house::cast::Cast;
use postern_house::meddler::Meddler;
use postern_house::{OwnTools, Sharing, in_house, programs_or_skip};
use postern_identity::{Anchor, Invitation, InvitationSecret};
use postern_net::tasks::Tasks;
use postern_proto::Request;
use postern_testkit::limits::{COMMAND, POLL, READY, SESSION};
use postern_testkit::{
    NatNetwork, Options, Output, Piece, Places, Process, World, quote_for_shell, run, say, shell_line,
};

const NAME: &str = "gw-17";

/// A machine with an empty home and no certificate of anybody.
struct Machine {
    home: PathBuf,
}

impl Machine {
    fn new(world: &World, name: &str) -> anyhow::Result<Self> {
        let home = world.dir().join(name);
        std::fs::create_dir(&home)?;
        Ok(Self { home })
    }

    fn program(&self, world: &World, words: &[&str]) -> Command {
        let mut command = world.postern(World::DEVICE);
        command.env("HOME", &self.home).env_remove("POSTERN_CA_FILE").args(words);
        command
    }

    fn config(&self) -> PathBuf {
        self.home.join("sshnpd.yaml")
    }

    fn join(&self, world: &World, line: &str) -> Command {
        let mut command = self.program(world, &["join", line, "--service", "none", "--patience", "5s"]);
        command.arg("--config").arg(self.config());
        command.args(["--sshd-port", &world.ssh_port().to_string(), "--ssh-host-keys"]).arg(world.dir());
        command
    }

    fn leave(&self, world: &World) -> anyhow::Result<Output> {
        let mut command = self.program(world, &["leave", "--config"]);
        command.arg(self.config());
        run(command, COMMAND)
    }

    fn daemon(&self, world: &World) -> Command {
        let mut command = self.program(world, &["sshnpd", "-v", "--config"]);
        command.arg(self.config());
        command
    }

    fn keys(&self) -> PathBuf {
        self.home.join(format!(".atsign/keys/{}_key.atKeys", World::DEVICE))
    }

    /// Files in its home.
    fn files(&self) -> Vec<PathBuf> {
        let (mut found, mut waiting) = (Vec::new(), vec![self.home.clone()]);
        while let Some(folder) = waiting.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() { waiting.push(entry.path()) } else { found.push(entry.path()) }
            }
        }
        found
    }

    fn is_untouched(&self) -> anyhow::Result<()> {
        let files = self.files();
        ensure!(files.is_empty(), "something was left behind: {files:?}");
        Ok(())
    }
}

/// The workstation, which has keys of the device's atSign.
fn invite(world: &World, words: &[&str]) -> Command {
    let mut command = world.postern(World::CLIENT);
    command.arg("invite").args(words).args(["-f", World::CLIENT, "-t", World::DEVICE, "-r", &world.root()]);
    command.arg("--device-keys").arg(world.key_file(World::DEVICE));
    command
}

fn line_for(world: &World, name: &str) -> anyhow::Result<String> {
    Ok(run(invite(world, &[name, "--no-wait"]), COMMAND)?.success()?.text())
}

/// An invitation whose inviter waits.
fn attended(world: &World, words: &[&str]) -> anyhow::Result<(Process, String)> {
    let mut waiting = Process::start(invite(world, &[words, &["--wait"]].concat()))?;
    let line = waiting.wait_for_stdout(READY, |text| text.ends_with('\n'))?;
    Ok((waiting, line.trim().to_owned()))
}

fn no_daemon() -> Options {
    Options { own_daemon: false, ..Options::default() }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + SESSION;
    while !is_so() {
        ensure!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// The whole way in a terminal, recorded: invite (which waits), join, daemon, ssh.
#[test]
fn with_nothing_prepared_a_line_is_enough_and_ssh_works_within_10_s() -> anyhow::Result<()> {
    if !programs_or_skip(&["script", "ssh"])? {
        return Ok(());
    }
    let Some(network) = NatNetwork::build_or_skip()? else { return Ok(()) };
    let places = Places { client: network.client(), server: network.server(), device: network.device() };
    let mut world = World::start(Options { places, ..no_daemon() })?;
    let outcome = in_a_terminal(&world);
    if outcome.is_err() {
        say(format_args!("{}", world.last_words()));
    }
    outcome?;
    world.kill_piece(Piece::Server)
}

fn in_a_terminal(world: &World) -> anyhow::Result<()> {
    let tools = OwnTools::prepare(world)?;
    let machine = Machine::new(world, "fresh")?;
    let mut ssh = tools.ssh(world, "ssh", Sharing::Alone);
    ssh.args([&format!("{NAME}.np"), "echo this is $(hostname) && true"]);
    let mut inviter = invite(world, &[NAME, "--label", "site=milano"]);
    // The workstation has a terminal of its own, where a line may stand while it waits.
    inviter.env("TERM", "dumb");
    let story = Story { invite: inviter, join: machine.join(world, "LINE"), daemon: machine.daemon(world), ssh };
    let script = world.dir().join("story.sh");
    std::fs::write(&script, story.print(world.dir()))?;
    let (timing, output) = (world.dir().join("timing"), world.dir().join("typescript"));
    let mut terminal = Command::new("script");
    terminal.args(["-q", "-e", "-c", &format!("sh {}", quote_for_shell(&script.display().to_string()))]);
    terminal.arg("--log-timing").arg(&timing).arg("--log-out").arg(&output);
    terminal.env("COLUMNS", "100").env("LINES", "60").env_remove("NO_COLOR");
    let shown = run(terminal, SESSION * 2)?;
    let text = std::fs::read_to_string(&output)?;
    let cast = Cast::read(&timing, &output)?.save("joins")?;
    say(format_args!("recorded: {}", cast.display()));
    ensure!(shown.status.success(), "{text}");
    for wanted in ["▀", "joined: @client may come in", "has joined; its key is pinned", "this is ", "site=milano"] {
        ensure!(text.contains(wanted), "{wanted:?} is not shown:\n{text}");
    }
    let took = std::fs::read_to_string(world.dir().join("took"))?;
    let times: Vec<u64> = took.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [joined, ssh] = *times.as_slice() else { anyhow::bail!("no times: {took:?}") };
    say(format_args!("join, start of the daemon, approval seen: {joined} ms; ssh {NAME}.np: {ssh} ms"));
    ensure!(ssh < 10_000, "ssh took {ssh} ms");

    let mut pins = world.postern(World::CLIENT);
    pins.args(["pin", "list"]);
    let pins = run(pins, COMMAND)?.success()?.text();
    let pin = pins.lines().find(|line| line.contains(&format!("{NAME}{}", World::DEVICE)));
    ensure!(pin.is_some_and(|pin| pin.contains("given")), "the device's key is not pinned as given: {pins}");
    let known = std::fs::read_to_string(machine.home.join(".config/postern/known_atsigns"))?;
    ensure!(known.contains(World::CLIENT) && known.contains("given"), "the manager is not pinned: {known}");
    Ok(())
}

/// What the person types, here and there.
struct Story {
    invite: Command,
    join: Command,
    daemon: Command,
    ssh: Command,
}

impl Story {
    /// As a script: each step shows what a person would type, and then does it.
    fn print(&self, dir: &Path) -> String {
        let of = |command: &Command| format!("{}{}", env_words(command), shell_line(command));
        let [line, log, took] =
            ["line", "daemon.log", "took"].map(|name| quote_for_shell(&dir.join(name).display().to_string()));
        let join = of(&self.join).replace("LINE", &format!("\"$(cat {line})\""));
        format!(
            r#"set -u
daemon=; inviter=
trap 'for id in $daemon $inviter; do kill $id 2>/dev/null; done' EXIT
patiently() {{ n=0; until "$@"; do n=$((n+1)); [ $n -lt 600 ] || {{ cat {log}; exit 9; }}; sleep 0.05; done; }}
echo 'workstation$ postern invite {NAME} --label site=milano'
{invite} > {line} &
inviter=$!
patiently test -s {line}
cat {line}
echo
echo '{NAME}$ postern join LINE'
begun=$(date +%s%3N)
{join} || exit 3
echo '{NAME}$ postern sshnpd &'
{daemon} 2> {log} &
daemon=$!
patiently grep -q 'monitor started' {log}
wait $inviter || exit 4
inviter=
echo 'workstation$ ssh {NAME}.np true'
joined=$(date +%s%3N)
{ssh} || exit 5
echo $((joined - begun)) $(( $(date +%s%3N) - joined )) > {took}
echo 'workstation$ postern invite list'
{list}
"#,
            invite = of(&self.invite),
            daemon = of(&self.daemon),
            ssh = of(&self.ssh),
            list = of(&self.invite).replace(&format!(" {NAME} "), " list #"),
        )
    }
}

fn env_words(command: &Command) -> String {
    let (mut gone, mut set) = (String::from("env "), String::new());
    for (name, value) in command.get_envs() {
        let name = name.to_string_lossy();
        match value {
            Some(value) => set.push_str(&format!("{name}={} ", quote_for_shell(&value.to_string_lossy()))),
            None => gone.push_str(&format!("-u {name} ")),
        }
    }
    gone + &set
}

#[test]
fn lines_that_are_no_good_say_why_and_leave_nothing_behind() -> anyhow::Result<()> {
    in_house(no_daemon(), |world| {
        let machine = Machine::new(world, "fresh")?;
        let refused = |line: &str, code: i32, word: &str| -> anyhow::Result<()> {
            let output = run(machine.join(world, line), COMMAND)?.exited(code)?;
            ensure!(output.stderr.contains(word), "{word:?} was not said: {}", output.stderr);
            machine.is_untouched().with_context(|| word.to_owned())
        };
        let good = line_for(world, NAME)?;
        // Mistyped, cut, nothing of the kind.
        let mut slip = good.clone();
        slip.replace_range(20..21, if &good[20..21] == "a" { "b" } else { "a" });
        refused(&slip, 2, "mistyped")?;
        refused(&good[..good.len() - 5], 2, "mistyped")?;
        refused("https://example.org", 2, "no invitation")?;
        // A directory with another key than the line's; an atSign with another key.
        let changed = |change: fn(&mut Invitation)| -> anyhow::Result<String> {
            let mut invitation = Invitation::parse(&good)?;
            change(&mut invitation);
            Ok(invitation.print().to_string())
        };
        refused(&changed(|line| line.anchor = Anchor::Key([7; 16]))?, 5, "does not show the key")?;
        refused(&changed(|line| line.anchor = Anchor::System)?, 1, "certificate")?;
        refused(&changed(|line| line.at_sign_key = [7; 16])?, 5, "another key for @device")?;
        refused(&changed(|line| line.expires = 1_700_000_000)?, 3, "expired at 2023-11-14")?;
        refused(&changed(|line| line.directory.port = 1)?, 1, "could not connect")?;
        // Somewhere nothing can be written.
        let mut nowhere = machine.join(world, &good);
        nowhere.args(["-k", "/proc/nowhere/x.atKeys"]);
        let output = run(nowhere, COMMAND)?.exited(1)?;
        ensure!(output.stderr.contains("cannot write into /proc/nowhere"), "{}", output.stderr);
        machine.is_untouched()?;
        // Keys that are there already.
        std::fs::create_dir_all(machine.keys().parent().context("a folder")?)?;
        std::fs::write(machine.keys(), "precious")?;
        let output = run(machine.join(world, &good), COMMAND)?.exited(4)?;
        ensure!(output.stderr.contains("never overwritten"), "{}", output.stderr);
        ensure!(std::fs::read_to_string(machine.keys())? == "precious" && machine.files().len() == 1);
        std::fs::remove_file(machine.keys())?;
        // Taken back.
        let twice = run(invite(world, &[NAME, "--no-wait"]), COMMAND)?.exited(4)?;
        ensure!(twice.stderr.contains("open invitation"), "{}", twice.stderr);
        let mut cancel = world.postern(World::CLIENT);
        cancel.args(["invite", "cancel", NAME, "-t", World::DEVICE, "-r", &world.root(), "--device-keys"]);
        cancel.arg(world.key_file(World::DEVICE));
        run(cancel, COMMAND)?.success()?;
        refused(&good, 3, "used up, expired or cancelled")?;
        // The inviter's clock decides too: who comes late is refused.
        let late = run(invite(world, &[NAME, "--no-wait", "--expires", "1s"]), COMMAND)?.success()?.text();
        let ends = Invitation::parse(&late)?.expires;
        wait_until("the end", || postern_client::trust::now_ms() / 1000 > u64::from(ends))?;
        refused(&late, 3, "expired")?;
        Ok(())
    })
}

/// The server's certificate is of an authority that machines know anyway, as those of the public ones.
#[test]
fn where_the_system_knows_the_authority_the_line_carries_none_and_nothing_is_kept_of_it() -> anyhow::Result<()> {
    in_house(no_daemon(), |world| {
        let knowing = |mut command: Command| {
            command.env_remove("POSTERN_CA_FILE").env("SSL_CERT_FILE", world.ca_file());
            command
        };
        let mut inviter = Process::start(knowing(invite(world, &[NAME, "--wait"])))?;
        let line = inviter.wait_for_stdout(READY, |text| text.ends_with('\n'))?.trim().to_owned();
        ensure!(Invitation::parse(&line)?.anchor == Anchor::System, "the line names a key");
        let machine = Machine::new(world, "fresh")?;
        let stranger = run(machine.join(world, &line), COMMAND)?.exited(1)?;
        ensure!(stranger.stderr.contains("certificate"), "{}", stranger.stderr);
        machine.is_untouched()?;
        run(knowing(machine.join(world, &line)), SESSION)?.success()?;
        let kept: Vec<_> = machine.files().into_iter().filter(|file| file.ends_with("ca.pem")).collect();
        ensure!(kept.is_empty(), "an authority was written down: {kept:?}");
        inviter.wait(SESSION)?.success()?;
        let mut daemon = Process::start(knowing(machine.daemon(world)))?;
        daemon.wait_for_line(READY, |line| line.contains("monitor started"))?;
        daemon.terminate(COMMAND)?;
        let mut leave = knowing(machine.program(world, &["leave", "--config"]));
        leave.arg(machine.config());
        let left = run(leave, COMMAND)?.success()?;
        ensure!(left.stderr.contains("the server has taken the enrolment back"), "{}", left.stderr);
        Ok(())
    })
}

#[test]
fn a_wrong_secret_burns_the_invitation() -> anyhow::Result<()> {
    in_house(no_daemon(), |world| {
        let machine = Machine::new(world, "fresh")?;
        let (inviter, line) = attended(world, &[NAME])?;
        let mut guess = Invitation::parse(&line)?;
        guess.secret = InvitationSecret::generate();
        let output = run(machine.join(world, &guess.print()), SESSION)?.exited(3)?;
        ensure!(output.stderr.contains("refused this device"), "{}", output.stderr);
        machine.is_untouched()?;
        let told = inviter.wait(SESSION)?.exited(3)?;
        ensure!(told.stderr.contains("does not know the secret") && told.stderr.contains("burned"), "{}", told.stderr);
        // The right one comes too late.
        let output = run(machine.join(world, &line), COMMAND)?.exited(3)?;
        ensure!(output.stderr.contains("used up"), "{}", output.stderr);
        machine.is_untouched()
    })
}

/// The operator of the server changes the request on its way: both keys in it, one after the other.
#[test]
fn a_server_that_puts_keys_of_its_own_into_the_request_gets_nothing() -> anyhow::Result<()> {
    in_house(no_daemon(), |world| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let tasks = Tasks::new();
        let meddler = runtime.block_on(Meddler::start(world, &tasks))?;
        let through = |name: &str| -> anyhow::Result<(Process, String)> {
            let mut command = world.postern(World::CLIENT);
            command.args(["invite", name, "--wait", "-f", World::CLIENT, "-t", World::DEVICE, "-r", &meddler.root()]);
            command.arg("--device-keys").arg(world.key_file(World::DEVICE));
            let mut waiting = Process::start(command)?;
            let line = waiting.wait_for_stdout(READY, |text| text.ends_with('\n'))?;
            Ok((waiting, line.trim().to_owned()))
        };
        // Under a symmetric key that the server knows, it would read the atSign's keys.
        let machine = Machine::new(world, "fresh")?;
        let (inviter, line) = through("gw-18")?;
        meddler.meddle(|request| {
            let Request::Enroll(enroll) = request else { return };
            let owner = RsaPrivateKey::generate().and_then(|key| key.public_key()).expect("a key");
            let sealed = owner.encrypt_aes_key(&AesKey::generate()).expect("sealed");
            enroll.params.encrypted_apkam_symmetric_key = Some(sealed);
        });
        let output = run(machine.join(world, &line), SESSION)?.exited(3)?;
        ensure!(output.stderr.contains("refused this device"), "{}", output.stderr);
        let told = inviter.wait(SESSION)?.exited(3)?;
        ensure!(told.stderr.contains("the server has changed the request"), "{}", told.stderr);
        machine.is_untouched()?;
        // With a public key of its own, it would log in; the device is told apart at once.
        let (inviter, line) = through("gw-19")?;
        meddler.meddle(|request| {
            let Request::Enroll(enroll) = request else { return };
            let own = RsaPrivateKey::generate().and_then(|key| key.public_key()).expect("a key").to_base64();
            (enroll.params.apkam_public_key, enroll.params.apsk_legacy) = (Some(own.clone()), Some(own));
        });
        let output = run(machine.join(world, &line), SESSION)?.exited(5)?;
        ensure!(output.stderr.contains("it keeps another one in its place"), "{}", output.stderr);
        machine.is_untouched()?;
        drop(inviter);
        runtime.block_on(tasks.close_and_wait(Duration::from_secs(1)));
        Ok(())
    })
}

#[test]
fn interrupted_it_goes_on_and_leaving_undoes_it() -> anyhow::Result<()> {
    in_house(no_daemon(), |world| {
        let machine = Machine::new(world, "fresh")?;
        let line = line_for(world, NAME)?;
        let mut first = Process::start(machine.join(world, &line))?;
        first.wait_for_line(READY, |text| text.contains("waiting for the inviter"))?;
        first.kill();
        ensure!(!machine.keys().exists() && !machine.config().exists(), "half a device");
        let approved = run(invite_word(world, "approve"), COMMAND)?.success()?;
        ensure!(approved.stderr.contains("asked as invited, and is let in"), "{}", approved.stderr);

        let done = run(machine.join(world, &line), SESSION)?.success()?;
        ensure!(done.stderr.contains("going on with the request"), "{}", done.stderr);
        let fingerprint = done.text();
        ensure!(fingerprint.starts_with("gw-17@device SHA256:"), "{fingerprint}");
        let news = run(invite_word(world, "approve"), COMMAND)?.success()?;
        ensure!(news.stderr.contains(fingerprint.rsplit(' ').next().unwrap_or("?")), "{}", news.stderr);
        // Once more does no harm, and another machine with the same line stays out.
        let again = run(machine.join(world, &line), COMMAND)?.success()?;
        ensure!(again.stderr.contains("has joined already"), "{}", again.stderr);
        let other = Machine::new(world, "other")?;
        let used = run(other.join(world, &line), COMMAND)?.exited(3)?;
        ensure!(used.stderr.contains("used up"), "{}", used.stderr);
        other.is_untouched()?;
        let taken = run(invite(world, &[NAME, "--no-wait"]), COMMAND)?.exited(4)?;
        ensure!(taken.stderr.contains("there is a device gw-17@device (approved) already"), "{}", taken.stderr);

        let daemon = world.start_daemon(machine.daemon(world))?;
        let left = machine.leave(world)?.success()?;
        ensure!(left.stderr.contains("the server has taken the enrolment back"), "{}", left.stderr);
        let stays: Vec<PathBuf> = machine.files();
        let secret = |path: &PathBuf| {
            ["atKeys", "key", "yaml", "pem"].iter().any(|end| path.extension().is_some_and(|e| e == *end))
        };
        ensure!(!stays.iter().any(secret), "what join wrote is still there: {stays:?}");
        daemon.kill();
        let mut revoked = world.postern(World::DEVICE);
        revoked.args(["at_activate", "list", "-s", "revoked", "-a", World::DEVICE, "-r", &world.root()]);
        let revoked = run(revoked, COMMAND)?.success()?.text();
        ensure!(revoked.contains(NAME), "{revoked}");
        machine.leave(world)?.exited(4)?;
        Ok(())
    })
}

/// A memory card that is full or cannot be written is noticed before anybody is asked for anything.
#[test]
fn a_full_disk_and_a_read_only_home_cost_no_invitation() -> anyhow::Result<()> {
    if !programs_or_skip(&["unshare", "mount"])? {
        return Ok(());
    }
    in_house(no_daemon(), |world| {
        let (inviter, line) = attended(world, &[NAME])?;
        let machine = Machine::new(world, "fresh")?;
        for (mount, word) in [("size=16k", "No space left"), ("ro", "Read-only file system")] {
            let join = machine.join(world, &line);
            let script = format!(
                "mount -t tmpfs -o {mount} none {} && {}{}",
                quote_for_shell(&machine.home.display().to_string()),
                env_words(&join),
                shell_line(&join)
            );
            let mut alone = Command::new("unshare");
            alone.args(["-m", "sh", "-c", &script]);
            let output = run(alone, COMMAND)?.exited(1)?;
            ensure!(output.stderr.contains(word) && output.stderr.contains("nothing was changed"), "{}", output.stderr);
        }
        run(machine.join(world, &line), SESSION)?.success()?;
        inviter.wait(SESSION)?.success()?;
        Ok(())
    })
}

/// As on a machine with the package: the service's user has a home of its own, and is not root.
#[test]
fn the_service_is_started_and_owns_what_it_needs() -> anyhow::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    in_house(no_daemon(), |world| {
        let (inviter, line) = attended(world, &[NAME])?;
        let machine = Machine::new(world, "root")?;
        let (programs, log, home) = (world.dir().join("bin"), world.dir().join("calls"), world.dir().join("service"));
        std::fs::create_dir(&programs)?;
        std::fs::create_dir(&home)?;
        let is_root = std::os::unix::fs::chown(&home, Some(65_534), Some(65_534)).is_ok();
        let systemctl = programs.join("systemctl");
        std::fs::write(
            &systemctl,
            format!("#!/bin/sh\necho \"$@\" >> {}\n", quote_for_shell(&log.display().to_string())),
        )?;
        std::fs::set_permissions(&systemctl, std::fs::Permissions::from_mode(0o755))?;
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", programs.display());
        let mut join = machine.program(world, &["join", &line, "--service", "systemd", "--dir"]);
        join.arg(&home).arg("--config").arg(machine.config()).env("PATH", &path);
        run(join, SESSION)?.success()?;
        inviter.wait(SESSION)?.success()?;
        let calls = std::fs::read_to_string(&log)?;
        ensure!(calls.ends_with("enable sshnpd.service\nrestart sshnpd.service\n"), "{calls}");
        let keys = std::fs::metadata(home.join(format!(".atsign/keys/{}_key.atKeys", World::DEVICE)))?;
        ensure!(keys.permissions().mode() & 0o777 == 0o600, "the keys are not private");
        ensure!(!is_root || keys.uid() == 65_534, "the keys belong to {}", keys.uid());
        let mut leave = machine.program(world, &["leave", "--dir"]);
        leave.arg(&home).arg("--config").arg(machine.config()).env("PATH", &path);
        run(leave, COMMAND)?.success()?;
        ensure!(std::fs::read_to_string(&log)?.ends_with("disable --now sshnpd.service\n"), "the service runs on");
        machine.is_untouched()
    })
}

#[test]
fn a_card_for_many_machines_gives_each_a_name_of_its_own() -> anyhow::Result<()> {
    in_house(no_daemon(), |world| {
        let (inviter, lines) = {
            let mut inviter = Process::start(invite(world, &["pallet-08", "--count", "3", "--wait"]))?;
            let lines = inviter.wait_for_stdout(READY, |text| text.matches('\n').count() == 3)?;
            (inviter, lines)
        };
        let mut names = Vec::new();
        for home in ["one", "two", "three"] {
            let machine = Machine::new(world, home)?;
            let card = machine.home.join("postern.join");
            std::fs::write(&card, format!("# from the factory\n{lines}"))?;
            let mut join = machine.program(world, &["join", "--service", "none", "--file"]);
            join.arg(&card).arg("--config").arg(machine.config());
            let output = run(join, SESSION)?.success()?;
            ensure!(!card.exists(), "the card still holds the secrets of others");
            names.push(output.text().split('@').next().unwrap_or_default().to_owned());
            // At the next boot there is nothing to do.
            let mut join = machine.program(world, &["join", "--service", "none", "--file"]);
            join.arg(&card).arg("--config").arg(machine.config());
            run(join, COMMAND)?.success()?;
        }
        names.sort();
        ensure!(names == ["pallet-08", "pallet-09", "pallet-10"], "{names:?}");
        inviter.wait(SESSION)?.success()?;
        Ok(())
    })
}

fn invite_word(world: &World, word: &str) -> Command {
    let mut command = world.postern(World::CLIENT);
    command.args(["invite", word, "-f", World::CLIENT, "-t", World::DEVICE, "-r", &world.root(), "--device-keys"]);
    command.arg(world.key_file(World::DEVICE)).stdin(Stdio::null());
    command
}
