//! Certificates of servers that call us: taken from anybody at first, judged when it is known who is claimed.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::provider;
use crate::limits::PEER_CHAIN_BYTES;

/// The certificates that the other side showed, leaf first; it holds the leaf's key. Whose they are is not known before
/// [`super::Trust::is_certificate_of`] was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificates(pub(super) Vec<CertificateDer<'static>>);

/// Asks for a certificate, does without one, and takes any of bounded size: the claim it belongs to comes later.
#[derive(Debug)]
pub(super) struct TakeAny {
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

/// No more bytes than anybody's certificates have.
pub(super) fn is_bounded(leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> bool {
    leaf.len() + chain.iter().map(|one| one.len()).sum::<usize>() <= PEER_CHAIN_BYTES
}

impl TakeAny {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { algorithms: provider().signature_verification_algorithms })
    }
}

impl ClientCertVerifier for TakeAny {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !is_bounded(leaf, chain) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ClientCertVerified::assertion())
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
