//! What `srv` says, on stderr and in a file that parents look at.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// `srv.<pid>.log`, readable by its owner alone. Without one, stderr has to do.
pub(crate) struct Log(Option<(File, PathBuf)>);

impl Log {
    /// Makes the file in `dir`. One that is there already, or a link, is somebody else's and left alone.
    pub(crate) fn open(dir: &Path) -> Self {
        let path = dir.join(format!("srv.{}.log", std::process::id()));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Self(options.open(&path).ok().map(|file| (file, path)))
    }

    pub(crate) fn say(&mut self, line: &str) {
        // The file first: a parent that has seen the line on stderr finds it there.
        if let Some((file, _)) = &mut self.0 {
            // A full disk is no reason to stop.
            let _ = writeln!(file, "{line}");
        }
        postern_observe::say(line);
    }

    /// After a clean end nobody needs it.
    pub(crate) fn remove(self) {
        if let Some((_, path)) = self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn private_and_never_somebody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path());
        log.say("hello");
        let path = dir.path().join(format!("srv.{}.log", std::process::id()));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hello\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut second = Log::open(dir.path());
        second.say("not into the other's file");
        second.remove();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hello\n");
        log.remove();
        assert!(!path.exists());
    }
}
