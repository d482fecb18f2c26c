//! Files whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// More than all our files together have, in bytes.
#[cfg(feature = "join")]
const ROOM: usize = 32 * 1024;

/// Reads at most `limit` bytes; `None`: there is no such file.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Option<Zeroizing<String>>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Zeroizing::new(String::new());
    file.take(limit + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
    }
    Ok(Some(text))
}

/// Writes a file in the place of what was there, following links; the disk has it when this returns.
pub(crate) fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let draft = draft_of(&target);
    let written = write_new(&draft, text, mode).and_then(|()| fs::rename(&draft, &target));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Whether a file can be written there: tried, for rights, full disks and read-only mounts have many faces.
#[cfg(feature = "join")]
pub(crate) fn try_to_write(path: &Path) -> io::Result<()> {
    let draft = draft_of(path);
    // A full disk takes an empty file.
    let written = write_new(&draft, &" ".repeat(ROOM), 0o600);
    let _ = fs::remove_file(&draft);
    written
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

fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let nonce = u32::from_ne_bytes(postern_crypto::random());
    name.push(format!(".{}.{nonce:08x}.new", std::process::id()));
    path.with_file_name(name)
}

fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
