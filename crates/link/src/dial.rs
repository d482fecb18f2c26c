//! The way to the relay.

use std::io;
use std::sync::Arc;

use postern_net::tcp;
use postern_rendezvous::SignedLine;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::limits::{AUTH_WRITE, DIAL};

/// One side's port of a session at the relay.
#[derive(Clone)]
pub struct RelayPort {
    /// Host name or address.
    pub host: String,
    /// This side's port.
    pub port: u16,
    /// The signed line each socket begins with; `None`: this relay asks for none.
    pub auth_line: Option<Arc<SignedLine>>,
    /// Says which connection of the session each socket belongs to; older programs do not.
    pub numbered: bool,
}

impl RelayPort {
    /// Opens the socket of the `number`th connection and authenticates it. The first, 0, is the only one of ssh or the
    /// control channel. The relay does not answer; data may follow at once.
    pub async fn dial(&self, number: u32) -> io::Result<TcpStream> {
        let mut socket = tcp::connect_tcp(&self.host, self.port, DIAL).await?;
        if let Some(line) = &self.auth_line {
            let line = if self.numbered { line.numbered(number) } else { line.plain() };
            timeout(AUTH_WRITE, socket.write_all(line.as_bytes())).await??;
        }
        Ok(socket)
    }
}
