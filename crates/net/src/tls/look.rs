//! A look at the certificate that a server shows, and why it would be refused: for diagnosis, never for a way around.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::client::{Carries, ConnectError, Trust, connect_by, proxy_for};
use super::dated::Dated;
use super::peer::is_bounded;
use super::{ALPN, RELAY_ALPN, TlsError, provider};

/// What a server showed, and what we think of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// DER, the server's own first; empty when the handshake did not come so far, or when there was more than anybody sends.
    pub chain: Vec<Vec<u8>>,
    /// Whether it would do.
    pub verdict: Verdict,
    /// The server is a Postern: it answered with our ALPN name.
    pub is_postern: bool,
}

/// Whether a certificate is good for the name that was dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It is.
    Good,
    /// Nobody whom we trust made it: our own CA is missing, or somebody stands in between.
    UnknownIssuer,
    /// By our clock it is not valid yet.
    NotYetValid,
    /// By our clock it is valid no more.
    Expired,
    /// It is for other names.
    OtherName,
    /// Something else is wrong with it.
    Bad(String),
}

/// Does one handshake with `host:port`, as [`super::connect`] does, and tells what was shown. The judgement is the usual
/// one and the connection is given up: nothing is ever sent over one that was refused.
///
/// # Errors
/// [`ConnectError`] when it did not come to a certificate.
pub async fn look(trust: &Trust, host: &str, port: u16, limit: Duration) -> Result<Seen, ConnectError> {
    look_as(trust, host, port, limit, ALPN).await
}

/// The same with a relay's port that speaks TLS first.
///
/// # Errors
/// As [`look`].
pub async fn look_at_relay(trust: &Trust, host: &str, port: u16, limit: Duration) -> Result<Seen, ConnectError> {
    look_as(trust, host, port, limit, RELAY_ALPN).await
}

async fn look_as(trust: &Trust, host: &str, port: u16, limit: Duration, alpn: &[u8]) -> Result<Seen, ConnectError> {
    let onlooker = Arc::new(Onlooker { verifier: Arc::clone(&trust.verifier), seen: Mutex::new(None) });
    let unusable =
        |error: TlsError| ConnectError::Tls { to: host.to_owned(), error: std::io::Error::other(error.to_string()) };
    let config = config_with(Arc::clone(&onlooker), alpn).map_err(unusable)?;
    let proxy = proxy_for(host, port)?;
    let met = connect_by(Arc::new(config), Carries::Lines, host, port, limit, |_| true, proxy).await;
    let seen = onlooker.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    let is_postern = met.as_ref().is_ok_and(super::TlsStream::speaks_postern);
    match (met, seen) {
        (Ok(_), Some((chain, verdict))) => Ok(Seen { chain, verdict, is_postern }),
        (Err(_), Some((chain, verdict))) if verdict != Verdict::Good => Ok(Seen { chain, verdict, is_postern }),
        (Err(error), _) => Err(error),
        (Ok(_), None) => Ok(Seen { chain: Vec::new(), verdict: Verdict::Good, is_postern }),
    }
}

fn config_with(onlooker: Arc<Onlooker>, alpn: &[u8]) -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(onlooker)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

/// Judges as the verifier does, and remembers what it saw.
#[derive(Debug)]
struct Onlooker {
    verifier: Arc<Dated>,
    seen: Mutex<Option<(Vec<Vec<u8>>, Verdict)>>,
}

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self.verifier.verify_server_cert(leaf, chain, name, ocsp, now);
        let verdict = match &judged {
            Ok(_) => Verdict::Good,
            Err(error) => verdict_of(error),
        };
        let shown: Vec<Vec<u8>> = if is_bounded(leaf, chain) {
            std::iter::once(leaf).chain(chain).map(|one| one.to_vec()).collect()
        } else {
            Vec::new()
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some((shown, verdict));
        judged
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

fn verdict_of(error: &Error) -> Verdict {
    use CertificateError as E;
    match error {
        Error::InvalidCertificate(E::UnknownIssuer | E::BadSignature) => Verdict::UnknownIssuer,
        Error::InvalidCertificate(E::NotValidYet | E::NotValidYetContext { .. }) => Verdict::NotYetValid,
        Error::InvalidCertificate(E::Expired | E::ExpiredContext { .. }) => Verdict::Expired,
        Error::InvalidCertificate(E::NotValidForName | E::NotValidForNameContext { .. }) => Verdict::OtherName,
        error => Verdict::Bad(error.to_string()),
    }
}
