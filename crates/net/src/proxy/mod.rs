//! Ways out through a proxy, for networks that let nothing else through: HTTP CONNECT and SOCKS5.
//!
//! Which proxy leads to a host is said by the environment, as for `curl`: `https_proxy`, else `all_proxy` (also in capital
//! letters), but not for hosts that `no_proxy` names, and never for this machine itself. The proxy looks the name up.

mod ask;
mod rules;

use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

pub use self::rules::{BadProxy, Rules};
use crate::tcp;

/// A proxy and who we are to it.
#[derive(Clone)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    login: Option<Login>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Socks5,
}

#[derive(Clone)]
struct Login {
    user: String,
    password: Zeroizing<String>,
}

/// What the environment says, read once. `None`: there is a direct way to this host.
///
/// # Errors
/// A variable names no proxy that we can use.
pub fn of_environment(host: &str, port: u16) -> Result<Option<&'static Proxy>, BadProxy> {
    static RULES: OnceLock<Result<Rules, BadProxy>> = OnceLock::new();
    match RULES.get_or_init(|| Rules::from_variables(|name| std::env::var(name).ok())) {
        Ok(rules) => Ok(rules.proxy_for(host, port)),
        Err(error) => Err(error.clone()),
    }
}

/// [`tcp::connect_tcp`], through the proxy that the environment names for this host.
///
/// # Errors
/// As there; or what the proxy said.
pub async fn connect_tcp(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    match of_environment(host, port).map_err(io::Error::other)? {
        None => tcp::connect_tcp(host, port, limit).await,
        Some(proxy) => proxy.connect(host, port, limit).await,
    }
}

impl Proxy {
    /// A connection to `host:port` that the proxy has made; from here on the bytes are the other end's.
    ///
    /// # Errors
    /// The proxy cannot be reached, refuses, or is silent until `limit` is over. The text names the proxy.
    pub async fn connect(&self, host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
        let work = async {
            let mut socket = tcp::connect_tcp(&self.host, self.port, limit).await?;
            match self.kind {
                Kind::Http => ask::http(&mut socket, host, port, self.login.as_ref()).await?,
                Kind::Socks5 => ask::socks5(&mut socket, host, port, self.login.as_ref()).await?,
            }
            Ok(socket)
        };
        let outcome = timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        outcome.map_err(|error: io::Error| io::Error::new(error.kind(), format!("through the proxy {self}: {error}")))
    }
}

/// Without user and password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Socks5 => "socks5",
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}
