//! A small internet: client behind NAT, server in public, device behind NAT with all inbound dropped.
//!
//! ```text
//!  client ── nat-c ──────── server ──────── nat-d ── device
//!  10.77.1.2   │ masquerade  192.0.2.1       │ masquerade, nothing new comes in
//!              198.51.100.2                  203.0.113.2
//! ```
//! Each is a network namespace of its own; the server forwards nothing. The inner side of `nat-d`
//! (10.77.2.1) stands for another machine in the device's network.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, bail};

use crate::Place;
use crate::process::{system, system_with_input};
use crate::say::say;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const DEVICE: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const DEVICE_LAN: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 1);
const DEVICE_PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// Prefix of our namespaces; the owner's process id follows.
pub(crate) const PREFIX: &str = "pstn";

/// Several networks in one process get different names.
pub(crate) static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The namespaces and the wires between them; all gone on drop.
#[derive(Debug)]
pub struct NatNetwork {
    stem: String,
}

impl NatNetwork {
    /// Builds it. `None`: this machine does not let us (not root, no `ip` or `nft`); the reason is
    /// printed.
    ///
    /// # Errors
    /// Under CI (variable `CI` set) a machine that does not let us is a failure: a skipped test
    /// proves nothing.
    pub fn build_or_skip() -> anyhow::Result<Option<Self>> {
        let reason = match Self::build() {
            Ok(network) => return Ok(Some(network)),
            Err(reason) => reason.context("network namespaces are needed (root, iproute2, nftables)"),
        };
        if std::env::var_os("CI").is_some() {
            return Err(reason);
        }
        say(format_args!("SKIPPED: {reason:#}"));
        Ok(None)
    }

    /// Builds it.
    pub fn build() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("not root");
        }
        sweep();
        let stem = format!("{PREFIX}{}x{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let network = Self { stem };
        network.lay_wires().context("failed to lay out the network")?;
        network.raise_walls().context("failed to set up address translation")?;
        Ok(network)
    }

    /// Behind NAT.
    pub fn client(&self) -> Place {
        Place::inside(&self.name("c"), IpAddr::V4(CLIENT))
    }

    /// In public.
    pub fn server(&self) -> Place {
        Place::inside(&self.name("s"), IpAddr::V4(SERVER))
    }

    /// Behind NAT and walls.
    pub fn device(&self) -> Place {
        Place::inside(&self.name("d"), IpAddr::V4(DEVICE))
    }

    /// Another machine in the device's own network, reachable from the device only.
    pub fn device_neighbour(&self) -> Place {
        Place::inside(&self.name("nd"), IpAddr::V4(DEVICE_LAN))
    }

    /// The public address behind which the device hides.
    pub fn device_public_address(&self) -> IpAddr {
        IpAddr::V4(DEVICE_PUBLIC)
    }

    /// Cuts the device's way out, as a dead uplink does: nobody is told, and the router forgets
    /// its translations.
    pub fn cut_device_link(&self) -> anyhow::Result<()> {
        system("ip", &["-n", &self.name("nd"), "link", "set", "out", "down"]).map(drop)
    }

    /// Brings it back.
    pub fn mend_device_link(&self) -> anyhow::Result<()> {
        let router = self.name("nd");
        system("ip", &["-n", &router, "link", "set", "out", "up"])?;
        system("ip", &["-n", &router, "route", "add", "default", "via", "203.0.113.1"]).map(drop)
    }

    /// Gives the client another address in its network, as another wireless network does. What it has open dies without a
    /// word.
    pub fn change_client_address(&self) -> anyhow::Result<()> {
        let client = self.name("c");
        system("ip", &["-n", &client, "addr", "del", "10.77.1.2/24", "dev", "eth0"])?;
        system("ip", &["-n", &client, "addr", "add", "10.77.1.77/24", "dev", "eth0"])?;
        system("ip", &["-n", &client, "route", "replace", "default", "via", "10.77.1.1"]).map(drop)
    }

    /// From now on the client's network lets nothing out but connections to these ports of the server, and says so to who
    /// tries.
    pub fn let_client_reach_only(&self, ports: &[u16]) -> anyhow::Result<()> {
        let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let rules = format!(
            "table ip wall {{}}\ndelete table ip wall\ntable ip wall {{ chain out {{ type filter hook output priority \
             filter; oifname \"lo\" accept; ip daddr {SERVER} tcp dport {{ {ports} }} accept; reject with icmp \
             admin-prohibited\n }}\n }}\n"
        );
        self.rules("c", &rules)
    }

    /// Gives the device another address in its network, likewise.
    pub fn change_device_address(&self) -> anyhow::Result<()> {
        let device = self.name("d");
        system("ip", &["-n", &device, "addr", "del", "10.77.2.2/24", "dev", "eth0"])?;
        system("ip", &["-n", &device, "addr", "add", "10.77.2.77/24", "dev", "eth0"])?;
        system("ip", &["-n", &device, "route", "replace", "default", "via", "10.77.2.1"]).map(drop)
    }

    fn name(&self, role: &str) -> String {
        format!("{}-{role}", self.stem)
    }

    fn lay_wires(&self) -> anyhow::Result<()> {
        for role in ["c", "nc", "s", "nd", "d"] {
            let name = self.name(role);
            system("ip", &["netns", "add", &name])?;
            system("ip", &["-n", &name, "link", "set", "lo", "up"])?;
            // New namespaces copy the machine's setting, which may be 1 (containers).
            let forward = if role.starts_with('n') { "1" } else { "0" };
            let setting = format!("echo {forward} > /proc/sys/net/ipv4/ip_forward");
            system("ip", &["netns", "exec", &name, "sh", "-c", &setting])?;
        }
        self.wire(("c", "eth0", "10.77.1.2/24"), ("nc", "in", "10.77.1.1/24"))?;
        self.wire(("nc", "out", "198.51.100.2/24"), ("s", "west", "198.51.100.1/24"))?;
        self.wire(("s", "east", "203.0.113.1/24"), ("nd", "out", "203.0.113.2/24"))?;
        self.wire(("nd", "in", "10.77.2.1/24"), ("d", "eth0", "10.77.2.2/24"))?;
        system("ip", &["-n", &self.name("s"), "addr", "add", "192.0.2.1/32", "dev", "lo"])?;
        let ways = [("c", "10.77.1.1"), ("nc", "198.51.100.1"), ("nd", "203.0.113.1"), ("d", "10.77.2.1")];
        for (role, via) in ways {
            system("ip", &["-n", &self.name(role), "route", "add", "default", "via", via])?;
        }
        Ok(())
    }

    fn wire(&self, one: (&str, &str, &str), other: (&str, &str, &str)) -> anyhow::Result<()> {
        let (one_ns, other_ns) = (self.name(one.0), self.name(other.0));
        system(
            "ip",
            &["-n", &one_ns, "link", "add", one.1, "type", "veth", "peer", "name", other.1, "netns", &other_ns],
        )?;
        for (ns, (_, link, address)) in [(&one_ns, one), (&other_ns, other)] {
            system("ip", &["-n", ns, "addr", "add", address, "dev", link])?;
            system("ip", &["-n", ns, "link", "set", link, "up"])?;
        }
        Ok(())
    }

    fn raise_walls(&self) -> anyhow::Result<()> {
        self.rules("nc", ROUTER)?;
        self.rules("nd", ROUTER)?;
        self.rules("d", DEVICE_WALL)
    }

    fn rules(&self, role: &str, rules: &str) -> anyhow::Result<()> {
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &self.name(role), "nft", "-f", "-"]);
        system_with_input(command, rules)
    }
}

impl Drop for NatNetwork {
    fn drop(&mut self) {
        for role in ["c", "nc", "s", "nd", "d"] {
            let _ = system("ip", &["netns", "del", &self.name(role)]);
        }
    }
}

/// Out is translated; in comes only what answers.
const ROUTER: &str = r#"
table ip house {
    chain out {
        type nat hook postrouting priority srcnat;
        oifname "out" masquerade
    }
    chain through {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "in" oifname "out" accept
    }
    chain to_me {
        type filter hook input priority filter; policy drop;
        ct state established,related accept
        iifname { "in", "lo" } accept
    }
}
"#;

/// The device itself lets nothing in either.
const DEVICE_WALL: &str = r#"
table inet house {
    chain to_me {
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
        ct state established,related accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    }
}
"#;

/// Removes namespaces whose owner was killed before it could.
pub(crate) fn sweep() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('x').next());
        let Some(owner) = owner.filter(|id| id.parse::<u32>().is_ok()) else { continue };
        if !std::path::Path::new("/proc").join(owner).exists() {
            let _ = system("ip", &["netns", "del", &name]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    /// The walls are real: a listener at the device, on all its addresses, is out of everybody's
    /// reach, even with a route straight to it; the device itself gets out.
    #[test]
    fn nothing_gets_in_and_the_device_gets_out() -> anyhow::Result<()> {
        let Some(network) = NatNetwork::build_or_skip()? else { return Ok(()) };
        let patience = Duration::from_millis(700);
        let listener = network.device().within(|| Ok(TcpListener::bind("0.0.0.0:7000")?))?;
        system("ip", &["-n", &network.name("s"), "route", "add", "10.77.2.0/24", "via", "203.0.113.2"])?;
        for target in [network.device_public_address(), network.device().address()] {
            let reached =
                network.server().within(|| Ok(TcpStream::connect_timeout(&(target, 7000).into(), patience)))?;
            assert!(reached.is_err(), "{target} let us in");
        }
        let neighbour = network.device_neighbour();
        let reached = neighbour.within(|| Ok(TcpStream::connect_timeout(&(DEVICE, 7000).into(), patience)))?;
        assert!(reached.is_err(), "the device's own wall let us in");
        drop(listener);

        let public = network.server().within(|| Ok(TcpListener::bind((SERVER, 7001))?))?;
        for place in [network.device(), network.client()] {
            place.within(|| Ok(TcpStream::connect_timeout(&(SERVER, 7001).into(), Duration::from_secs(5))?))?;
            let (_, from) = public.accept()?;
            assert_ne!(from.ip(), place.address(), "not translated");
        }
        Ok(())
    }
}
