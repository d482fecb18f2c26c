//! Files and folders that are made, and unmade when it comes to nothing.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

pub(crate) use postern_client::files::{read, replace};

/// More than all our files together have, in bytes.
#[cfg(feature = "join")]
const ROOM: usize = 32 * 1024;

/// Whether a file can be written there.
#[cfg(feature = "join")]
pub(crate) fn try_to_write(path: &Path) -> io::Result<()> {
    postern_client::files::try_to_write(path, ROOM)
}

/// Makes a folder with all that is above it; those it made, the lowest last. `mode`: of the last.
pub(crate) fn make_folders(folder: &Path, mode: u32) -> io::Result<Vec<PathBuf>> {
    let missing: Vec<PathBuf> =
        folder.ancestors().take_while(|one| !one.as_os_str().is_empty() && !one.exists()).map(Path::to_owned).collect();
    let mut made = Vec::new();
    for one in missing.into_iter().rev() {
        fs::create_dir(&one)?;
        made.push(one);
    }
    if made.last().is_some_and(|last| last == folder) {
        fs::set_permissions(folder, fs::Permissions::from_mode(mode))?;
    }
    Ok(made)
}
