//! The three places: all of them this machine, on loopback or in namespaces.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::limits::READY_DEADLINE;
use crate::process::{Process, enter_netns, until};

/// A place with an address, in a network namespace of its own or in ours.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) address: Ipv4Addr,
    pub(crate) netns: Option<PathBuf>,
}

/// Where client, server (and relay), and device run, and a directory for
/// their files.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) client: Host,
    pub(crate) server: Host,
    pub(crate) device: Host,
    pub(crate) dir: PathBuf,
}

impl Host {
    /// This machine's loopback.
    pub(crate) fn loopback() -> Self {
        Self { address: Ipv4Addr::LOCALHOST, netns: None }
    }

    /// A port of this host, as other hosts reach it.
    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address), port)
    }

    /// Does something in the place of this host: on a thread of its own that
    /// moves into the namespace.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let Some(netns) = &self.netns else {
            return work();
        };
        let inside = || {
            enter_netns(netns)?;
            work()
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Waits until something answers at `address` as this host sees it.
    pub(crate) fn wait_for_port(
        &self,
        address: SocketAddr,
        what: &str,
        watched: &mut [&mut Process],
    ) -> anyhow::Result<TcpStream> {
        self.within(|| until(what, READY_DEADLINE, watched, || TcpStream::connect(address)))
    }

    /// Waits until an ssh server greets at `address` as this host sees it.
    pub(crate) fn wait_for_ssh(
        &self,
        address: SocketAddr,
        what: &str,
        watched: &mut [&mut Process],
    ) -> anyhow::Result<()> {
        let greeting = || {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut start = [0; 4];
            stream.read_exact(&mut start)?;
            if &start == b"SSH-" { Ok(()) } else { Err(io::Error::other("another greeting")) }
        };
        self.within(|| until(what, READY_DEADLINE, watched, greeting))
    }
}

impl Site {
    /// All three on loopback.
    pub(crate) fn loopback(dir: &Path) -> Self {
        Self { client: Host::loopback(), server: Host::loopback(), device: Host::loopback(), dir: dir.to_owned() }
    }
}

/// Names in `dir` that runs of the bench left behind: `PREFIX<process id>…`
/// with no such process any more. An interrupted run cannot tidy up itself.
pub(crate) fn left_behind(dir: &Path, prefix: &str) -> Vec<String> {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let gone = |name: &String| {
        let Some(rest) = name.strip_prefix(prefix) else {
            return false;
        };
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        digits > 0 && !Path::new("/proc").join(&rest[..digits]).exists()
    };
    names.filter(gone).collect()
}

/// A port nobody has now. For programs that cannot bind port 0 themselves:
/// another may take it in between, which their start then says.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_run_made_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        // Process ids end at 2^22.
        for name in ["pb99999999-client", &format!("pb{}-client", std::process::id()), "pbx", "other"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(left_behind(dir.path(), "pb"), ["pb99999999-client"]);
    }
}
