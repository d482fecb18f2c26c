//! It is over when it is over: what a live sealed session stands on is taken away, and it ends within 10 s, at both ends,
//! with a word why. `sshnpd status` shows who is in meanwhile.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use postern_house::caller::{Caller, TicketRelay, Wish};
use postern_house::enrolment::{decide, enrol};
use postern_house::in_house;
use postern_link::sealed::{Local, Sealed, Target, Why};
use postern_net::tasks::Tasks;
use postern_session::HostPort;
use postern_testkit::limits::{COMMAND, READY};
use postern_testkit::{Options, Process, World, run, say};
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, DuplexStream};
use tokio::time::timeout;

/// A session is over within this time.
const GONE: Duration = Duration::from_secs(10);
/// What this machine may take for the last words.
const MARGIN: Duration = Duration::from_secs(2);
const OTHER: &str = "@other";
const POLICY: &str = "@policy";

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// A session with a connection to the device's ssh server, which has said its name.
async fn live(world: &World, caller: &Caller, relay: &TicketRelay, tasks: &Tasks) -> anyhow::Result<Live> {
    let (relays, idle) = (vec![relay.place()?], Duration::from_secs(600));
    let wish = Wish { ssh: false, resume: Duration::from_secs(60), idle, relays, session: None, epoch: 0 };
    let (_, session) = caller.session(&wish, None).await?;
    let (mut program, local) = tokio::io::duplex(1000);
    let (carrying, target) = (session.clone(), Target::HostPort(HostPort::localhost(world.ssh_port())));
    drop(tasks.spawn(async move { carrying.carry(Local::new(local), target).await }));
    let mut greeting = [0; 4];
    timeout(GONE, program.read_exact(&mut greeting)).await.context("no ssh server in time")??;
    ensure!(&greeting == b"SSH-", "{greeting:?}");
    Ok(Live { session, program })
}

struct Live {
    session: Sealed,
    program: DuplexStream,
}

impl Live {
    /// Waits for its end, which has these words.
    async fn ends(mut self, words: &str) -> anyhow::Result<()> {
        let start = Instant::now();
        let ended = timeout(GONE + MARGIN, self.session.ended()).await.context("it goes on")?;
        say(format_args!("ended after {:.1?}: {}", start.elapsed(), ended.why));
        ensure!(matches!(&ended.why, Why::ClosedByPeer(why) if why.contains(words)), "not {words:?}: {ended:?}");
        let mut rest = Vec::new();
        timeout(MARGIN, self.program.read_to_end(&mut rest)).await.context("its connection goes on")??;
        Ok(())
    }

    async fn goes_on(&self) -> anyhow::Result<()> {
        let ended = timeout(Duration::from_millis(100), self.session.ended()).await;
        ensure!(ended.is_err(), "it ended as well: {ended:?}");
        Ok(())
    }
}

#[test]
fn a_revoked_enrolment_ends_its_sealed_sessions_and_no_others() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let (keys, id) = enrol(world)?;
        let (runtime, tasks) = (runtime()?, Tasks::new());
        let (revoked, other, _callers) = runtime.block_on(async {
            let relay = TicketRelay::start(&tasks).await?;
            let laptop = Caller::connect_with(world, World::CLIENT, keys, world.dir().join("laptop")).await?;
            let desk = Caller::connect(world, World::CLIENT, world.dir().join("desk")).await?;
            let sessions = (live(world, &laptop, &relay, &tasks).await?, live(world, &desk, &relay, &tasks).await?);
            anyhow::Ok((sessions.0, sessions.1, (laptop, desk, relay)))
        })?;
        decide(world, "revoke", &id)?;
        runtime.block_on(async {
            revoked.ends("enrolment was revoked").await?;
            other.goes_on().await
        })
    })
}

#[test]
fn managers_who_are_taken_off_the_list_or_whose_time_is_over_are_out() -> anyhow::Result<()> {
    let strangers = vec![OTHER.to_owned()];
    in_house(Options { strangers, own_daemon: false, ..Options::default() }, |world| {
        let config = world.dir().join("sshnpd.yaml");
        let write = |managers: &str| std::fs::write(&config, format!("access:\n  managers: [{managers}]\n"));
        write("\"@client\"")?;
        let mut daemon = world.start_daemon(daemon(world, &["--config", &config.to_string_lossy()]))?;
        let (runtime, tasks) = (runtime()?, Tasks::new());
        runtime.block_on(async {
            let relay = TicketRelay::start(&tasks).await?;
            let client = Caller::connect(world, World::CLIENT, world.dir().join("caller")).await?;
            let mut other = Caller::connect(world, OTHER, world.dir().join("other")).await?;
            let first = live(world, &client, &relay, &tasks).await?;

            // Let in by a change of the file, until a time that is near.
            let until = SystemTime::now() + Duration::from_secs(8);
            let until = until.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
            let until = run(date(until), COMMAND)?.success()?.text();
            write(&format!("\"@client\", \"{OTHER} until {}\"", until.trim()))?;
            hang_up(&daemon)?;
            daemon.wait_for_line(COMMAND, |line| line.contains("list of managers was read anew"))?;
            let second = live(world, &other, &relay, &tasks).await?;

            let (shown, theirs) = shown_live(world, OTHER).await?;
            let target = format!("localhost:{}", world.ssh_port());
            ensure!(theirs["rule"] == "manager" && theirs["sealed"] == true, "{shown}");
            ensure!(theirs["targets"][0] == target.as_str(), "{shown}");

            second.ends("the access of @other ended at").await?;
            first.goes_on().await?;
            write("\"@somebody\"")?;
            first.ends("@client is no manager of this device any more").await?;

            // And nobody comes in again.
            let relays = vec![relay.place()?];
            let idle = Duration::from_secs(60);
            let wish = Wish { ssh: true, resume: Duration::ZERO, idle, relays, session: None, epoch: 0 };
            let request = other.request(&wish, |_| ())?;
            other.send(&request).await?;
            ensure!(other.hears_nothing(&request.session, MARGIN).await, "an answer to somebody whose time is over");
            anyhow::Ok(())
        })?;
        ensure!(daemon.is_running(), "SIGHUP ended it");
        let shown = status(world, &[])?;
        ensure!(shown.starts_with("gateway@device: nobody is in"), "{shown}");
        // What a daemon leaves behind that was killed is not believed.
        daemon.kill();
        let gone = run(status_command(world, &[]), COMMAND)?.exited(1)?;
        ensure!(gone.stderr.contains("no daemon of this user runs here"), "{}", gone.stderr);
        Ok(())
    })
}

#[test]
fn what_the_policy_service_takes_back_ends_within_10_s() -> anyhow::Result<()> {
    let strangers = vec![OTHER.to_owned(), POLICY.to_owned()];
    in_house(Options { strangers, own_daemon: false, ..Options::default() }, |world| {
        let rules = world.dir().join("rules.yaml");
        let permit = |target: &str| {
            let rule = format!(
                "userGroups:\n  guests:\n    userAtSigns: [\"{OTHER}\"]\n    permissions:\n      daemonAtSigns: [\"{}\"]\n      deviceNames:\n        {}: [\"{target}\"]\n",
                World::DEVICE,
                World::DEVICE_NAME
            );
            std::fs::write(&rules, rule)
        };
        permit(&format!("localhost:{}", world.ssh_port()))?;
        let mut service = world.postern(POLICY);
        service.args(["npp_file", "-v", "--yaml"]).arg(&rules);
        service.args(["-a", POLICY, "--root-domain", &world.root(), "-k"]).arg(world.key_file(POLICY));
        let mut service = Process::start(service)?;
        service.wait_for_line(READY, |line| line.contains("monitor started for @policy"))?;
        let _daemon = world.start_daemon(daemon(world, &["-p", POLICY]))?;
        runtime()?.block_on(async {
            let tasks = Tasks::new();
            let relay = TicketRelay::start(&tasks).await?;
            let guest = Caller::connect(world, OTHER, world.dir().join("other")).await?;
            let session = live(world, &guest, &relay, &tasks).await?;
            permit("localhost:222")?;
            session.ends("the policy service permits less than the session reaches").await
        })
    })
}

fn daemon(world: &World, words: &[&str]) -> Command {
    let mut command = world.postern(World::DEVICE);
    command.args(["sshnpd", "-v", "-a", World::DEVICE, "-d", World::DEVICE_NAME]).args(words);
    command.arg("-k").arg(world.key_file(World::DEVICE)).args(["--root-domain", &world.root()]);
    let port = world.ssh_port().to_string();
    command.args(["--local-sshd-port", &port, "--permit-open", &format!("localhost:{port}"), "--ssh-host-keys", "off"]);
    command.env("XDG_RUNTIME_DIR", world.home_of(World::DEVICE));
    command
}

fn status_command(world: &World, words: &[&str]) -> Command {
    let mut command = world.postern(World::DEVICE);
    command.env("XDG_RUNTIME_DIR", world.home_of(World::DEVICE)).args(["sshnpd", "status"]).args(words);
    command
}

fn status(world: &World, words: &[&str]) -> anyhow::Result<String> {
    Ok(run(status_command(world, words), COMMAND)?.success()?.text())
}

/// Waits until the status shows two sessions, and one of `who` as live: it is written every few seconds.
async fn shown_live(world: &World, who: &str) -> anyhow::Result<(String, Json)> {
    let start = Instant::now();
    loop {
        let shown = status(world, &["--json"])?;
        let status: Json = serde_json::from_str(shown.trim())?;
        let sessions = status["sessions"].as_array().context("no sessions")?;
        let theirs = sessions.iter().find(|session| session["who"] == who && session["state"] == "live");
        if let Some(theirs) = theirs.filter(|_| sessions.len() == 2) {
            return Ok((shown.clone(), theirs.clone()));
        }
        ensure!(start.elapsed() < GONE, "{shown}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn date(seconds: u64) -> Command {
    let mut command = Command::new("date");
    command.args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"]);
    command
}

fn hang_up(daemon: &Process) -> anyhow::Result<()> {
    let mut command = Command::new("kill");
    command.args(["-HUP", &daemon.id().to_string()]);
    run(command, COMMAND)?.success()?;
    Ok(())
}
