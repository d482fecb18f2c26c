//! Devices with a wire each to one server, and nothing else: what passes a wire is what a device costs.
//!
//! ```text
//!  device 0 ── 10.78.0.2 ═ 10.78.0.1 ─┐
//!  device 1 ── 10.78.1.2 ═ 10.78.1.1 ─┤ server 192.0.2.1
//! ```

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;

use anyhow::{Context as _, bail, ensure};

use crate::Place;
use crate::nat::{COUNTER, PREFIX, sweep};
use crate::process::{system, system_with_input};
use crate::say::say;

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The namespaces and their wires; all gone on drop.
#[derive(Debug)]
pub struct StarNetwork {
    stem: String,
    links: Vec<String>,
}

impl StarNetwork {
    /// Builds it: a device for each of `links`, the names of the devices' interfaces (`eth0`, `wwan0`). `None`: this machine
    /// does not let us; the reason is printed.
    ///
    /// # Errors
    /// Under CI (variable `CI` set) a machine that does not let us is a failure.
    pub fn build_or_skip(links: &[&str]) -> anyhow::Result<Option<Self>> {
        match Self::build(links).context("network namespaces are needed (root, iproute2, nftables)") {
            Ok(network) => Ok(Some(network)),
            Err(reason) if std::env::var_os("CI").is_some() => Err(reason),
            Err(reason) => {
                say(format_args!("SKIPPED: {reason:#}"));
                Ok(None)
            }
        }
    }

    /// Builds it.
    pub fn build(links: &[&str]) -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("not root");
        }
        ensure!(links.len() <= 200, "no more than 200 wires");
        sweep();
        let stem = format!("{PREFIX}{}x{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let network = Self { stem, links: links.iter().map(|&link| link.to_owned()).collect() };
        let server = network.name_of_server();
        system("ip", &["netns", "add", &server])?;
        system("ip", &["-n", &server, "link", "set", "lo", "up"])?;
        system("ip", &["-n", &server, "addr", "add", &format!("{SERVER}/32"), "dev", "lo"])?;
        for (i, link) in network.links.iter().enumerate() {
            let (device, near) = (network.name_of(i), format!("to{i}"));
            system("ip", &["netns", "add", &device])?;
            system("ip", &["-n", &device, "link", "set", "lo", "up"])?;
            // A new interface asks for IPv6 routers for minutes; a modem has none that would listen.
            let no_v6 = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 || true";
            system("ip", &["netns", "exec", &device, "sh", "-c", no_v6])?;
            let pair = ["-n", &server, "link", "add", &near, "type", "veth", "peer", "name", link, "netns", &device];
            system("ip", &pair)?;
            system("ip", &["-n", &server, "addr", "add", &format!("10.78.{i}.1/24"), "dev", &near])?;
            system("ip", &["-n", &server, "link", "set", &near, "up"])?;
            system("ip", &["-n", &device, "addr", "add", &format!("10.78.{i}.2/24"), "dev", link])?;
            system("ip", &["-n", &device, "link", "set", link, "up"])?;
            system("ip", &["-n", &device, "route", "add", "default", "via", &format!("10.78.{i}.1")])?;
        }
        Ok(network)
    }

    /// The server.
    pub fn server(&self) -> Place {
        Place::inside(&self.name_of_server(), IpAddr::V4(SERVER))
    }

    /// The `i`th device.
    pub fn device(&self, i: u8) -> Place {
        Place::inside(&self.name_of(i.into()), IpAddr::V4(Ipv4Addr::new(10, 78, i, 2)))
    }

    /// From now on nothing passes the `i`th wire, and nobody is told.
    pub fn cut(&self, i: u8) -> anyhow::Result<()> {
        let rules = format!(
            "table inet cut{i} {{ chain inward {{ type filter hook prerouting priority raw; iifname \"to{i}\" drop\n }}\n \
             chain outward {{ type filter hook postrouting priority raw; oifname \"to{i}\" drop\n }}\n }}\n"
        );
        self.nft(&rules)
    }

    /// Ends that.
    pub fn mend(&self, i: u8) -> anyhow::Result<()> {
        self.nft(&format!("delete table inet cut{i}\n"))
    }

    fn nft(&self, rules: &str) -> anyhow::Result<()> {
        let mut nft = self.server().command("nft");
        nft.args(["-f", "-"]);
        system_with_input(nft, rules)
    }

    fn name_of_server(&self) -> String {
        format!("{}-s", self.stem)
    }

    fn name_of(&self, device: usize) -> String {
        format!("{}-{device}", self.stem)
    }
}

impl Drop for StarNetwork {
    fn drop(&mut self) {
        for i in 0..self.links.len() {
            let _ = system("ip", &["netns", "del", &self.name_of(i)]);
        }
        let _ = system("ip", &["netns", "del", &self.name_of_server()]);
    }
}
