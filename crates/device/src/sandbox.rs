//! What the daemon may still do once it runs: reach the files that its configuration names, and nothing that a thief of it
//! would want.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use postern_client::trust::Places;
use postern_client::{default_key_file, home_dir};
use postern_confine::{Got, Wanted, confine};
use postern_observe::state_dir;

use crate::cli::{Config, MinSecurity};
use crate::host_keys::{DROPBEAR, HostKeySource, OPENSSH};
use crate::status;

/// Whether the daemon gives up what it does not need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sandbox {
    /// As much as the kernel can.
    Auto,
    /// All of it, or the daemon does not run.
    Require,
    /// Nothing.
    Off,
}

/// What names need: libc's files, and where they lead.
const NAMES: [&str; 7] = [
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/passwd",
    "/etc/resolv.conf",
];
/// Certificates, time zones, libraries, and what the kernel tells of this process, the network and itself.
const SYSTEM: [&str; 21] = [
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/usr/lib",
    "/usr/lib64",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/ld.so.conf.d",
    "/proc/self",
    "/proc/net",
    "/proc/sys",
    "/proc/uptime",
    "/sys/class/net",
    "/sys/devices",
    "/dev/urandom",
];
/// Name more certificates.
const VARIABLES: [&str; 3] = ["POSTERN_CA_FILE", "SSL_CERT_FILE", "SSL_CERT_DIR"];
/// The tool that asks an ssh server for its host keys.
const KEYSCAN: &str = "ssh-keyscan";
/// The tool that shows the public half of Dropbear's.
const DROPBEARKEY: &str = "dropbearkey";

/// Gives up what the daemon does not need, for this thread and those to come. `None`: nothing was given up.
///
/// # Errors
/// The kernel cannot, and it is required; or it refuses.
pub(crate) fn enter(config: &Config) -> Result<Option<Got>, String> {
    if config.sandbox == Sandbox::Off {
        return Ok(None);
    }
    if serves_logins(config) {
        let why = "logins at the built-in ssh server are to reach what their users may";
        if config.sandbox == Sandbox::Require {
            return Err(format!("--sandbox require does not go together with --ssh-server builtin: {why}"));
        }
        tracing::info!("no sandbox: {why}");
        return Ok(None);
    }
    let wanted = wanted(config);
    make_folders(&wanted.write);
    match confine(&wanted) {
        Ok(got) if got.is_whole() || config.sandbox == Sandbox::Auto => {
            tracing::info!(files = got.files, ports = got.ports, calls = got.calls, "sandbox");
            Ok(Some(got))
        }
        Ok(got) => {
            Err(format!("--sandbox require: this kernel can only do part of it ({got}); --sandbox auto takes that"))
        }
        Err(error) if config.sandbox == Sandbox::Require => Err(format!("--sandbox require: {error}")),
        Err(error) => {
            tracing::warn!(%error, "no sandbox");
            Ok(None)
        }
    }
}

/// Shells run inside the daemon: what it gives up they would lack.
#[cfg(feature = "sshd")]
pub(crate) fn serves_logins(config: &Config) -> bool {
    config.ssh_server == crate::cli::SshServer::Builtin
}

#[cfg(not(feature = "sshd"))]
pub(crate) fn serves_logins(_: &Config) -> bool {
    false
}

/// What the configuration names.
pub(crate) fn wanted(config: &Config) -> Wanted {
    let mut read: Vec<PathBuf> = SYSTEM.iter().chain(&NAMES).map(PathBuf::from).collect();
    read.extend(resolvers());
    read.extend(VARIABLES.iter().filter_map(std::env::var_os).map(PathBuf::from));
    // Editors put another file in the place of the one that was there.
    read.extend(config.managers_file.as_ref().and_then(|path| path.parent()).map(Path::to_owned));
    let home = home_dir().ok();
    let usual = || home.as_ref().map(|home| default_key_file(home, &config.at_sign));
    read.extend(config.key_file.clone().or_else(usual));
    let mut run = Vec::new();
    match &config.host_keys {
        HostKeySource::Off => {}
        HostKeySource::Paths(paths) => {
            read.extend(paths.iter().cloned());
            run.extend(in_path(DROPBEARKEY).filter(|_| paths.iter().any(|path| path.is_dir())));
        }
        HostKeySource::Standard => {
            read.extend([OPENSSH, DROPBEAR].map(PathBuf::from));
            run.extend([KEYSCAN, DROPBEARKEY].into_iter().filter_map(in_path));
        }
    }
    if !run.is_empty() {
        run.extend(loaders());
    }
    let places = Places::of_user();
    let mut write: Vec<PathBuf> =
        [places.config, places.state, state_dir(), status::place()].into_iter().flatten().collect();
    write.push("/dev/null".into());
    if let Some(ssh) = home.map(|home| home.join(".ssh")) {
        let authorized = ssh.join("authorized_keys");
        // Those who keep it elsewhere have a link here.
        let linked = fs::canonicalize(&authorized).ok();
        // Clients of 2024 are let in by keys that live for seconds.
        if config.accept_keys || config.min_security == MinSecurity::Legacy {
            write.extend(linked.and_then(|path| path.parent().map(Path::to_owned)));
            write.push(ssh);
        } else {
            read.extend(linked);
        }
    }
    // Clients may have it listen on loopback where its owner lists the ports.
    Wanted { read, write, run, listen: !config.permit_listen.is_empty() }
}

/// Folders that are not there yet could not be made later.
fn make_folders(paths: &[PathBuf]) {
    for path in paths.iter().filter(|path| !path.exists()) {
        if let Err(error) = fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
            tracing::debug!(path = %path.display(), %error, "a folder could not be made");
        }
    }
}

/// The folder in which the list of name servers is put anew when the network changes.
fn resolvers() -> Option<PathBuf> {
    let list = Path::new("/etc/resolv.conf");
    let real = fs::canonicalize(list).ok()?;
    let folder = real.parent()?.to_owned();
    // One that was mounted there, as containers do, stays the same file.
    let is_mounted = fs::metadata(&real).ok()?.dev() != fs::metadata(&folder).ok()?.dev();
    (!is_mounted).then_some(folder)
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())?;
    fs::canonicalize(found).ok()
}

/// What the kernel starts to load a program's libraries.
fn loaders() -> Vec<PathBuf> {
    let listed = |folder: &str| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_loader = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("ld-") && name.contains(".so"))
    };
    ["/lib", "/lib64"]
        .into_iter()
        .flat_map(listed)
        .filter(is_loader)
        .filter_map(|path| fs::canonicalize(path).ok())
        .collect()
}

/// Tries in a thread of its own what a thief of the daemon would: what the kernel takes on, and what was not refused.
#[cfg(feature = "doctor")]
pub(crate) fn tried(config: &Config) -> Result<(Got, Vec<&'static str>), String> {
    let wanted = wanted(config);
    let may_listen = wanted.listen;
    let thread = std::thread::Builder::new().name("sandbox".into()).spawn(move || {
        let got = confine(&wanted).map_err(|error| error.to_string())?;
        let mut open = Vec::new();
        if got.files {
            if fs::read_dir("/").is_ok() {
                open.push("listing /");
            }
            if fs::File::open("/proc/1/environ").is_ok() {
                open.push("reading another process's environment");
            }
        }
        if !may_listen && (got.ports || got.calls) && std::net::TcpListener::bind("127.0.0.1:0").is_ok() {
            open.push("listening");
        }
        Ok((got, open))
    });
    let thread = thread.map_err(|error| error.to_string())?;
    thread.join().map_err(|_| "the thread that tried it failed".to_owned())?
}
