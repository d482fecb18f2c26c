//! How the device build is made: flags of the compilers that a profile cannot hold.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::steps::{cargo, root, run};

/// What is in the device build.
pub(crate) const FEATURES: &str = "device,join";

/// For the code in Rust. A daemon that ends at a panic needs no tables to unwind by; one that is always at the same place
/// needs no list of what to correct at its start, and no memory pages to correct.
pub(crate) const RUST_FLAGS: [&str; 2] = ["-Cforce-unwind-tables=no", "-Crelocation-model=static"];

/// For the cipher library: no tables either, and no assembler where nothing is gained by it. It cannot be told so one by one;
/// the name of a header that counts as read leaves its code in C.
pub(crate) fn c_flags(target: &str) -> String {
    let mut flags = "-fno-unwind-tables -fno-asynchronous-unwind-tables".to_owned();
    if target.starts_with("x86_64") {
        // Multiplications for processors that no gateway has; ML-KEM, which is asked once a session.
        flags.push_str(" -DMY_ASSEMBLER_IS_TOO_OLD_FOR_ADX_AVX2=1 -DMLK_NATIVE_X86_64_META_H");
    }
    // ML-DSA: nobody here signs by it, but it is in the library's table of signatures.
    flags.push_str(" -DMLD_NATIVE_X86_64_META_H -DMLD_NATIVE_AARCH64_META_H");
    flags
}

/// Rust's name of this machine.
pub(crate) fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").current_dir(root()).output().context("cannot run rustc")?;
    let text = String::from_utf8(output.stdout)?;
    let name = text.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc does not name this machine")?;
    Ok(name.to_owned())
}

/// Tables to unwind by that are there already: in the standard library as it comes, in what was written in assembler.
/// Nobody reads them where a panic is the end.
const NO_TABLES: &str = "xtask/src/no-unwind.ld";

/// Builds it with the system's C library and the standard library as it comes: for a machine that has no other compiler.
pub(crate) fn build_for_this_machine(host: &str) -> anyhow::Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "-p", "postern", "--profile", "small", "--no-default-features", "--features", FEATURES]);
    // With a target named, the flags are not for build scripts.
    build.args(["--target", host]);
    let no_tables = format!("-Clink-arg=-Wl,--no-eh-frame-hdr,-T,{}", root().join(NO_TABLES).display());
    let flags = RUST_FLAGS.into_iter().chain([no_tables.as_str()]);
    build.env("CARGO_ENCODED_RUSTFLAGS", flags.collect::<Vec<_>>().join("\x1f"));
    build.env(format!("CFLAGS_{}", host.replace('-', "_")), c_flags(host));
    // Built once; what is kept for the next time would be for nothing.
    build.env("CARGO_INCREMENTAL", "0");
    run(&mut build)?;
    built(host)
}

/// The one that is there.
///
/// # Errors
/// There is none.
pub(crate) fn built(host: &str) -> anyhow::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let path = target.join(host).join("small/postern");
    path.canonicalize().with_context(|| format!("there is no {}: cargo xtask footprint builds it", path.display()))
}
