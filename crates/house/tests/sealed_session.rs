//! Sealed sessions between real programs: what becomes sealed by itself, what the second time costs, and that nothing
//! lesser is taken afterwards.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use postern_house::in_house;
use postern_testkit::limits::{READY, SESSION};
use postern_testkit::{Options, Output, Piece, Process, World, run};

/// How `--verbose` begins the line that tells of the seal.
const SEALED: &str = "sealed session: X25519MLKEM768, TLS13_";

fn ssh_echo(world: &World, words: &[&str]) -> anyhow::Result<Output> {
    let mut sshnp = world.sshnp();
    sshnp.arg("--verbose").args(words).args(["--", "echo inside"]);
    run(sshnp, SESSION)
}

fn told(output: &Output) -> String {
    output.stderr.clone()
}

#[test]
fn two_posterns_seal_their_session_and_the_second_asks_nobody_first() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let first = ssh_echo(world, &[])?.success()?;
        ensure!(first.text().contains("inside"), "{}", told(&first));
        let words = told(&first);
        ensure!(words.contains(SEALED) && words.contains("device key SHA256:") && words.contains("(seen)"), "{words}");
        let second = ssh_echo(world, &[])?.success()?;
        let words = told(&second);
        ensure!(words.contains(SEALED), "{words}");
        for old in ["feature check", "relay request", "ephemeral key", "relay's address"] {
            ensure!(!words.contains(old), "the second session still waited for {old}: {words}");
        }
        let pins = std::fs::read_to_string(world.home_of(World::CLIENT).join(".config/postern/known_atsigns"))?;
        ensure!(pins.contains("gateway@device ed25519 SHA256:"), "{pins}");
        // ssh believed the keys that the device signed, and no others.
        let believed = world.home_of(World::CLIENT).join(".cache/postern/hostkeys/gateway@device.known_hosts");
        let believed = std::fs::read_to_string(believed)?;
        ensure!(believed.starts_with("gateway.device.noports ssh-ed25519 "), "{believed}");
        let journal = world.home_of(World::CLIENT).join(".local/state/postern/journal/client.jsonl");
        let written = std::fs::read_to_string(journal)?;
        let count = |event: &str| written.matches(&format!(r#""event":"{event}""#)).count();
        ensure!((count("began"), count("ended")) == (2, 2), "{written}");
        Ok(())
    })
}

#[test]
fn npt_is_sealed_as_well() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let mut npt = world.npt(world.ssh_port());
        npt.arg("--verbose");
        let (npt, port) = world.start_npt(npt)?;
        let tail = npt.tail();
        ensure!(tail.contains(SEALED), "{tail}");
        // The same port serves one connection after the other.
        for _ in 0..3 {
            let mut scan = Command::new("ssh-keyscan");
            scan.args(["-t", "ed25519", "-p", &port.to_string(), "127.0.0.1"]).stderr(Stdio::null());
            let keys = run(scan, SESSION)?.success()?.text();
            ensure!(keys.contains("ssh-ed25519"), "{keys}");
        }
        npt.kill();
        Ok(())
    })
}

#[test]
fn an_older_client_still_has_its_session_and_a_known_device_is_not_asked_for_less() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let older = ssh_echo(world, &["--dialect", "5.11"])?.success()?;
        ensure!(!told(&older).contains("sealed session"), "{}", told(&older));
        let lesser = ssh_echo(world, &["--no-sealed"])?.success()?;
        ensure!(!told(&lesser).contains("sealed session"), "{}", told(&lesser));
        let sealed = ssh_echo(world, &["--min-security", "sealed"])?.success()?;
        ensure!(told(&sealed).contains(SEALED), "{}", told(&sealed));
        let lesser = told(&ssh_echo(world, &["--no-sealed"])?.exited(1)?);
        ensure!(lesser.contains("postern pin remove gateway@device"), "{lesser}");
        Ok(())
    })
}

/// A hostile directory could hide the record to get a session that it can read.
#[test]
fn a_known_device_is_not_reached_by_a_relay_that_cannot_seal() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        ssh_echo(world, &[])?.success().context("the first session")?;
        std::fs::remove_file(world.home_of(World::CLIENT).join(".cache/postern/relays"))?;
        let mut sshnp = world.sshnp();
        sshnp.args(["-r", "@client", "--", "true"]);
        let words = told(&run(sshnp, SESSION)?.exited(1)?);
        ensure!(words.contains("@client publishes no address"), "{words}");
        Ok(())
    })
}

#[test]
fn a_changed_device_key_is_refused_with_both_fingerprints() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        ssh_echo(world, &[])?.success().context("the first session")?;
        let file = world.home_of(World::CLIENT).join(".config/postern/known_atsigns");
        let pins = std::fs::read_to_string(&file)?;
        let other = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
        let changed: String = pins
            .lines()
            .map(|line| match line.split_once("ed25519 ") {
                Some((name, _)) => format!("{name}ed25519 {other} given\n"),
                None => format!("{line}\n"),
            })
            .collect();
        std::fs::write(&file, &changed)?;
        let words = told(&ssh_echo(world, &[])?.exited(1)?);
        ensure!(words.contains("the key of gateway@device has changed") && words.contains(other), "{words}");
        ensure!(words.contains("postern pin accept gateway@device SHA256:"), "{words}");
        ensure!(std::fs::read_to_string(&file)? == changed, "the pins were touched");
        Ok(())
    })
}

/// Configuration of the clients that names no host key, and ssh with the block that `postern ssh-config` writes.
fn ssh_over_connect(world: &World) -> anyhow::Result<impl Fn(&World, &str) -> Command + use<>> {
    let config = world.home_of(World::CLIENT).join("config.yaml");
    let yaml = format!(
        "from: \"{}\"\nto: \"{}\"\nrelay: \"{}\"\nroot: {}\nkey-file: {}\nhosts:\n  {}: {{}}\n",
        World::CLIENT,
        World::DEVICE,
        World::RELAY,
        world.root(),
        world.key_file(World::CLIENT).display(),
        World::DEVICE_NAME
    );
    std::fs::write(&config, yaml)?;
    let mut block = world.postern(World::CLIENT);
    block.args(["ssh-config", "--config"]).arg(&config);
    let block = run(block, SESSION)?.success()?.text();
    let file = world.home_of(World::CLIENT).join("postern.conf");
    std::fs::write(&file, format!("{block}\n"))?;
    Ok(move |world: &World, program: &str| {
        let mut command = world.places().client.command(program);
        command.env("HOME", world.home_of(World::CLIENT)).env("POSTERN_CA_FILE", world.ca_file());
        for folder in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "SSH_AUTH_SOCK"] {
            command.env_remove(folder);
        }
        command.arg("-F").arg(&file).arg("-i").arg(world.identity());
        command.args(["-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ControlMaster=no"]);
        command.args(["-o", "ControlPath=none"]);
        command
    })
}

fn postern_with_config(world: &World, words: &[&str]) -> Command {
    let mut command = world.postern(World::CLIENT);
    command.arg(words[0]).arg("--config").arg(world.home_of(World::CLIENT).join("config.yaml")).args(&words[1..]);
    command
}

#[test]
fn ssh_takes_the_host_key_that_the_device_signed_and_asks_nothing() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let ssh = ssh_over_connect(world)?;
        let hostkeys = |world: &World| run(postern_with_config(world, &["hostkeys", "gateway.np"]), SESSION);
        ensure!(hostkeys(world)?.success()?.text().is_empty(), "a key before any session");
        for _ in 0..2 {
            let mut command = ssh(world, "ssh");
            command.args(["gateway.np", "echo inside; cat; exit 7"]).stdin(Stdio::null());
            let output = run(command, SESSION)?.exited(7)?;
            ensure!(output.text().trim() == "inside", "{}", output.stderr);
        }
        let own = std::fs::read_to_string(world.dir().join("ssh_host_ed25519_key.pub"))?;
        let own = own.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let told = hostkeys(world)?.success()?.text();
        ensure!(told.lines().any(|line| line == format!("gateway.np {own}")), "{told}");
        // Who has had no session yet asks the record.
        std::fs::remove_dir_all(world.home_of(World::CLIENT).join(".cache/postern/hostkeys"))?;
        let exported = run(postern_with_config(world, &["known-hosts"]), SESSION)?.success()?;
        ensure!(exported.text() == told, "{:?} {}", exported.text(), exported.stderr);
        let nobody = run(postern_with_config(world, &["known-hosts", "nowhere.np"]), SESSION)?.exited(1)?;
        ensure!(nobody.stderr.contains("publishes no host keys of nowhere"), "{}", nobody.stderr);
        Ok(())
    })
}

#[test]
fn an_ssh_server_with_another_key_than_the_device_signed_is_refused() -> anyhow::Result<()> {
    in_house(Options { own_daemon: false, ..Options::default() }, |world| {
        let wrong = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
        std::fs::write(world.dir().join("ssh_host_ed25519_key.pub"), format!("{wrong}\n"))?;
        world.start_piece(Piece::Device)?;
        let ssh = ssh_over_connect(world)?;
        let mut command = ssh(world, "ssh");
        command.args(["gateway.np", "echo inside"]).stdin(Stdio::null());
        let output = run(command, SESSION)?.exited(255)?;
        ensure!(output.stdout.is_empty() && output.stderr.contains("verification failed"), "{}", output.stderr);
        Ok(())
    })
}

#[test]
fn a_device_that_is_not_there_is_named_in_ssh_s_own_words() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let ssh = ssh_over_connect(world)?;
        let mut command = ssh(world, "ssh");
        command.args(["gateway.np", "true"]).stdin(Stdio::null());
        run(command, SESSION)?.success().context("the first session")?;
        world.kill_piece(Piece::Device)?;
        let mut command = ssh(world, "ssh");
        command.args(["gateway.np", "true"]).stdin(Stdio::null());
        let output = run(command, SESSION)?.exited(255)?;
        let words = &output.stderr;
        ensure!(words.contains("disconnect") && words.contains("No response from the device daemon"), "{words}");
        ensure!(words.contains("its daemon last wrote of itself at"), "{words}");
        Ok(())
    })
}

fn banner(mut socket: std::net::TcpStream) -> anyhow::Result<String> {
    socket.set_read_timeout(Some(SESSION))?;
    let mut bytes = vec![0; 8];
    socket.read_exact(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[test]
fn one_session_has_many_local_ports_and_one_for_socks() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let mut npt = world.npt(world.ssh_port());
        npt.args(["-L", &format!("0:localhost:{}", world.ssh_port()), "--socks", "0"]);
        let mut npt = Process::start(npt)?;
        let mut ports = Vec::new();
        for what in [format!(" for localhost:{}", world.ssh_port()), " for SOCKS 5".to_owned()] {
            let line = npt.wait_for_line(SESSION, |line| line.contains("npt is listening") && line.ends_with(&what))?;
            let port = line.split("localhost:").nth(1).and_then(|rest| rest.split(' ').next());
            ports.push(port.context("no port")?.parse::<u16>()?);
        }
        let connect = |port: u16| std::net::TcpStream::connect(("127.0.0.1", port));
        let [direct, socks] = ports[..] else { bail!("{ports:?}") };
        ensure!(banner(connect(direct)?)? == "SSH-2.0-");
        // Two at the same time, by a name that only the device resolves.
        let mut asked = Vec::new();
        for _ in 0..2 {
            let mut socket = connect(socks)?;
            socket.write_all(&[5, 1, 0, 5, 1, 0, 3, 9])?;
            socket.write_all(b"localhost")?;
            socket.write_all(&world.ssh_port().to_be_bytes())?;
            let mut answer = [0; 12];
            socket.read_exact(&mut answer)?;
            ensure!(answer == [5, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0], "{answer:?}");
            asked.push(socket);
        }
        for socket in asked {
            ensure!(banner(socket)? == "SSH-2.0-");
        }
        let mut socket = connect(socks)?;
        socket.write_all(&[5, 1, 0, 5, 1, 0, 3, 9])?;
        socket.write_all(b"localhost\0\x09")?;
        let mut answer = [0; 4];
        socket.read_exact(&mut answer)?;
        ensure!(answer == [5, 0, 5, 2], "a port that is not permitted: {answer:?}");
        npt.kill();
        Ok(())
    })
}

/// Both ends are real programs, and the client asks again through its login.
#[test]
fn a_shell_goes_on_when_the_relay_was_killed_and_started_again() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let mut sshnp = world.sshnp();
        sshnp.args(["--", "echo before; read word; echo behind $word"]);
        let mut ssh = Process::start_with(sshnp, Stdio::piped())?;
        ssh.wait_for_stdout(SESSION, |text| text == "before\n")?;
        let mut stdin = ssh.stdin().context("no stdin")?;
        world.kill_piece(Piece::Relay)?;
        world.start_piece(Piece::Relay)?;
        stdin.write_all(b"the restart\n")?;
        ssh.wait_for_stdout(SESSION, |text| text.ends_with("behind the restart\n"))?;
        drop(stdin);
        ssh.wait(SESSION)?.exited(0)?;
        Ok(())
    })
}

#[test]
fn off_means_off() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let mut sshnp = world.sshnp();
        sshnp.args(["--resume", "0", "--", "echo before; read word; echo behind $word"]);
        let mut ssh = Process::start_with(sshnp, Stdio::piped())?;
        ssh.wait_for_stdout(SESSION, |text| text == "before\n")?;
        let _stdin = ssh.stdin().context("no stdin")?;
        world.kill_piece(Piece::Relay)?;
        let output = ssh.wait(SESSION)?;
        ensure!(!output.status.success(), "{}", output.text());
        ensure!(output.stderr.contains("was lost") || output.stderr.contains("closed"), "{}", output.stderr);
        Ok(())
    })
}

/// The ssh server that a daemon leads to need not be the one that `/etc/ssh` is of: a container's, for one.
#[test]
fn host_keys_that_the_ssh_server_does_not_show_are_not_signed() -> anyhow::Result<()> {
    if !std::path::Path::new("/etc/ssh/ssh_host_ed25519_key.pub").exists() {
        eprintln!("skipped: this machine has no host keys of its own");
        return Ok(());
    }
    in_house(Options::default(), |world| {
        let mut daemon = world.postern(World::DEVICE);
        daemon.args(["sshnpd", "-v", "-a", World::DEVICE, "-m", World::CLIENT, "-d", "other"]);
        daemon.arg("-k").arg(world.key_file(World::DEVICE)).args(["--root-domain", &world.root()]);
        daemon.args(["--local-sshd-port", &world.ssh_port().to_string()]);
        let mut daemon = Process::start(daemon)?;
        daemon.wait_for_line(READY, |line| line.contains("shows none of the host keys of /etc/ssh"))?;
        daemon.wait_for_line(READY, |line| line.contains("monitor started"))?;
        ensure!(daemon.tail().contains("--ssh-host-keys"), "{}", daemon.tail());
        Ok(())
    })
}
