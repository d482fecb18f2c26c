//! `ssh_request` and `npt_request`: what a client signs and a device decides on.

use postern_proto::Uuid;
use postern_rendezvous::RelayAuthKey;
use serde::{Deserialize, Serialize};

use crate::permit::HostPort;
use crate::sealed::{BadOffer, Offer, SealedOffer, SealedRequest};

/// The payload of `ssh_request`, fields in the order of the reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SshRequest {
    /// Always true: the reverse form is not served.
    #[serde(default)]
    pub direct: bool,
    /// UUID.
    pub session_id: String,
    /// Relay host.
    pub host: String,
    /// Relay port of the device's side.
    pub port: u16,
    /// The device authenticates its relay socket.
    #[serde(default)]
    pub authenticate_to_rvd: Option<bool>,
    /// `payload` or `escr`; absent means `payload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_auth_mode: Option<String>,
    /// The secret that hides answers to the relay's challenges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_auth_aes_key: Option<RelayAuthKey>,
    /// Goes into the auth line.
    #[serde(default)]
    pub client_nonce: Option<String>,
    /// Goes into the auth line.
    #[serde(default)]
    pub rvd_nonce: Option<String>,
    /// The traffic is encrypted.
    #[serde(default)]
    pub encrypt_rvd_traffic: Option<bool>,
    /// Base64 SPKI.
    #[serde(rename = "clientEphemeralPK", default)]
    pub client_ephemeral_pk: Option<String>,
    /// `rsa2048`
    #[serde(rename = "clientEphemeralPKType", default)]
    pub client_ephemeral_pk_type: Option<String>,
    /// The client can hold a key for each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin_keys: Option<bool>,
    /// The relay's atSign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_atsign: Option<String>,
    /// A sealed session is asked for; daemons that do not know the member pass it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedOffer>,
}

/// The payload of `npt_request`, fields in the order of the reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NptRequest {
    /// UUID.
    pub session_id: String,
    /// Relay host.
    pub rvd_host: String,
    /// Relay port of the device's side.
    pub rvd_port: u16,
    /// Target port.
    pub requested_port: u16,
    /// Target host as the device sees it.
    pub requested_host: String,
    /// The device authenticates its relay sockets.
    #[serde(default)]
    pub authenticate_to_rvd: Option<bool>,
    /// `payload` or `escr`; absent means `payload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_auth_mode: Option<String>,
    /// The secret that hides answers to the relay's challenges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_auth_aes_key: Option<RelayAuthKey>,
    /// Goes into the auth line.
    #[serde(default)]
    pub client_nonce: Option<String>,
    /// Goes into the auth line.
    #[serde(default)]
    pub rvd_nonce: Option<String>,
    /// The traffic is encrypted.
    #[serde(default)]
    pub encrypt_rvd_traffic: Option<bool>,
    /// Base64 SPKI.
    #[serde(rename = "clientEphemeralPK", default)]
    pub client_ephemeral_pk: Option<String>,
    /// `rsa2048`
    #[serde(rename = "clientEphemeralPKType", default)]
    pub client_ephemeral_pk_type: Option<String>,
    /// Milliseconds without connections before the session ends; absent means 60,000.
    #[serde(default)]
    pub timeout: Option<u64>,
    /// The client can hold a key for each direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin_keys: Option<bool>,
    /// The relay's atSign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay_atsign: Option<String>,
    /// A sealed session is asked for; daemons that do not know the member pass it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<SealedOffer>,
}

/// Where the device meets the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayEnd {
    /// Host name or address.
    pub host: String,
    /// Port of this side.
    pub port: u16,
    /// How to authenticate there; `None`: this relay asks for nothing.
    pub auth: Option<RelayAuth>,
}

/// How the device proves its relay sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayAuth {
    /// A signed line with the nonces of client and relay.
    Payload {
        /// The client's.
        client_nonce: String,
        /// The relay's.
        rvd_nonce: String,
    },
    /// Answers to the relay's challenges.
    Escr {
        /// What hides them.
        key: RelayAuthKey,
        /// The nonces for a signed line: relays that find out by themselves take one from a device that cannot answer.
        nonces: Option<(String, String)>,
    },
}

/// Either request with its defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRequest {
    /// Names the session everywhere.
    pub session_id: Uuid,
    /// Where to dial.
    pub relay: RelayEnd,
    /// What to reach behind the device.
    pub target: HostPort,
    /// Base64 SPKI of the client's ephemeral key; `None`: no encryption asked for.
    pub ephemeral_key: Option<String>,
    /// The client can hold two keys.
    pub twin_keys: bool,
    /// Many connections over a control channel; `None` for the single connection of ssh.
    pub multi: Option<std::time::Duration>,
    /// The reply has the shape of `ssh_request`.
    pub is_ssh: bool,
}

/// Life of a session without connections when the request names none.
const DEFAULT_TIMEOUT_MS: u64 = 60_000;
/// `npt -T 0` means a year; nothing longer is taken.
const MAX_TIMEOUT_MS: u64 = 366 * 86_400_000;

impl SshRequest {
    /// What a daemon of version 4 reads of it.
    pub fn as_version_4(self) -> Self {
        Self { authenticate_to_rvd: None, encrypt_rvd_traffic: None, sealed: None, ..self }
    }

    /// A request for a sealed session and nothing else: the members of the session of 2024 are empty.
    #[must_use]
    pub fn sealed(session_id: &Uuid, offer: &Offer) -> Self {
        Self {
            direct: true,
            session_id: session_id.to_string(),
            host: String::new(),
            port: 0,
            authenticate_to_rvd: Some(false),
            relay_auth_mode: None,
            relay_auth_aes_key: None,
            client_nonce: None,
            rvd_nonce: None,
            encrypt_rvd_traffic: Some(false),
            client_ephemeral_pk: None,
            client_ephemeral_pk_type: None,
            twin_keys: None,
            relay_atsign: None,
            sealed: Some(offer.to_wire()),
        }
    }

    /// What a daemon reads of it that knows no sealed sessions.
    pub fn without_seal(self) -> Self {
        Self { sealed: None, ..self }
    }

    /// Checks the sealed session that it asks for; `None`: it asks for none.
    ///
    /// # Errors
    /// See [`BadOffer`].
    pub fn sealed_request(&self) -> Option<Result<SealedRequest, BadOffer>> {
        let offer = self.sealed.as_ref()?;
        Some(SealedRequest::check(&self.session_id, offer, true, None))
    }

    /// Checks and fills in. `sshd_port`: where the device's ssh server listens. A request for a sealed session gives
    /// nothing: it is never answered by a session of 2024.
    pub fn check(self, sshd_port: u16) -> Option<SessionRequest> {
        if !self.direct || self.sealed.is_some() {
            return None;
        }
        let (encrypt, pk) = (self.encrypt_rvd_traffic, self.client_ephemeral_pk);
        Some(SessionRequest {
            session_id: Uuid::parse(&self.session_id)?,
            relay: relay_end(
                self.host,
                self.port,
                asked_auth(
                    self.authenticate_to_rvd,
                    self.relay_auth_mode.as_deref(),
                    self.relay_auth_aes_key,
                    self.client_nonce,
                    self.rvd_nonce,
                )?,
            )?,
            target: HostPort::localhost(sshd_port),
            ephemeral_key: ephemeral(encrypt, pk, self.client_ephemeral_pk_type.as_deref())?,
            twin_keys: self.twin_keys == Some(true),
            multi: None,
            is_ssh: true,
        })
    }
}

impl NptRequest {
    /// A request for a sealed session and nothing else: the members of the session of 2024 are empty. `idle`: how long the
    /// session lives without connections; `None`: as the device will.
    #[must_use]
    pub fn sealed(session_id: &Uuid, offer: &Offer, idle: Option<std::time::Duration>) -> Self {
        Self {
            session_id: session_id.to_string(),
            rvd_host: String::new(),
            rvd_port: 0,
            requested_port: 0,
            requested_host: String::new(),
            authenticate_to_rvd: Some(false),
            relay_auth_mode: None,
            relay_auth_aes_key: None,
            client_nonce: None,
            rvd_nonce: None,
            encrypt_rvd_traffic: Some(false),
            client_ephemeral_pk: None,
            client_ephemeral_pk_type: None,
            timeout: idle.map(|idle| u64::try_from(idle.as_millis()).unwrap_or(u64::MAX)),
            twin_keys: None,
            relay_atsign: None,
            sealed: Some(offer.to_wire()),
        }
    }

    /// What a daemon reads of it that knows no sealed sessions.
    pub fn without_seal(self) -> Self {
        Self { sealed: None, ..self }
    }

    /// Checks the sealed session that it asks for; `None`: it asks for none. The target that the request may name for
    /// other daemons counts for nothing: targets of a sealed session are named inside.
    ///
    /// # Errors
    /// See [`BadOffer`].
    pub fn sealed_request(&self) -> Option<Result<SealedRequest, BadOffer>> {
        let offer = self.sealed.as_ref()?;
        Some(SealedRequest::check(&self.session_id, offer, false, Some(self.idle())))
    }

    fn idle(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.timeout.unwrap_or(DEFAULT_TIMEOUT_MS).min(MAX_TIMEOUT_MS))
    }

    /// Checks and fills in. A request for a sealed session gives nothing: it is never answered by a session of 2024.
    pub fn check(self) -> Option<SessionRequest> {
        if self.sealed.is_some() {
            return None;
        }
        let idle = self.idle();
        let (encrypt, pk) = (self.encrypt_rvd_traffic, self.client_ephemeral_pk);
        let host = self.requested_host.trim().to_lowercase();
        if host.is_empty() || host.len() > 253 || self.requested_port == 0 {
            return None;
        }
        Some(SessionRequest {
            session_id: Uuid::parse(&self.session_id)?,
            relay: relay_end(
                self.rvd_host,
                self.rvd_port,
                asked_auth(
                    self.authenticate_to_rvd,
                    self.relay_auth_mode.as_deref(),
                    self.relay_auth_aes_key,
                    self.client_nonce,
                    self.rvd_nonce,
                )?,
            )?,
            target: HostPort { host, port: self.requested_port },
            ephemeral_key: ephemeral(encrypt, pk, self.client_ephemeral_pk_type.as_deref())?,
            twin_keys: self.twin_keys == Some(true),
            multi: Some(idle),
            is_ssh: false,
        })
    }
}

fn relay_end(host: String, port: u16, auth: Option<RelayAuth>) -> Option<RelayEnd> {
    (!host.is_empty() && host.len() <= 253 && port > 0).then_some(RelayEnd { host, port, auth })
}

/// `None`: asked for something that is incomplete or that we cannot do.
#[expect(clippy::option_option, reason = "outer: refused; inner: not asked for")]
fn asked_auth(
    authenticate: Option<bool>,
    mode: Option<&str>,
    key: Option<RelayAuthKey>,
    client_nonce: Option<String>,
    rvd_nonce: Option<String>,
) -> Option<Option<RelayAuth>> {
    match (authenticate, mode) {
        (Some(true), None | Some("payload")) => {
            Some(Some(RelayAuth::Payload { client_nonce: client_nonce?, rvd_nonce: rvd_nonce? }))
        }
        (Some(true), Some("escr")) => Some(Some(RelayAuth::Escr { key: key?, nonces: client_nonce.zip(rvd_nonce) })),
        (Some(true), Some(_)) => None,
        _ => Some(None),
    }
}

/// `None`: encryption is asked for and cannot be given.
#[expect(clippy::option_option, reason = "outer: refused; inner: not asked for")]
fn ephemeral(encrypt: Option<bool>, pk: Option<String>, kind: Option<&str>) -> Option<Option<String>> {
    match encrypt {
        Some(true) if kind.is_none_or(|kind| kind == "rsa2048") => pk.map(Some),
        Some(true) => None,
        _ => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NPT: &str = r#"{"sessionId":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","rvdHost":"203.0.113.7","rvdPort":41002,"requestedPort":3389,"requestedHost":"localhost","authenticateToRvd":true,"clientNonce":"c","rvdNonce":"r","encryptRvdTraffic":true,"clientEphemeralPK":"MIIB","clientEphemeralPKType":"rsa2048","timeout":30000}"#;

    #[test]
    fn the_2024_request_and_the_order_it_is_signed_in() {
        let request: NptRequest = serde_json::from_str(NPT).unwrap();
        let printed = serde_json::to_string(&request).unwrap();
        assert!(printed.starts_with(NPT.trim_end_matches('}')), "{printed}");
        let checked = request.check().unwrap();
        assert_eq!(checked.target, HostPort::localhost(3389));
        let line = RelayAuth::Payload { client_nonce: "c".into(), rvd_nonce: "r".into() };
        assert_eq!(checked.relay.auth, Some(line));
        assert!(!checked.twin_keys);
    }

    #[test]
    fn the_2025_request_names_the_way_to_authenticate() {
        let newer =
            NPT.replace(r#""clientNonce""#, r#""relayAuthMode":"escr","relayAuthAesKey":"c2VjcmV0","clientNonce""#);
        let request: NptRequest = serde_json::from_str(&newer).unwrap();
        assert!(!format!("{request:?}").contains("c2VjcmV0"), "a secret has no Debug");
        let printed = serde_json::to_string(&request).unwrap();
        assert!(printed.starts_with(newer.trim_end_matches('}')), "{printed}");
        let key = RelayAuthKey::new("c2VjcmV0".into());
        let escr = RelayAuth::Escr { key, nonces: Some(("c".into(), "r".into())) };
        assert_eq!(request.check().unwrap().relay.auth, Some(escr));
        let check = |text: &str| serde_json::from_str::<NptRequest>(text).unwrap().check();
        assert!(check(&newer.replace("escr", "later")).is_none(), "a way that we do not know");
        assert!(check(&newer.replace("\"relayAuthAesKey\":\"c2VjcmV0\",", "")).is_none(), "no key");
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        let change = |from: &str, to: &str| serde_json::from_str::<NptRequest>(&NPT.replace(from, to)).unwrap().check();
        assert!(change("6f9619ff-", "publickey-").is_none());
        assert!(change("\"clientEphemeralPK\":\"MIIB\",", "").is_none());
        assert!(change("rsa2048", "rot13").is_none());
        assert!(change("\"rvdNonce\":\"r\",", "").is_none());
        assert!(change("\"rvdPort\":41002", "\"rvdPort\":0").is_none());
        assert!(serde_json::from_str::<NptRequest>(&NPT.replace("41002", "99999")).is_err());
    }
}
