//! Where a stranger's directory entry may make us dial.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether `ip` is an address of the public Internet. Entries of a public directory that name others are not dialled:
/// whoever can write an entry could otherwise have us knock on doors that only we can see.
pub(super) fn may_dial(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_broadcast()
        || ip.is_multicast()
        || ip.is_documentation();
    let this_network = a == 0;
    let shared = a == 100 && b & 0b1100_0000 == 64; // RFC 6598
    let protocols = (a, b, c) == (192, 0, 0); // RFC 6890
    let benchmarks = a == 198 && b & 0b1111_1110 == 18; // RFC 2544
    let reserved = a >= 240; // RFC 1112
    !(special || this_network || shared || protocols || benchmarks || reserved)
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [a, b, ..] = ip.segments();
    // Global unicast is 2000::/3. Within it: addresses that carry an IPv4 address, and documentation.
    let global = a & 0xe000 == 0x2000;
    let carries_v4 = a == 0x2002 || (a == 0x2001 && b == 0);
    let documentation = a == 0x2001 && b == 0x0db8;
    global && !carries_v4 && !documentation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet() {
        for ip in ["1.1.1.1", "100.128.0.1", "172.32.0.1", "198.20.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(may_dial(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "198.18.0.1",
            "203.0.113.5",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "2002:7f00:1::",
            "2001:0:1::",
            "2001:db8::1",
            "64:ff9b::7f00:1",
        ] {
            assert!(!may_dial(ip.parse().unwrap()), "{ip}");
        }
    }
}
