//! TLS 1.2 and 1.3 by rustls: whom we trust, connecting, accepting, and a private CA for those who have no public name.

mod client;
mod dated;
mod look;
mod peer;
mod private_ca;
mod server;
mod shown;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use zeroize::Zeroizing;

pub use client::{ConnectError, TlsStream, Trust, connect, connect_at, connect_relay, connect_where};
pub use look::{Seen, Verdict, look, look_at_relay};
pub use peer::PeerCertificates;
pub use private_ca::PrivateCa;
pub use server::{ServerStream, ServerTls};
pub use shown::shown_by;

use crate::limits::PEM_FILE_BYTES;

/// The ALPN name by which two Posterns recognise each other. Other programs offer or answer none, which is fine.
pub const ALPN: &[u8] = b"postern/1";

/// The ALPN name of a relay's port. Source: docs/protocol/sealed.md "Relay: tickets".
pub const RELAY_ALPN: &[u8] = b"postern-relay/1";

/// Why certificates or keys could not be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// The file could not be read.
    File(PathBuf, io::Error),
    /// The text holds no certificate.
    NoCertificate,
    /// The text holds no private key, or one of an unknown kind.
    NoKey,
    /// There is no root certificate to trust at all: neither of the system nor of the user.
    NoRoots,
    /// Certificate and key do not fit, or are of a kind that TLS does not use.
    Unusable(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "read {}: {error}", path.display()),
            Self::NoCertificate => f.write_str("find a PEM certificate"),
            Self::NoKey => f.write_str("find a PEM private key"),
            Self::NoRoots => {
                write!(f, "find any trusted root certificate; install ca-certificates, or {}", client::OWN_CA_HINT)
            }
            Self::Unusable(reason) => write!(f, "use the certificate: {reason}"),
        }
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(_, error) => Some(error),
            _ => None,
        }
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Unusable(error.to_string())
    }
}

/// The one provider. X25519 comes first: its key share is 32 bytes where the hybrid's is 1216, and these connections
/// carry what is sealed end to end anyway. Peers that want the hybrid still get it.
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let kx_groups = vec![X25519, SECP256R1, SECP384R1, X25519MLKEM768];
    Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
}

/// Where a user's own CA is looked for: `$XDG_CONFIG_HOME/postern/ca.pem`, by default `~/.config/postern/ca.pem`.
/// `None`: there is no home.
#[must_use]
pub fn own_ca_file() -> Option<PathBuf> {
    client::default_ca_file()
}

/// Reads a PEM file of bounded size; zeroed after use, for it may hold a key.
fn read_pem(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let mut text = Zeroizing::new(Vec::new());
    File::open(path)
        .and_then(|file| file.take(PEM_FILE_BYTES).read_to_end(&mut text))
        .map_err(|error| TlsError::File(path.to_owned(), error))?;
    Ok(text)
}
