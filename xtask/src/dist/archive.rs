//! Archives whose bytes depend on their contents alone: order as given, one time, owner root.

use std::io::{self, Write as _};

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// One thing in an archive.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Without a slash in front; folders too.
    pub(crate) path: String,
    pub(crate) what: What,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner and group; 0 is root.
    pub(crate) owner: u64,
}

/// What an entry is.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Folder,
    File(Vec<u8>),
    /// A symbolic link to this.
    Link(String),
}

impl Entry {
    /// A folder of root's that all may enter.
    pub(crate) fn folder(path: &str) -> Self {
        Self { path: path.to_owned(), what: What::Folder, mode: 0o755, owner: 0 }
    }

    /// A file of root's that all may read.
    pub(crate) fn file(path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.to_owned(), what: What::File(bytes.into()), mode: 0o644, owner: 0 }
    }

    /// A program of root's that all may run.
    pub(crate) fn program(path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { mode: 0o755, ..Self::file(path, bytes) }
    }

    /// A symbolic link.
    pub(crate) fn link(path: &str, to: &str) -> Self {
        Self { path: path.to_owned(), what: What::Link(to.to_owned()), mode: 0o777, owner: 0 }
    }
}

/// The folders that entries lie in come in front of them; all is sorted by path.
pub(crate) fn with_folders(mut entries: Vec<Entry>) -> Vec<Entry> {
    let given: Vec<String> = entries.iter().map(|entry| entry.path.clone()).collect();
    for path in &given {
        for (at, _) in path.match_indices('/') {
            let folder = &path[..at];
            if !entries.iter().any(|entry| entry.path == folder) {
                entries.push(Entry::folder(folder));
            }
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

/// A tar archive. Names begin with `prefix`: packages have `./` there, images nothing.
pub(crate) fn tar(entries: &[Entry], prefix: &str, epoch: u64) -> io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_mtime(epoch);
        header.set_uid(entry.owner);
        header.set_gid(entry.owner);
        if entry.owner == 0 {
            header.set_username("root")?;
            header.set_groupname("root")?;
        }
        let path = format!("{prefix}{}", entry.path);
        match &entry.what {
            What::Folder => {
                header.set_entry_type(EntryType::Directory);
                header.set_size(0);
                tar.append_data(&mut header, format!("{path}/"), io::empty())?;
            }
            What::File(bytes) => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(bytes.len() as u64);
                tar.append_data(&mut header, path, bytes.as_slice())?;
            }
            What::Link(to) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_size(0);
                tar.append_link(&mut header, path, to)?;
            }
        }
    }
    tar.into_inner()
}

/// Compressed, with neither name nor time in the header.
pub(crate) fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut gz: GzEncoder<Vec<u8>> = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    gz.write_all(bytes)?;
    gz.finish()
}

/// `tar` and `gzip`.
pub(crate) fn tar_gz(entries: &[Entry], prefix: &str, epoch: u64) -> io::Result<Vec<u8>> {
    gzip(&tar(entries, prefix, epoch)?)
}

/// The archive of old Unix, which a deb is. Source: deb(5), ar(5). Names have 16 bytes at most.
pub(crate) fn ar(members: &[(&str, &[u8])], epoch: u64) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        out.extend(format!("{name:<16}{epoch:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 100_644, bytes.len()).bytes());
        out.extend_from_slice(bytes);
        if bytes.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}
