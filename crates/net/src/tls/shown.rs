//! Certificates that a server shows, looked at before anybody is believed: for who knows a key and has no certificate yet.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::client::{ConnectError, certificates_shown};
use super::peer::{TakeAny, is_bounded};
use super::{PeerCertificates, TlsError, provider, read_pem};

/// Connects by TLS, takes whatever certificates there are, and closes again: nothing is said on this connection. Through
/// the proxy of the environment if there is one. Who shows them holds the key of the first; nothing else is known of them.
///
/// # Errors
/// As [`super::connect`], but for the certificates.
pub async fn shown_by(host: &str, port: u16, limit: Duration) -> Result<PeerCertificates, ConnectError> {
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let unusable =
        |error: Error| ConnectError::Tls { to: format!("{host}:{port}"), error: std::io::Error::other(error) };
    let mut config =
        config.map_err(unusable)?.dangerous().with_custom_certificate_verifier(TakeAny::new()).with_no_client_auth();
    config.resumption = Resumption::disabled();
    certificates_shown(Arc::new(config), host, port, limit).await
}

impl PeerCertificates {
    /// Those of a file.
    ///
    /// # Errors
    /// It cannot be read, or holds no certificate.
    pub fn of_file(path: &Path) -> Result<Self, TlsError> {
        let shown: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read_pem(path)?).collect();
        let shown = shown.map_err(|error| TlsError::Unusable(error.to_string()))?;
        if shown.is_empty() { Err(TlsError::NoCertificate) } else { Ok(Self(shown)) }
    }

    /// Each certificate, DER, the server's own first.
    pub fn der(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|certificate| certificate.as_ref())
    }

    /// The DER SubjectPublicKeyInfo of each certificate, in the same order.
    ///
    /// # Errors
    /// One of them is no certificate.
    pub fn public_keys(&self) -> Result<Vec<Vec<u8>>, TlsError> {
        let key = |certificate: &CertificateDer<'static>| {
            let mut store = RootCertStore::empty();
            store.add(certificate.clone())?;
            let root = store.roots.first().ok_or(TlsError::NoCertificate)?;
            Ok(sequence(root.subject_public_key_info.as_ref()))
        };
        self.0.iter().map(key).collect()
    }
}

/// DER: a SEQUENCE of this content.
fn sequence(content: &[u8]) -> Vec<u8> {
    let mut out = vec![0x30];
    let length = content.len().to_be_bytes();
    match content.len() {
        0..=0x7f => out.extend_from_slice(&length[length.len() - 1..]),
        _ => {
            let digits = &length[length.iter().take_while(|byte| **byte == 0).count()..];
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or(0x7f));
            out.extend_from_slice(digits);
        }
    }
    out.extend_from_slice(content);
    out
}

/// Any certificates of bounded size, from who holds the key of the first.
impl ServerCertVerifier for TakeAny {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !is_bounded(leaf, chain) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_as_der_has_them() {
        for (length, head) in [
            (0, &[0x30, 0][..]),
            (0x7f, &[0x30, 0x7f]),
            (0x80, &[0x30, 0x81, 0x80]),
            (0x126, &[0x30, 0x82, 0x01, 0x26]),
        ] {
            let made = sequence(&vec![1; length]);
            assert_eq!((&made[..head.len()], made.len()), (head, head.len() + length));
        }
    }
}
