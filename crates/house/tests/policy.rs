//! The policy service: who comes in by its word, and who does not.

use std::io::Read as _;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use postern_house::{behind_nat, in_house};
use postern_testkit::limits::{COMMAND, READY, SESSION};
use postern_testkit::{Options, Output, Place, Process, World, run, say};

/// The atSign that the policy service runs under.
const POLICY: &str = "@policy";
/// Somebody who is no manager of the device.
const GUEST: &str = "@guest";
/// Somebody who may change rules.
const KEEPER: &str = "@keeper";
/// A device that opens whatever policy says.
const OPEN: &str = "open";
/// A device that opens its ssh port alone, whatever policy says.
const NARROW: &str = "narrow";
/// What a change of rules may take to hold everywhere.
const CHANGE: Duration = Duration::from_secs(15);
/// Pause between two tries to come in.
const LOOK: Duration = Duration::from_secs(1);
/// How long a guest waits for a device that does not answer. Above what a device waits for the policy service.
const PING: &str = "12";

#[test]
fn p1_to_p4_a_file_decides_and_its_changes_hold_within_15_s() -> anyhow::Result<()> {
    in_policy_house(|world| {
        let ssh = world.ssh_port();
        let rules = world.dir().join("rules.yaml");
        std::fs::write(&rules, "userGroups: {}\n")?;
        let mut npp = start_service(world, "npp_file", &["-v", "--yaml", &rules.to_string_lossy()])?;
        let mut open = world.start_daemon(daemon(world, OPEN, None))?;
        let _narrow = world.start_daemon(daemon(world, NARROW, Some(ssh)))?;
        let denied = |line: &str| line.contains("denied by policy") && line.contains(GUEST);

        // P1: no rule. The device stays silent and says so to its operator.
        let mark = open.mark();
        let told = knock(world, GUEST, OPEN, ssh)?.err().context("a guest without a rule came in")?;
        ensure!(!told.contains("POLICY"), "a stranger was told of the policy: {told}");
        let line = open.wait_for_line_after(mark, COMMAND, denied)?;
        ensure!(line.contains("No permissions for @guest at @device for either the device open"), "{line}");
        say(format_args!("P1: {line}"));

        // P2: a rule for another port.
        std::fs::write(&rules, file_rules(&[(OPEN, "localhost:222"), (NARROW, "localhost:2233")]))?;
        let told = within_change(|| match knock(world, GUEST, OPEN, ssh)? {
            Err(told) if told.contains("POLICY") => Ok(Some(told)),
            Err(_) => Ok(None),
            Ok(()) => bail!("a rule for port 222 opened port {ssh}"),
        })?;
        ensure!(
            told.contains(&format!(
                "Connection to localhost:{ssh} denied based on POLICY --permit-open [localhost:222]"
            )),
            "{told}"
        );

        // P4: policy allows what the device does not.
        let told = knock(world, GUEST, NARROW, 2233)?.err().context("policy opened more than the device allows")?;
        ensure!(told.contains("Connection to localhost:2233 denied based on daemon --permit-open"), "{told}");

        // A file that cannot be read changes nothing and is told.
        let good = std::fs::read_to_string(&rules)?;
        let mark = npp.mark();
        std::fs::write(&rules, "userGroups:\n  a: [oops\n")?;
        let line = npp.wait_for_line_after(mark, COMMAND, |line| line.contains("stay in force"))?;
        ensure!(line.contains("rules.yaml") && line.contains("line "), "{line}");

        // P3: a rule for the port.
        std::fs::write(&rules, good.replace("localhost:222\"", &format!("localhost:{ssh}\"")))?;
        within_change(|| {
            Ok(knock(world, GUEST, OPEN, ssh)?.inspect_err(|told| say(format_args!("not yet: {told}"))).ok())
        })?;
        // Every verb is asked about, ssh too, and the answer is kept: this takes no question.
        let mut sshnp = world.postern(GUEST);
        sshnp.args(["sshnp", "-f", GUEST, "-t", World::DEVICE, "-d", OPEN, "-r", World::RELAY]);
        sshnp.arg("-k").arg(world.key_file(GUEST)).args(["--root-domain", &world.root()]);
        sshnp.arg("-i").arg(world.identity()).args(["-u", &postern_testkit::user_name()]);
        for option in world.ssh_options() {
            sshnp.args(["-o", &format!("-o {option}")]);
        }
        sshnp.args(["--", "echo inside"]);
        ensure!(run(sshnp, SESSION)?.success()?.text() == "inside");

        // Access that is taken away ends new sessions.
        std::fs::write(&rules, "userGroups: {}\n")?;
        within_change(|| Ok(knock(world, GUEST, OPEN, ssh)?.err()))?;
        ensure!(npp.is_running());
        Ok(())
    })
}

#[test]
fn without_an_answer_managers_alone_come_in() -> anyhow::Result<()> {
    in_policy_house(|world| {
        let ssh = world.ssh_port();
        let mut sshnpd = daemon(world, OPEN, None);
        sshnpd.args(["-m", World::CLIENT]);
        let mut open = world.start_daemon(sshnpd)?;
        let start = Instant::now();
        let guest = Process::start(npt(world, GUEST, OPEN, ssh))?;
        let line = open.wait_for_line(COMMAND, |line| line.contains("the policy service does not answer"))?;
        let took = start.elapsed();
        ensure!(line.contains("Timed out waiting for authorizer response"), "{line}");
        // 10 s, and what the guest takes to log in.
        ensure!(took < Duration::from_secs(13), "it took {took:?}");
        ensure!(guest.wait(SESSION)?.exited(1)?.stdout.is_empty(), "a guest came in though nobody answered");
        say(format_args!("a dead policy service is noticed after {took:.1?}: {line}"));
        // A manager does not wait for it.
        let start = Instant::now();
        knock(world, World::CLIENT, OPEN, ssh)?.map_err(anyhow::Error::msg)?;
        ensure!(start.elapsed() < Duration::from_secs(8), "a manager waited {:?}", start.elapsed());
        // When it comes back, so does the guest.
        let rules = world.dir().join("rules.yaml");
        std::fs::write(&rules, file_rules(&[(OPEN, "*:*")]))?;
        let _npp = start_service(world, "npp_file", &["--yaml", &rules.to_string_lossy()])?;
        knock(world, GUEST, OPEN, ssh)?.map_err(anyhow::Error::msg)?;
        open.wait_for_line(COMMAND, |line| line.contains("answers again"))?;
        Ok(())
    })
}

#[test]
fn managers_change_tables_from_afar_and_they_outlive_the_service() -> anyhow::Result<()> {
    in_policy_house(|world| {
        let ssh = world.ssh_port();
        let words = ["-v", "--manager-allow-list", KEEPER];
        let npp = start_service(world, "npp", &words)?;
        let _open = world.start_daemon(daemon(world, OPEN, None))?;
        let simulate = |port: u16| {
            let reach = format!("localhost:{port}");
            npp_as(world, KEEPER, &["simulate", "-c", GUEST, "-t", World::DEVICE, "-d", OPEN, "--reach", &reach])
        };
        ensure!(simulate(ssh)?.exited(3)?.text() == "denied");
        npp_as(world, KEEPER, &["ping"])?.success()?;
        let permit = format!("localhost:{ssh}");
        let allow = ["allow", "-c", GUEST, "-t", World::DEVICE, "-d", OPEN, "--open", &permit];
        let output = npp_as(world, KEEPER, &allow)?.success()?;
        say(format_args!("npp allow took {:.1?}: {}", output.took, output.stderr));
        ensure!(simulate(ssh)?.success()?.text() == "allowed");
        ensure!(simulate(9)?.exited(3)?.text() == "denied");
        within_change(|| Ok(knock(world, GUEST, OPEN, ssh)?.ok()))?;

        // The same again writes nothing new.
        npp_as(world, KEEPER, &allow)?.success()?;
        let before = npp_as(world, KEEPER, &["list"])?.success()?.text();
        ensure!(before.lines().count() == 6, "not one row in each table:\n{before}");
        ensure!(before.contains(&format!("permitOpen={permit}")), "{before}");
        // What cannot be is refused, with the reason.
        let output = npp_as(world, KEEPER, &["put", "service", "daemonId=9", "deviceName=pi"])?.exited(1)?;
        ensure!(output.stderr.contains("no Daemon with the id \"9\""), "{}", output.stderr);
        // Nobody else is heard.
        let output = npp_as(world, GUEST, &["put", "client", "atSign=@evil"])?.exited(1)?;
        ensure!(output.stderr.contains("no answer from @policy"), "{}", output.stderr);

        npp.terminate(COMMAND)?.success()?;
        let _npp = start_service(world, "npp", &words)?;
        let after = npp_as(world, KEEPER, &["list"])?.success()?.text();
        ensure!(after == before, "the tables changed over a restart:\n{before}\n{after}");

        // With the client everything that needs it goes, and stays away.
        npp_as(world, KEEPER, &["delete", "client", "1"])?.success()?;
        npp_as(world, KEEPER, &["delete", "client", "1"])?.exited(1)?;
        ensure!(simulate(ssh)?.exited(3)?.text() == "denied");
        within_change(|| Ok(knock(world, GUEST, OPEN, ssh)?.err()))?;
        Ok(())
    })
}

#[test]
fn tables_may_be_kept_in_a_file() -> anyhow::Result<()> {
    in_policy_house(|world| {
        let dir = world.dir().join("tables");
        std::fs::create_dir(&dir)?;
        let words = ["--persistence-method", "file", "--policy-directory", &dir.to_string_lossy()];
        let npp = start_service(world, "npp", &words)?;
        // Without a list, the service's own atSign manages it.
        let allow = ["allow", "-c", GUEST, "-t", World::DEVICE, "-d", OPEN, "--open", "localhost:22"];
        npp_as(world, POLICY, &allow)?.success()?;
        npp.terminate(COMMAND)?.success()?;
        let mode = std::fs::metadata(dir.join("tables.json"))?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "mode {mode:o}");
        let _npp = start_service(world, "npp", &words)?;
        let simulate = ["simulate", "-c", GUEST, "-t", World::DEVICE, "-d", OPEN, "--reach", "localhost:22"];
        ensure!(npp_as(world, POLICY, &simulate)?.success()?.text() == "allowed");
        Ok(())
    })
}

#[test]
fn groups_are_records_that_a_running_service_reads_when_they_change() -> anyhow::Result<()> {
    in_policy_house(|world| {
        let ssh = world.ssh_port();
        let mut npp = start_service(world, "npp_atserver", &["-v", "--daemon-atsigns", World::DEVICE])?;
        let _open = world.start_daemon(daemon(world, OPEN, None))?;
        let file = world.dir().join("group.json");
        let group = format!(
            r#"{{"name":"field","daemonAtSigns":["{}"],"deviceGroups":[{{"name":"__none__","permitOpens":["localhost:{ssh}"]}}],"userAtSigns":["{GUEST}"]}}"#,
            World::DEVICE
        );
        std::fs::write(&file, group)?;
        let id = npp_as(world, POLICY, &["groups", "put", &file.to_string_lossy()])?.success()?.text();
        npp.wait_for_line(COMMAND, |line| line.contains("rules read") && line.contains("1 group"))?;
        knock(world, GUEST, OPEN, ssh)?.map_err(anyhow::Error::msg)?;
        let listed = npp_as(world, POLICY, &["groups", "list"])?.success()?.text();
        ensure!(listed.contains("\"field\"") && listed.contains(&format!("\"id\":\"{id}\"")), "{listed}");
        npp_as(world, POLICY, &["groups", "delete", &id])?.success()?;
        npp.wait_for_line(COMMAND, |line| line.contains("rules read") && line.contains("0 groups"))?;
        within_change(|| Ok(knock(world, GUEST, OPEN, ssh)?.err()))?;
        Ok(())
    })
}

#[test]
fn behind_two_nats_a_guest_comes_in_by_policy() -> anyhow::Result<()> {
    behind_nat(|house| {
        let ssh = house.ssh_port();
        let rules = house.dir().join("rules.yaml");
        let permit = format!("localhost:{ssh}");
        let text = file_rules(&[(OPEN, &permit)]).replace(GUEST, World::CLIENT);
        std::fs::write(&rules, text)?;
        // Any atSign may be the policy service: here the relay's.
        let mut npp = house.postern(World::RELAY);
        npp.args(["npp_file", "-a", World::RELAY, "--root-domain", &house.root(), "--yaml"]).arg(&rules);
        npp.arg("-k").arg(house.key_file(World::RELAY));
        let mut npp = Process::start(npp)?;
        npp.wait_for_line(READY, |line| line.contains("monitor started for "))?;
        let mut sshnpd = house.postern(World::DEVICE);
        sshnpd.args(["sshnpd", "--debug", "-a", World::DEVICE, "-p", World::RELAY, "-d", OPEN]);
        sshnpd.arg("-k").arg(house.key_file(World::DEVICE)).args(["--root-domain", &house.root()]);
        let _open = house.start_daemon(sshnpd)?;
        knock(house, World::CLIENT, OPEN, ssh)?.map_err(anyhow::Error::msg)?;
        let told = knock(house, World::CLIENT, OPEN, 9)?.err().context("port 9 was opened")?;
        ensure!(told.contains(&format!("denied based on POLICY --permit-open [{permit}]")), "{told}");
        Ok(())
    })
}

#[test]
fn a_file_is_checked_and_asked_without_a_network() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let npp = |words: &[&str]| {
        let mut command = Place::here().command(&postern_testkit::postern_bin()?);
        command.arg("npp").args(words).current_dir(dir.path());
        run(command, COMMAND)
    };
    std::fs::write(dir.path().join("good.yaml"), file_rules(&[(OPEN, "localhost:22")]))?;
    std::fs::write(dir.path().join("bad.yaml"), "userGroups:\n  a:\n    userAtSigns: [@x]\n")?;
    ensure!(npp(&["check", "good.yaml"])?.success()?.text() == "good.yaml: good, 1 user group");
    let told = npp(&["check", "bad.yaml"])?.exited(1)?.stderr;
    ensure!(told.contains("line 3 column 19") && told.contains("in quotes"), "{told}");
    ensure!(npp(&["check", "none.yaml"])?.exited(1)?.stderr.contains("there is no file none.yaml"));
    let simulate = |words: &[&str]| {
        let mut all = vec!["simulate", "--rules", "good.yaml", "-t", World::DEVICE, "-d", OPEN];
        all.extend(words);
        npp(&all)
    };
    ensure!(simulate(&["-c", GUEST])?.success()?.text() == "allowed");
    ensure!(simulate(&["-c", GUEST, "--reach", "localhost:23"])?.exited(3)?.text() == "denied");
    let json = simulate(&["-c", "@nobody", "--json"])?.exited(3)?.text();
    ensure!(json.starts_with(r#"{"authorized":false,"message":"No permissions for @nobody"#), "{json}");
    Ok(())
}

fn in_policy_house(test: impl FnOnce(&mut World) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let strangers = [POLICY, GUEST, KEEPER].map(str::to_owned).to_vec();
    in_house(Options { strangers, own_daemon: false, ..Options::default() }, test)
}

/// Rules that let the guest reach one target on each of these devices.
fn file_rules(devices: &[(&str, &str)]) -> String {
    let device = World::DEVICE;
    let lines: String = devices.iter().map(|(name, permit)| format!("        {name}: [\"{permit}\"]\n")).collect();
    format!(
        "userGroups:\n  guests:\n    userAtSigns: [\"{GUEST}\"]\n    permissions:\n      daemonAtSigns: [\"{device}\"]\n      deviceNames:\n{lines}"
    )
}

/// A daemon that asks the policy service; `only`: the one port it opens by its own list.
fn daemon(world: &World, name: &str, only: Option<u16>) -> Command {
    let mut command = world.postern(World::DEVICE);
    command.args(["sshnpd", "--debug", "-a", World::DEVICE, "-p", POLICY, "-d", name]);
    command.arg("-k").arg(world.key_file(World::DEVICE)).args(["--root-domain", &world.root()]);
    command.args(["--local-sshd-port", &world.ssh_port().to_string()]);
    if let Some(port) = only {
        command.args(["--permit-open", &format!("localhost:{port}")]);
    }
    command
}

fn start_service(world: &World, program: &str, words: &[&str]) -> anyhow::Result<Process> {
    let mut command = world.postern(POLICY);
    command.args([program, "-a", POLICY, "--root-domain", &world.root()]).args(words);
    command.arg("-k").arg(world.key_file(POLICY));
    let mut process = Process::start(command)?;
    process.wait_for_line(READY, |line| line.contains("monitor started for @policy"))?;
    Ok(process)
}

/// A command of `npp` to the service.
fn npp_as(world: &World, at_sign: &str, words: &[&str]) -> anyhow::Result<Output> {
    let mut command = world.postern(at_sign);
    command.arg("npp").args(words).args(["-a", at_sign, "-p", POLICY, "--root-domain", &world.root()]);
    command.arg("-k").arg(world.key_file(at_sign));
    run(command, SESSION)
}

fn npt(world: &World, client: &str, device: &str, port: u16) -> Command {
    let mut npt = world.postern(client);
    npt.args(["npt", "-f", client, "-t", World::DEVICE, "-d", device, "-r", World::RELAY, "-T", "30s"]);
    npt.args(["-p", &port.to_string(), "--daemon-ping-timeout", PING]);
    npt.arg("-k").arg(world.key_file(client)).args(["--root-domain", &world.root()]);
    npt
}

/// Comes in to a port, as far as the first bytes of the ssh server, or says what the client was told.
fn knock(world: &World, client: &str, device: &str, port: u16) -> anyhow::Result<Result<(), String>> {
    let mut process = Process::start(npt(world, client, device, port))?;
    let Ok(line) = process.wait_for_line(SESSION, |line| line.contains("npt is listening on")) else {
        return Ok(Err(process.wait(SESSION)?.exited(1)?.stderr));
    };
    let local = line.split("localhost:").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    let local: u16 = local.and_then(|text| text.parse().ok()).with_context(|| format!("no port in: {line}"))?;
    let mut stream = world.places().client.within(|| Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, local))?))?;
    stream.set_read_timeout(Some(SESSION))?;
    let mut banner = [0; 4];
    stream.read_exact(&mut banner)?;
    ensure!(&banner == b"SSH-", "no ssh server there: {banner:?}");
    Ok(Ok(()))
}

/// Tries until something is so, which must be within the time that a change of rules may take.
fn within_change<T>(mut look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        // When a look began counts: what it finds was decided then.
        let began = start.elapsed();
        if let Some(found) = look()? {
            say(format_args!("a change of rules held after {began:.1?}"));
            return Ok(found);
        }
        ensure!(began < CHANGE, "the change does not hold after {CHANGE:?}");
        // A refused session holds its ports at the relay for a while, and one atSign gets so many.
        std::thread::sleep(LOOK.saturating_sub(start.elapsed() - began));
    }
}
