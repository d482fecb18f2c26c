//! Where a program runs: this machine as it is, or a network namespace.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::process::Command;

use anyhow::Context as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A host of the test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the network namespace; `None` is this machine's own network.
    namespace: Option<String>,
    /// The address by which others reach it, or loopback.
    address: IpAddr,
}

impl Place {
    /// This machine, reached by loopback.
    pub fn here() -> Self {
        Self { namespace: None, address: IpAddr::V4(Ipv4Addr::LOCALHOST) }
    }

    /// A named network namespace.
    pub(crate) fn inside(namespace: &str, address: IpAddr) -> Self {
        Self { namespace: Some(namespace.to_owned()), address }
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// A command that runs there. `ip netns exec` becomes the program, so the process id is its own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.namespace {
            None => Command::new(program),
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(program);
                command
            }
        }
    }

    /// Does something on a thread that has moved there. A socket made by `work` stays in the
    /// namespace and may be used by any thread.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let Some(name) = &self.namespace else { return work() };
        let inside = || {
            let path = format!("/run/netns/{name}");
            let file = File::open(&path).with_context(|| format!("failed to open {path}"))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("failed to enter {name}"))?;
            work()
        };
        // The move is the thread's own and cannot leak into others.
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}
