//! Sealed sessions: what a client asks, what a device says, and the witness that an identity key said it.
//!
//! Source: docs/protocol/sealed.md, "Request" and "TLS".

use std::fmt;
use std::time::Duration;

use postern_crypto::{decode_base64, encode_base64};
use postern_identity::{DeviceName, Envelope, StatementError, Voucher};
use postern_proto::{AtSign, Uuid};
use postern_rendezvous::RelayPlace;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value as Json, json};

use crate::limits::{HELLO_BYTES, HOST_KEYS, OFFERED_RELAYS, REQUEST_LIFE_MS, RESUME_SECONDS};
use crate::request::{NptRequest, SshRequest};

/// Version of everything here.
const VERSION: u32 = 1;

/// The member `sealed` of a request, as it travels. [`Offer`] is what it means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealedOffer {
    v: u32,
    /// Base64 of a TLS record.
    hello: String,
    to: String,
    device: String,
    iat: u64,
    exp: u64,
    nonce: String,
    epoch: u32,
    resume: u32,
    /// [`RelayPlace`]s.
    relays: Vec<Json>,
    only: bool,
}

/// A sealed session as asked for; every member within its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The TLS record with the client's ClientHello.
    pub hello: Vec<u8>,
    /// The atSign of the device that is asked.
    pub to: AtSign,
    /// The device that is asked: no other obeys.
    pub device: DeviceName,
    /// When the client asked, in milliseconds since 1970 by its clock.
    pub issued_ms: u64,
    /// When its patience ends.
    pub expires_ms: u64,
    /// Random, never used again.
    pub nonce: [u8; 16],
    /// 0 begins a session, a higher one goes on with it.
    pub epoch: u32,
    /// How long both ends wait for a lost connection, at most; zero: they do not.
    pub resume: Duration,
    /// Where to meet, the best first; may be empty when the request names the relay of a session of 2024.
    pub relays: Vec<RelayPlace>,
    /// The client will not have a session of 2024.
    pub only: bool,
}

/// Why an offer cannot be served. Whoever sent it wrote it wrong, or is newer than we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadOffer {
    /// Another version.
    Version,
    /// The member named is missing, malformed or out of bounds.
    Member(&'static str),
}

/// A request for a sealed session, read and within bounds, not yet believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRequest {
    /// Names the session everywhere.
    pub session_id: Uuid,
    /// What is asked.
    pub offer: Offer,
    /// `ssh_request`: stream 1 leads to the device's ssh server and is open from the start.
    pub is_ssh: bool,
    /// `npt_request`: how long the session lives without connections.
    pub idle: Option<Duration>,
}

/// A payload that may ask for a sealed session.
pub trait AsksSealed: DeserializeOwned {
    /// Checks what it asks for; `None`: no sealed session.
    fn sealed_request(&self) -> Option<Result<SealedRequest, BadOffer>>;
}

/// A request that was signed by the identity key of a voucher, with that voucher: only [`SignedRequest::verify`] makes one.
#[derive(Clone, Debug)]
pub struct SignedRequest {
    request: SealedRequest,
    hash: [u8; 32],
    voucher: Voucher,
}

/// Why a request for a sealed session is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// Not signed by the identity key, or the payload is not one.
    Statement(StatementError),
    /// It asks for no sealed session.
    NotSealed,
    /// What it asks for cannot be served.
    Offer(BadOffer),
    /// The voucher is not a client's.
    NotAClient,
    /// It asks another device.
    OtherDevice,
}

/// What a device says inside the tunnel: the payload of the reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealedReply {
    /// 1
    pub v: u32,
    /// `connected`
    pub status: String,
    /// The request's.
    pub session_id: String,
    /// The request's.
    pub epoch: u32,
    /// SHA-256 of the request's payload text.
    pub request: Digest,
    /// SHA-256 of the DER of the device's certificate.
    pub certificate: Digest,
    /// The device's atSign.
    pub from: String,
    /// The device's name.
    pub device: String,
    /// The client's atSign.
    pub to: String,
    /// How many seconds the device waits for a lost connection.
    pub resume: u32,
    /// Public keys of its ssh server, `known_hosts` form without the host.
    #[serde(default)]
    pub ssh_host_keys: Vec<String>,
    /// Milliseconds since 1970.
    pub iat: u64,
}

/// What the client says inside the tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// 1
    pub v: u32,
    /// The request's.
    pub session_id: String,
    /// The request's.
    pub epoch: u32,
    /// The exporter of this TLS session.
    pub exporter: Digest,
}

/// A device's no, which travels as a notification: the payload of the statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// 1
    pub v: u32,
    /// `error`
    pub status: String,
    /// Why, for programs.
    pub code: RefusalCode,
    /// Why, for people.
    pub message: String,
    /// The request's.
    pub session_id: String,
    /// SHA-256 of the request's payload text.
    pub request: Digest,
    /// Milliseconds since 1970.
    pub iat: u64,
}

/// Why a device refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalCode {
    /// Neither the device's list nor its policy lets this client in.
    NotPermitted,
    /// The request came before.
    Replayed,
    /// The request's time is over or has not come.
    Expired,
    /// The request is signed by nobody who may.
    Identity,
    /// The client's keys are not those that the device knows.
    Pin,
    /// There is no session to go on with.
    NoSession,
    /// No room.
    Full,
    /// No relay could be reached.
    RelayUnreachable,
    /// The daemon is going down.
    Stopping,
    /// Something newer; kept as it came.
    Unknown(String),
}

/// 32 bytes that travel as base64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl Offer {
    /// As it travels.
    #[must_use]
    pub fn to_wire(&self) -> SealedOffer {
        SealedOffer {
            v: VERSION,
            hello: encode_base64(&self.hello),
            to: self.to.to_string(),
            device: self.device.to_string(),
            iat: self.issued_ms,
            exp: self.expires_ms,
            nonce: encode_base64(&self.nonce),
            epoch: self.epoch,
            resume: u32::try_from(self.resume.as_secs()).unwrap_or(u32::MAX).min(RESUME_SECONDS),
            relays: self.relays.iter().map(|place| json!(place)).collect(),
            only: self.only,
        }
    }
}

impl SealedOffer {
    /// Checks every bound.
    ///
    /// # Errors
    /// See [`BadOffer`].
    pub fn check(&self) -> Result<Offer, BadOffer> {
        let bad = BadOffer::Member;
        if self.v != VERSION {
            return Err(BadOffer::Version);
        }
        // Four characters hold three bytes.
        if self.hello.len() > HELLO_BYTES.div_ceil(3) * 4 {
            return Err(bad("hello"));
        }
        let hello = decode_base64(&self.hello).map_err(|_| bad("hello"))?;
        if hello.is_empty() || hello.len() > HELLO_BYTES {
            return Err(bad("hello"));
        }
        let nonce = decode_base64(&self.nonce).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(bad("nonce"))?;
        let life = self.exp.checked_sub(self.iat).ok_or(bad("exp"))?;
        if life == 0 || life > REQUEST_LIFE_MS {
            return Err(bad("exp"));
        }
        if self.resume > RESUME_SECONDS {
            return Err(bad("resume"));
        }
        if self.relays.len() > OFFERED_RELAYS {
            return Err(bad("relays"));
        }
        let relays = self.relays.iter().map(RelayPlace::deserialize).collect::<Result<_, _>>();
        Ok(Offer {
            hello,
            to: AtSign::parse(&self.to).map_err(|_| bad("to"))?,
            device: DeviceName::parse(&self.device).map_err(|_| bad("device"))?,
            issued_ms: self.iat,
            expires_ms: self.exp,
            nonce,
            epoch: self.epoch,
            resume: Duration::from_secs(self.resume.into()),
            relays: relays.map_err(|_| bad("relays"))?,
            only: self.only,
        })
    }
}

impl SealedRequest {
    pub(crate) fn check(
        session_id: &str,
        offer: &SealedOffer,
        is_ssh: bool,
        idle: Option<Duration>,
    ) -> Result<Self, BadOffer> {
        let session_id = Uuid::parse(session_id).ok_or(BadOffer::Member("sessionId"))?;
        Ok(Self { session_id, offer: offer.check()?, is_ssh, idle })
    }
}

impl AsksSealed for SshRequest {
    fn sealed_request(&self) -> Option<Result<SealedRequest, BadOffer>> {
        self.sealed_request()
    }
}

impl AsksSealed for NptRequest {
    fn sealed_request(&self) -> Option<Result<SealedRequest, BadOffer>> {
        self.sealed_request()
    }
}

impl SignedRequest {
    /// Checks the identity key's signature over the payload as it came, and that this device is asked. `R`: the kind of
    /// request. `voucher`: the believed one of [`Envelope::sealed_voucher`]. `at_sign`, `device`: whom we are.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn verify<R: AsksSealed>(
        envelope: &Envelope,
        voucher: Voucher,
        at_sign: &AtSign,
        device: &DeviceName,
    ) -> Result<Self, RequestError> {
        if voucher.device().is_some() {
            return Err(RequestError::NotAClient);
        }
        let payload: R = envelope.verify_sealed(voucher.key()).map_err(RequestError::Statement)?;
        let request = payload.sealed_request().ok_or(RequestError::NotSealed)?.map_err(RequestError::Offer)?;
        if request.offer.to != *at_sign || request.offer.device != *device {
            return Err(RequestError::OtherDevice);
        }
        Ok(Self { request, hash: envelope.payload_hash(), voucher })
    }

    /// What is asked.
    pub fn request(&self) -> &SealedRequest {
        &self.request
    }

    /// SHA-256 of the payload's text, which the reply names.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Who asks.
    pub fn voucher(&self) -> &Voucher {
        &self.voucher
    }
}

impl SealedReply {
    /// The word of a device that lets the client in.
    pub const CONNECTED: &'static str = "connected";

    /// Whether it is a yes of this version, within bounds.
    pub fn is_good(&self) -> bool {
        self.v == VERSION && self.status == Self::CONNECTED && self.ssh_host_keys.len() <= HOST_KEYS
    }
}

impl Proof {
    /// For a session, an epoch and its TLS exporter.
    #[must_use]
    pub fn new(session_id: &Uuid, epoch: u32, exporter: [u8; 32]) -> Self {
        Self { v: VERSION, session_id: session_id.to_string(), epoch, exporter: Digest(exporter) }
    }
}

impl Refused {
    /// A no to the request with this session id and payload hash. `now_ms`: since 1970.
    #[must_use]
    pub fn new(code: RefusalCode, message: &str, session_id: &Uuid, request: [u8; 32], now_ms: u64) -> Self {
        Self {
            v: VERSION,
            status: "error".into(),
            code,
            message: message.to_owned(),
            session_id: session_id.to_string(),
            request: Digest(request),
            iat: now_ms,
        }
    }

    /// Whether it answers this request. The caller has checked its signature.
    #[must_use]
    pub fn answers(&self, session_id: &Uuid, request: [u8; 32]) -> bool {
        self.v == VERSION
            && self.status == "error"
            && Uuid::parse(&self.session_id).as_ref() == Some(session_id)
            && self.request.0 == request
    }
}

impl RefusalCode {
    const NAMES: [(Self, &'static str); 9] = [
        (Self::NotPermitted, "not_permitted"),
        (Self::Replayed, "replayed"),
        (Self::Expired, "expired"),
        (Self::Identity, "identity"),
        (Self::Pin, "pin"),
        (Self::NoSession, "no_session"),
        (Self::Full, "full"),
        (Self::RelayUnreachable, "relay_unreachable"),
        (Self::Stopping, "stopping"),
    ];

    /// As it travels.
    pub fn as_str(&self) -> &str {
        if let Self::Unknown(name) = self {
            return name;
        }
        Self::NAMES.iter().find(|(code, _)| code == self).map_or("", |(_, name)| name)
    }
}

impl Serialize for RefusalCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for RefusalCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = Self::NAMES.into_iter().find(|(_, known)| *known == name);
        Ok(known.map_or(Self::Unknown(name), |(code, _)| code))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode_base64(&self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = decode_base64(&text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("not base64 of 32 bytes"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode_base64(&self.0))
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for BadOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version => f.write_str("the request for a sealed session is of another version"),
            Self::Member(name) => write!(f, "the request for a sealed session has a bad {name:?}"),
        }
    }
}

impl std::error::Error for BadOffer {}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Statement(error) => write!(f, "the request is not its identity key's: {error}"),
            Self::NotSealed => f.write_str("the request asks for no sealed session"),
            Self::Offer(error) => error.fmt(f),
            Self::NotAClient => f.write_str("the request is signed by a device, not by a client"),
            Self::OtherDevice => f.write_str("the request is for another device"),
        }
    }
}

impl std::error::Error for RequestError {}

#[cfg(test)]
mod tests {
    use super::*;

    const NPT: &str = r#"{"sessionId":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","rvdHost":"","rvdPort":0,"requestedPort":0,"requestedHost":"","authenticateToRvd":false,"clientNonce":null,"rvdNonce":null,"encryptRvdTraffic":false,"clientEphemeralPK":null,"clientEphemeralPKType":null,"timeout":null,"sealed":{"v":1,"hello":"FgMBAAEA","to":"@device","device":"gw-17","iat":1800000000000,"exp":1800000030000,"nonce":"AAAAAAAAAAAAAAAAAAAAAA==","epoch":0,"resume":600,"relays":[{"relay":"@r","host":"r.example","port":443,"tls":true}],"only":true}}"#;

    fn check(text: &str) -> Result<SealedRequest, BadOffer> {
        serde_json::from_str::<NptRequest>(text).unwrap().sealed_request().unwrap()
    }

    #[test]
    fn a_sealed_request_as_it_travels() {
        let request = check(NPT).unwrap();
        let printed = NptRequest::sealed(&request.session_id, &request.offer, None);
        assert_eq!(serde_json::to_string(&printed).unwrap(), NPT);
        assert_eq!(printed.without_seal().sealed_request(), None);
        assert_eq!(request.idle, Some(Duration::from_secs(60)));
        assert_eq!(request.offer.relays[0].to_string(), "@r at r.example:443 (TLS)");
    }

    /// Whatever its other members say, it is never a session of 2024.
    #[test]
    fn a_request_with_a_seal_gives_no_session_of_2024() {
        let full = NPT.replace(
            r#""rvdHost":"","rvdPort":0,"requestedPort":0,"requestedHost":"""#,
            r#""rvdHost":"r","rvdPort":1,"requestedPort":22,"requestedHost":"localhost""#,
        );
        let request: NptRequest = serde_json::from_str(&full).unwrap();
        assert!(request.clone().check().is_none() && request.clone().without_seal().check().is_some());
        let broken: NptRequest = serde_json::from_str(&full.replace(r#""v":1"#, r#""v":2"#)).unwrap();
        assert!(broken.check().is_none());
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let relay = r#"{"relay":"@r","host":"r.example","port":443,"tls":true}"#;
        for (from, to, wanted) in [
            (r#""v":1"#, r#""v":2"#.to_owned(), BadOffer::Version),
            ("FgMBAAEA", String::new(), BadOffer::Member("hello")),
            ("FgMBAAEA", "not base64".into(), BadOffer::Member("hello")),
            ("FgMBAAEA", encode_base64(&vec![0; HELLO_BYTES + 1]), BadOffer::Member("hello")),
            ("@device", "@".into(), BadOffer::Member("to")),
            ("gw-17", "-".into(), BadOffer::Member("device")),
            ("1800000030000", "1800000060001".into(), BadOffer::Member("exp")),
            ("1800000030000", "1800000000000".into(), BadOffer::Member("exp")),
            ("1800000030000", "0".into(), BadOffer::Member("exp")),
            ("AAAAAAAAAAAAAAAAAAAAAA==", "AAAA".into(), BadOffer::Member("nonce")),
            (r#""resume":600"#, r#""resume":86401"#.into(), BadOffer::Member("resume")),
            (relay, [relay; OFFERED_RELAYS + 1].join(","), BadOffer::Member("relays")),
            ("r.example", r"r\n!full".into(), BadOffer::Member("relays")),
            (r#""port":443"#, r#""port":0"#.into(), BadOffer::Member("relays")),
            ("6f9619ff-", "publickey-".into(), BadOffer::Member("sessionId")),
        ] {
            assert_eq!(check(&NPT.replace(from, &to)).err(), Some(wanted), "{from} {to}");
        }
    }

    #[test]
    fn refusals_keep_codes_that_we_do_not_know() {
        let id = Uuid::from_random([1; 16]);
        for (code, _) in RefusalCode::NAMES {
            let refused = Refused::new(code, "why", &id, [2; 32], 5);
            let text = serde_json::to_string(&refused).unwrap();
            assert_eq!(serde_json::from_str::<Refused>(&text).unwrap(), refused);
            assert!(refused.answers(&id, [2; 32]) && !refused.answers(&id, [3; 32]));
            assert!(!refused.answers(&Uuid::from_random([2; 16]), [2; 32]));
        }
        let newer: RefusalCode = serde_json::from_str(r#""on_fire""#).unwrap();
        assert_eq!(
            (newer.clone(), serde_json::to_string(&newer).unwrap()),
            (RefusalCode::Unknown("on_fire".into()), r#""on_fire""#.into())
        );
    }
}
