//! The connecting side: trust, connect, and errors that a person can act on.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::dated::Dated;
use super::{ALPN, PeerCertificates, RELAY_ALPN, TlsError, provider, read_pem};
use crate::limits::{SERVERS_REMEMBERED, UNACKNOWLEDGED_FOR};
use crate::proxy::{self, Proxy};
use crate::tcp;
use crate::usage::{Counted, Plane};

/// What to do about a certificate of one's own CA.
pub(super) const OWN_CA_HINT: &str =
    "put your own CA into ~/.config/postern/ca.pem or name its file in POSTERN_CA_FILE";

/// What to do about a certificate that is over.
const DATE_HINT: &str = "is the clock of this machine ahead? Set it (timedatectl set-ntp true); if it is right, the \
                         server's certificate has to be renewed";

/// Whose certificates we believe. Made once per process; clones share it.
#[derive(Clone)]
pub struct Trust {
    config: Arc<ClientConfig>,
    pub(super) verifier: Arc<Dated>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").finish_non_exhaustive()
    }
}

impl Trust {
    /// The system's roots (or those of `SSL_CERT_FILE` / `SSL_CERT_DIR`), and in addition the user's own: the file
    /// named by `POSTERN_CA_FILE`, and `$XDG_CONFIG_HOME/postern/ca.pem` (by default `~/.config/postern/ca.pem`) if
    /// it exists.
    ///
    /// # Errors
    /// `POSTERN_CA_FILE` or `ca.pem` is unreadable or holds no certificate; or there is no root at all.
    pub fn load() -> Result<Self, TlsError> {
        let named = std::env::var_os("POSTERN_CA_FILE").filter(|name| !name.is_empty()).map(PathBuf::from);
        Self::load_with(named.as_deref(), default_ca_file().filter(|path| path.exists()).as_deref())
    }

    /// The system's roots and no others.
    ///
    /// # Errors
    /// There is none.
    pub fn system() -> Result<Self, TlsError> {
        Self::load_with(None, None)
    }

    fn load_with(named: Option<&Path>, default: Option<&Path>) -> Result<Self, TlsError> {
        Self::from_roots(all_roots(&[named, default].into_iter().flatten().collect::<Vec<_>>())?)
    }

    /// For a server that calls other servers: the system's roots and those of `files`, and `certificate` with its key to
    /// show who calls (PEM). These connections offer no ALPN: servers ask the others, not the Posterns, for certificates.
    ///
    /// # Errors
    /// A file is unreadable or holds no certificate; certificate and key do not fit; there is no root at all.
    pub fn for_server(files: &[&Path], certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Self::calling_as(all_roots(files)?, &read_pem(certificate)?, &read_pem(key)?)
    }

    /// The same with these roots and no others.
    ///
    /// # Errors
    /// As [`Trust::for_server`].
    pub fn for_server_only_pem(roots: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let mut store = RootCertStore::empty();
        add_pem(&mut store, roots)?;
        Self::calling_as(store, certificate, key)
    }

    fn calling_as(roots: RootCertStore, certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| TlsError::Unusable(error.to_string()))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
        let trust = Self::from_roots(roots)?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous() // the usual verifier, with a time that may be right
            .with_custom_certificate_verifier(Arc::clone(&trust.verifier) as _)
            .with_client_auth_cert(chain, key)?;
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), ..trust })
    }

    /// Whether a caller's certificates are those of `host`, as if we had called it: chain, name and dates.
    #[must_use]
    pub fn is_certificate_of(&self, shown: &PeerCertificates, host: &str) -> bool {
        let (Ok(name), [leaf, chain @ ..]) = (ServerName::try_from(host), shown.0.as_slice()) else { return false };
        self.verifier.verify_server_cert(leaf, chain, &name, &[], UnixTime::now()).is_ok()
    }

    fn from_roots(roots: RootCertStore) -> Result<Self, TlsError> {
        if roots.is_empty() {
            return Err(TlsError::NoRoots);
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| TlsError::Unusable(error.to_string()))?;
        let verifier = Dated::new(verifier);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous() // the usual verifier, with a time that may be right
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A device comes back once a day, and a client several times an hour: without certificates it costs 1.1 kB instead of
        // 1.9, with a chain of one small certificate; those of the public web have larger ones.
        config.resumption = Resumption::in_memory_sessions(SERVERS_REMEMBERED);
        Ok(Self { config: Arc::new(config), verifier })
    }

    /// These certificates and no others.
    ///
    /// # Errors
    /// The text holds no usable certificate.
    pub fn only_pem(pem: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        add_pem(&mut roots, pem)?;
        Self::from_roots(roots)
    }

    fn offering(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        if alpn.contains(&RELAY_ALPN) {
            // Another server under the same name, and each session another connection: it gives no tickets.
            config.resumption = Resumption::disabled();
        }
        Arc::new(config)
    }
}

/// The system's roots and those of these files.
fn all_roots(files: &[&Path]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for path in files {
        add_pem(&mut roots, &read_pem(path)?)
            .map_err(|error| TlsError::File((*path).to_owned(), io::Error::other(error.to_string())))?;
    }
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a root certificate of the system was not loaded");
    }
    roots.add_parsable_certificates(native.certs);
    Ok(roots)
}

fn add_pem(roots: &mut RootCertStore, pem: &[u8]) -> Result<(), TlsError> {
    let mut found = false;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| TlsError::Unusable(error.to_string()))?;
        roots.add(certificate)?;
        found = true;
    }
    if found { Ok(()) } else { Err(TlsError::NoCertificate) }
}

/// Where a user's own CA is looked for.
pub(super) fn default_ca_file() -> Option<PathBuf> {
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(config.join("postern").join("ca.pem"))
}

/// Why there is no connection, told so that a user can act on it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name has no address, or the name server does not answer.
    Resolve {
        /// `host:port` as asked for.
        to: String,
        /// What the resolver said.
        error: io::Error,
    },
    /// No address accepted the connection.
    Tcp {
        /// `host:port` as asked for.
        to: String,
        /// What the first address said.
        error: io::Error,
    },
    /// The TLS handshake failed; most often the certificate.
    Tls {
        /// `host:port` as asked for.
        to: String,
        /// What the handshake said.
        error: io::Error,
    },
    /// The time was over.
    TimedOut {
        /// `host:port` as asked for.
        to: String,
        /// What was being done.
        during: &'static str,
    },
}

impl ConnectError {
    /// True when the other side's certificate was not accepted: trying again will not help.
    #[must_use]
    pub fn is_certificate(&self) -> bool {
        self.certificate_error().is_some()
    }

    /// True when it is over by our clock: once one of the two is set right it will do.
    #[must_use]
    pub fn is_date(&self) -> bool {
        use CertificateError::{Expired, ExpiredContext};
        matches!(self.certificate_error(), Some(Expired | ExpiredContext { .. }))
    }

    fn certificate_error(&self) -> Option<&CertificateError> {
        match self {
            Self::Tls { error, .. } => match rustls_error(error) {
                Some(rustls::Error::InvalidCertificate(error)) => Some(error),
                _ => None,
            },
            _ => None,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { to, error } => {
                write!(f, "could not connect to {to}: name not found: {error}")
            }
            Self::Tcp { to, error } => write!(f, "could not connect to {to}: {error}"),
            Self::Tls { to, error } if self.is_date() => {
                write!(f, "could not connect to {to}: certificate not accepted: {error}; {DATE_HINT}")
            }
            Self::Tls { to, error } if self.is_certificate() => {
                write!(f, "could not connect to {to}: certificate not accepted: {error}; {OWN_CA_HINT}")
            }
            Self::Tls { to, error } => write!(f, "could not connect to {to}: TLS failed: {error}"),
            Self::TimedOut { to, during } => {
                write!(f, "could not connect to {to}: timed out {during}")
            }
        }
    }
}

impl std::error::Error for ConnectError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve { error, .. } | Self::Tcp { error, .. } | Self::Tls { error, .. } => Some(error),
            Self::TimedOut { .. } => None,
        }
    }
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Connects to `host:port` by TLS, through the [proxy] that the environment names for this host. `limit` bounds the whole:
/// name, TCP, handshake.
///
/// These connections carry lines and replies: one whose peer does not acknowledge for [`UNACKNOWLEDGED_FOR`] is given up.
/// ALPN [`ALPN`] is offered; a server that insists on another protocol is asked once more without it.
///
/// # Errors
/// [`ConnectError`] says which step failed.
pub async fn connect(trust: &Trust, host: &str, port: u16, limit: Duration) -> Result<TlsStream, ConnectError> {
    let proxy = proxy_for(host, port)?;
    let (config, carries) = (Arc::clone(&trust.config), Carries::Lines);
    connect_by(config, carries, host, port, limit, |_| true, proxy).await
}

/// Connects to a relay's port that speaks TLS first, through the proxy of the environment if there is one. The bytes are a
/// session's: how long they stay unacknowledged is not looked at.
///
/// # Errors
/// As [`connect`].
pub async fn connect_relay(trust: &Trust, host: &str, port: u16, limit: Duration) -> Result<TlsStream, ConnectError> {
    let proxy = proxy_for(host, port)?;
    let config = trust.offering(&[RELAY_ALPN]);
    connect_by(config, Carries::Session, host, port, limit, |_| true, proxy).await
}

pub(super) fn proxy_for(host: &str, port: u16) -> Result<Option<&'static Proxy>, ConnectError> {
    let tcp = |error| ConnectError::Tcp { to: place(host, port), error: io::Error::other(error) };
    proxy::of_environment(host, port).map_err(tcp)
}

fn place(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Carries {
    Lines,
    Session,
}

/// The same without a proxy, to those addresses of the name alone that `may_dial` allows: for names that a stranger chose.
///
/// # Errors
/// [`ConnectError`]; a name without an allowed address cannot be resolved.
pub async fn connect_where(
    trust: &Trust,
    host: &str,
    port: u16,
    limit: Duration,
    may_dial: impl Fn(IpAddr) -> bool,
) -> Result<TlsStream, ConnectError> {
    let config = Arc::clone(&trust.config);
    connect_by(config, Carries::Lines, host, port, limit, may_dial, None).await
}

/// What a server shows to a configuration that believes anybody.
pub(super) async fn certificates_shown(
    config: Arc<ClientConfig>,
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<PeerCertificates, ConnectError> {
    let proxy = proxy_for(host, port)?;
    let shown = connect_by(config, Carries::Lines, host, port, limit, |_| true, proxy).await?;
    let chain = shown.stream.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(PeerCertificates(chain.iter().map(|one| one.clone().into_owned()).collect()))
}

/// Connects to this very address, whatever the name resolves to, and wants the certificate of `name` there: for a server
/// that is asked how it is by its own machine.
///
/// # Errors
/// [`ConnectError`]
pub async fn connect_at(
    trust: &Trust,
    address: SocketAddr,
    name: &str,
    limit: Duration,
) -> Result<TlsStream, ConnectError> {
    let to = || format!("{name} at {address}");
    let invalid = |error: String| ConnectError::Resolve { to: to(), error: io::Error::other(error) };
    let server = ServerName::try_from(name.to_owned()).map_err(|error| invalid(error.to_string()))?;
    let mut during = "waiting for TCP";
    let work = async {
        let tcp = |error| ConnectError::Tcp { to: to(), error };
        let socket = Counted::new(tcp::connect_first(vec![address]).await.map_err(tcp)?, Plane::Control);
        during = "in the TLS handshake";
        let stream = TlsConnector::from(Arc::clone(&trust.config)).connect(server, socket).await;
        stream.map(|stream| TlsStream { stream }).map_err(|error| ConnectError::Tls { to: to(), error })
    };
    match timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ConnectError::TimedOut { to: to(), during }),
    }
}

pub(super) async fn connect_by(
    mut config: Arc<ClientConfig>,
    carries: Carries,
    host: &str,
    port: u16,
    limit: Duration,
    may_dial: impl Fn(IpAddr) -> bool,
    proxy: Option<&Proxy>,
) -> Result<TlsStream, ConnectError> {
    let to = || place(host, port);
    let mut during = "looking up the name";
    let work = async {
        let invalid =
            |error| ConnectError::Resolve { to: to(), error: io::Error::new(io::ErrorKind::InvalidInput, error) };
        let name = ServerName::try_from(host.to_owned()).map_err(|e| invalid(e.to_string()))?;
        let mut addresses = match proxy {
            None => tcp::resolve(host, port).await.map_err(|error| ConnectError::Resolve { to: to(), error })?,
            Some(_) => Vec::new(),
        };
        addresses.retain(|address| may_dial(address.ip().to_canonical()));
        if addresses.is_empty() && proxy.is_none() {
            let error = io::Error::new(io::ErrorKind::PermissionDenied, "none of its addresses may be dialled");
            return Err(ConnectError::Resolve { to: to(), error });
        }
        let tcp = |error| ConnectError::Tcp { to: to(), error };
        loop {
            during = "waiting for TCP";
            let socket = match proxy {
                None => tcp::connect_first(addresses.clone()).await.map_err(tcp)?,
                Some(proxy) => proxy.connect(host, port, limit).await.map_err(tcp)?,
            };
            if carries == Carries::Lines {
                tcp::limit_unacknowledged(&socket, UNACKNOWLEDGED_FOR).map_err(tcp)?;
            }
            let plane = if carries == Carries::Lines { Plane::Control } else { Plane::Data };
            let socket = Counted::new(socket, plane);
            during = "in the TLS handshake";
            let error = match TlsConnector::from(Arc::clone(&config)).connect(name.clone(), socket).await {
                Ok(stream) => return Ok(TlsStream { stream }),
                Err(error) => error,
            };
            let refused = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
            if rustls_error(&error) == Some(&refused) && !config.alpn_protocols.is_empty() {
                Arc::make_mut(&mut config).alpn_protocols.clear();
                continue;
            }
            return Err(ConnectError::Tls { to: to(), error });
        }
    };
    match timeout(limit, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ConnectError::TimedOut { to: to(), during }),
    }
}

/// A TLS connection to a server whose certificate we accepted.
#[derive(Debug)]
pub struct TlsStream {
    stream: tokio_rustls::client::TlsStream<Counted<TcpStream>>,
}

impl TlsStream {
    /// True when the server is a Postern too: it answered ALPN [`ALPN`].
    #[must_use]
    pub fn speaks_postern(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(ALPN)
    }

    /// The TCP socket below, to change its keep-alive.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        self.stream.get_ref().0.get_ref()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::PrivateCa;

    #[test]
    fn own_files_are_added_and_their_faults_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let ca = PrivateCa::make(&["localhost".to_owned()], &[]).unwrap();
        let (good, bad, missing) = (dir.path().join("ca.pem"), dir.path().join("bad.pem"), dir.path().join("none.pem"));
        std::fs::write(&good, &ca.ca_pem).unwrap();
        std::fs::write(&bad, "no certificate").unwrap();
        Trust::load_with(Some(&good), None).unwrap();
        Trust::load_with(None, Some(&good)).unwrap();
        for path in [bad, missing] {
            let error = Trust::load_with(Some(&path), Some(&good)).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
