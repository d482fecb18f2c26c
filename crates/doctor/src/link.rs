//! The link outwards: which interface, and of what kind.

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};

use crate::limits::TOOL_BYTES;
use crate::{Finding, clean};

/// Names of interfaces of modems.
const MOBILE: [&str; 5] = ["wwan", "ppp", "usb", "lte", "rmnet"];

/// Where the default route leads, and how good a mobile link is, where ModemManager knows.
#[must_use]
pub fn link() -> Finding {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let interface = default_interface(&routes).or_else(|| {
        let routes = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
        default_interface_v6(&routes)
    });
    let Some(interface) = interface else {
        // A machine that reaches its server all the same is in a namespace or behind a tunnel: nothing to say.
        return Finding::skip("link", "there is no default route");
    };
    let shown = clean(&interface);
    if !MOBILE.iter().any(|prefix| interface.starts_with(prefix)) {
        return Finding::ok("link", format!("by {shown}, no mobile link"));
    }
    let quality = signal();
    let quality_text = quality.map(|percent| format!(", signal {percent} %")).unwrap_or_default();
    let what = format!("by {shown}, a mobile link{quality_text}");
    match quality {
        Some(..20) => Finding::warn("link", what, "move or exchange the antenna; look at mmcli -m any"),
        _ => Finding::ok("link", what),
    }
}

/// Interface of the route to 0.0.0.0/0 with the lowest metric. Source: proc(5), /proc/net/route.
fn default_interface(routes: &str) -> Option<String> {
    let default = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [name, destination, _, _, _, _, metric, mask, ..] = fields.as_slice() else { return None };
        let metric: u32 = metric.parse().ok()?;
        (*destination == "00000000" && *mask == "00000000").then(|| (metric, (*name).to_owned()))
    };
    routes.lines().skip(1).filter_map(default).min().map(|(_, name)| name)
}

/// The same of /proc/net/ipv6_route; unreachable defaults lead to `lo`.
fn default_interface_v6(routes: &str) -> Option<String> {
    let default = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, length, .., name] = fields.as_slice() else { return None };
        let all = destination.bytes().all(|byte| byte == b'0') && *length == "00";
        (all && *name != "lo").then(|| (*name).to_owned())
    };
    routes.lines().find_map(default)
}

/// Per cent, as ModemManager tells it.
fn signal() -> Option<u8> {
    let mut tool = Command::new("mmcli");
    tool.args(["-m", "any", "-K"]).stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
    let mut child = tool.spawn().ok()?;
    let mut text = String::new();
    let read = child.stdout.take()?.take(TOOL_BYTES).read_to_string(&mut text);
    let _ = child.wait();
    read.ok()?;
    signal_in(&text)
}

fn signal_in(text: &str) -> Option<u8> {
    let line = text.lines().find(|line| line.starts_with("modem.generic.signal-quality.value"))?;
    line.split_once(':')?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_with_the_lowest_metric_counts() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                      wwan0\t00000000\t0100000A\t0003\t0\t0\t700\t00000000\t0\t0\t0\n\
                      eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                      eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(default_interface(routes).as_deref(), Some("eth0"));
        assert_eq!(default_interface("Iface\n"), None);
        let six = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 0 ffffffff 1 0 00200200 lo\n\
                   00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe80 400 1 0 00450003 wwan0\n";
        assert_eq!(default_interface_v6(six).as_deref(), Some("wwan0"));
        assert_eq!(signal_in("modem.generic.signal-quality.value              : 57\n"), Some(57));
    }
}
