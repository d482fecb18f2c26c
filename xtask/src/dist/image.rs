//! Images for Docker, Podman and their kind, from nothing but a static binary. No engine is needed to make them: an image is
//! a tar of a tar and some JSON.
//!
//! Source: OCI image specification 1.0 for the configuration; Docker image specification 1.2 for the archive, because the
//! other one, OCI's, knows no health checks and engines drop them.

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::archive::{Entry, What, gzip, tar, with_folders};
use super::files::{digest, write};
use super::{Artefact, Build, Source};

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The device daemon, with what activates it or joins by an invitation.
    Device,
    /// Directory, atServers, relay.
    Server,
    /// The clients.
    Client,
}

/// A user of the image and its home.
struct User {
    name: &'static str,
    id: u64,
    home: &'static str,
}

/// Who the containers of NoPorts are: volumes with keys stay readable when the image is changed for ours.
const ATSIGN: User = User { name: "atsign", id: 1024, home: "/atsign" };
/// Nobody that the host knows.
const NOBODY: User = User { name: "postern", id: 65532, home: "/data" };

/// Where programs lie.
const PROGRAMS: &str = "/usr/local/bin";
/// Where authorities lie that the public web believes.
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";

impl Role {
    pub(crate) const ALL: [Self; 3] = [Self::Device, Self::Server, Self::Client];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Server => "server",
            Self::Client => "client",
        }
    }

    /// `postern/device:latest`, for compose files.
    pub(crate) fn tag(self) -> String {
        format!("postern/{}:latest", self.name())
    }

    /// The build that it is made of.
    pub(crate) fn build(self) -> Build {
        match self {
            Self::Server => Build::Server,
            Self::Device => Build::DeviceFull,
            Self::Client => Build::Full,
        }
    }

    fn user(self) -> User {
        match self {
            Self::Device | Self::Client => ATSIGN,
            Self::Server => NOBODY,
        }
    }

    /// Programs that are links to the binary.
    fn links(self) -> &'static [&'static str] {
        match self {
            Self::Device => &["sshnpd", "at_activate"],
            Self::Server => &["srvd", "at_activate", "npp", "npp_file", "npp_atserver"],
            Self::Client => &["sshnp", "npt", "at_activate"],
        }
    }

    fn entrypoint(self) -> Value {
        match self {
            Self::Device => json!([format!("{PROGRAMS}/sshnpd")]),
            Self::Server => json!([format!("{PROGRAMS}/postern"), "server"]),
            Self::Client => json!([format!("{PROGRAMS}/postern")]),
        }
    }

    fn words(self) -> Value {
        match self {
            Self::Device | Self::Client => json!(["--help"]),
            Self::Server => json!(["run", "--dir", NOBODY.home]),
        }
    }

    /// Asks without a shell.
    fn health(self) -> Option<Value> {
        match self {
            Self::Device => Some(json!(["CMD", format!("{PROGRAMS}/sshnpd"), "status"])),
            Self::Server => {
                Some(json!(["CMD", format!("{PROGRAMS}/postern"), "server", "health", "--dir", NOBODY.home]))
            }
            Self::Client => None,
        }
    }

    /// Folders that the user owns; volumes belong there.
    fn folders(self) -> &'static [&'static str] {
        match self {
            Self::Device | Self::Client => &["atsign", "atsign/.atsign", "atsign/.atsign/keys", "atsign/.ssh"],
            Self::Server => &["data", "keys"],
        }
    }

    fn environment(self) -> Vec<String> {
        let user = self.user();
        let mut all = vec![format!("PATH={PROGRAMS}"), format!("HOME={}", user.home)];
        if matches!(self, Self::Device | Self::Client) {
            let keys = format!("{}/.atsign/keys", user.home);
            // The identity that others pin must outlive the container, and there is one volume: that of the keys.
            all.push(format!("XDG_CONFIG_HOME={keys}/.config"));
            all.push(format!("XDG_STATE_HOME={keys}/.state"));
        }
        // Memory that is writable where the root is not, with every engine.
        all.push("XDG_RUNTIME_DIR=/dev/shm".to_owned());
        all
    }
}

/// The parts of an image for one kind of machine.
pub(super) struct Image {
    pub(super) config: Value,
    /// Compressed.
    pub(super) layer: Vec<u8>,
    /// Bytes of the files in the layer.
    unpacked: u64,
}

/// Makes an image for one kind of machine in `folder`.
///
/// # Errors
/// The binary cannot be read; no engine has a name for the machine.
pub(crate) fn make(source: Source<'_>, role: Role, folder: &Path) -> anyhow::Result<Artefact> {
    let Image { config, layer, unpacked } = assemble(source, role)?;
    let name = format!("postern-{}_{}_{}.image.tar", role.name(), source.version, machine(source.target)?.0);
    let path = write(folder, &name, &archive(&config, &layer, &role.tag(), source.epoch)?)?;
    Ok(Artefact { path, target: source.target.to_owned(), kind: "image", unpacked: Some(unpacked) })
}

/// Puts an image together.
///
/// # Errors
/// As [`make`].
pub(super) fn assemble(source: Source<'_>, role: Role) -> anyhow::Result<Image> {
    let (machine, variant) = machine(source.target)?;
    let entries = entries(source, role)?;
    let bytes = |entry: &Entry| if let What::File(bytes) = &entry.what { bytes.len() as u64 } else { 0 };
    let unpacked = entries.iter().map(bytes).sum();
    let layer = tar(&entries, "", source.epoch)?;
    let packed = gzip(&layer)?;
    let created = Timestamp::from_second(i64::try_from(source.epoch)?)?.to_string();
    let mut config = json!({
        "created": created,
        "architecture": machine,
        "os": "linux",
        "config": {
            "User": format!("{0}:{0}", role.user().id),
            "Env": role.environment(),
            "Entrypoint": role.entrypoint(),
            "Cmd": role.words(),
            "WorkingDir": role.user().home,
            "StopSignal": "SIGTERM",
            "Labels": {
                "org.opencontainers.image.title": format!("postern {}", role.name()),
                "org.opencontainers.image.description": "reach machines that have no open port",
                "org.opencontainers.image.version": source.version,
                "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
                "org.opencontainers.image.created": created,
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))] },
        "history": [{ "created": created, "created_by": "cargo xtask dist" }],
    });
    if let Some(variant) = variant {
        config["variant"] = json!(variant);
    }
    if let Some(words) = role.health() {
        let seconds = |n: u64| n * 1_000_000_000;
        config["config"]["Healthcheck"] = json!({
            "Test": words, "Interval": seconds(60), "Timeout": seconds(10), "StartPeriod": seconds(60), "Retries": 3
        });
    }
    if role == Role::Server {
        config["config"]["Volumes"] = json!({ NOBODY.home: {} });
        config["config"]["ExposedPorts"] = json!({ "64/tcp": {} });
    }
    Ok(Image { config, layer: packed, unpacked })
}

fn entries(source: Source<'_>, role: Role) -> anyhow::Result<Vec<Entry>> {
    let user = role.user();
    let User { name, id, home } = user;
    let binary = std::fs::read(source.binary)?;
    let programs = PROGRAMS.trim_start_matches('/');
    let mut entries = vec![
        Entry::program(&format!("{programs}/postern"), binary),
        Entry::file(
            "etc/passwd",
            format!("root:x:0:0:root:/:/sbin/nologin\n{name}:x:{id}:{id}::{home}:/sbin/nologin\n"),
        ),
        Entry::file("etc/group", format!("root:x:0:\n{name}:x:{id}:\n")),
        // Names of the container come before those of a name server.
        Entry::file("etc/nsswitch.conf", "hosts: files dns\n"),
    ];
    entries.extend(role.links().iter().map(|link| Entry::link(&format!("{programs}/{link}"), "postern")));
    for folder in role.folders() {
        entries.push(Entry { mode: 0o700, owner: id, ..Entry::folder(folder) });
    }
    // Whom the public web believes, where the machine that makes the image knows it. Servers of one's own bring theirs.
    if let Ok(authorities) = std::fs::read(Path::new("/").join(AUTHORITIES)) {
        entries.push(Entry::file(AUTHORITIES, authorities));
    }
    Ok(with_folders(entries))
}

/// What `docker load` and `podman load` read.
fn archive(config: &Value, layer: &[u8], tag: &str, epoch: u64) -> anyhow::Result<Vec<u8>> {
    let config = serde_json::to_vec(config)?;
    let (config_name, layer_name) = (format!("{}.json", digest(&config)), format!("{}/layer.tar", digest(layer)));
    let manifest = json!([{ "Config": config_name, "RepoTags": [tag], "Layers": [layer_name] }]);
    let entries = with_folders(vec![
        Entry::file(&config_name, config),
        Entry::file(&layer_name, layer),
        Entry::file("manifest.json", serde_json::to_vec(&manifest)?),
    ]);
    Ok(tar(&entries, "", epoch)?)
}

/// Engines' names of a machine.
pub(crate) fn machine(target: &str) -> anyhow::Result<(&'static str, Option<&'static str>)> {
    Ok(match target.split('-').next().unwrap_or_default() {
        "x86_64" => ("amd64", None),
        "aarch64" => ("arm64", None),
        "armv7" => ("arm", Some("v7")),
        "i686" => ("386", None),
        "riscv64gc" => ("riscv64", None),
        other => anyhow::bail!("no image is made for {other}"),
    })
}
