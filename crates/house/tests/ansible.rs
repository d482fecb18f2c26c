//! Ansible, as the Python package index has it, reaches a device by its name, and says why when it does not.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_house::{OwnTools, Sharing, checksum, environment_or_skip, in_house, random_file};
use postern_testkit::limits::SESSION;
use postern_testkit::{Options, Output, Piece, SshServer, World, run, say};

/// Above Ansible's own start, which takes seconds where two cores are busy, and the time we wait for a device.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn ping_and_copy_work() -> anyhow::Result<()> {
    with_ansible(Options::default(), |world, ansible| {
        let file = random_file(world.dir().join("file"), 1)?;
        for sharing in Sharing::BOTH {
            let pong = ansible.task(world, sharing, &["-m", "ping"])?.success()?;
            say(format_args!("{sharing:?}: ping: {:.1?}", pong.took));
            ensure!(pong.text().contains(r#""ping": "pong""#), "{}", pong.text());
            let there = world.dir().join(format!("there-{sharing:?}"));
            let words = format!("src={} dest={} mode=0640", file.display(), there.display());
            let copy = ansible.task(world, sharing, &["-m", "copy", "-a", &words])?.success()?;
            say(format_args!("{sharing:?}: copy: {:.1?}", copy.took));
            ensure!(copy.text().contains("CHANGED"), "{}", copy.text());
            ensure!(checksum(&file)? == checksum(&there)?, "the copy differs");
            ensure!(ansible.keeps(sharing)? == (sharing == Sharing::Kept), "{sharing:?}, and it was not so");
        }
        ensure!(ansible.tools.asked().is_empty(), "ssh asked: {}", ansible.tools.asked());
        Ok(())
    })
}

/// Ansible shows what ssh says, and ssh with a kept connection says only what comes in its own protocol.
#[test]
fn why_a_host_is_out_of_reach_is_told() -> anyhow::Result<()> {
    with_ansible(Options::default(), |world, ansible| {
        for sharing in Sharing::BOTH {
            let refused = ansible.task(world, sharing, &["-m", "ping", "-e", "ansible_port=1"])?;
            told(&refused, &["permit-open", "localhost:1"])?;
        }
        world.kill_piece(Piece::Device)?;
        for sharing in Sharing::BOTH {
            let offline = ansible.task(world, sharing, &["-m", "ping"])?;
            told(&offline, &["its daemon last wrote of itself"])?;
        }
        Ok(())
    })
}

/// What playbooks are made of, on a device that has no ssh server and no sftp server of its own.
const PLAY: &str = r#"
- hosts: all
  gather_facts: false
  tasks:
    - name: a command ends as it ends
      command: {argv: [sh, -c, "echo out; echo err >&2; cat; exit 3"], stdin: "a ' b"}
      register: told
      failed_when: told.rc != 3 or told.stdout != "out\na ' b" or told.stderr != "err"
    - name: raw, as for devices without Python
      raw: echo raw; exit 4
      register: told
      failed_when: told.rc != 4 or "raw" not in told.stdout
    - name: there
      copy: {src: "{{ from }}", dest: "{{ there }}", mode: "0640"}
    - name: back
      fetch: {src: "{{ there }}", dest: "{{ back }}", flat: true}
"#;

#[test]
fn a_playbook_runs_by_the_built_in_ssh_server() -> anyhow::Result<()> {
    let options = Options { ssh_server: SshServer::BuiltIn, authorize_client: false, ..Options::default() };
    with_ansible(options, |world, ansible| {
        let from = random_file(world.dir().join("from"), 1)?;
        std::fs::write(ansible.dir.join("play.yml"), PLAY)?;
        // Each call a session of its own, and modules by sftp.
        let pong = ansible.task(world, Sharing::Alone, &["-m", "ping"])?.success()?;
        say(format_args!("ping: {:.1?}", pong.took));
        ensure!(pong.text().contains(r#""ping": "pong""#), "{}", pong.text());
        // Modules by standard input or as files, and the other ways that Ansible has for files.
        for (pipelining, transfer) in [("true", "piped"), ("false", "scp")] {
            let name = format!("pipelining-{pipelining}-{transfer}");
            let [there, back] = ["there", "back"].map(|at| world.dir().join(format!("{at}-{name}")));
            let mut play = ansible.program(world, "ansible-playbook", Sharing::Kept);
            play.env("ANSIBLE_PIPELINING", pipelining).env("ANSIBLE_SSH_TRANSFER_METHOD", transfer);
            for (key, value) in [("from", &from), ("there", &there), ("back", &back)] {
                play.arg("-e").arg(format!("{key}={}", value.display()));
            }
            play.arg(ansible.dir.join("play.yml"));
            let played = run(play, SESSION)?;
            say(format_args!("{name}: {:.1?}", played.took));
            ensure!(played.status.success(), "{name}: {}\n{}", played.text(), played.stderr);
            ensure!(checksum(&from)? == checksum(&back)?, "{name}: what came back differs");
            let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&there)?.permissions());
            ensure!(mode & 0o777 == 0o640, "{name}: mode {mode:o}");
        }
        ensure!(ansible.tools.asked().is_empty(), "ssh asked: {}", ansible.tools.asked());
        Ok(())
    })
}

/// Ansible calls the host unreachable and gives these words as the reason.
fn told(output: &Output, words: &[&str]) -> anyhow::Result<()> {
    let text = output.text();
    say(format_args!("after {:.1?}: {text}\n{}", output.took, output.stderr));
    ensure!(output.status.code() == Some(4), "it ended with {}: {text}", output.status);
    ensure!(output.took < TOLD_WITHIN, "it took {:?}", output.took);
    ensure!(text.contains("UNREACHABLE!"), "{text}");
    for word in words {
        ensure!(text.contains(word), "no {word:?} in {text}");
    }
    Ok(())
}

/// Ansible with an inventory of our one device.
struct Ansible {
    tools: OwnTools,
    bin: PathBuf,
    dir: PathBuf,
}

impl Ansible {
    fn prepare(world: &World, bin: PathBuf) -> anyhow::Result<Self> {
        let tools = OwnTools::prepare(world)?;
        let dir = world.dir().join("ansible");
        for sharing in Sharing::BOTH {
            std::fs::create_dir_all(sockets(&dir, sharing))?;
        }
        std::fs::write(dir.join("ansible.cfg"), "[defaults]\nnocows = true\n")?;
        std::fs::write(dir.join("hosts"), format!("{}\n", OwnTools::host()))?;
        Ok(Self { tools, bin, dir })
    }

    fn task(&self, world: &World, sharing: Sharing, words: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.program(world, "ansible", sharing);
        command.arg("all").args(words);
        run(command, SESSION)
    }

    /// One of Ansible's programs, with the inventory.
    fn program(&self, world: &World, name: &str, sharing: Sharing) -> Command {
        let mut command: Command = self.tools.over(world, &self.bin.join(name).display().to_string(), sharing);
        command.env("ANSIBLE_CONFIG", self.dir.join("ansible.cfg")).env("LC_ALL", "C.UTF-8");
        // The device is this machine, which may have several, and not all of them work.
        command.env("ANSIBLE_PYTHON_INTERPRETER", self.bin.join("python"));
        command.env("ANSIBLE_REMOTE_TEMP", self.dir.join("there"));
        command.env("ANSIBLE_SSH_CONTROL_PATH_DIR", sockets(&self.dir, sharing));
        // What a person has in their own configuration of ssh.
        command.env("ANSIBLE_SSH_COMMON_ARGS", format!("-F {}", self.tools.config(sharing).display()));
        match sharing {
            // Ansible's own way of keeping connections, untouched.
            Sharing::Kept => command.env_remove("ANSIBLE_SSH_ARGS"),
            Sharing::Alone => command.env("ANSIBLE_SSH_ARGS", "-o ControlMaster=no"),
        };
        command.arg("-i").arg(self.dir.join("hosts"));
        command
    }

    /// Whether Ansible keeps a connection.
    fn keeps(&self, sharing: Sharing) -> anyhow::Result<bool> {
        Ok(std::fs::read_dir(sockets(&self.dir, sharing))?.next().is_some())
    }
}

/// Short names: the path of a socket has few characters.
fn sockets(dir: &Path, sharing: Sharing) -> PathBuf {
    dir.join(if sharing == Sharing::Kept { "k" } else { "a" })
}

fn with_ansible(options: Options, test: impl FnOnce(&mut World, &Ansible) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let Some(bin) = environment_or_skip("ansible-core")? else { return Ok(()) };
    in_house(options, |world| {
        let ansible = Ansible::prepare(world, bin).context("cannot prepare Ansible")?;
        test(world, &ansible)
    })
}
