//! What a program that has begun may still do: files by Landlock, system calls by seccomp.
//!
//! Both hold for the thread that asks and for all that it starts, so it asks before it starts any; neither can be taken
//! back. What the kernel does not have is left out, and [`Got`] says what there was.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
mod calls;
#[cfg(target_os = "linux")]
mod files;

use std::fmt;
use std::path::PathBuf;

/// What is to stay possible. Paths that are not there are passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Files and folders (with what is in them) to read.
    pub read: Vec<PathBuf>,
    /// Files and folders to read and write.
    pub write: Vec<PathBuf>,
    /// Programs to run, and what loads them.
    pub run: Vec<PathBuf>,
    /// Ports may be taken and listened on.
    pub listen: bool,
}

/// What the kernel took on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Got {
    /// Only the files that were named can be reached (Landlock).
    pub files: bool,
    /// No TCP port can be taken (Landlock since Linux 6.7).
    pub ports: bool,
    /// Listening, raw sockets, tracing, mounting, modules, namespaces are refused (seccomp).
    pub calls: bool,
}

/// The kernel has it, and did not take it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(String);

impl Got {
    /// All of it.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.files && self.calls
    }
}

/// Gives up everything but what is wanted, for this thread and those that it starts from now on.
///
/// # Errors
/// The kernel refuses what it says that it has. What was given up before that stays so.
pub fn confine(wanted: &Wanted) -> Result<Got, Refused> {
    // Landlock first: the filter may forbid what sets it up.
    let (files, ports) = files_of(wanted)?;
    let calls = calls_of(wanted.listen)?;
    Ok(Got { files, ports, calls })
}

#[cfg(target_os = "linux")]
fn files_of(wanted: &Wanted) -> Result<(bool, bool), Refused> {
    files::restrict(wanted).map_err(|error| Refused(format!("landlock: {error}")))
}

#[cfg(not(target_os = "linux"))]
fn files_of(_: &Wanted) -> Result<(bool, bool), Refused> {
    Ok((false, false))
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
fn calls_of(listen: bool) -> Result<bool, Refused> {
    calls::refuse(listen).map_err(|error| Refused(format!("seccomp: {error}")))
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))))]
fn calls_of(_: bool) -> Result<bool, Refused> {
    Ok(false)
}

impl fmt::Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |has: bool| if has { "yes" } else { "no" };
        write!(f, "files {}, ports {}, system calls {}", yes(self.files), yes(self.ports), yes(self.calls))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::net::TcpListener;
    use std::process::Command;

    use super::*;

    /// In a thread of its own: what is given up there stays there.
    fn within<T: Send + 'static>(wanted: Wanted, work: impl FnOnce() -> T + Send + 'static) -> (Got, T) {
        let thread = std::thread::spawn(move || (confine(&wanted).expect("confined"), work()));
        thread.join().expect("ends")
    }

    #[test]
    fn what_is_not_named_cannot_be_reached() {
        let dir = tempfile::tempdir().unwrap();
        let (open, shut) = (dir.path().join("open"), dir.path().join("shut"));
        fs::create_dir(&open).unwrap();
        fs::create_dir(&shut).unwrap();
        fs::write(shut.join("secret"), "x").unwrap();
        fs::write(open.join("a"), "x").unwrap();
        let wanted = Wanted { write: vec![open.clone(), dir.path().join("not there")], ..Wanted::default() };
        let (got, tried) = within(wanted, move || {
            let read = fs::read(shut.join("secret"));
            let write = fs::write(shut.join("new"), "x");
            let run = Command::new("/bin/true").status();
            // As key files and pins are written: a draft, a link or a rename.
            let draft = open.join("draft");
            let own = fs::write(&draft, "y").and_then(|()| fs::rename(&draft, open.join("a")));
            let link = fs::hard_link(open.join("a"), open.join("b")).and_then(|()| fs::remove_file(open.join("b")));
            (read.is_err(), write.is_err(), run.is_err(), own.and(link), TcpListener::bind("127.0.0.1:0").is_err())
        });
        let (read, write, run, own, listen) = tried;
        own.unwrap();
        if !got.files {
            eprintln!("SKIPPED: this kernel has no Landlock ({got})");
        } else {
            assert!(read && write && run, "{got}: read {read}, write {write}, run {run}");
        }
        assert!(listen || !(got.calls || got.ports), "{got}: listened");
    }

    #[test]
    fn what_is_named_can_be_read_and_run_and_nothing_else_changes() {
        let wanted = Wanted {
            read: ["/usr", "/lib", "/lib64", "/etc", "/proc", "/dev"].map(PathBuf::from).into(),
            write: vec!["/dev/null".into()],
            run: ["/usr", "/bin", "/lib", "/lib64"].map(PathBuf::from).into(),
            listen: true,
        };
        let (got, ran) = within(wanted, || {
            TcpListener::bind("127.0.0.1:0").expect("listening was wanted");
            let ran = Command::new("/bin/sh")
                .args(["-c", "cat /etc/hostname >/dev/null && unshare -U true"])
                .output()
                .unwrap();
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            (ran, status)
        });
        let (ran, status) = ran;
        let line =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).map(str::to_owned);
        if got.calls {
            assert!(!ran.status.success(), "a namespace was made");
            assert!(String::from_utf8_lossy(&ran.stderr).contains("unshare"), "{ran:?}");
            assert_eq!(line("Seccomp:").as_deref(), Some("2"));
        }
        if got.calls || got.files {
            assert_eq!(line("NoNewPrivs:").as_deref(), Some("1"));
        }
        // This thread is as it was.
        TcpListener::bind("127.0.0.1:0").unwrap();
    }
}
