//! A network of one host that is cut off from everything and has names of its own.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, bail};

use crate::Place;
use crate::nat::{COUNTER, PREFIX, sweep};
use crate::process::system;

/// A namespace with nothing but loopback, in which host names of our choice lead to loopback.
///
/// Programs that insist on a public name and a low port run here unchanged, and nothing they send
/// can leave. What is started through [`Self::place`] sees the names: `ip netns exec` lays the
/// namespace's own `hosts` over the machine's.
#[derive(Debug)]
pub struct LoneNetwork {
    name: String,
}

/// Where `ip netns exec` looks for files to lay over those in `/etc`.
const OVERLAYS: &str = "/etc/netns";

impl LoneNetwork {
    /// Builds it; `names` are host names that lead to loopback.
    ///
    /// # Errors
    /// We are not root, or there is no `ip`.
    pub fn build(names: &[&str]) -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("network namespaces need root");
        }
        sweep();
        sweep_overlays();
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let network = Self { name: format!("{PREFIX}{}x{count}-lone", std::process::id()) };
        system("ip", &["netns", "add", &network.name])?;
        system("ip", &["-n", &network.name, "link", "set", "lo", "up"])?;
        let overlay = network.overlay();
        fs::create_dir_all(&overlay).with_context(|| format!("failed to make {}", overlay.display()))?;
        // No IPv6 entry: the servers of the tests listen on 127.0.0.1.
        fs::write(overlay.join("hosts"), format!("127.0.0.1 localhost {}\n", names.join(" ")))?;
        // A resolver on the outside would not be reached, only waited for.
        fs::write(overlay.join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
        Ok(network)
    }

    /// The host.
    pub fn place(&self) -> Place {
        Place::inside(&self.name, IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    fn overlay(&self) -> PathBuf {
        PathBuf::from(OVERLAYS).join(&self.name)
    }
}

impl Drop for LoneNetwork {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.overlay());
        let _ = system("ip", &["netns", "del", &self.name]);
    }
}

/// Removes overlays whose namespace is gone.
fn sweep_overlays() {
    let Ok(entries) = fs::read_dir(OVERLAYS) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX));
        if ours && !PathBuf::from("/run/netns").join(&name).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::COMMAND;
    use crate::process::run;
    use crate::say;

    #[test]
    fn a_public_name_leads_to_loopback_and_nothing_leads_out() -> anyhow::Result<()> {
        let network = match LoneNetwork::build(&["somewhere.example"]) {
            Ok(network) => network,
            Err(reason) if std::env::var_os("CI").is_none() => {
                say(format_args!("SKIPPED: {reason:#}"));
                return Ok(());
            }
            Err(reason) => return Err(reason),
        };
        let mut names = network.place().command("getent");
        names.args(["ahosts", "somewhere.example"]);
        let found = run(names, COMMAND)?.success()?.text();
        assert!(found.starts_with("127.0.0.1"), "{found}");
        let mut routes = network.place().command("ip");
        routes.args(["route", "show"]);
        assert_eq!(run(routes, COMMAND)?.success()?.text(), "", "a way out");
        Ok(())
    }
}
