//! Building for other machines, statically, with the same bytes each time.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::tools::Tools;
use crate::dist::Build;
use crate::small;
use crate::steps::{root, run};

/// Features of the binary, or all.
pub(super) fn features(build: Build) -> Option<&'static str> {
    match build {
        Build::Device => Some(small::FEATURES),
        Build::Full => None,
    }
}

/// Builds `postern` for a machine and returns where it is.
pub(super) fn build(tools: &Tools, target: &str, build: Build, epoch: u64) -> anyhow::Result<PathBuf> {
    let dir = root().join("target/cross");
    let mut command = tools.zigbuild();
    command.args(["--locked", "-p", "postern", "--target", target, "--target-dir"]).arg(&dir);
    let profile = match build {
        Build::Device => {
            command.args(["--no-default-features", "--features", small::FEATURES]);
            // No names of functions behind a panic: they cost 130 kB.
            command.args(["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=optimize_for_size"]);
            "small"
        }
        Build::Full => {
            command.args(["-Zbuild-std=std,panic_unwind"]);
            "release"
        }
    };
    command.args(["--profile", profile]);
    let places = places(tools)?;
    // Debian's compiler has no start files for musl; zig's are taken. Fixed addresses also on machines where it need not be:
    // on MIPS a program that can be anywhere does not start.
    let mut flags = vec!["-Clink-self-contained=no".to_owned()];
    match build {
        Build::Device => flags.extend(small::RUST_FLAGS.map(str::to_owned)),
        Build::Full => flags.push("-Crelocation-model=static".to_owned()),
    }
    flags.extend(places.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())));
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    let mut c_flags: Vec<String> =
        places.iter().map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display())).collect();
    if build == Build::Device {
        c_flags.push(small::c_flags(target));
    }
    command.env(format!("CFLAGS_{}", target.replace('-', "_")), c_flags.join(" "));
    // Time beyond January 2038 where a machine word has 32 bits.
    command.env("RUST_LIBC_UNSTABLE_MUSL_V1_2_3", "1");
    command.env("SOURCE_DATE_EPOCH", epoch.to_string()).env("CARGO_INCREMENTAL", "0");
    run(&mut command)?;
    let path = dir.join(target).join(profile).join("postern");
    path.canonicalize().with_context(|| format!("the build left no {}", path.display()))
}

/// Folders of this machine, and what the binary calls them.
fn places(tools: &Tools) -> anyhow::Result<[(PathBuf, &'static str); 3]> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home).context("there is no CARGO_HOME")?;
    // The last that fits counts: the tools lie inside the project.
    Ok([(cargo, "/cargo"), (root().to_owned(), "/postern"), (tools.debian(), "/debian")])
}
