//! Whether the server of this machine answers: what health checks ask.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use postern_net::tls::{self, Trust};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::home::Home;
use crate::limits::HEALTH;

/// Connects as a client would, with the certificate checked, and waits for the first word. Returns where it answered.
///
/// # Errors
/// What to tell a person.
pub(crate) async fn ask(home: &Home, listen: SocketAddr) -> Result<SocketAddr, String> {
    let trust = match home.ca() {
        Some(file) => fs::read(&file)
            .map_err(|error| format!("{}: {error}", file.display()))
            .and_then(|pem| Trust::only_pem(&pem).map_err(|error| error.to_string()))?,
        None => Trust::load().map_err(|error| error.to_string())?,
    };
    let mut failure = String::new();
    for address in ways(listen) {
        match tls::connect_at(&trust, address, &home.settings().host, HEALTH).await {
            Ok(mut stream) => {
                let mut prompt = [0];
                return match timeout(HEALTH, stream.read_exact(&mut prompt)).await {
                    Ok(Ok(_)) if prompt == *b"@" => Ok(address),
                    Ok(Ok(_)) => Err(format!("something else than a server answers at {address}")),
                    Ok(Err(error)) => Err(format!("{address} hung up: {error}")),
                    Err(_) => Err(format!("{address} accepted, and said nothing within {HEALTH:?}")),
                };
            }
            Err(error) => failure = error.to_string(),
        }
    }
    Err(failure)
}

/// How to reach a listener from the same machine.
fn ways(listen: SocketAddr) -> Vec<SocketAddr> {
    match listen {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => vec![(Ipv4Addr::LOCALHOST, v4.port()).into()],
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            // Where there is no IPv6, it listens on IPv4 alone.
            vec![(Ipv6Addr::LOCALHOST, v6.port()).into(), (Ipv4Addr::LOCALHOST, v6.port()).into()]
        }
        named => vec![named],
    }
}
