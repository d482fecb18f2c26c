//! By what the directory is known: chosen by who makes a line, looked for by who has got it.

use std::io;
use std::path::Path;
use std::time::Duration;

use postern_identity::{Anchor, Fingerprint};
use postern_net::tls::{Trust, shown_by};
use postern_proto::ServerAddress;

use crate::fail::{Fail, Kind};
use crate::files;
use crate::limits::{CONNECT, OWN_FILE_BYTES};
use crate::patience::patiently;

/// What this machine trusts from now on.
pub(crate) struct Believed {
    pub(crate) trust: Trust,
    /// The certificate to be kept; `None`: the system has what is needed.
    pub(crate) pem: Option<String>,
}

/// Finds the key that a line names among those that the directory shows.
pub(crate) async fn believe(directory: &ServerAddress, anchor: Anchor, patience: Duration) -> Result<Believed, Fail> {
    let Anchor::Key(wanted) = anchor else {
        let trust = Trust::load().map_err(|error| Fail::world(format!("failed to {error}")))?;
        return Ok(Believed { trust, pem: None });
    };
    let shown = patiently(patience, async || shown_by(&directory.host, directory.port, CONNECT).await)
        .await
        .map_err(|error| Fail::world(format!("the directory: {error}")))?;
    let impostor = |why: &str| {
        Fail::new(
            Kind::Impostor,
            format!(
                "{directory} {why}. Somebody stands in between, or the server has a new certificate since the line was made: then ask for another one"
            ),
        )
    };
    let keys = shown.public_keys().map_err(|_| impostor("shows something that is no certificate"))?;
    let at = keys.iter().position(|key| Fingerprint::of_spki(key).half() == wanted);
    let certificate = at.and_then(|at| shown.der().nth(at));
    let certificate = certificate.ok_or_else(|| impostor("does not show the key that the line names"))?;
    let pem = pem(certificate);
    let trust = Trust::only_pem(pem.as_bytes()).map_err(|_| impostor("shows a certificate that cannot be used"))?;
    if !trust.is_certificate_of(&shown, &directory.host) {
        return Err(impostor(
            "shows the right key with a certificate that it did not sign, or that is for another name",
        ));
    }
    Ok(Believed { trust, pem: Some(pem) })
}

/// Whether a certificate was added to a file of authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Addition {
    /// It was there.
    None,
    /// It stands behind others.
    Appended,
    /// The file is new.
    Made,
}

/// Adds a certificate to the authorities that this user's programs believe.
pub(crate) fn add(pem: &str, file: &Path) -> io::Result<Addition> {
    let existing = files::read(file, OWN_FILE_BYTES)?;
    let text = existing.as_ref().map_or("", |text| text.as_str());
    if text.contains(pem.trim_end()) {
        return Ok(Addition::None);
    }
    files::replace(file, &format!("{text}{pem}"), 0o644)?;
    Ok(if existing.is_some() { Addition::Appended } else { Addition::Made })
}

/// What a device without any certificate must know to believe what we believe.
#[cfg(feature = "invite")]
pub(crate) async fn choose(directory: &ServerAddress, trust: &Trust) -> Result<Anchor, Fail> {
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
