//! Building for other machines, statically, with the same bytes each time.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use postern_testkit::say;
use serde_json::Value;

use super::tools::Tools;
use crate::dist::Build;
use crate::small;
use crate::steps::root;

/// What is in the image of the server: it is pulled to small machines as well.
const SERVER_FEATURES: &str = "server,relay,activate,policy,audit,doctor";

/// What a gateway can use that has some MB to spare. Also in the image of the device.
const DEVICE_FULL_FEATURES: &str = "device,join,activate,sshd,sandbox,doctor";

/// Features of the binary, or all.
pub(super) fn features(build: Build) -> Option<&'static str> {
    match build {
        Build::Device => Some(small::FEATURES),
        Build::DeviceFull => Some(DEVICE_FULL_FEATURES),
        Build::Server => Some(SERVER_FEATURES),
        Build::Full => None,
    }
}

/// What a build left.
pub(super) struct Built {
    pub(super) binary: PathBuf,
    /// Every library that was compiled for the machine, with those that the standard one needs and without itself.
    pub(super) libraries: BTreeSet<Library>,
}

/// A crate by name and version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Library {
    pub(super) name: String,
    pub(super) version: String,
}

/// Builds `postern` for a machine in a folder.
///
/// # Errors
/// It does not build.
pub(super) fn build(tools: &Tools, target: &str, build: Build, dir: &Path, epoch: u64) -> anyhow::Result<Built> {
    let mut command = tools.zigbuild();
    command.args(["--locked", "-p", "postern", "--target", target, "--target-dir"]).arg(dir);
    command.arg("--message-format=json-render-diagnostics");
    if let Some(features) = features(build) {
        command.args(["--no-default-features", "--features", features]);
    }
    let profile = match build {
        Build::Device | Build::DeviceFull => "small",
        Build::Server | Build::Full => "release",
    };
    command.args(match build {
        // No names of functions behind a panic: they cost 130 kB.
        Build::Device | Build::DeviceFull => {
            ["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=optimize_for_size"].as_slice()
        }
        Build::Server | Build::Full => &["-Zbuild-std=std,panic_unwind"],
    });
    command.args(["--profile", profile]);
    let places = places(tools, dir)?;
    // Debian's compiler has no start files for musl; zig's are taken. Fixed addresses also on machines where it need not be:
    // on MIPS a program that can be anywhere does not start.
    let mut flags = vec!["-Clink-self-contained=no".to_owned()];
    match build {
        Build::Device | Build::DeviceFull => flags.extend(small::RUST_FLAGS.map(str::to_owned)),
        Build::Server | Build::Full => flags.push("-Crelocation-model=static".to_owned()),
    }
    flags.extend(places.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())));
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    let mut c_flags: Vec<String> =
        places.iter().map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display())).collect();
    if build.is_for_devices() {
        c_flags.push(small::c_flags(target));
    }
    command.env(format!("CFLAGS_{}", target.replace('-', "_")), c_flags.join(" "));
    // Time beyond January 2038 where a machine word has 32 bits.
    command.env("RUST_LIBC_UNSTABLE_MUSL_V1_2_3", "1");
    command.env("SOURCE_DATE_EPOCH", epoch.to_string()).env("CARGO_INCREMENTAL", "0");
    let libraries = libraries(&messages(&mut command)?, &dir.join(target))?;
    let path = dir.join(target).join(profile).join("postern");
    let binary = path.canonicalize().with_context(|| format!("the build left no {}", path.display()))?;
    Ok(Built { binary, libraries })
}

/// Runs cargo and returns what it says to programs; what it says to people is seen at once.
fn messages(command: &mut Command) -> anyhow::Result<String> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let line = line.join(" ");
    say(format_args!("$ {line}"));
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {line}"))?;
    ensure!(output.status.success(), "{line}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// What cargo compiled into `dir`, that of the other machine; what runs while building is elsewhere.
///
/// Source: "External tools" of the Cargo book, JSON messages; its package ID specifications.
fn libraries(messages: &str, dir: &Path) -> anyhow::Result<BTreeSet<Library>> {
    let mut all = BTreeSet::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Value = serde_json::from_str(line)?;
        let mut files = message["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if message["reason"] == "compiler-artifact" && files.any(|file| Path::new(file).starts_with(dir)) {
            let id = message["package_id"].as_str().unwrap_or_default();
            // The crates that the standard library is made of have no versions of their own.
            if id.starts_with("path+") && id.contains("/rustlib/src/rust/library/") {
                continue;
            }
            all.insert(Library::of(id).with_context(|| format!("cargo names a package {id:?}"))?);
        }
    }
    Ok(all)
}

impl Library {
    /// `registry+https://…#name@1.2.3`, or `path+file:///…/name#1.2.3`.
    fn of(id: &str) -> Option<Self> {
        let (place, rest) = id.rsplit_once('#')?;
        let (name, version) = rest.split_once('@').or_else(|| Some((place.rsplit_once('/')?.1, rest)))?;
        Some(Self { name: name.to_owned(), version: version.to_owned() })
    }

    /// A package URL.
    pub(super) fn url(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }
}

/// Folders of this machine, and what the binary calls them.
fn places(tools: &Tools, dir: &Path) -> anyhow::Result<[(PathBuf, &'static str); 4]> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home).context("there is no CARGO_HOME")?;
    // The last that fits counts: the tools lie inside the project, and so may what is built.
    Ok([
        (cargo, "/cargo"),
        (root().to_owned(), "/postern"),
        (dir.to_owned(), "/postern/target"),
        (tools.debian(), "/debian"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compiled_for_the_machine() -> anyhow::Result<()> {
        let artefact = |id: &str, file: &str| {
            serde_json::json!({ "reason": "compiler-artifact", "package_id": id, "filenames": [file] }).to_string()
        };
        let messages = [
            artefact("registry+https://github.com/rust-lang/crates.io-index#tokio@1.54.0", "/t/mips/small/deps/a.rlib"),
            artefact("registry+https://github.com/rust-lang/crates.io-index#syn@2.0.1", "/t/small/deps/b.rlib"),
            artefact("path+file:///usr/lib/rustlib/src/rust/library/std#0.0.0", "/t/mips/small/deps/c.rlib"),
            artefact("path+file:///here/crates/proto#postern-proto@0.1.0", "/t/mips/small/deps/d.rlib"),
            "{\"reason\":\"build-finished\",\"success\":true}".to_owned(),
        ];
        let all = libraries(&messages.join("\n"), Path::new("/t/mips"))?;
        let urls: Vec<String> = all.iter().map(Library::url).collect();
        assert_eq!(urls, ["pkg:cargo/postern-proto@0.1.0", "pkg:cargo/tokio@1.54.0"]);
        assert!(libraries(&artefact("nonsense", "/t/mips/x"), Path::new("/t/mips")).is_err());
        Ok(())
    }
}
