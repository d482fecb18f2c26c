//! Certificates of servers, judged by a clock that may be wrong.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::clock;
use crate::limits::CHAIN_CERTIFICATES;

/// The usual verifier with a time that may be right: the system's, or where that is impossible the earliest that it can be.
///
/// A certificate that begins later than that was made by somebody whom we trust, so it is that late already, and the whole
/// chain is judged by its beginning: whatever was over by then is refused. Chain, name and signatures count as ever.
#[derive(Debug)]
pub(super) struct Dated(Arc<WebPkiServerVerifier>);

impl Dated {
    pub(super) fn new(verifier: Arc<WebPkiServerVerifier>) -> Arc<Self> {
        Arc::new(Self(verifier))
    }
}

impl ServerCertVerifier for Dated {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut at = UnixTime::since_unix_epoch(clock::for_certificates(Duration::from_secs(now.as_secs())));
        // Each certificate of the chain may begin later than the one before.
        for _ in 0..CHAIN_CERTIFICATES {
            match self.0.verify_server_cert(leaf, chain, name, ocsp, at) {
                Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
                    if not_before > at =>
                {
                    at = not_before;
                }
                judged => return judged,
            }
        }
        self.0.verify_server_cert(leaf, chain, name, ocsp, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
