//! The worked flows of the NoPorts protocol, byte for byte: what ours write, and that ours read what others write.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::sync::LazyLock;
use std::time::Duration;

use postern_crypto::{AesKey, RsaPrivateKey, RsaPublicKey, SignatureHash};
use postern_proto::Uuid;
use postern_rendezvous::{AuthLine, AuthMode, RelayAuthKey, RelayReply, RelayRequest};
use postern_session::{
    ControlLine, ControlReader, Envelope, EphemeralKey, HostPort, NptRequest, Reply, SshRequest, StreamKeys,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const SID: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
const CLIENT_NONCE: &str = "2024-10-24T10:00:00.123456";
const RELAY_NONCE: &str = "2024-10-24T10:00:00.987654";

/// RSA keys take long to make: one signs for everybody.
static KEY: LazyLock<RsaPrivateKey> = LazyLock::new(|| RsaPrivateKey::generate().unwrap());
static EPHEMERAL: LazyLock<EphemeralKey> = LazyLock::new(|| EphemeralKey::generate().unwrap());

fn public() -> RsaPublicKey {
    KEY.public_key().unwrap()
}

/// The envelope around exactly this payload.
fn envelope(payload: &str) -> String {
    let signature = KEY.sign(SignatureHash::Sha256, payload.as_bytes()).unwrap();
    format!(r#"{{"payload":{payload},"signature":"{signature}","hashingAlgo":"sha256","signingAlgo":"rsa2048"}}"#)
}

/// Ours writes these bytes; what comes from others in these bytes is read as the same.
fn both_ways<P: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(payload: &P, wire: &str) {
    assert_eq!(Envelope::sign(payload, &KEY).unwrap(), envelope(wire));
    assert_eq!(Envelope::parse(&envelope(wire)).unwrap().verify::<P>(&public()).as_ref(), Ok(payload));
}

fn npt() -> NptRequest {
    NptRequest {
        session_id: SID.into(),
        rvd_host: "203.0.113.7".into(),
        rvd_port: 41002,
        requested_port: 3389,
        requested_host: "localhost".into(),
        authenticate_to_rvd: Some(true),
        relay_auth_mode: None,
        relay_auth_aes_key: None,
        client_nonce: Some(CLIENT_NONCE.into()),
        rvd_nonce: Some(RELAY_NONCE.into()),
        encrypt_rvd_traffic: Some(true),
        client_ephemeral_pk: Some("MIIBIjANBg".into()),
        client_ephemeral_pk_type: Some("rsa2048".into()),
        timeout: Some(30_000),
        twin_keys: None,
        relay_atsign: None,
        sealed: None,
    }
}

fn ask(mode: Option<AuthMode>) -> RelayRequest {
    let newer = mode.is_some();
    RelayRequest {
        session_id: SID.into(),
        at_sign_a: "@c".into(),
        at_sign_b: "@d".into(),
        authenticate_a: true,
        authenticate_b: true,
        client_nonce: CLIENT_NONCE.into(),
        auth_mode: mode,
        auth_key: newer.then(|| RelayAuthKey::new("c2VjcmV0".into())),
        only_443: newer,
        multiple_acks_ok: newer,
        pre_fetch: if newer { vec!["public:_apsk.primary.a.__e@c".into()] } else { Vec::new() },
        json_reply: newer,
        side_a: None,
    }
}

/// The device's reply in these bytes, keys left to the caller; and that the client opens it.
fn reply(is_ssh: bool, twin: bool, wire: impl Fn(&[&str]) -> String) {
    let keys = if twin { StreamKeys::twin() } else { StreamKeys::single() };
    let to = RsaPublicKey::from_base64(&EPHEMERAL.public_base64().unwrap()).unwrap();
    let sealed = keys.seal(&to, twin).unwrap();
    let id = Uuid::parse(SID).unwrap();
    let ours = Reply { session_id: id.clone(), keys: Some(sealed.clone()), ephemeral: None };
    let mut texts = vec![sealed.first.0.as_str(), &sealed.first.1];
    if let Some(second) = &sealed.second {
        texts.extend([second.0.as_str(), &second.1]);
    }
    let wire = envelope(&wire(&texts));
    assert_eq!(*ours.print(is_ssh, &KEY).unwrap(), wire);
    let read = Reply::read(&wire, &id, &public()).unwrap();
    let opened = EPHEMERAL.open(&read.keys.unwrap()).unwrap();
    assert_eq!(*opened.c2d.key.to_base64(), *keys.c2d.key.to_base64());
    assert_eq!(*opened.d2c.key.to_base64(), *keys.d2c.key.to_base64());
    assert_eq!((opened.c2d.iv, opened.d2c.iv), (keys.c2d.iv, keys.d2c.iv));
}

#[test]
fn npt_in_the_dialect_of_2024() {
    // 1. client to relay
    assert_eq!(
        ask(None).print().as_str(),
        r#"{"sessionId":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","atSignA":"@c","atSignB":"@d","authenticateSocketA":true,"authenticateSocketB":true,"clientNonce":"2024-10-24T10:00:00.123456"}"#
    );
    // 2. relay to client
    let answer = RelayReply::parse("203.0.113.7,41001,41002,2024-10-24T10:00:00.987654").unwrap();
    assert_eq!((answer.port_a.get(), answer.port_b.get(), answer.nonce.as_deref()), (41001, 41002, Some(RELAY_NONCE)));
    assert_eq!(answer.print_csv(), "203.0.113.7,41001,41002,2024-10-24T10:00:00.987654");
    // 3. client to device
    both_ways(
        &npt(),
        r#"{"sessionId":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","rvdHost":"203.0.113.7","rvdPort":41002,"requestedPort":3389,"requestedHost":"localhost","authenticateToRvd":true,"clientNonce":"2024-10-24T10:00:00.123456","rvdNonce":"2024-10-24T10:00:00.987654","encryptRvdTraffic":true,"clientEphemeralPK":"MIIBIjANBg","clientEphemeralPKType":"rsa2048","timeout":30000}"#,
    );
    let checked = npt().check().unwrap();
    assert_eq!(checked.target, HostPort::localhost(3389));
    assert_eq!((checked.multi, checked.twin_keys, checked.is_ssh), (Some(Duration::from_secs(30)), false, false));
    // 4. the device's line at the relay
    assert_eq!(
        AuthLine::new(SID, CLIENT_NONCE, RELAY_NONCE).print("c2ln"),
        "{\"payload\":{\"sessionId\":\"6f9619ff-8b86-4d01-b42d-00cf4fc964ff\",\"clientNonce\":\"2024-10-24T10:00:00.123456\",\"rvdNonce\":\"2024-10-24T10:00:00.987654\"},\"signature\":\"c2ln\",\"hashingAlgo\":\"sha256\",\"signingAlgo\":\"rsa2048\"}\n"
    );
    // 5. device to client
    reply(false, false, |k| {
        format!(r#"{{"status":"connected","sessionId":"{SID}","sessionAESKey":"{}","sessionIV":"{}"}}"#, k[0], k[1])
    });
    // 6. the control channel
    let keys = StreamKeys::single();
    let line = ControlLine::connect(&keys, false);
    assert_eq!(*line, format!("connect:{}:{}\n", *keys.c2d.key.to_base64(), keys.c2d.iv.to_base64()));
    assert_eq!(line.len(), "connect:".len() + 44 + 1 + 24 + 1);
}

#[test]
fn ssh_in_the_dialect_of_2024() {
    let request = SshRequest {
        direct: true,
        session_id: SID.into(),
        host: "203.0.113.7".into(),
        port: 41002,
        authenticate_to_rvd: Some(true),
        relay_auth_mode: None,
        relay_auth_aes_key: None,
        client_nonce: Some(CLIENT_NONCE.into()),
        rvd_nonce: Some(RELAY_NONCE.into()),
        encrypt_rvd_traffic: Some(true),
        client_ephemeral_pk: Some("MIIBIjANBg".into()),
        client_ephemeral_pk_type: Some("rsa2048".into()),
        twin_keys: None,
        relay_atsign: None,
        sealed: None,
    };
    both_ways(
        &request,
        r#"{"direct":true,"sessionId":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","host":"203.0.113.7","port":41002,"authenticateToRvd":true,"clientNonce":"2024-10-24T10:00:00.123456","rvdNonce":"2024-10-24T10:00:00.987654","encryptRvdTraffic":true,"clientEphemeralPK":"MIIBIjANBg","clientEphemeralPKType":"rsa2048"}"#,
    );
    let checked = request.check(2222).unwrap();
    assert_eq!((checked.target, checked.multi, checked.is_ssh), (HostPort::localhost(2222), None, true));
    reply(true, false, |k| {
        format!(
            r#"{{"status":"connected","sessionId":"{SID}","ephemeralPrivateKey":null,"sessionAESKey":"{}","sessionIV":"{}"}}"#,
            k[0], k[1]
        )
    });
    // Version 4, and --no-ad --no-et: the fields are there and null, or not there.
    for old in [
        r#"{"direct":true,"sessionId":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","host":"203.0.113.7","port":41002}"#,
        r#"{"direct":true,"sessionId":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","host":"203.0.113.7","port":41002,"authenticateToRvd":null,"clientNonce":null,"rvdNonce":null,"encryptRvdTraffic":null,"clientEphemeralPK":null,"clientEphemeralPKType":null}"#,
    ] {
        let read: SshRequest = Envelope::parse(&envelope(old)).unwrap().verify(&public()).unwrap();
        let checked = read.check(22).unwrap();
        assert_eq!((checked.relay.auth, checked.ephemeral_key, checked.twin_keys), (None, None, false));
    }
}

#[test]
fn npt_in_the_dialect_of_2025() {
    assert_eq!(
        ask(Some(AuthMode::Escr)).print().as_str(),
        r#"{"sessionId":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","atSignA":"@c","atSignB":"@d","authenticateSocketA":true,"authenticateSocketB":true,"clientNonce":"2024-10-24T10:00:00.123456","relayAuthMode":"escr","relayAuthAesKey":"c2VjcmV0","only443":true,"multipleAcksOk":true,"preFetch":["public:_apsk.primary.a.__e@c"],"sendJsonResponse":true}"#
    );
    let key = AesKey::from_bytes([7; 32]).to_base64().to_string();
    let request = NptRequest {
        relay_auth_mode: Some("escr".into()),
        relay_auth_aes_key: Some(RelayAuthKey::new(key.clone())),
        twin_keys: Some(true),
        relay_atsign: Some("@r".into()),
        sealed: None,
        ..npt()
    };
    both_ways(
        &request,
        &format!(
            r#"{{"sessionId":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","rvdHost":"203.0.113.7","rvdPort":41002,"requestedPort":3389,"requestedHost":"localhost","authenticateToRvd":true,"relayAuthMode":"escr","relayAuthAesKey":"{key}","clientNonce":"2024-10-24T10:00:00.123456","rvdNonce":"2024-10-24T10:00:00.987654","encryptRvdTraffic":true,"clientEphemeralPK":"MIIBIjANBg","clientEphemeralPKType":"rsa2048","timeout":30000,"twinKeys":true,"relayAtsign":"@r"}}"#
        ),
    );
    assert!(request.check().unwrap().twin_keys);
    // A client that also signs with its enrolment puts that beside the payload.
    let wire = envelope(r#"{"sessionId":"x"}"#);
    let wire =
        wire.replace(r#","hashing"#, r#","enrollmentSignature":{"sk":"public:_apsk.x.a.__e@c","s":"AA=="},"hashing"#);
    assert!(Envelope::parse(&wire).unwrap().verify::<serde_json::Value>(&public()).is_ok());
    reply(false, true, |k| {
        format!(
            r#"{{"status":"connected","sessionId":"{SID}","aesKeyC2D":"{}","ivC2D":"{}","aesKeyD2C":"{}","ivD2C":"{}"}}"#,
            k[0], k[1], k[2], k[3]
        )
    });
    let keys = StreamKeys::twin();
    let line = ControlLine::connect(&keys, true);
    assert_eq!(line.split(':').count(), 5);
    let mut connects = 0;
    let heard = |word| connects += usize::from(matches!(word, ControlLine::Connect(_)));
    ControlReader::of_twin_session().feed(line.as_bytes(), heard).unwrap();
    assert_eq!(connects, 1);
}

#[test]
fn replies_of_others() {
    let id = Uuid::parse(SID).unwrap();
    let read = |payload: &str| Reply::read(&envelope(payload), &id, &public());
    // Newer daemons that did not agree on twin keys still name the second pair.
    let reply = read(&format!(
        r#"{{"status":"connected","sessionId":"{SID}","sessionAESKey":"k","sessionIV":"i","aesKeyD2C":null,"ivD2C":null}}"#
    ));
    assert_eq!(reply.unwrap().keys.unwrap().second, None);
    // The status is a word nobody checks; events are logged elsewhere.
    let reply = read(&format!(
        r#"{{"status":"hello","sessionId":"{SID}","sessionAESKey":"k","sessionIV":"i","eventLoggingConfig":{{}}}}"#
    ));
    assert!(reply.unwrap().keys.is_some());
    // Not encrypted.
    let reply = read(&format!(r#"{{"status":"connected","sessionId":"{SID}","sessionAESKey":null,"sessionIV":null}}"#));
    assert_eq!(reply.unwrap().keys, None);
    // Half a key is none; a number is no key.
    let reply = read(&format!(r#"{{"status":"connected","sessionId":"{SID}","sessionAESKey":"k","sessionIV":7}}"#));
    assert_eq!(reply.unwrap().keys, None);
    assert!(read(r#"{"status":"connected","sessionAESKey":"k","sessionIV":"i"}"#).is_err(), "no session id");
    assert!(Reply::read("connected", &id, &public()).is_err(), "the reverse form is not served");
}
