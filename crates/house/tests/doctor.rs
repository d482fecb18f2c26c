//! `postern doctor`: a healthy house has nothing wrong; then one thing at a time is broken, and that one is told.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use postern_house::{in_house, with_clock};
use postern_testkit::limits::SESSION;
use postern_testkit::{Options, Piece, World, run};
use serde_json::Value as Json;

/// What a doctor found.
struct Found {
    json: Json,
    code: Option<i32>,
}

impl Found {
    fn of(mut doctor: Command) -> anyhow::Result<Self> {
        doctor.arg("--json");
        let output = run(doctor, SESSION)?;
        let text = output.text();
        let json = serde_json::from_str(&text).with_context(|| format!("no JSON: {text:?} {}", output.stderr))?;
        Ok(Self { json, code: output.status.code() })
    }

    /// Names of what has this level.
    fn at(&self, level: &str) -> Vec<&str> {
        let findings = self.json["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
        findings.iter().filter(|found| found["level"] == level).filter_map(|found| found["id"].as_str()).collect()
    }

    /// All that is told of one.
    fn told(&self, id: &str) -> String {
        let findings = self.json["findings"].as_array().map(Vec::as_slice).unwrap_or_default();
        findings.iter().filter(|found| found["id"] == id).map(Json::to_string).collect()
    }

    /// Nothing is wrong but this, and what is told of it has these words.
    fn only(&self, level: &str, id: &str, words: &[&str]) -> anyhow::Result<()> {
        let wrong = [self.at("fail"), self.at("warn")].concat();
        ensure!(wrong == [id] && self.at(level) == [id], "{id} should be {level}: {:#}", self.json);
        let told = self.told(id);
        for word in words {
            ensure!(told.contains(word), "{word:?} is not told: {told}");
        }
        ensure!(self.code == Some(i32::from(level == "fail")), "exit status {:?}", self.code);
        Ok(())
    }

    fn nothing_wrong(&self) -> anyhow::Result<()> {
        ensure!(self.at("fail").is_empty() && self.at("warn").is_empty(), "{:#}", self.json);
        ensure!(self.code == Some(0), "exit status {:?}", self.code);
        Ok(())
    }
}

fn device(world: &World) -> Command {
    let mut command = world.sshnpd(World::DEVICE_NAME);
    command.arg("--doctor");
    command
}

fn client(world: &World) -> Command {
    let mut command = world.postern(World::CLIENT);
    command.args(["doctor", "client", "-f", World::CLIENT, "-t", World::DEVICE, "-r", World::RELAY]);
    command.args(["-d", World::DEVICE_NAME, "--root-domain", &world.root()]);
    command.arg("-k").arg(world.key_file(World::CLIENT));
    command
}

fn server(world: &World) -> Command {
    let mut command = world.postern(World::CLIENT);
    command.args(["doctor", "server", "--dir"]).arg(world.dir().join("server"));
    command
}

fn set_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?)
}

#[test]
fn a_healthy_house_has_nothing_wrong_and_each_wound_is_told() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let healthy = Found::of(device(world))?;
        healthy.nothing_wrong()?;
        for id in ["clock", "key-file", "dns", "reach", "certificate", "directory", "login", "versions", "sshd"] {
            ensure!(healthy.at("ok").contains(&id), "{id} was not looked at: {:#}", healthy.json);
        }
        ensure!(healthy.told("clock").contains("as the atServer's"), "{}", healthy.told("clock"));
        ensure!(healthy.told("host-keys").contains("as @client is told"), "{}", healthy.told("host-keys"));
        let healthy = Found::of(client(world))?;
        healthy.nothing_wrong()?;
        for id in ["relay", "device", "login"] {
            ensure!(healthy.at("ok").contains(&id), "{id} was not looked at: {:#}", healthy.json);
        }
        Found::of(server(world))?.nothing_wrong()?;

        // For people: a sign in front, no colour into a pipe.
        let text = run(device(world), SESSION)?.success()?.text();
        ensure!(text.contains("[PASS] sshd") && !text.contains('\u{1b}'), "{text}");
        ensure!(text.trim_end().ends_with("device: nothing is wrong"), "{text}");

        the_device_has_wounds(world)?;
        the_way_has_wounds(world)
    })
}

fn the_device_has_wounds(world: &mut World) -> anyhow::Result<()> {
    let key_file = world.key_file(World::DEVICE);
    set_mode(&key_file, 0o644)?;
    Found::of(device(world))?.only("fail", "key-file", &["0644", "chmod 600"])?;
    set_mode(&key_file, 0o600)?;

    world.kill_piece(Piece::Sshd)?;
    let port = world.ssh_port().to_string();
    Found::of(device(world))?.only("fail", "sshd", &["refused", &port, "--local-sshd-port"])?;
    world.start_piece(Piece::Sshd)?;

    let public = world.dir().join("ssh_host_ed25519_key.pub");
    let right = std::fs::read_to_string(&public)?;
    std::fs::copy(world.identity().with_extension("pub"), &public)?;
    Found::of(device(world))?.only("fail", "host-keys", &["not those that @client is told"])?;
    std::fs::write(&public, right)?;

    let mut without_state = device(world);
    without_state.env("XDG_STATE_HOME", "/proc/nothing");
    let found = Found::of(without_state)?;
    ensure!(found.at("fail") == ["state-dir"], "{:#}", found.json);

    let _second = world.start_daemon(world.sshnpd(World::DEVICE_NAME))?;
    Found::of(device(world))?.only("warn", "daemon", &["2 daemons run here"])
}

fn the_way_has_wounds(world: &mut World) -> anyhow::Result<()> {
    for (offset, words) in [("-4y", ["before this program was made", "timedatectl"]), ("+20m", ["ahead of", "1200 s"])]
    {
        let mut late = client(world);
        if with_clock(&mut late, offset)? {
            // A second may pass between the two clocks.
            let found = Found::of(late)?;
            let told = found.told("clock").replace("1199 s", "1200 s").replace("1201 s", "1200 s");
            ensure!(found.at("fail") == ["clock"] && words.iter().all(|word| told.contains(word)), "{:#}", found.json);
        }
    }

    let mut nowhere = client(world);
    nowhere.args(["--root-domain", "nowhere.invalid:6464"]);
    Found::of(nowhere)?.only("fail", "dns", &["nowhere.invalid", "/etc/resolv.conf"])?;

    let mut misspelt = client(world);
    misspelt.args(["-t", "@devcie"]);
    let found = Found::of(misspelt)?;
    ensure!(found.at("fail") == ["directory"] && found.told("directory").contains("@devcie"), "{:#}", found.json);

    // Somebody in between, with an authority of his own.
    let box_dir = world.dir().join("box");
    let mut init = world.postern(World::CLIENT);
    init.args(["server", "init", "--host", "middlebox.example", "--dir"]).arg(&box_dir);
    run(init, SESSION)?.success()?;
    let mut opened = client(world);
    opened.env("POSTERN_CA_FILE", box_dir.join("ca.pem"));
    let root = world.root();
    let issuer = format!("Postern private CA for {}", root.split(':').next().unwrap_or_default());
    Found::of(opened)?.only("fail", "certificate", &[&issuer, "does not trust", "POSTERN_CA_FILE"])?;

    world.kill_piece(Piece::Relay)?;
    Found::of(client(world))?.only("fail", "relay", &["@relay", &world.relay_port().to_string()])?;

    world.kill_piece(Piece::Server)?;
    Found::of(client(world))?.only("fail", "reach", &["nothing listens there"])?;
    Found::of(server(world))?.only("fail", "reach", &["nothing listens there"])
}

#[test]
fn a_doctor_without_a_configuration_says_what_is_missing() -> anyhow::Result<()> {
    let empty = tempfile::tempdir()?;
    let postern = |words: &[&str]| -> anyhow::Result<Command> {
        let mut command = Command::new(postern_testkit::postern_bin()?);
        command.args(words).env("HOME", empty.path()).env_remove("XDG_CONFIG_HOME").env_remove("SSHNPD_CONFIG");
        Ok(command)
    };
    Found::of(postern(&["doctor", "client"])?)?.only("fail", "config", &["-f @you"])?;
    Found::of(postern(&["doctor", "server", "--dir", "/nonexistent"])?)?.only("fail", "config", &["server init"])?;
    run(postern(&["doctor", "nurse"])?, SESSION)?.exited(2)?;
    run(postern(&["doctor", "client", "--nonsense"])?, SESSION)?.exited(2)?;
    let help = run(postern(&["doctor", "--help"])?, SESSION)?.success()?.text();
    ensure!(help.contains("Exit status: 0 nothing fails, 1 something does, 2 wrong usage."), "{help}");
    Ok(())
}
