//! The acceptance matrix of the original's own end-to-end suite, between our programs in every dialect. In
//! each pair one side is what we ship and the other behaves as an older program.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use postern_house::{Matrix, at_terminal, in_house};
use postern_testkit::limits::SESSION;
use postern_testkit::{Options, Output, Process, World, run, user_name};

/// A daemon beside the house's own, started without `-s`.
const PLAIN: &str = "plain";
/// A daemon that publishes nothing.
const HIDDEN: &str = "hidden";
/// An atSign that nobody has.
const NOBODY: &str = "@nobody";

const CURRENT: &[&str] = &["current"];
const ALL_CLIENTS: &[&str] = &["v4", "5.6", "5.11", "current"];

#[test]
fn daemon_of_version_4() -> anyhow::Result<()> {
    acceptance("v4", CURRENT)
}

#[test]
fn c_daemon_of_2024() -> anyhow::Result<()> {
    acceptance("c2024", CURRENT)
}

#[test]
fn daemon_of_5_6() -> anyhow::Result<()> {
    acceptance("5.6", CURRENT)
}

#[test]
fn daemon_of_5_11() -> anyhow::Result<()> {
    acceptance("5.11", CURRENT)
}

#[test]
fn our_daemon_and_all_clients() -> anyhow::Result<()> {
    acceptance("current", ALL_CLIENTS)
}

fn acceptance(daemon: &'static str, clients: &[&'static str]) -> anyhow::Result<()> {
    let device_words = ["--dialect", daemon].map(str::to_owned).to_vec();
    in_house(Options { device_words, ..Options::default() }, |world| {
        let mut plain = world.sshnpd(PLAIN);
        plain.args(["--dialect", daemon]);
        let _plain = world.start_daemon(plain)?;
        let mut hidden = world.sshnpd(HIDDEN);
        hidden.args(["--dialect", daemon, "--hide"]);
        let _hidden = world.start_daemon(hidden)?;

        let v5 = |client: &str| match (client, daemon) {
            ("v4", _) => Some("version 4 clients know neither the option nor npt"),
            (_, "v4") => Some("version 4 daemons know neither relay authentication nor npt"),
            _ => None,
        };
        let plain_sockets = |_: &str| (daemon == "c2024").then_some("the C daemon always encrypts");
        let v5_plain_sockets = |client: &str| v5(client).or_else(|| plain_sockets(client));
        let always = |_: &str| None;
        let relay_option = |client: &str| match client {
            "current" => plain_sockets(client),
            _ => Some("the option is the client's alone: tried with ours"),
        };

        let mut matrix = Matrix::new(daemon, clients);
        matrix.row("A1 001_minus_s_flag", v5, |client| minus_s(world, client));
        matrix.row("A2 minus_r_flag", relay_option, |client| minus_r(world, client));
        matrix.row("A3 minus_u_flag", always, |client| minus_u(world, client, daemon));
        matrix.row("A4 npt_to_port_22", v5, |client| npt_print(world, client, &[]));
        matrix.row("A5 npt_to_port_22_no_encrypt", v5_plain_sockets, |client| npt_print(world, client, &["--no-et"]));
        matrix.row("A6 v4_dart_inline", plain_sockets, |client| {
            inline(world, legacy(world, client), &["--ssh-client", "dart"])
        });
        matrix.row("A7 v4_openssh_print", plain_sockets, |client| print(world, legacy(world, client)));
        matrix.row("A8 v5_dart_inline", v5, |client| inline(world, sshnp(world, client), &["--ssh-client", "dart"]));
        matrix.row("A9 v5_openssh_inline", v5, |client| inline(world, sshnp(world, client), &[]));
        matrix.row("A10 v5_openssh_print", v5, |client| print(world, sshnp(world, client)));
        matrix.finish()
    })
}

fn sshnp(world: &World, client: &str) -> Command {
    let mut command = world.sshnp();
    command.args(["--dialect", client]);
    command
}

fn legacy(world: &World, client: &str) -> Command {
    let mut command = sshnp(world, client);
    command.args(["--no-ad", "--no-et", "--remote-sshd-port", &world.ssh_port().to_string()]);
    command
}

/// A pushed key opens the device that takes keys, and no other.
fn minus_s(world: &World, client: &str) -> anyhow::Result<()> {
    let key = new_key(world, client)?;
    let with = |device: &str| {
        let mut command = sshnp(world, client);
        command.args(["-d", device, "-s", "-i"]).arg(&key).args(["--", "echo TEST PASSED"]);
        run(command, SESSION)
    };
    let refused = with(PLAIN)?;
    ensure!(!refused.status.success() && refused.stdout.is_empty(), "a device without -s let a new key in");
    passed(&with(World::DEVICE_NAME)?)
}

/// `-r` and its old spelling, of which `-r` counts.
fn minus_r(world: &World, client: &str) -> anyhow::Result<()> {
    let with = |words: &[&str]| {
        let mut command = world.postern(World::CLIENT);
        command.args(["sshnp", "-f", World::CLIENT, "-t", World::DEVICE, "-d", World::DEVICE_NAME]);
        command.arg("-k").arg(world.key_file(World::CLIENT)).args(["--root-domain", &world.root(), "-i"]);
        command.arg(world.identity()).args(["--dialect", client, "-x", "--no-ad", "--no-et", "-s"]);
        command.args(["--remote-sshd-port", &world.ssh_port().to_string()]);
        for option in world.ssh_options() {
            command.args(["-o", &format!("-o {option}")]);
        }
        command.args(words);
        run_printed(&run(command, SESSION)?)
    };
    with(&["--host", World::RELAY])?;
    with(&["-h", NOBODY, "-r", World::RELAY])?;
    ensure!(with(&["-h", World::RELAY, "-r", NOBODY]).is_err(), "-h was taken although -r was given");
    Ok(())
}

/// Who logs in is what the device publishes, when it does.
fn minus_u(world: &World, client: &str, daemon: &str) -> anyhow::Result<()> {
    let with = |device: &str| {
        let plain_sockets = client == "v4" || daemon == "v4";
        let mut command = if plain_sockets { legacy(world, client) } else { sshnp(world, client) };
        command.args(["-d", device, "--", "echo TEST PASSED; id -un"]);
        run(command, SESSION)
    };
    let hidden = with(HIDDEN)?.exited(1)?;
    ensure!(hidden.stderr.contains("Remote username record not shared with the client"), "{}", hidden.stderr);
    let shown = with(World::DEVICE_NAME)?;
    ensure!(shown.text().ends_with(&user_name()), "another user: {}", shown.text());
    passed(&shown)
}

/// `npt -x` prints a port, behind which is the device's sshd.
fn npt_print(world: &World, client: &str, words: &[&str]) -> anyhow::Result<()> {
    let mut npt = world.npt(world.ssh_port());
    npt.args(["--dialect", client, "-x", "--verbose"]).args(words);
    let printed = run(npt, SESSION)?.success()?;
    let port: u16 = printed.text().parse().with_context(|| format!("not a port: {:?}", printed.text()))?;
    for _ in 0..2 {
        let mut ssh = Command::new("ssh");
        ssh.args(["-p", &port.to_string(), "-o", "IdentitiesOnly=yes", "-i"]).arg(world.identity());
        for option in world.ssh_options() {
            ssh.args(["-o", &option]);
        }
        ssh.args([&format!("{}@localhost", user_name()), "echo TEST PASSED"]);
        passed(&run(ssh, SESSION)?)?;
    }
    Ok(())
}

/// The printed command, run by a shell, leads to the device.
fn print(world: &World, mut sshnp: Command) -> anyhow::Result<()> {
    sshnp.args(["-x", "-u", &user_name(), "-d", World::DEVICE_NAME]);
    let printed = run(sshnp, SESSION)?;
    ensure!(printed.text().starts_with("ssh -p "), "no command: {:?}\n{}", printed.text(), printed.stderr);
    let _ = world;
    run_printed(&printed)
}

/// Somebody at a terminal, who types and reads.
fn inline(world: &World, mut sshnp: Command, words: &[&str]) -> anyhow::Result<()> {
    sshnp.args(words);
    let mut script = at_terminal(&sshnp, "dumb");
    script.current_dir(world.dir());
    let mut shell = Process::start_with(script, Stdio::piped())?;
    let mut keyboard = shell.stdin().context("standard input was asked for")?;
    // The terminal echoes what is typed; only the shell does sums.
    keyboard.write_all(b"echo `id -un` TEST PASSED-$((40+2))\n")?;
    let wanted = format!("{} TEST PASSED-42", user_name());
    shell.wait_for_stdout(SESSION, |screen| screen.contains(&wanted))?;
    keyboard.write_all(b"exit\n")?;
    shell.wait(SESSION)?.success()?;
    Ok(())
}

fn run_printed(printed: &Output) -> anyhow::Result<()> {
    ensure!(printed.status.success(), "ended with {}\n{}", printed.status, printed.stderr);
    let line = printed.text();
    ensure!(line.lines().count() == 1, "not one line: {line:?}");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{line} echo TEST PASSED")]);
    passed(&run(shell, SESSION)?)
}

fn passed(output: &Output) -> anyhow::Result<()> {
    let good = output.status.success() && output.text().contains("TEST PASSED");
    ensure!(good, "ended with {}\nstdout: {}\nstderr: {}", output.status, output.text(), output.stderr);
    Ok(())
}

fn new_key(world: &World, client: &str) -> anyhow::Result<PathBuf> {
    let path = world.dir().join(format!("client/.ssh/new-{client}"));
    let mut make = Command::new("ssh-keygen");
    make.args(["-q", "-t", "ed25519", "-N", "", "-C", "new", "-f"]).arg(&path);
    run(make, SESSION)?.success()?;
    Ok(path)
}
