//! `cargo xtask dist`: everything that is handed out, built for machines other than this one, and tried.

mod bill;
mod build;
mod session;
mod tools;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_testkit::{postern_bin, say};
use serde_json::{Value, json};

use crate::dist::archive::{Entry, tar_gz, with_folders};
use crate::dist::files::{copyright, digest, programs, read, write};
use crate::dist::image::{self, Role};
use crate::dist::{Artefact, Build, Source, epoch, index, pack};
use crate::footprint::{self, Figure};
use crate::install;
use crate::steps::{Steps, build_postern, root, run as run_command};
use tools::Tools;

const USAGE: &str = "\
cargo xtask dist [--target TARGET]... [--device | --device-full | --server | --full] [--twice] [--json] [--out DIR]

Builds static binaries, packs them, writes SHA256SUMS and a bill of materials for each build (CycloneDX), and runs one
session with the daemon of each machine: under emulation where this machine is another. Says what it does on standard error,
and prints what was made and how it was run. --json: the same as one JSON value.
TARGET: all of them unless some are named: x86_64-unknown-linux-musl, aarch64-unknown-linux-musl, and for devices alone
armv7-unknown-linux-musleabihf and mipsel-unknown-linux-musl. --device, --device-full, --server and --full make one of the four
builds alone. --twice builds everything again, in another folder from nothing, and fails where the bytes differ.
Default: --out target/dist
Needs Debian's packages (a compiler, qemu) and two from the Python package index, and keeps them in target/tools.
POSTERN_BIN: the server and the client of the sessions, instead of the development build.";

/// The server's image as it lies unpacked on a disk. The binary is nearly all of it.
pub(crate) const IMAGE_BYTES: u64 = 12_000_000;

/// The device build with all that the daemon can do: for a gateway with a disk or a memory card, and a SIM that the image comes by.
const DEVICE_FULL_BYTES: u64 = 5_000_000;

/// A kind of machine that we build for.
#[derive(Debug)]
struct Target {
    /// Rust's name.
    name: &'static str,
    /// What runs its programs elsewhere: the program and its words.
    emulator: &'static [&'static str],
    /// What is built for it.
    builds: &'static [Build],
}

/// The processors of real gateways: emulated as they are, not as the best of their kind.
const TARGETS: [Target; 4] = [
    Target { name: "x86_64-unknown-linux-musl", emulator: &["qemu-x86_64-static"], builds: &Build::ALL },
    Target {
        name: "aarch64-unknown-linux-musl",
        emulator: &["qemu-aarch64-static", "-cpu", "cortex-a72"],
        builds: &Build::ALL,
    },
    Target {
        name: "armv7-unknown-linux-musleabihf",
        emulator: &["qemu-arm-static", "-cpu", "cortex-a7"],
        builds: &[Build::Device, Build::DeviceFull],
    },
    // The library of the ssh server inside counts by instructions that it does not have.
    Target {
        name: "mipsel-unknown-linux-musl",
        emulator: &["qemu-mipsel-static", "-cpu", "24Kc"],
        builds: &[Build::Device],
    },
];

impl Target {
    /// Whether this machine runs its programs by itself.
    fn is_native(&self) -> bool {
        self.name.split('-').next() == Some(std::env::consts::ARCH)
    }
}

/// What runs programs of another machine, by engines' name of it: the program, and its words with its name in front.
///
/// # Errors
/// We build for none that is called so; the emulator was not fetched yet.
pub(crate) fn emulator(machine: &str) -> anyhow::Result<(PathBuf, &'static [&'static str])> {
    let target = TARGETS.iter().find(|target| image::machine(target.name).is_ok_and(|(name, _)| name == machine));
    let words = target.with_context(|| format!("{machine} is none of ours"))?.emulator;
    let program = tools::emulator(words.first().context("the table names an emulator for each machine")?);
    ensure!(program.exists(), "there is no {}: cargo xtask dist fetches it", program.display());
    Ok((program, words))
}

/// What was asked for.
struct Order {
    targets: Vec<&'static Target>,
    /// Both, if none is named.
    only: Option<Build>,
    twice: bool,
    json: bool,
    out: PathBuf,
}

/// Builds, packs, tries, lists; fails when a session fails or a promise about size is broken.
pub(crate) fn run(args: &[String]) -> anyhow::Result<ExitCode> {
    let Some(order) = Order::read(args)? else {
        say(format_args!("{USAGE}"));
        return Ok(ExitCode::SUCCESS);
    };
    let mut steps = Steps::default();
    let tools = steps.step("compilers and emulators", || {
        install::install(&install::FOR_DEMO)?;
        Tools::ready()
    })?;
    // The other pieces of the house: of this machine.
    let postern = match std::env::var_os("POSTERN_BIN") {
        Some(_) => postern_bin()?,
        None => steps.step("server and client of this machine", || build_postern(&["--quiet", "-p", "postern"]))?,
    };
    fs::create_dir_all(&order.out)?;
    let mut run = Run { order, tools, postern, epoch: epoch()?, steps, binaries: Vec::new(), list: List::default() };
    let builds = run.order.builds();
    for (nth, (target, build)) in builds.iter().copied().enumerate() {
        run.one(target, build, &format!("{} of {}", nth + 1, builds.len()))?;
    }
    run.indices()?;
    let Run { order, mut steps, list, .. } = run;
    steps.step("checksums", || sums(&order.out, &list.made))?;
    steps.say_times();
    list.print(&steps, order.json)
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Order {
    /// `None`: help was asked for.
    fn read(args: &[String]) -> anyhow::Result<Option<Self>> {
        let out = root().join("target/dist");
        let mut order = Self { targets: Vec::new(), only: None, twice: false, json: false, out };
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            let mut value = || args.next().with_context(|| format!("{flag} wants a value\n{USAGE}"));
            match flag.as_str() {
                "--help" => return Ok(None),
                "--twice" => order.twice = true,
                "--json" => order.json = true,
                "--out" => order.out = PathBuf::from(value()?),
                "--target" => {
                    let name = value()?;
                    let target = TARGETS.iter().find(|target| target.name == name);
                    order.targets.push(target.with_context(|| format!("{name} is none of ours\n{USAGE}"))?);
                }
                _ => {
                    let build = flag.strip_prefix("--").and_then(Build::named);
                    order.only = Some(build.with_context(|| format!("no such argument: {flag}\n{USAGE}"))?);
                }
            }
        }
        if order.targets.is_empty() {
            order.targets = TARGETS.iter().collect();
        }
        Ok(Some(order))
    }

    /// Device builds first: they are the sooner done.
    fn builds(&self) -> Vec<(&'static Target, Build)> {
        let all = Build::ALL.into_iter().flat_map(|build| self.targets.iter().map(move |target| (*target, build)));
        all.filter(|(target, build)| target.builds.contains(build))
            .filter(|(_, build)| self.only.is_none_or(|only| only == *build))
            .collect()
    }
}

/// One run of it all.
struct Run {
    order: Order,
    tools: Tools,
    /// Of this machine.
    postern: PathBuf,
    epoch: u64,
    steps: Steps,
    /// What was built.
    binaries: Vec<(&'static Target, Build, PathBuf)>,
    list: List,
}

impl Run {
    /// Builds, packs and tries one binary.
    fn one(&mut self, target: &'static Target, build: Build, nth: &str) -> anyhow::Result<()> {
        let Self { order, tools, postern, epoch, steps, list, .. } = self;
        let name = format!("{} for {}", build.package(), target.name);
        let built = steps.step(&format!("{nth}: build {name}"), || {
            build::build(tools, target.name, build, &root().join("target/cross"), *epoch)
        })?;
        list.figures.push(promise(target, build, &built.binary)?);
        if order.twice {
            let told = steps
                .step(&format!("{nth}: build {name} again"), || again(tools, target, build, &built.binary, *epoch))?;
            list.told.push(Told { what: "again", package: build.package(), target: target.name, how: told });
        }
        let before = list.made.len();
        let source = Source { binary: &built.binary, target: target.name, build, version: VERSION, epoch: *epoch };
        steps.step(&format!("{nth}: pack {name}"), || {
            list.made.push(tarball(source, &order.out)?);
            list.made.extend(pack(source, &order.out)?);
            let bill = bill::of(target.name, build::features(build), build.package(), *epoch, Some((&built, tools)))?;
            let file = format!("{}_{VERSION}_{}.cdx.json", build.package(), target.name);
            let path = write(&order.out, &file, bill.as_bytes())?;
            list.made.push(Artefact { path, target: target.name.to_owned(), kind: "bill", unpacked: None });
            Ok(())
        })?;
        for image in list.made.iter().skip(before).filter(|one| one.kind == "image") {
            let what = format!("image {}", file_name(image));
            let is = image.unpacked.context("an image knows its size")?;
            let promised = file_name(image).contains("-server_").then_some(IMAGE_BYTES);
            list.figures.push(Figure { what, is, promised, unit: "bytes" });
        }
        let how = steps
            .step(&format!("{nth}: a session with {name}"), || session::run(target, build, &built.binary, postern))?;
        list.told.push(Told { what: "run", package: build.package(), target: target.name, how });
        self.binaries.push((target, build, built.binary));
        Ok(())
    }

    /// One archive of images for machines of every kind, where more than one was built for.
    fn indices(&mut self) -> anyhow::Result<()> {
        let Self { order, epoch, steps, binaries, list, .. } = self;
        for role in Role::ALL {
            let sources: Vec<Source<'_>> = binaries
                .iter()
                .filter(|(target, build, _)| *build == role.build() && image::machine(target.name).is_ok())
                .map(|(target, build, binary)| Source {
                    binary,
                    target: target.name,
                    build: *build,
                    version: VERSION,
                    epoch: *epoch,
                })
                .collect();
            if sources.len() > 1 {
                let name = format!("image of {} machines: {}", sources.len(), role.tag());
                list.made.push(steps.step(&name, || index::make(&sources, role, &order.out))?);
            }
        }
        Ok(())
    }
}

/// Builds once more, from nothing, where nothing is known of the first build, and compares.
fn again(tools: &Tools, target: &Target, build: Build, first: &Path, epoch: u64) -> anyhow::Result<String> {
    let dir = root().join("target/cross-again");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    let second = build::build(tools, target.name, build, &dir, epoch)?.binary;
    let (first, second) = (fs::read(first)?, fs::read(second)?);
    fs::remove_dir_all(&dir)?;
    ensure!(
        first == second,
        "the bytes differ: {} and {} bytes, SHA-256 {} and {}",
        first.len(),
        second.len(),
        digest(&first),
        digest(&second)
    );
    Ok(format!("built from nothing in another folder: the same bytes, SHA-256 {}", digest(&first)))
}

/// The binary's size beside what is promised for it. Promised are the machines of 64 bits; the others are told.
fn promise(target: &Target, build: Build, binary: &Path) -> anyhow::Result<Figure> {
    let is_promised = target.builds.contains(&Build::Full);
    let promised = match build {
        Build::Device => {
            is_promised.then(|| footprint::device_bytes(target.name.split('-').next().unwrap_or_default()))
        }
        Build::DeviceFull => is_promised.then_some(DEVICE_FULL_BYTES),
        Build::Server => Some(IMAGE_BYTES),
        Build::Full => None,
    };
    footprint::size(&format!("{} {}", build.package(), target.name), binary, promised)
}

/// The binary with its names, licences and units, to be unpacked anywhere.
fn tarball(source: Source<'_>, out: &Path) -> anyhow::Result<Artefact> {
    let stem = format!("{}_{VERSION}_{}", source.build.package(), source.target);
    let mut entries = programs(source, &format!("{stem}/bin"))?;
    entries.push(Entry::file(&format!("{stem}/LICENSE"), copyright()?));
    entries.push(Entry::file(&format!("{stem}/README.md"), read("README.md")?));
    for unit in source.build.services() {
        let text = read(&format!("packaging/systemd/{unit}.service"))?;
        entries.push(Entry::file(&format!("{stem}/systemd/{unit}.service"), text));
    }
    let path = write(out, &format!("{stem}.tar.gz"), &tar_gz(&with_folders(entries), "", source.epoch)?)?;
    Ok(Artefact { path, target: source.target.to_owned(), kind: "tar.gz", unpacked: None })
}

/// `SHA256SUMS`, and the opinion of `sha256sum --check` on it.
fn sums(out: &Path, made: &[Artefact]) -> anyhow::Result<()> {
    let mut text = String::new();
    for artefact in made {
        writeln!(text, "{}  {}", digest_of(&artefact.path)?, file_name(artefact))?;
    }
    write(out, "SHA256SUMS", text.as_bytes())?;
    run_command(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(out))
}

fn digest_of(path: &Path) -> anyhow::Result<String> {
    Ok(digest(&fs::read(path).with_context(|| format!("cannot read {}", path.display()))?))
}

fn file_name(artefact: &Artefact) -> String {
    artefact.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What came of it all.
#[derive(Default)]
struct List {
    made: Vec<Artefact>,
    figures: Vec<Figure>,
    told: Vec<Told>,
}

/// A session or a comparison, and how it went.
struct Told {
    what: &'static str,
    package: &'static str,
    target: &'static str,
    how: String,
}

impl List {
    /// The whole list on standard output; fails when a promise is broken.
    fn print(&self, steps: &Steps, as_json: bool) -> anyhow::Result<ExitCode> {
        let mut out = std::io::stdout();
        if as_json {
            writeln!(out, "{:#}", self.json(steps)?)?;
        } else {
            for artefact in &self.made {
                let bytes = artefact.path.metadata()?.len();
                writeln!(out, "{:<7} {:<31} {bytes:>10}  {}", artefact.kind, artefact.target, file_name(artefact))?;
            }
            for Told { what, package, target, how } in &self.told {
                writeln!(out, "{what:<7} {package} for {target}: {how}")?;
            }
            for figure in &self.figures {
                writeln!(out, "{figure}")?;
            }
        }
        let broken = self.figures.iter().filter(|figure| figure.is_broken());
        let broken: Vec<&str> = broken.map(|figure| figure.what.as_str()).collect();
        ensure!(broken.is_empty(), "larger than promised: {}", broken.join(", "));
        Ok(ExitCode::SUCCESS)
    }

    fn json(&self, steps: &Steps) -> anyhow::Result<Value> {
        let mut made = Vec::new();
        for artefact in &self.made {
            made.push(json!({
                "file": file_name(artefact), "kind": artefact.kind, "target": artefact.target,
                "bytes": artefact.path.metadata()?.len(), "sha256": digest_of(&artefact.path)?,
            }));
        }
        let told = |Told { what, package, target, how }: &Told| json!({ "what": what, "package": package, "target": target, "how": how });
        let figure = |figure: &Figure| json!({ "what": figure.what, "is": figure.is, "promised": figure.promised, "unit": figure.unit });
        let step = |(name, took): &(String, Duration)| json!({ "name": name, "seconds": took.as_secs_f64() });
        Ok(json!({
            "version": VERSION,
            "artefacts": made,
            "runs": self.told.iter().map(told).collect::<Vec<_>>(),
            "figures": self.figures.iter().map(figure).collect::<Vec<_>>(),
            "steps": steps.done().iter().map(step).collect::<Vec<_>>(),
        }))
    }
}
