//! Programs of the system that tasks need: installed when missing, on Debian and its children.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::bail;
use postern_testkit::say;

use crate::python;
use crate::steps::{cargo, root, run};

/// A program and the Debian package that brings it.
type Need = (&'static str, &'static str);

/// For a session: an ssh server of our own, an ssh client, and small tools that are always there
/// except in the smallest containers.
pub(crate) const FOR_DEMO: [Need; 4] = [
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("setpriv", "util-linux"),
];

/// The same with the ssh server inside the daemon: the person's own ssh is enough.
pub(crate) const FOR_BUILTIN_DEMO: [Need; 2] = [("ssh", "openssh-client"), ("ssh-keygen", "openssh-client")];

/// For the tests: also namespaces, address translation, a terminal, what people use over ssh, and their shells.
pub(crate) const FOR_TESTS: [Need; 16] = [
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("scp", "openssh-client"),
    ("sftp", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("setpriv", "util-linux"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("script", "bsdutils"),
    ("rsync", "rsync"),
    ("git", "git"),
    ("faketime", "faketime"),
    ("dropbear", "dropbear-bin"),
    ("dropbearkey", "dropbear-bin"),
    ("zsh", "zsh"),
    ("fish", "fish"),
];

/// For programs of others.
pub(crate) const FOR_INTEROP: [Need; 1] = [("ip", "iproute2")];

/// Installs everything that the tests need and this machine lacks.
pub(crate) fn for_tests() -> anyhow::Result<()> {
    install(&FOR_TESTS)?;
    // The tests look for their programs there.
    python::environments(&root().join("crates/house/requirements"), &root().join("target/requirements"))?;
    if is_there("cargo-nextest") {
        return Ok(());
    }
    say(format_args!("installing cargo-nextest"));
    run(cargo().args(["install", "--locked", "cargo-nextest"]))
}

/// Installs Python's module for virtual environments where Debian has left it out.
pub(crate) fn install_venv() -> anyhow::Result<()> {
    let there = Command::new("python3").args(["-c", "import venv, ensurepip"]).stderr(Stdio::null()).status()?;
    if there.success() { Ok(()) } else { install_packages(&["python3-venv"]) }
}

/// Installs the packages of the programs that are not there; says so first.
///
/// # Errors
/// Something is missing and this machine has no apt, or we may not use it.
pub(crate) fn install(needs: &[Need]) -> anyhow::Result<()> {
    let mut packages: Vec<&str> = needs.iter().filter(|(program, _)| !is_there(program)).map(|need| need.1).collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() { Ok(()) } else { install_packages(&packages) }
}

fn install_packages(packages: &[&str]) -> anyhow::Result<()> {
    let names = packages.join(" ");
    if !is_there("apt-get") {
        bail!("please install these first (Debian's names): {names}");
    }
    say(format_args!("installing with apt-get: {names}"));
    if packages.contains(&"openssh-server") {
        say(format_args!(
            "(Debian starts its own ssh service with it; we use an sshd of our own and leave that alone)"
        ));
    }
    run(apt()?.args(["apt-get", "-q", "update"]))?;
    run(apt()?.args(["apt-get", "-q", "install", "-y", "--no-install-recommends"]).args(packages))
}

/// Whether a program is on the path or where only root looks.
pub(crate) fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(|dir| Path::new(dir).to_path_buf());
    std::env::split_paths(&path).chain(system).any(|dir| dir.join(program).is_file())
}

/// `env` as root, for the program that follows.
pub(crate) fn apt() -> anyhow::Result<Command> {
    let id = Command::new("id").arg("-u").output()?;
    let is_root = id.stdout.trim_ascii() == b"0";
    let mut command = if is_root {
        Command::new("env")
    } else if is_there("sudo") {
        let mut sudo = Command::new("sudo");
        sudo.arg("env");
        sudo
    } else {
        bail!("installing needs root or sudo");
    };
    command.arg("DEBIAN_FRONTEND=noninteractive");
    Ok(command)
}
