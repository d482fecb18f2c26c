//! What is handed out: packages and images, each made from a binary that was built before. The same input gives the same
//! bytes.

pub(crate) mod archive;
pub(crate) mod deb;
pub(crate) mod files;
pub(crate) mod image;
pub(crate) mod index;
pub(crate) mod ipk;

#[cfg(test)]
mod tests;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use postern_testkit::say;

use crate::steps::root;
use image::Role;

/// What a package is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// The binary, for [`Source::target`], static.
    pub(crate) binary: &'a Path,
    /// Rust's name of the machine it is for, `aarch64-unknown-linux-musl`.
    pub(crate) target: &'a str,
    /// Which programs it holds.
    pub(crate) build: Build,
    /// Version of the workspace.
    pub(crate) version: &'a str,
    /// The time that every file bears, seconds since 1970: `SOURCE_DATE_EPOCH`.
    pub(crate) epoch: u64,
}

/// Which programs a binary holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// What a gateway needs.
    Device,
    /// All that the device daemon can do, for gateways with room for it.
    DeviceFull,
    /// Directory, atServers, relay, policy service.
    Server,
    /// Everything.
    Full,
}

impl Build {
    /// From the one that is the soonest built.
    pub(crate) const ALL: [Self; 4] = [Self::Device, Self::DeviceFull, Self::Server, Self::Full];

    /// The one that the command line calls so: `device`, `device-full`, `server`, `full`.
    pub(crate) fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|build| build.word() == word)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::DeviceFull => "device-full",
            Self::Server => "server",
            Self::Full => "full",
        }
    }

    /// The device daemon and nothing that runs elsewhere.
    pub(crate) fn is_for_devices(self) -> bool {
        matches!(self, Self::Device | Self::DeviceFull)
    }

    /// The others. Each has `/usr/bin/postern`: there can be one of them on a machine.
    pub(crate) fn others(self) -> String {
        let others: Vec<&str> = Self::ALL.into_iter().filter(|other| *other != self).map(Self::package).collect();
        others.join(", ")
    }

    /// Names of packages.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Device => "postern-device",
            Self::DeviceFull => "postern-device-full",
            Self::Server => "postern-server",
            Self::Full => "postern",
        }
    }

    /// Programs that are links to the binary.
    pub(crate) fn links(self) -> &'static [&'static str] {
        match self {
            Self::Device => &["sshnpd"],
            Self::DeviceFull => &["sshnpd", "at_activate"],
            Self::Server => &["srvd", "at_activate", "npp", "npp_file", "npp_atserver"],
            Self::Full => &["sshnpd", "sshnp", "npt", "srvd", "srv", "at_activate", "npp", "npp_file", "npp_atserver"],
        }
    }

    /// Services that it has units for.
    pub(crate) fn services(self) -> &'static [&'static str] {
        match self {
            Self::Device | Self::DeviceFull => &["sshnpd"],
            Self::Server => &["srvd", "postern-server"],
            Self::Full => &["sshnpd", "srvd", "postern-server"],
        }
    }

    /// What it is, in a sentence.
    pub(crate) fn summary(self) -> &'static str {
        match self {
            Self::Device => "The device daemon: it dials out, and listens on nothing.",
            Self::DeviceFull => {
                "The device daemon, with an ssh server, sandbox, doctor and activation: it dials out, and listens on nothing."
            }
            Self::Server => "Directory, atServers, relay and policy service.",
            Self::Full => "Device daemon, clients, relay, directory and atServers.",
        }
    }
}

/// Something that was made.
#[derive(Clone, Debug)]
pub(crate) struct Artefact {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// Rust's name of the machine it is for.
    pub(crate) target: String,
    /// `deb`, `ipk`, `tar.gz`, `image`, `index`, `bill`.
    pub(crate) kind: &'static str,
    /// Of an image: bytes on the disk of an engine.
    pub(crate) unpacked: Option<u64>,
}

const USAGE: &str = "\
cargo xtask package --binary FILE --target TARGET [--build device|device-full|server|full] [--out DIR]

Makes what fits the machine of TARGET (Rust's name) of a static binary: deb, ipk, images. Prints kind, target and path of each, one a line.
The same binary gives the same bytes; every file bears the time of SOURCE_DATE_EPOCH, or else of the last commit.
Default: --build full --out target/dist";

/// `cargo xtask package`.
pub(crate) fn package(args: &[String]) -> anyhow::Result<ExitCode> {
    let (mut binary, mut target, mut build, mut out) = (None, None, Build::Full, root().join("target/dist"));
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        if flag == "--help" {
            say(format_args!("{USAGE}"));
            return Ok(ExitCode::SUCCESS);
        }
        let value = args.next().with_context(|| format!("{flag} wants a value\n{USAGE}"))?;
        match (flag.as_str(), value.as_str()) {
            ("--binary", path) => binary = Some(PathBuf::from(path)),
            ("--target", name) => target = Some(name.to_owned()),
            ("--build", word) => {
                build = Build::named(word).with_context(|| format!("no such build: {word}\n{USAGE}"))?
            }
            ("--out", path) => out = PathBuf::from(path),
            _ => bail!("no such argument: {flag} {value}\n{USAGE}"),
        }
    }
    let (Some(binary), Some(target)) = (binary, target) else { bail!("{USAGE}") };
    let source =
        Source { binary: &binary, target: &target, build, version: env!("CARGO_PKG_VERSION"), epoch: epoch()? };
    for artefact in pack(source, &out)? {
        let Artefact { path, target, kind, .. } = artefact;
        writeln!(std::io::stdout(), "{kind}\t{target}\t{}", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes everything that there is for the machine.
///
/// # Errors
/// A file is missing or cannot be written.
pub(crate) fn pack(source: Source<'_>, folder: &Path) -> anyhow::Result<Vec<Artefact>> {
    let mut made = Vec::new();
    if deb::machine(source.target).is_some() {
        made.push(deb::make(source, folder)?);
    }
    if source.build.is_for_devices() {
        made.push(ipk::make(source, folder)?);
        made.push(ipk::plain(source, folder)?);
    }
    if image::machine(source.target).is_ok() {
        for role in Role::ALL.into_iter().filter(|role| role.build() == source.build) {
            made.push(image::make(source, role, folder)?);
        }
    }
    Ok(made)
}

/// The time that everything bears: `SOURCE_DATE_EPOCH`, or that of the last commit.
///
/// # Errors
/// There is neither.
pub(crate) fn epoch() -> anyhow::Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            let output = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root()).output()?;
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
    };
    text.trim()
        .parse()
        .context("set SOURCE_DATE_EPOCH to seconds since 1970: git does not tell the time of the last commit")
}
