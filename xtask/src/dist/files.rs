//! The files of `packaging/` and of the project, read where they lie.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use super::Source;
use super::archive::Entry;
use crate::steps::root;

/// A file of the project, by its path from the root.
pub(crate) fn read(path: &str) -> anyhow::Result<Vec<u8>> {
    fs::read(root().join(path)).with_context(|| format!("cannot read {path}"))
}

/// The binary and the names it answers to, in `folder`.
pub(crate) fn programs(source: Source<'_>, folder: &str) -> anyhow::Result<Vec<Entry>> {
    let binary = fs::read(source.binary).with_context(|| format!("there is no binary {}", source.binary.display()))?;
    let mut entries = vec![Entry::program(&format!("{folder}/postern"), binary)];
    entries.extend(source.build.links().iter().map(|name| Entry::link(&format!("{folder}/{name}"), "postern")));
    Ok(entries)
}

/// Both licences in one file, as packages want it.
pub(crate) fn copyright() -> anyhow::Result<Vec<u8>> {
    let mut text = b"Postern. Licensed under MIT or Apache-2.0, as you like.\n\n".to_vec();
    text.extend(read("LICENSE-MIT")?);
    text.extend(b"\n\n");
    text.extend(read("LICENSE-APACHE")?);
    Ok(text)
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes an archive and says where.
pub(crate) fn write(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<std::path::PathBuf> {
    fs::create_dir_all(folder)?;
    let path = folder.join(name);
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
