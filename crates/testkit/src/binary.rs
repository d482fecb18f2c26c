//! Finding the program under test.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

/// Names the program under test; `cargo xtask test` sets it.
const VARIABLE: &str = "POSTERN_BIN";

/// The `postern` binary: what `POSTERN_BIN` names, or the one beside the running test.
///
/// # Errors
/// There is none; the message says how to build it.
pub fn postern_bin() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        let path = PathBuf::from(path);
        return path.canonicalize().with_context(|| format!("{VARIABLE} names {}, which is not there", path.display()));
    }
    // target/debug/deps/some_test-0123 or target/debug/xtask
    let own = std::env::current_exe().context("failed to find the running test")?;
    for dir in own.ancestors().skip(1).take(2) {
        let candidate = dir.join("postern");
        if candidate.is_file() {
            return Ok(candidate);
        }
    }
    bail!("no postern binary beside {}: run `cargo build -p postern`, or set {VARIABLE}", own.display())
}
