//! By what the directory is known: chosen by the inviter, looked for by the device.

use postern_identity::{Anchor, Fingerprint};
use postern_net::tls::{Trust, shown_by};

use crate::fail::{Fail, Kind};
use crate::limits::CONNECT;

/// What the device trusts from now on.
#[cfg(feature = "join")]
pub(crate) struct Believed {
    pub(crate) trust: Trust,
    /// The certificate to be kept; `None`: the system has what is needed.
    pub(crate) pem: Option<String>,
}

/// Finds the key of the invitation among those that the directory shows.
#[cfg(feature = "join")]
pub(crate) async fn believe(
    invitation: &postern_identity::Invitation,
    patience: std::time::Duration,
) -> Result<Believed, Fail> {
    let directory = &invitation.directory;
    let Anchor::Key(wanted) = invitation.anchor else {
        let trust = Trust::load().map_err(|error| Fail::world(format!("failed to {error}")))?;
        return Ok(Believed { trust, pem: None });
    };
    let shown = crate::patience::patiently(patience, async || shown_by(&directory.host, directory.port, CONNECT).await)
        .await
        .map_err(|error| Fail::world(format!("the directory: {error}")))?;
    let impostor = |why: &str| {
        Fail::new(
            Kind::Impostor,
            format!(
                "{directory} {why}. Somebody stands in between, or the server has a new certificate since the invitation was made: then ask for another one"
            ),
        )
    };
    let keys = shown.public_keys().map_err(|_| impostor("shows something that is no certificate"))?;
    let at = keys.iter().position(|key| Fingerprint::of_spki(key).half() == wanted);
    let certificate = at.and_then(|at| shown.der().nth(at));
    let certificate = certificate.ok_or_else(|| impostor("does not show the key that the invitation names"))?;
    let pem = pem(certificate);
    let trust = Trust::only_pem(pem.as_bytes()).map_err(|_| impostor("shows a certificate that cannot be used"))?;
    if !trust.is_certificate_of(&shown, &directory.host) {
        return Err(impostor(
            "shows the right key with a certificate that it did not sign, or that is for another name",
        ));
    }
    Ok(Believed { trust, pem: Some(pem) })
}

/// What a device without any certificate must know to believe what we believe.
#[cfg(feature = "invite")]
pub(crate) async fn choose(directory: &postern_proto::ServerAddress, trust: &Trust) -> Result<Anchor, Fail> {
    let host = &directory.host;
    let shown = shown_by(host, directory.port, CONNECT)
        .await
        .map_err(|error| Fail::world(format!("the directory: {error}")))?;
    if !trust.is_certificate_of(&shown, host) {
        return Err(Fail::new(
            Kind::Impostor,
            format!(
                "the certificate of {directory} is not accepted here; put your own CA into ~/.config/postern/ca.pem or name its file in POSTERN_CA_FILE"
            ),
        ));
    }
    if Trust::system().is_ok_and(|system| system.is_certificate_of(&shown, host)) {
        return Ok(Anchor::System);
    }
    // The highest first: it stays when the server's own is renewed.
    let certificates: Vec<&[u8]> = shown.der().collect();
    let keys = shown.public_keys().map_err(Fail::world)?;
    for (certificate, key) in certificates.iter().zip(&keys).rev() {
        if is_root_of(certificate, &shown, host) {
            return Ok(Anchor::Key(Fingerprint::of_spki(key).half()));
        }
    }
    Err(Fail::world(format!(
        "{directory} does not show the certificate of its CA, by which a device could know it: put it behind the server's own in the server's certificate file"
    )))
}

#[cfg(feature = "invite")]
fn is_root_of(certificate: &[u8], shown: &postern_net::tls::PeerCertificates, host: &str) -> bool {
    Trust::only_pem(pem(certificate).as_bytes()).is_ok_and(|trust| trust.is_certificate_of(shown, host))
}

/// RFC 7468.
fn pem(der: &[u8]) -> String {
    let digits = postern_crypto::encode_base64(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in digits.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}
