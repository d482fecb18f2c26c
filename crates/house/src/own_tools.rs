//! A person's own ssh, and what runs over it, with the block that `postern ssh-config` writes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use postern_testkit::limits::{COMMAND, SESSION};
use postern_testkit::{Output, World, run, say};

/// Whether ssh keeps its connection for the next call (`ControlPersist`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Each call has a connection of its own.
    Alone,
    /// The first call leaves its connection to those after it.
    Kept,
}

impl Sharing {
    /// Both ways.
    pub const BOTH: [Self; 2] = [Self::Alone, Self::Kept];

    fn word(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Kept => "kept",
        }
    }
}

/// What a person wrote into the configuration of the clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told<'a> {
    /// Key type and key of the device's ssh server; they count instead of those that the device tells.
    pub host_key: Option<&'a str>,
    /// Relays, separated by commas; by default the house's one.
    pub relays: Option<&'a str>,
    /// Keys; by default the first ones of the client's atSign.
    pub key_file: Option<&'a Path>,
}

/// Files in the client's home: how its programs find the device, and ssh's configuration with our block at its end.
///
/// Whatever ssh wants to know from the person comes to a program that writes it down and gives no answer, so that a
/// question is seen even where nobody could answer it.
#[derive(Debug)]
pub struct OwnTools {
    home: PathBuf,
}

impl OwnTools {
    /// With what there is without a word of the person's own: the host keys come from the device, signed.
    pub fn prepare(world: &World) -> anyhow::Result<Self> {
        Self::prepare_with(world, Told::default())
    }

    /// With what the person wrote down.
    pub fn prepare_with(world: &World, told: Told<'_>) -> anyhow::Result<Self> {
        let tools = Self { home: world.home_of(World::CLIENT) };
        let mut yaml = format!(
            "from: \"{}\"\nto: \"{}\"\nrelay: \"{}\"\nroot: {}\nkey-file: {}\npatience: 4s\n",
            World::CLIENT,
            World::DEVICE,
            told.relays.unwrap_or(World::RELAY),
            world.root(),
            told.key_file.unwrap_or(&world.key_file(World::CLIENT)).display(),
        );
        if let Some(key) = told.host_key {
            yaml.push_str(&format!("hosts:\n  {}: {{host-keys: [\"{key}\"]}}\n", World::DEVICE_NAME));
        }
        let config = tools.home.join("config.yaml");
        std::fs::write(&config, yaml)?;
        let mut block = world.postern(World::CLIENT);
        block.args(["ssh-config", "--config"]).arg(&config);
        let block = run(block, COMMAND)?.success()?.text();
        ensure!(block.contains("StrictHostKeyChecking yes"), "{block}");
        for sharing in Sharing::BOTH {
            // ssh takes the first value it reads. Sockets go to a directory of the test's, not to the person's own.
            let ours = match sharing {
                Sharing::Alone => "ControlMaster no\nControlPath none\n".to_owned(),
                Sharing::Kept => format!("ControlPath {}\n", tools.home.join("%C").display()),
            };
            let text = format!("IdentityFile {}\nIdentitiesOnly yes\n{ours}\n{block}\n", world.identity().display());
            std::fs::write(tools.config(sharing), text)?;
        }
        let asked = format!("#!/bin/sh\nprintf '%s\\n' \"$1\" >> {}\nexit 1\n", tools.questions().display());
        let askpass = tools.home.join("askpass");
        std::fs::write(&askpass, asked)?;
        std::fs::set_permissions(&askpass, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        Ok(tools)
    }

    /// What ssh calls the device.
    pub fn host() -> String {
        format!("{}.np", World::DEVICE_NAME)
    }

    /// `ssh`, `scp` or `sftp`, ready for host and words.
    pub fn ssh(&self, world: &World, program: &str, sharing: Sharing) -> Command {
        let mut command = self.over(world, program, sharing);
        command.arg("-F").arg(self.config(sharing));
        command
    }

    /// Any program, with everything that its ssh needs around it. What is not said by `-F` must be said by
    /// [`Self::remote_shell`].
    pub fn over(&self, world: &World, program: &str, sharing: Sharing) -> Command {
        let mut command = world.places().client.command(program);
        command.env("HOME", &self.home).env("POSTERN_CA_FILE", world.ca_file());
        command.env("SSH_ASKPASS", self.home.join("askpass")).env("SSH_ASKPASS_REQUIRE", "force");
        command.env("GIT_SSH_COMMAND", self.remote_shell(sharing)).env("RSYNC_RSH", self.remote_shell(sharing));
        command.env_remove("SSH_AUTH_SOCK");
        for folder in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"] {
            command.env_remove(folder);
        }
        command
    }

    /// How programs call ssh (`rsync -e`, `GIT_SSH_COMMAND`).
    pub fn remote_shell(&self, sharing: Sharing) -> String {
        format!("ssh -F {}", self.config(sharing).display())
    }

    /// ssh's configuration.
    pub fn config(&self, sharing: Sharing) -> PathBuf {
        self.home.join(format!("ssh-{}.conf", sharing.word()))
    }

    /// What ssh asked the person so far.
    pub fn asked(&self) -> String {
        std::fs::read_to_string(self.questions()).unwrap_or_default()
    }

    /// Runs a command on the device by `ssh`.
    pub fn on_device(&self, world: &World, sharing: Sharing, line: &str) -> anyhow::Result<Output> {
        let mut command = self.ssh(world, "ssh", sharing);
        command.args([&Self::host(), line]).stdin(Stdio::null());
        run(command, SESSION)
    }

    /// Whether a kept connection is there.
    pub fn is_kept(&self, world: &World) -> anyhow::Result<bool> {
        Ok(self.control(world, "check")?.status.success())
    }

    /// Ends a kept connection, if there is one.
    pub fn forget(&self, world: &World) -> anyhow::Result<()> {
        self.control(world, "exit").map(drop)
    }

    fn control(&self, world: &World, verb: &str) -> anyhow::Result<Output> {
        let mut command = self.ssh(world, "ssh", Sharing::Kept);
        command.args(["-O", verb, &Self::host()]);
        run(command, COMMAND)
    }

    fn questions(&self) -> PathBuf {
        self.home.join("questions")
    }
}

/// Whether these programs are on this machine; a test that needs one that is not is skipped, which is printed.
///
/// # Errors
/// Under CI a missing program is a failure: a skipped test proves nothing.
pub fn programs_or_skip(programs: &[&str]) -> anyhow::Result<bool> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&&str| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    let missing: Vec<&str> = programs.iter().filter(|program| !is_there(program)).copied().collect();
    missing_or_skip(&missing)
}

/// Where programs from the Python package index lie, installed by `cargo xtask install` from
/// `requirements/NAME.txt`; `None` is printed as a skipped test.
///
/// # Errors
/// Under CI it must be there.
pub fn environment_or_skip(name: &str) -> anyhow::Result<Option<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("we lie in the workspace")?;
    let bin = root.join("target/requirements").join(name).join("bin");
    let missing: &[&str] = if bin.is_dir() { &[] } else { &[name] };
    Ok(missing_or_skip(missing)?.then_some(bin))
}

fn missing_or_skip(missing: &[&str]) -> anyhow::Result<bool> {
    if missing.is_empty() {
        return Ok(true);
    }
    let reason = format!("{} not found: `cargo xtask install` brings it", missing.join(", "));
    if std::env::var_os("CI").is_some() {
        bail!(reason);
    }
    say(format_args!("SKIPPED: {reason}"));
    Ok(false)
}
