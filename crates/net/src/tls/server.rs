//! The accepting side.

use std::fmt;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{Acceptor, NoServerSessionStorage};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;

use super::peer::TakeAny;
use super::{ALPN, PeerCertificates, RELAY_ALPN, TlsError, provider, read_pem};

/// A server's certificate and key, ready to accept. Clones share them.
#[derive(Clone)]
pub struct ServerTls {
    /// For clients that offer our ALPN name.
    postern: Arc<ServerConfig>,
    alpn: &'static [u8],
    /// For all others: rustls would refuse a client that offers only protocols we do not list. Asks for a certificate,
    /// for other servers call here too.
    anyone: Arc<ServerConfig>,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

impl ServerTls {
    /// Reads the certificate chain and its private key, both PEM.
    ///
    /// # Errors
    /// A file is unreadable, or [`ServerTls::from_pem`] fails.
    pub fn from_pem_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Self::from_pem(&read_pem(certificate)?, &read_pem(key)?)
    }

    /// Takes the certificate chain (leaf first) and its private key (PKCS#8, PKCS#1 or SEC1), both PEM.
    ///
    /// # Errors
    /// A part is missing, or the two do not fit.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::made(certificate, key, ALPN, true)
    }

    /// The same for a relay's port: with [`RELAY_ALPN`], and nobody is asked for a certificate.
    ///
    /// # Errors
    /// As [`ServerTls::from_pem_files`].
    pub fn relay_from_pem_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        Self::made(&read_pem(certificate)?, &read_pem(key)?, RELAY_ALPN, false)
    }

    fn made(certificate: &[u8], key: &[u8], alpn: &'static [u8], ask: bool) -> Result<Self, TlsError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| TlsError::Unusable(error.to_string()))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
        let config = || {
            ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(TlsError::from)
        };
        let mut postern = config()?.with_no_client_auth().with_single_cert(chain.clone(), key.clone_key())?;
        let anyone = config()?;
        let anyone = if ask { anyone.with_client_cert_verifier(TakeAny::new()) } else { anyone.with_no_client_auth() };
        let mut anyone = anyone.with_single_cert(chain, key)?;
        for config in [&mut postern, &mut anyone] {
            config.send_tls13_tickets = 0;
            config.session_storage = Arc::new(NoServerSessionStorage {});
        }
        if ask {
            // A device that comes back shows it and is spared our certificates. Nothing is kept for it here: the ticket is
            // sealed with a key that lives for hours, and not longer than this process.
            postern.ticketer = aws_lc_rs::Ticketer::new()?;
            postern.send_tls13_tickets = 1;
        }
        postern.alpn_protocols = vec![alpn.to_vec()];
        Ok(Self { postern: Arc::new(postern), alpn, anyone: Arc::new(anyone) })
    }

    /// The handshake on an accepted socket. A client without ALPN, or with other protocols, is welcome. The caller bounds
    /// the time.
    ///
    /// # Errors
    /// The peer is no TLS client, offers nothing we can use, or went away.
    pub async fn accept(&self, tcp: TcpStream) -> io::Result<ServerStream> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), tcp).await?;
        let ours = start.client_hello().alpn().is_some_and(|mut offered| offered.any(|name| name == self.alpn));
        let config = if ours { &self.postern } else { &self.anyone };
        let stream = start.into_stream(Arc::clone(config)).await?;
        Ok(ServerStream { stream })
    }
}

/// An accepted TLS connection.
#[derive(Debug)]
pub struct ServerStream {
    stream: tokio_rustls::server::TlsStream<TcpStream>,
}

impl ServerStream {
    /// True when the client is a Postern too: it offered ALPN [`ALPN`].
    #[must_use]
    pub fn speaks_postern(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(ALPN)
    }

    /// What the client showed of itself, if anything; see [`PeerCertificates`].
    #[must_use]
    pub fn peer_certificates(&self) -> Option<PeerCertificates> {
        let shown = self.stream.get_ref().1.peer_certificates()?;
        Some(PeerCertificates(shown.iter().map(|one| one.clone().into_owned()).collect()))
    }

    /// The host name that the client asked for (SNI).
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.stream.get_ref().1.server_name()
    }

    /// The TCP socket below, to change its keep-alive or read its addresses.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        self.stream.get_ref().0
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ServerStream {
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
