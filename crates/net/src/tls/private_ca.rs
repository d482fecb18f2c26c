//! A private certificate authority for servers without a public name.

use std::net::IpAddr;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use zeroize::Zeroizing;

use super::TlsError;
use crate::limits::PRIVATE_CA_LIFE;

/// A fresh certificate authority and one server certificate made with it. The authority's own key is forgotten at once:
/// nothing else can ever be signed with it, so a stolen server does not become a factory of certificates.
pub struct PrivateCa {
    /// The authority's certificate: what clients and devices are to trust.
    pub ca_pem: String,
    /// The server's certificate, followed by the authority's.
    pub cert_pem: String,
    /// The server's private key.
    pub key_pem: Zeroizing<String>,
}

impl std::fmt::Debug for PrivateCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivateCa").finish_non_exhaustive()
    }
}

impl PrivateCa {
    /// Makes both, ECDSA P-256, valid for [`PRIVATE_CA_LIFE`], for these DNS names and addresses. At least one is needed.
    ///
    /// # Errors
    /// A host is no DNS name, or there is none.
    pub fn make(hosts: &[String], addresses: &[IpAddr]) -> Result<Self, TlsError> {
        let unusable = |error: rcgen::Error| TlsError::Unusable(error.to_string());
        let Some(first) = hosts.first().cloned().or_else(|| addresses.first().map(ToString::to_string)) else {
            return Err(TlsError::Unusable("a server needs a name or an address".to_owned()));
        };

        let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(unusable)?;
        let mut ca = params(&format!("Postern private CA for {first}"));
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_certificate = ca.self_signed(&ca_key).map_err(unusable)?;

        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(unusable)?;
        let mut leaf = params(&first);
        for host in hosts {
            let name = host.as_str().try_into().map_err(unusable)?;
            leaf.subject_alt_names.push(SanType::DnsName(name));
        }
        leaf.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A client too, when it delivers to other servers.
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        leaf.use_authority_key_identifier_extension = true;
        let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).map_err(unusable)?;

        let ca_pem = ca_certificate.pem();
        Ok(Self { cert_pem: certificate.pem() + &ca_pem, key_pem: Zeroizing::new(key.serialize_pem()), ca_pem })
    }
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    // Gateways without a clock battery start in the past: a certificate that "is not valid yet" would lock them out.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = (SystemTime::now() + PRIVATE_CA_LIFE).into();
    params
}
