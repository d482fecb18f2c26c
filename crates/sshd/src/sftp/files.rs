//! What each request does.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Metadata, ReadDir};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use russh_sftp::de;
use russh_sftp::extensions::{ExpandPathExtension, FSYNC, FsyncExtension, HARDLINK, HardlinkExtension};
use russh_sftp::protocol::{
    Attrs, Data, File as Entry, FileAttributes, Handle, Name, OpenFlags, Packet, Status, StatusCode, Version,
};
use russh_sftp::server::{Handler, StatusReply};
use rustix::fs::{AtFlags, CWD, RenameFlags, Timespec, Timestamps, futimens, renameat_with, utimensat};

use crate::limits::{SFTP_HANDLES, SFTP_NAMES, SFTP_READ};

/// OpenSSH's, which the library has no name for.
const POSIX_RENAME: &str = "posix-rename@openssh.com";
/// What a client writes for its home.
const EXPAND_PATH: &str = russh_sftp::extensions::EXPAND_PATH;
/// A new file is readable by all that the user's mask lets.
const FILE_MODE: u32 = 0o666;
const FOLDER_MODE: u32 = 0o777;

/// What is open.
#[derive(Default)]
pub(super) struct Files {
    open: BTreeMap<u64, Open>,
    next: u64,
}

enum Open {
    File(File),
    /// `None`: everything was told.
    Folder(PathBuf, Option<ReadDir>),
}

type Answer<T> = Result<T, StatusReply>;

impl Files {
    fn keep(&mut self, id: u32, open: Open) -> Answer<Handle> {
        if self.open.len() >= SFTP_HANDLES {
            return Err(StatusCode::Failure.with_message("too many open files"));
        }
        self.next += 1;
        self.open.insert(self.next, open);
        Ok(Handle { id, handle: self.next.to_string() })
    }

    fn find(&mut self, handle: &str) -> Answer<&mut Open> {
        let found = handle.parse().ok().and_then(|number: u64| self.open.get_mut(&number));
        found.ok_or_else(|| StatusCode::Failure.with_message("no such handle"))
    }

    fn file(&mut self, handle: &str) -> Answer<&mut File> {
        match self.find(handle)? {
            Open::File(file) => Ok(file),
            Open::Folder(..) => Err(StatusCode::Failure.with_message("that is a folder")),
        }
    }
}

impl Handler for Files {
    type Error = StatusReply;

    fn unimplemented(&self) -> StatusReply {
        StatusCode::OpUnsupported.into()
    }

    async fn init(&mut self, _: u32, _: HashMap<String, String>) -> Answer<Version> {
        let known = [(POSIX_RENAME, "1"), (HARDLINK, "1"), (FSYNC, "1"), (EXPAND_PATH, "1")];
        let mut version = Version::new();
        version.extensions = known.map(|(name, version)| (name.to_owned(), version.to_owned())).into();
        Ok(version)
    }

    async fn open(&mut self, id: u32, name: String, flags: OpenFlags, attrs: FileAttributes) -> Answer<Handle> {
        let mut options = fs::OpenOptions::from(flags);
        options.mode(attrs.permissions.map_or(FILE_MODE, |mode| mode & 0o777));
        let file = options.open(name).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(StatusCode::Failure.with_message("that is a folder"));
        }
        self.keep(id, Open::File(file))
    }

    async fn close(&mut self, id: u32, handle: String) -> Answer<Status> {
        let closed = handle.parse().ok().and_then(|number: u64| self.open.remove(&number));
        closed.map(|_| done(id)).ok_or_else(|| StatusCode::Failure.with_message("no such handle"))
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Answer<Data> {
        let file = self.file(&handle)?;
        let mut data = vec![0; len.min(SFTP_READ) as usize];
        let n = file.read_at(&mut data, offset).map_err(failed)?;
        if n == 0 && len > 0 {
            return Err(StatusCode::Eof.into());
        }
        data.truncate(n);
        Ok(Data { id, data })
    }

    async fn write(&mut self, id: u32, handle: String, offset: u64, data: Vec<u8>) -> Answer<Status> {
        self.file(&handle)?.write_all_at(&data, offset).map_err(failed)?;
        Ok(done(id))
    }

    async fn lstat(&mut self, id: u32, path: String) -> Answer<Attrs> {
        Ok(Attrs { id, attrs: attributes(&fs::symlink_metadata(path).map_err(failed)?) })
    }

    async fn stat(&mut self, id: u32, path: String) -> Answer<Attrs> {
        Ok(Attrs { id, attrs: attributes(&fs::metadata(path).map_err(failed)?) })
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Answer<Attrs> {
        let metadata = match self.find(&handle)? {
            Open::File(file) => file.metadata(),
            Open::Folder(path, _) => fs::metadata(path),
        };
        Ok(Attrs { id, attrs: attributes(&metadata.map_err(failed)?) })
    }

    async fn setstat(&mut self, id: u32, path: String, attrs: FileAttributes) -> Answer<Status> {
        if let Some(size) = attrs.size {
            fs::OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(size)).map_err(failed)?;
        }
        if let Some(mode) = attrs.permissions {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777)).map_err(failed)?;
        }
        if let Some(times) = times(&attrs) {
            utimensat(CWD, &path, &times, AtFlags::empty()).map_err(|error| failed(error.into()))?;
        }
        if attrs.uid.is_some() || attrs.gid.is_some() {
            std::os::unix::fs::chown(&path, attrs.uid, attrs.gid).map_err(failed)?;
        }
        Ok(done(id))
    }

    async fn fsetstat(&mut self, id: u32, handle: String, attrs: FileAttributes) -> Answer<Status> {
        let file = match self.find(&handle)? {
            Open::File(file) => file,
            Open::Folder(path, _) => {
                let path = path.to_string_lossy().into_owned();
                return self.setstat(id, path, attrs).await;
            }
        };
        if let Some(size) = attrs.size {
            file.set_len(size).map_err(failed)?;
        }
        if let Some(mode) = attrs.permissions {
            file.set_permissions(fs::Permissions::from_mode(mode & 0o7777)).map_err(failed)?;
        }
        if let Some(times) = times(&attrs) {
            futimens(&*file, &times).map_err(|error| failed(error.into()))?;
        }
        if attrs.uid.is_some() || attrs.gid.is_some() {
            std::os::unix::fs::fchown(&*file, attrs.uid, attrs.gid).map_err(failed)?;
        }
        Ok(done(id))
    }

    async fn opendir(&mut self, id: u32, path: String) -> Answer<Handle> {
        let entries = fs::read_dir(&path).map_err(failed)?;
        self.keep(id, Open::Folder(path.into(), Some(entries)))
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Answer<Name> {
        let Open::Folder(path, left) = self.find(&handle)? else {
            return Err(StatusCode::Failure.with_message("that is a file"));
        };
        let Some(entries) = left else { return Err(StatusCode::Eof.into()) };
        let mut files: Vec<Entry> = Vec::new();
        for entry in entries.by_ref().take(SFTP_NAMES).flatten() {
            // One that is gone meanwhile is no entry any more.
            let Ok(metadata) = entry.metadata() else { continue };
            files.push(Entry::new(entry.file_name().to_string_lossy(), attributes(&metadata)));
        }
        if files.is_empty() {
            *left = None;
            // These two stand at the end, for nobody sorts by where they came.
            let own = [".", ".."].into_iter().filter_map(|name| Some((name, fs::metadata(path.join(name)).ok()?)));
            files.extend(own.map(|(name, metadata)| Entry::new(name, attributes(&metadata))));
        }
        Ok(Name { id, files })
    }

    async fn remove(&mut self, id: u32, name: String) -> Answer<Status> {
        fs::remove_file(name).map_err(failed)?;
        Ok(done(id))
    }

    async fn mkdir(&mut self, id: u32, path: String, attrs: FileAttributes) -> Answer<Status> {
        let mode = attrs.permissions.map_or(FOLDER_MODE, |mode| mode & 0o777);
        fs::DirBuilder::new().mode(mode).create(path).map_err(failed)?;
        Ok(done(id))
    }

    async fn rmdir(&mut self, id: u32, path: String) -> Answer<Status> {
        fs::remove_dir(path).map_err(failed)?;
        Ok(done(id))
    }

    async fn realpath(&mut self, id: u32, path: String) -> Answer<Name> {
        let path = if path.is_empty() { "." } else { &path };
        let real = fs::canonicalize(path).or_else(|_| absolute(Path::new(path))).map_err(failed)?;
        Ok(named(id, &real))
    }

    /// Never over another file. Source: filexfer-02, 6.5.
    async fn rename(&mut self, id: u32, old: String, new: String) -> Answer<Status> {
        match renameat_with(CWD, &old, CWD, &new, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(done(id)),
            // Not every file system knows how.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if fs::symlink_metadata(&new).is_err() => {
                fs::rename(old, new).map_err(failed)?;
                Ok(done(id))
            }
            Err(error) => Err(failed(error.into())),
        }
    }

    async fn readlink(&mut self, id: u32, path: String) -> Answer<Name> {
        Ok(named(id, &fs::read_link(path).map_err(failed)?))
    }

    /// The arguments stand as OpenSSH has them, the other way round than the draft.
    async fn symlink(&mut self, id: u32, target: String, link: String) -> Answer<Status> {
        std::os::unix::fs::symlink(target, link).map_err(failed)?;
        Ok(done(id))
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Answer<Packet> {
        let mut data = bytes::Bytes::from(data);
        let bad = |_| StatusReply::from(StatusCode::BadMessage);
        match request.as_str() {
            POSIX_RENAME => {
                let HardlinkExtension { oldpath, newpath } = de::from_bytes(&mut data).map_err(bad)?;
                fs::rename(oldpath, newpath).map_err(failed)?;
            }
            HARDLINK => {
                let HardlinkExtension { oldpath, newpath } = de::from_bytes(&mut data).map_err(bad)?;
                fs::hard_link(oldpath, newpath).map_err(failed)?;
            }
            FSYNC => {
                let FsyncExtension { handle } = de::from_bytes(&mut data).map_err(bad)?;
                self.file(&handle)?.sync_all().map_err(failed)?;
            }
            EXPAND_PATH => {
                let ExpandPathExtension { path } = de::from_bytes(&mut data).map_err(bad)?;
                let name = self.realpath(id, expanded(&path)).await?;
                return Ok(Packet::Name(name));
            }
            _ => return Err(StatusCode::OpUnsupported.into()),
        }
        Ok(Packet::Status(done(id)))
    }
}

/// `~` and `~/x`: this process stands in the home.
fn expanded(path: &str) -> String {
    match path.strip_prefix('~') {
        Some("") => ".".into(),
        Some(rest) if rest.starts_with('/') => format!(".{rest}"),
        _ => path.to_owned(),
    }
}

/// Of what is not there yet, without a look at links.
fn absolute(path: &Path) -> io::Result<PathBuf> {
    let mut whole = std::env::current_dir()?;
    for part in path.components() {
        match part {
            Component::RootDir => whole = PathBuf::from("/"),
            Component::ParentDir => drop(whole.pop()),
            Component::Normal(name) => whole.push(name),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(whole)
}

fn named(id: u32, path: &Path) -> Name {
    Name { id, files: vec![Entry::dummy(path.to_string_lossy())] }
}

fn done(id: u32) -> Status {
    Status { id, status_code: StatusCode::Ok, error_message: "Ok".into(), language_tag: "en-US".into() }
}

fn attributes(metadata: &Metadata) -> FileAttributes {
    FileAttributes::from(metadata)
}

/// Both or none, as the protocol has them.
fn times(attrs: &FileAttributes) -> Option<Timestamps> {
    let at = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    Some(Timestamps { last_access: at(attrs.atime?), last_modification: at(attrs.mtime?) })
}

fn failed(error: io::Error) -> StatusReply {
    let code = match error.kind() {
        io::ErrorKind::NotFound => StatusCode::NoSuchFile,
        io::ErrorKind::PermissionDenied => StatusCode::PermissionDenied,
        _ => StatusCode::Failure,
    };
    code.with_message(error.to_string())
}
