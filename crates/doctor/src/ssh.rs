//! The ssh server of this machine: does it answer, and where?

use std::collections::BTreeSet;
use std::fs;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::{BANNER, BANNER_BYTES};
use crate::{Finding, clean};

/// What answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshServer {
    /// What it says of itself: `SSH-2.0-OpenSSH_9.2p1`.
    pub banner: String,
}

/// Looks for the ssh server where sessions will: at this port of localhost. When it is not there, it is looked for at the
/// ports that its configuration names.
pub async fn ssh_server(port: u16) -> (Finding, Option<SshServer>) {
    let why = match banner(port).await {
        Ok(banner) => {
            let found = Finding::ok("sshd", format!("{banner} answers at localhost:{port}"));
            return (found, Some(SshServer { banner }));
        }
        Err(why) => why,
    };
    let mut elsewhere = None;
    for other in other_ports(port) {
        if banner(other).await.is_ok() {
            elsewhere = Some(other);
            break;
        }
    }
    let todo = match elsewhere {
        Some(other) => {
            format!("one answers at port {other}: name it with --local-sshd-port {other} (or sshd-port in the file)")
        }
        None => "start it (systemctl start ssh, /etc/init.d/dropbear start), or name its port with --local-sshd-port"
            .to_owned(),
    };
    (Finding::fail("sshd", format!("no ssh server answers at localhost:{port}"), todo).because(why), None)
}

async fn banner(port: u16) -> Result<String, String> {
    let work = async {
        let mut socket = TcpStream::connect(("localhost", port)).await.map_err(|error| error.to_string())?;
        let (mut text, mut byte) = (Vec::new(), [0]);
        // Lines of its own may come before the banner.
        while text.len() < BANNER_BYTES && socket.read(&mut byte).await.map_err(|error| error.to_string())? == 1 {
            match byte {
                [b'\n'] if text.starts_with(b"SSH-") => break,
                [b'\n'] => text.clear(),
                [byte] => text.push(byte),
            }
        }
        let line = String::from_utf8_lossy(&text).trim_end().to_owned();
        if line.starts_with("SSH-") {
            Ok(clean(&line))
        } else {
            Err("what answers there does not speak ssh".to_owned())
        }
    };
    timeout(BANNER, work).await.unwrap_or_else(|_| Err("it does not say anything".to_owned()))
}

/// The usual ports, and those of the configurations of OpenSSH and Dropbear (OpenWrt).
fn other_ports(tried: u16) -> BTreeSet<u16> {
    let mut ports: BTreeSet<u16> = [22, 2222].into();
    for path in ["/etc/ssh/sshd_config", "/etc/config/dropbear"] {
        let text = fs::read_to_string(path).unwrap_or_default();
        ports.extend(text.lines().filter_map(port_of).take(8));
    }
    ports.remove(&tried);
    ports
}

/// `Port 2222`, `option Port '2222'`.
fn port_of(line: &str) -> Option<u16> {
    let line = line.trim();
    let line = line.strip_prefix("option").map_or(line, str::trim_start);
    let (word, rest) = line.split_once(char::is_whitespace)?;
    word.eq_ignore_ascii_case("port").then(|| rest.trim().trim_matches('\'').parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_as_both_servers_write_them() {
        for (line, port) in [
            ("Port 2222", Some(2222)),
            ("\tport\t23", Some(23)),
            ("#Port 24", None),
            ("\toption Port '2200'", Some(2200)),
            ("PortX 3", None),
            ("Port", None),
        ] {
            assert_eq!(port_of(line), port, "{line:?}");
        }
    }
}
