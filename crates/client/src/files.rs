//! Files whole or not at all: keys, pins, invitations, configuration. What is written is on the disk when it returns.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Reads a file of at most `limit` bytes; `None`: there is none.
///
/// # Errors
/// It cannot be read, is longer, or is no text.
pub fn read(path: &Path, limit: u64) -> io::Result<Option<Zeroizing<String>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut text = Zeroizing::new(String::new());
    file.take(limit.saturating_add(1)).read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
    }
    Ok(Some(text))
}

/// Writes a secret where nothing is yet: 0600. `false`: somebody was faster.
///
/// # Errors
/// It cannot be written; then nothing is left of it.
pub fn create(path: &Path, text: &str) -> io::Result<bool> {
    let draft = draft_of(path);
    // A hard link fails when the name is taken; a rename would replace it.
    let written = write_new(&draft, text, 0o600).and_then(|()| fs::hard_link(&draft, path));
    let _ = fs::remove_file(&draft);
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes a file in the place of what was there. Follows a link, as those make who keep their settings elsewhere.
///
/// # Errors
/// It cannot be written; then what was there is there still.
pub fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let draft = draft_of(&target);
    let written = write_new(&draft, text, mode).and_then(|()| fs::rename(&draft, &target));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Whether a file of so many bytes can be written there: tried, for rights, full disks and read-only mounts have many
/// faces.
///
/// # Errors
/// It cannot.
pub fn try_to_write(path: &Path, bytes: usize) -> io::Result<()> {
    let draft = draft_of(path);
    // A full disk takes an empty file.
    let written = write_new(&draft, &" ".repeat(bytes), 0o600);
    let _ = fs::remove_file(&draft);
    written
}

/// Makes the folder of a file that is not for others, with what is above it.
///
/// # Errors
/// It cannot be made.
pub fn make_private_folder(of: &Path) -> io::Result<()> {
    let folder = of.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    let Some(folder) = folder else { return Ok(()) };
    fs::create_dir_all(folder)?;
    set_mode(folder, 0o700)
}

/// A name beside the file's that nobody else takes.
fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let nonce = u32::from_ne_bytes(postern_crypto::random());
    name.push(format!(".{}.{nonce:08x}.new", std::process::id()));
    path.with_file_name(name)
}

/// Writes a file that must not be there yet, and waits until the disk has it.
fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let mut file = options.open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_is_old_or_new_and_a_link_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("kept/file"), dir.path().join("link"));
        make_private_folder(&file).unwrap();
        assert!(create(&file, "one").unwrap());
        assert!(!create(&file, "other").unwrap(), "a secret was replaced");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, "two", 0o644).unwrap();
        assert_eq!(read(&file, 3).unwrap().unwrap().as_str(), "two");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(read(&file, 2).is_err(), "it is longer");
        assert!(read(&dir.path().join("none"), 2).unwrap().is_none());
        try_to_write(&file, 100).unwrap();
        // A folder cannot be replaced by a file: nothing is left of the try.
        assert!(replace(dir.path().join("kept").as_path(), "x", 0o644).is_err());
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!((names.len(), fs::read_dir(dir.path().join("kept")).unwrap().count()), (2, 1), "{names:?}");
        assert_eq!(read(&file, 9).unwrap().unwrap().as_str(), "two");
    }
}
