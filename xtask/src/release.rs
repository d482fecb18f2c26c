//! `cargo xtask dist`: everything that is handed out, built for machines other than this one, and tried.

mod bill;
mod build;
mod session;
mod tools;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use postern_testkit::{postern_bin, say};
use sha2::{Digest as _, Sha256};

use crate::dist::archive::{Entry, tar_gz, with_folders};
use crate::dist::files::{copyright, programs, read, write};
use crate::dist::{Artefact, Build, Source, epoch, pack};
use crate::footprint::{self, Figure};
use crate::install;
use crate::steps::{build_postern, root};
use tools::Tools;

const USAGE: &str = "\
cargo xtask dist [--target TARGET]... [--device] [--out DIR]

Builds static binaries, packs them, writes SHA256SUMS and a bill of materials for each build (CycloneDX), and runs one
session with the daemon of each machine: under emulation where this machine is another. Prints what was made and how it was run.
TARGET: x86_64-unknown-linux-musl and aarch64-unknown-linux-musl unless some are named; also armv7-unknown-linux-musleabihf
and mipsel-unknown-linux-musl. --device leaves the full builds out. Default: --out target/dist
Needs Debian's packages (a compiler, qemu) and two from the Python package index, and keeps them in target/tools.";

/// The full build of the server's image, in bytes.
const FULL_BYTES: u64 = 12_000_000;

/// A kind of machine that we build for.
#[derive(Debug)]
struct Target {
    /// Rust's name.
    name: &'static str,
    /// What runs its programs elsewhere: the program and its words.
    emulator: &'static [&'static str],
    /// Servers and clients too, not the daemon alone.
    full: bool,
}

/// The processors of real gateways: emulated as they are, not as the best of their kind.
const TARGETS: [Target; 4] = [
    Target { name: "x86_64-unknown-linux-musl", emulator: &["qemu-x86_64-static"], full: true },
    Target { name: "aarch64-unknown-linux-musl", emulator: &["qemu-aarch64-static", "-cpu", "cortex-a72"], full: true },
    Target { name: "armv7-unknown-linux-musleabihf", emulator: &["qemu-arm-static", "-cpu", "cortex-a7"], full: false },
    Target { name: "mipsel-unknown-linux-musl", emulator: &["qemu-mipsel-static", "-cpu", "24Kc"], full: false },
];

impl Target {
    /// Whether this machine runs its programs by itself.
    fn is_native(&self) -> bool {
        self.name.split('-').next() == Some(std::env::consts::ARCH)
    }
}

/// What was asked for.
struct Order {
    targets: Vec<&'static Target>,
    device_only: bool,
    out: PathBuf,
}

/// Builds, packs, tries, lists; fails when a session fails or a promise about size is broken.
pub(crate) fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    let Some(order) = Order::read(args)? else {
        say(format_args!("{USAGE}"));
        return Ok(ExitCode::SUCCESS);
    };
    install::install(&install::FOR_DEMO)?;
    let tools = Tools::ready()?;
    // The other pieces of the house: of this machine.
    let postern = match std::env::var_os("POSTERN_BIN") {
        Some(_) => postern_bin()?,
        None => build_postern(&["--quiet", "-p", "postern"])?,
    };
    let epoch = epoch()?;
    fs::create_dir_all(&order.out)?;
    let (mut made, mut figures, mut told) = (Vec::new(), Vec::new(), Vec::new());
    for target in &order.targets {
        let builds =
            if target.full && !order.device_only { &[Build::Device, Build::Full][..] } else { &[Build::Device] };
        for build in builds.iter().copied() {
            let binary = build::build(&tools, target.name, build, epoch)?;
            figures.push(promise(target, build, &binary)?);
            let source = Source { binary: &binary, target: target.name, build, version: VERSION, epoch };
            made.push(tarball(source, &order.out)?);
            made.extend(pack(source, &order.out)?);
            let how = session::run(&tools, target, &binary, &postern)?;
            told.push(format!("{} ({}): {how}", build.package(), target.name));
        }
    }
    for build in [Build::Device, Build::Full] {
        let of_it = |target: &&&Target| build == Build::Device || target.full && !order.device_only;
        for target in order.targets.iter().filter(of_it) {
            let text = bill::of(target.name, build::features(build), build.package(), epoch)?;
            let name = format!("{}_{VERSION}_{}.cdx.json", build.package(), target.name);
            made.push(Artefact {
                path: write(&order.out, &name, text.as_bytes())?,
                target: target.name.to_owned(),
                kind: "bill",
            });
        }
    }
    sums(&order.out, &made)?;
    list(&made, &figures, &told)
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Order {
    /// `None`: help was asked for.
    fn read(args: &[String]) -> anyhow::Result<Option<Self>> {
        let mut order = Self { targets: Vec::new(), device_only: false, out: root().join("target/dist") };
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            let mut value = || args.next().with_context(|| format!("{flag} wants a value\n{USAGE}"));
            match flag.as_str() {
                "--help" => return Ok(None),
                "--device" => order.device_only = true,
                "--out" => order.out = PathBuf::from(value()?),
                "--target" => {
                    let name = value()?;
                    let target = TARGETS.iter().find(|target| target.name == name);
                    order.targets.push(target.with_context(|| format!("{name} is none of ours\n{USAGE}"))?);
                }
                _ => bail!("no such argument: {flag}\n{USAGE}"),
            }
        }
        if order.targets.is_empty() {
            order.targets = TARGETS.iter().filter(|target| target.full).collect();
        }
        Ok(Some(order))
    }
}

/// The binary's size beside what is promised for it. Promised are the machines of 64 bits; the others are told.
fn promise(target: &Target, build: Build, binary: &Path) -> anyhow::Result<Figure> {
    let promised = match build {
        Build::Device => target.full.then_some(footprint::DEVICE_BYTES),
        Build::Full => Some(FULL_BYTES),
    };
    footprint::size(&format!("{} {}", build.package(), target.name), binary, promised)
}

/// The binary with its names, licences and units, to be unpacked anywhere.
fn tarball(source: Source<'_>, out: &Path) -> anyhow::Result<Artefact> {
    let stem = format!("{}_{VERSION}_{}", source.build.package(), source.target);
    let mut entries = programs(source, &format!("{stem}/bin"))?;
    entries.push(Entry::file(&format!("{stem}/LICENSE"), copyright()?));
    entries.push(Entry::file(&format!("{stem}/README.md"), read("README.md")?));
    let units: &[&str] = match source.build {
        Build::Device => &["sshnpd"],
        Build::Full => &["sshnpd", "srvd", "postern-server"],
    };
    for unit in units {
        let text = read(&format!("packaging/systemd/{unit}.service"))?;
        entries.push(Entry::file(&format!("{stem}/systemd/{unit}.service"), text));
    }
    let path = write(out, &format!("{stem}.tar.gz"), &tar_gz(&with_folders(entries), "", source.epoch)?)?;
    Ok(Artefact { path, target: source.target.to_owned(), kind: "tar.gz" })
}

/// `SHA256SUMS`, as `sha256sum --check` reads it.
fn sums(out: &Path, made: &[Artefact]) -> anyhow::Result<()> {
    let mut text = String::new();
    for artefact in made {
        let bytes = fs::read(&artefact.path).with_context(|| format!("cannot read {}", artefact.path.display()))?;
        let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{digest}  {}", file_name(artefact))?;
    }
    write(out, "SHA256SUMS", text.as_bytes())?;
    Ok(())
}

fn file_name(artefact: &Artefact) -> String {
    artefact.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The whole list on standard output.
fn list(made: &[Artefact], figures: &[Figure], told: &[String]) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    for artefact in made {
        let bytes = artefact.path.metadata()?.len();
        writeln!(out, "{:<7} {:<31} {bytes:>10}  {}", artefact.kind, artefact.target, file_name(artefact))?;
    }
    for line in told {
        writeln!(out, "run     {line}")?;
    }
    for figure in figures {
        writeln!(out, "{figure}")?;
    }
    let broken: Vec<&str> = figures.iter().filter(|figure| figure.is_broken()).map(|f| f.what.as_str()).collect();
    if !broken.is_empty() {
        bail!("larger than promised: {}", broken.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}
