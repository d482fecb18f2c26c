//! `cargo xtask images`: the images in real containers, run with the settings of the compose files as they are shipped, and
//! a session through one that ends on the host.
//!
//! Debian's Podman runs them, and Debian's docker-compose reads the files: so it goes where no engine runs as a service.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use postern_testkit::{Options, Output, Process, World, postern_bin, run, say};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::dist::image::{self, Role, make};
use crate::dist::{Build, Source, epoch};
use crate::footprint::Figure;
use crate::install::install;
use crate::release;
use crate::steps::root;

const USAGE: &str = "\
cargo xtask images [--binary FILE | --dist DIR]

Makes the images of FILE (default: the development build, with this machine's libraries lent to it, for it is not static),
and runs them with Podman as the compose files say: a session ends on the host, and not in the container. Needs root.
--dist runs those that cargo xtask dist left in DIR: for this machine, and under emulation those for others. The server's
may have 12,000,000 bytes at most.";

/// Programs, and the Debian packages that bring them.
const NEEDS: [(&str, &str); 6] = [
    ("podman", "podman"),
    ("crun", "crun"),
    ("docker-compose", "docker-compose"),
    ("python3", "python3-yaml"),
    ("unshare", "util-linux"),
    ("strip", "binutils"),
];
/// For a container to come up or go, on a machine that has much to do.
const PATIENCE: Duration = Duration::from_secs(60);
/// For a container to end after it was asked, before it would be killed: Docker's default.
const GRACE: Duration = Duration::from_secs(10);

/// Runs it all.
pub(crate) fn run_all(args: &[String]) -> anyhow::Result<ExitCode> {
    let given = match args {
        [] => Given::Development,
        [flag, file] if flag == "--binary" => Given::Binary(PathBuf::from(file)),
        [flag, dir] if flag == "--dist" => Given::Archives(PathBuf::from(dir)),
        [flag] if flag == "--help" => {
            say(format_args!("{USAGE}"));
            return Ok(ExitCode::SUCCESS);
        }
        _ => bail!("{USAGE}"),
    };
    install(&NEEDS)?;
    let dir = TempDir::new()?;
    // Those that are not run here are read all the same.
    Composed::read("client", "", dir.path())?;
    let binary = match given {
        Given::Archives(archives) => {
            let mut run = 0;
            for machine in MACHINES {
                let is_there = |role: &Role| archives.join(archive(*role, machine)).exists();
                let roles: Vec<Role> = Role::ALL.into_iter().filter(is_there).collect();
                match roles.is_empty() {
                    true => say(format_args!("no images for {machine}")),
                    false => on_machine(&archives, machine, &roles)?,
                }
                run += roles.len();
            }
            ensure!(run > 0, "{} has no images: cargo xtask dist makes them", archives.display());
            return Ok(ExitCode::SUCCESS);
        }
        Given::Binary(file) => file,
        Given::Development => stripped(dir.path())?,
    };
    let engine = Engine::start(dir.path(), args.is_empty(), None)?;
    let source = Source { binary: &binary, target: host(), build: Build::Full, version: VERSION, epoch: epoch()? };
    for role in Role::ALL {
        let image = make(source, role, dir.path())?;
        engine.load(role, &image.path, None)?;
    }
    compose_files(&engine, &Role::ALL, dir.path())?;
    Ok(ExitCode::SUCCESS)
}

/// What the images are made of.
enum Given {
    Development,
    Binary(PathBuf),
    /// They are made: a folder.
    Archives(PathBuf),
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Engines' names of machines for which there may be images.
const MACHINES: [&str; 2] = ["amd64", "arm64"];

fn archive(role: Role, machine: &str) -> String {
    format!("postern-{}_{VERSION}_{machine}.image.tar", role.name())
}

fn host_machine() -> anyhow::Result<&'static str> {
    Ok(image::machine(host())?.0)
}

/// Images that are made, as they are handed out.
fn on_machine(archives: &Path, machine: &str, roles: &[Role]) -> anyhow::Result<()> {
    let dir = TempDir::new()?;
    let emulator = if machine == host_machine()? { None } else { Some(release::emulator(machine)?) };
    let how = emulator.as_ref().map_or_else(String::new, |(_, words)| format!(", emulated: {}", words.join(" ")));
    say(format_args!("\nimages for {machine}{how}"));
    let engine = Engine::start(dir.path(), false, emulator)?;
    for role in roles.iter().copied() {
        let promised = (role == Role::Server).then_some(release::IMAGE_BYTES);
        engine.load(role, &archives.join(archive(role, machine)), promised)?;
    }
    compose_files(&engine, roles, dir.path())
}

/// The compose files as they are shipped. There is none that runs the clients by itself.
fn compose_files(engine: &Engine, roles: &[Role], dir: &Path) -> anyhow::Result<()> {
    for role in roles {
        match role {
            Role::Device => {
                device(engine, dir)?;
                joined(engine, dir)?;
            }
            Role::Server => server(engine, dir)?,
            Role::Client => {}
        }
    }
    Ok(())
}

/// The device's compose file, from activation to a session.
fn device(engine: &Engine, dir: &Path) -> anyhow::Result<()> {
    let world = World::start(Options { own_daemon: false, ..Options::default() })?;
    let secret = world.add_at_sign("@pi")?;
    let keys = dir.join("keys");
    fs::create_dir(&keys)?;
    fs::copy(world.ca_file(), keys.join("ca.pem"))?;
    fs::set_permissions(keys.join("ca.pem"), fs::Permissions::from_mode(0o644))?;
    host_keys(&world, &keys)?;
    chown(&keys, Some(1024), Some(1024))?;
    let port = world.ssh_port();
    let env = format!(
        "TO=@pi\nFROM={}\nDEVICE=gw-17\nTO_CRAM={secret}\nROOT_DOMAIN={}\nCA_FILE=/atsign/.atsign/keys/ca.pem\nKEYS_FOLDER={}\n\
         SSHNPD_FLAGS=-v --local-sshd-port {port} --permit-open localhost:{port} --ssh-host-keys /atsign/.atsign/keys\n",
        World::CLIENT,
        world.root(),
        keys.display()
    );
    let file = Composed::read("device", &env, dir)?;
    let first = run(engine.service(&file, "activate", "activate")?, PATIENCE)?.success()?;
    ensure!(keys.join("@pi_key.atKeys").exists(), "no keys were made: {}", first.stderr);
    let again = run(engine.service(&file, "activate", "activate")?, PATIENCE)?.success()?;
    ensure!(again.stderr.contains("has its keys already"), "the second activation: {}", again.stderr);
    say(format_args!("device.yaml: activated, and the second time there was nothing to do"));

    let mut daemon = Process::start(engine.service(&file, "sshnpd", "sshnpd")?)?;
    daemon.wait_for_line(PATIENCE, |line| line.contains("monitor started"))?;
    engine.healthy("device", "sshnpd")?;
    ends_on_the_host(engine, &world, "@pi")?;
    engine.stops("sshnpd", daemon)
}

/// The device's compose file for invitations: joins, is reached, and after a restart it knows that it has joined.
fn joined(engine: &Engine, dir: &Path) -> anyhow::Result<()> {
    let world = World::start(Options { own_daemon: false, ..Options::default() })?;
    let keys = dir.join("joined");
    fs::create_dir(&keys)?;
    host_keys(&world, &keys)?;
    chown(&keys, Some(1024), Some(1024))?;
    let mut invite = world.postern(World::CLIENT);
    invite.args(["invite", "gw-17", "--wait", "-f", World::CLIENT, "-t", World::DEVICE, "-r", &world.root()]);
    invite.arg("--device-keys").arg(world.key_file(World::DEVICE));
    let mut invite = Process::start(invite)?;
    let line = invite.wait_for_stdout(PATIENCE, |text| text.ends_with('\n'))?;
    let env = format!(
        "POSTERN_JOIN={}\nKEYS_FOLDER={}\nJOIN_FLAGS=--sshd-port {} --ssh-host-keys /atsign/.atsign/keys\n",
        line.trim(),
        keys.display(),
        world.ssh_port()
    );
    let mut file = Composed::read("device-join", &env, dir)?;
    if engine.emulator.is_some() {
        // Who has joined becomes the daemon, and this kernel cannot run that: the emulator comes in front once more.
        let first = run(engine.service(&file, "sshnpd", "joined")?, PATIENCE)?;
        ensure!(first.stderr.contains("\njoined: "), "it did not join: {}", first.stderr);
        let service = &mut file.0["services"]["sshnpd"];
        service["entrypoint"] = json!(["/usr/local/bin/sshnpd"]);
        service["command"] = json!(["--config", "/atsign/.atsign/keys/.config/postern/sshnpd.yaml"]);
    }
    for turn in ["joined", "started again, and knew that it has joined"] {
        let mut daemon = Process::start(engine.service(&file, "sshnpd", "joined")?)?;
        daemon.wait_for_line(PATIENCE, |line| line.contains("monitor started"))?;
        engine.healthy("device", "joined")?;
        ends_on_the_host(engine, &world, World::DEVICE)?;
        engine.stops("joined", daemon)?;
        say(format_args!("device-join.yaml: {turn}"));
    }
    invite.wait(PATIENCE * 10)?.success().map(drop).context("the inviter")
}

/// The host keys of this ssh server, which is not the machine's usual one.
fn host_keys(world: &World, to: &Path) -> anyhow::Result<()> {
    for file in fs::read_dir(world.dir())?.flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        if name.starts_with("ssh_host_") && name.ends_with(".pub") {
            fs::copy(file.path(), to.join(&name))?;
            fs::set_permissions(to.join(name), fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

/// A session to the device in the container is in the host's name space, and not in the container's.
fn ends_on_the_host(engine: &Engine, world: &World, at_sign: &str) -> anyhow::Result<()> {
    let mut command = world.postern(World::CLIENT);
    command.args(["sshnp", "-f", World::CLIENT, "-t", at_sign, "-d", "gw-17", "-r", World::RELAY, "-k"]);
    command.arg(world.key_file(World::CLIENT)).args(["--root-domain", &world.root()]).arg("-i").arg(world.identity());
    command.args(["-u", &postern_testkit::user_name()]);
    for option in world.ssh_options() {
        command.args(["-o", &format!("-o {option}")]);
    }
    command.args(["--", "readlink", "/proc/self/ns/mnt"]);
    let there = run(command, PATIENCE)?.success()?.text();
    let here = fs::read_link("/proc/self/ns/mnt")?.display().to_string();
    let name = if at_sign == World::DEVICE { "joined" } else { "sshnpd" };
    let inside = fs::read_link(format!("/proc/{}/ns/mnt", engine.pid_of(name)?))?.display().to_string();
    ensure!(there == here, "the session ended in {there}; the host is {here}");
    ensure!(inside != here, "the container is the host");
    say(format_args!("the session ended on the host ({there}), the container is another place ({inside})"));
    Ok(())
}

/// The server's compose file: its health, an atSign, its end.
fn server(engine: &Engine, dir: &Path) -> anyhow::Result<()> {
    let data = dir.join("data");
    fs::create_dir(&data)?;
    chown(&data, Some(65532), Some(65532))?;
    let [port, relay] = [free_port()?, free_port()?];
    let folder = data.display();
    let env = format!("SERVER_HOST=localhost\nSERVER_PORT={port}\nRELAY_PORT={relay}\nSERVER_FOLDER={folder}\n");
    let file = Composed::read("server", &env, dir)?;
    let mut server = Process::start(engine.service(&file, "server", "server")?)?;
    server.wait_for_line(PATIENCE, |line| line.starts_with("listening on "))?;
    if engine.emulator.is_none() {
        // A second process of the image, which this kernel cannot start where it is for another machine.
        server.wait_for_line(PATIENCE, |line| line.contains("monitor started for @relay"))?;
        say(format_args!("server.yaml: its relay has keys and is ready"));
    }
    engine.healthy("server", "server")?;
    let added = engine.inside("server", &["/usr/local/bin/postern", "server", "add", "--dir", "/data", "@alice"])?;
    ensure!(added.text().len() == 128, "the secret is {:?}", added.text());
    say(format_args!("server.yaml: healthy, and @alice was added"));
    engine.stops("server", server)
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A compose file as docker-compose understands it.
struct Composed(Value);

impl Composed {
    fn read(name: &str, env: &str, dir: &Path) -> anyhow::Result<Self> {
        let env_file = dir.join(format!("{name}.env"));
        fs::write(&env_file, env)?;
        let mut command = Command::new("docker-compose");
        command.arg("--env-file").arg(env_file).arg("-f").arg(root().join(format!("packaging/compose/{name}.yaml")));
        let yaml = run(arg(command, "config"), PATIENCE)?.success()?;
        let script = "import json, shlex, sys, yaml\n\
            file = yaml.safe_load(sys.argv[1])\n\
            for service in file['services'].values():\n    \
                if isinstance(service.get('command'), str): service['command'] = shlex.split(service['command'])\n\
            json.dump(file, sys.stdout)";
        let mut python = Command::new("python3");
        python.args(["-c", script, &yaml.text()]);
        Ok(Self(serde_json::from_str(&run(python, PATIENCE)?.success()?.text())?))
    }
}

fn arg(mut command: Command, word: &str) -> Command {
    command.arg(word);
    command
}

/// Podman with a place of its own, in a mount namespace where it finds the control groups that it wants.
struct Engine {
    holder: Process,
    words: Vec<String>,
    /// The binary is not static: it sees this machine's libraries.
    lend_libraries: bool,
    /// The images are for another machine: a static program of this one, lent to each container, and its words.
    emulator: Option<(PathBuf, &'static [&'static str])>,
}

/// Where the emulator is in a container.
const EMULATOR: &str = "/emulator";

impl Drop for Engine {
    fn drop(&mut self) {
        // After a failure a container may still run; nobody else would end it.
        let _ = self.podman(&["rm", "--all", "--force", "--time", "2"]);
    }
}

impl Engine {
    fn start(
        dir: &Path,
        lend_libraries: bool,
        emulator: Option<(PathBuf, &'static [&'static str])>,
    ) -> anyhow::Result<Self> {
        // Inside containers and old systems Podman finds a mixture of control groups, which it does not take.
        let script = "umount -l /sys/fs/cgroup/* 2>/dev/null; umount -l /sys/fs/cgroup 2>/dev/null; \
                      mount -t cgroup2 none /sys/fs/cgroup; echo ready >&2; exec sleep infinity";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script]);
        let mut holder = Process::start(command)?;
        holder
            .wait_for_line(PATIENCE, |line| line == "ready")
            .context("a mount namespace of our own; root is needed")?;
        let place = |name: &str| dir.join("engine").join(name).display().to_string();
        let words = [
            "--root",
            &place("root"),
            "--runroot",
            &place("run"),
            "--tmpdir",
            &place("tmp"),
            "--storage-driver",
            "vfs",
            "--cgroup-manager=cgroupfs",
            "--events-backend=file",
        ];
        Ok(Self { holder, words: words.map(str::to_owned).to_vec(), lend_libraries, emulator })
    }

    /// Takes an image from its archive, and says how large it is on the disk.
    fn load(&self, role: Role, archive: &Path, promised: Option<u64>) -> anyhow::Result<()> {
        self.podman(&["load", "-q", "-i", &archive.display().to_string()])?;
        let is = self.podman(&["image", "inspect", "--format", "{{.Size}}", &role.tag()])?.text().parse()?;
        let what = format!("image {}", role.tag());
        let figure = Figure { what, is, promised, unit: "bytes" };
        say(format_args!("{figure}, {} as an archive", fs::metadata(archive)?.len()));
        ensure!(!figure.is_broken(), "{} is larger than promised", figure.what);
        Ok(())
    }

    /// Runs a program in a container.
    fn inside(&self, name: &str, words: &[&str]) -> anyhow::Result<Output> {
        let mut all = vec!["exec", name];
        if let Some((_, emulator)) = &self.emulator {
            all.push(EMULATOR);
            all.extend(&emulator[1..]);
        }
        all.extend(words);
        self.podman(&all)
    }

    /// The health check of an image, in a container of it.
    fn healthy(&self, image: &str, name: &str) -> anyhow::Result<()> {
        if self.emulator.is_none() {
            let outcome = self.podman(&["healthcheck", "run", name]);
            return outcome.map(drop).with_context(|| format!("the health check of the {image}"));
        }
        // The engine would start it without the emulator.
        let image = format!("postern/{image}:latest");
        let words = self.words_of(&image, "{{json .Config.Healthcheck.Test}}")?;
        let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != "CMD").collect();
        self.inside(name, &words).map(drop).with_context(|| format!("the health check of {image}"))
    }

    /// A list in the configuration of an image.
    fn words_of(&self, image: &str, format: &str) -> anyhow::Result<Vec<String>> {
        let text = self.podman(&["image", "inspect", "--format", format, image])?.text();
        serde_json::from_str(&text).with_context(|| format!("{image}: {format} is {text}"))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg("podman").args(&self.words).args(words);
        command.stdin(Stdio::null());
        command
    }

    fn podman(&self, words: &[&str]) -> anyhow::Result<Output> {
        run(self.command(words), PATIENCE)?.success().with_context(|| format!("podman {}", words.join(" ")))
    }

    /// A service of a compose file, in the foreground. A setting that is not understood is a failure.
    fn service(&self, file: &Composed, service: &str, name: &str) -> anyhow::Result<Command> {
        let settings = file.0["services"][service].as_object().with_context(|| format!("no service {service}"))?;
        // These machines may not give a container limits.
        let mut words: Vec<String> = [
            "run",
            "--rm",
            "--name",
            name,
            "--cgroups=disabled",
            "--ulimit=nofile=4096:4096",
            "--ulimit=nproc=1024:1024",
        ]
        .map(str::to_owned)
        .to_vec();
        let (mut image, mut command, mut network) = (String::new(), Vec::new(), "host".to_owned());
        let mut begin: Vec<String> = Vec::new();
        for (key, value) in settings {
            let text = || value.as_str().map(str::to_owned).with_context(|| format!("{key}: {value}"));
            let list = || -> Vec<String> {
                let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                value.as_array().into_iter().flatten().map(word).collect()
            };
            match key.as_str() {
                "image" => image = text()?,
                "command" => command = list(),
                "entrypoint" => begin = list(),
                "environment" => {
                    for (name, value) in value.as_object().into_iter().flatten() {
                        words.push(format!("--env={name}={}", value.as_str().unwrap_or_default()));
                    }
                }
                "user" => words.push(format!("--user={}", text()?)),
                "network_mode" => network = text()?,
                "read_only" => words.extend(["--read-only".to_owned(), "--read-only-tmpfs=false".to_owned()]),
                "cap_drop" => words.extend(list().iter().map(|one| format!("--cap-drop={one}"))),
                "security_opt" => {
                    words.extend(list().iter().map(|one| format!("--security-opt={}", one.replace(":true", ""))))
                }
                "volumes" => {
                    // Those that are a folder; a volume of the engine's own would be left behind.
                    let folders = list().into_iter().filter(|volume| volume.starts_with('/'));
                    words.extend(folders.map(|volume| format!("--volume={volume}")));
                }
                // The engine's affairs, not the container's; the network is the host's here, where no bridge can be made.
                "restart" | "depends_on" | "logging" | "healthcheck" | "stop_grace_period" | "ulimits" | "ports"
                | "networks" | "sysctls" | "profiles" => {}
                other => bail!("{service} has a setting that is not known here: {other}"),
            }
        }
        words.push(format!("--network={network}"));
        if self.lend_libraries {
            words.extend(["/lib", "/lib64", "/usr/lib"].map(|place| format!("--volume={place}:{place}:ro")));
        }
        if let Some((program, emulator)) = &self.emulator {
            if begin.is_empty() {
                begin = self.words_of(&image, "{{json .Config.Entrypoint}}")?;
            }
            words.push(format!("--volume={}:{EMULATOR}:ro", program.display()));
            let front = std::iter::once(EMULATOR).chain(emulator.iter().skip(1).copied()).map(str::to_owned);
            begin.splice(0..0, front);
        }
        if let Some((program, more)) = begin.split_first() {
            words.push(format!("--entrypoint={program}"));
            command.splice(0..0, more.iter().cloned());
        }
        words.push(image);
        words.extend(command);
        Ok(self.command(&words.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    fn pid_of(&self, name: &str) -> anyhow::Result<String> {
        Ok(self.podman(&["inspect", "--format", "{{.State.Pid}}", name])?.text())
    }

    /// It ends by itself when it is asked, though it is process 1 of its container.
    fn stops(&self, name: &str, process: Process) -> anyhow::Result<()> {
        let asked = Instant::now();
        self.podman(&["stop", "--time", "60", name])?;
        let output = process.wait(PATIENCE * 10)?;
        ensure!(output.status.success(), "{name} ended with {}\n{}", output.status, output.stderr);
        ensure!(asked.elapsed() < GRACE, "{name} took {:?} to end", asked.elapsed());
        say(format_args!("{name}: ended by itself when it was asked"));
        Ok(())
    }
}

/// The development build without its symbols, which are most of it.
fn stripped(dir: &Path) -> anyhow::Result<PathBuf> {
    let file = dir.join("postern");
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&file).arg(postern_bin()?);
    run(strip, PATIENCE)?.success()?;
    Ok(file)
}

fn host() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "aarch64-unknown-linux-musl",
        _ => "x86_64-unknown-linux-musl",
    }
}
