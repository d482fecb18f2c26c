//! The shared vectors of what client and device say to each other.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

#[path = "../../../vectors/replay.rs"]
mod replay;

use postern_crypto::{CtrStream, RsaPublicKey, encode_base64, hex_lower};
use postern_identity::Expected;
use postern_proto::AtSign;
use postern_session::{
    BadOffer, ControlLine, ControlReader, DeviceName, DirectionKey, EnrollmentFault, Envelope, EnvelopeError, HostPort,
    NptRequest, PermitOpen, PingResponse, RequestError, SignedRequest, SshRequest, parse_span,
};
use serde_json::{Map, Value as Json};

use replay::{replay, same, text};

#[test]
fn envelopes() {
    let keys: Json = serde_json::from_str(include_str!("../../../vectors/keys.json")).unwrap();
    let signer = RsaPublicKey::from_base64(text(&keys["signer"], "public")).unwrap();
    replay(include_str!("../../../vectors/envelopes.json"), |case| {
        let opened = Envelope::parse(text(case, "text")).and_then(|e| e.verify::<Map<String, Json>>(&signer));
        let error = opened.as_ref().err().map(|error| match error {
            EnvelopeError::Malformed => "malformed",
            EnvelopeError::Signature => "signature",
            EnvelopeError::Payload => "payload",
            _ => "another",
        });
        same(error, case["error"].as_str())?;
        // Compared as text: numbers keep their digits and members their order.
        let Ok(payload) = opened else { return Ok(()) };
        same(Json::from(payload).to_string(), case["payload"].to_string())
    });
}

#[test]
fn sealed_requests() {
    let keys: Json = serde_json::from_str(include_str!("../../../vectors/keys.json")).unwrap();
    let signer = RsaPublicKey::from_base64(text(&keys["signer"], "public")).unwrap();
    let record = text(&keys["ephemeral"], "public").to_owned();
    let (alice, gateway) = (AtSign::parse("alice").unwrap(), AtSign::parse("device").unwrap());
    let name = DeviceName::parse("gw-17").unwrap();
    replay(include_str!("../../../vectors/sealed_requests.json"), |case| {
        let envelope = Envelope::parse(text(case, "text")).map_err(|error| error.to_string())?;
        let believe = |device| {
            let claim = envelope.sealed_voucher()?;
            claim.believe(Expected { at_sign: &alice, device }, &signer, Some(&record), 1_800_000_000_000)
        };
        // A device's voucher is a good one, of somebody who does not ask.
        let voucher = believe(None).or_else(|_| believe(Some(&name)));
        let Ok(voucher) = voucher else { return same(Some("voucher"), case["error"].as_str()) };
        let outcome = match text(case, "kind") {
            "npt" => SignedRequest::verify::<NptRequest>(&envelope, voucher, &gateway, &name),
            _ => SignedRequest::verify::<SshRequest>(&envelope, voucher, &gateway, &name),
        };
        let error = outcome.as_ref().err().map(|error| match error {
            RequestError::Statement(_) => "statement",
            RequestError::NotSealed => "not sealed",
            RequestError::NotAClient => "not a client",
            RequestError::OtherDevice => "other device",
            RequestError::Offer(BadOffer::Version) => "version",
            RequestError::Offer(BadOffer::Member(member)) => member,
            _ => "another",
        });
        same(error, case["error"].as_str())?;
        let Ok(signed) = outcome else { return Ok(()) };
        same(encode_base64(&signed.hash()).as_str(), text(case, "hash"))?;
        same(Some(u64::from(signed.request().offer.epoch)), case["epoch"].as_u64())
    });
}

#[test]
fn enrollment_signatures() {
    let client = AtSign::parse("client").unwrap();
    replay(include_str!("../../../vectors/enrollment_signatures.json"), |case| {
        let envelope = Envelope::parse(text(case, "text")).map_err(|error| error.to_string())?;
        let outcome = match envelope.enrollment_claim(&client) {
            Ok(None) => "none",
            Ok(Some(claim)) => named(envelope.verify_enrollment(claim, text(case, "record"))),
            Err(fault) => named(Err(fault)),
        };
        same(outcome, text(case, "outcome"))
    });
}

fn named(outcome: Result<(), EnrollmentFault>) -> &'static str {
    match outcome {
        Ok(()) => "holds",
        Err(EnrollmentFault::Malformed) => "malformed",
        Err(EnrollmentFault::NotTheRequester(_)) => "not the requester",
        Err(EnrollmentFault::Algorithm) => "algorithm",
        Err(EnrollmentFault::Signature) => "signature",
        Err(_) => "another",
    }
}

#[test]
fn heartbeats() {
    replay(include_str!("../../../vectors/heartbeats.json"), |case| {
        let heard = PingResponse::parse(text(case, "text"));
        let Some(ping) = heard else { return same(&Json::Null, &case["expect"]) };
        same(PingResponse::parse(&ping.print()).as_ref(), Some(&ping))?;
        let printed: Json = serde_json::from_str(&ping.print()).unwrap();
        let features = printed["supportedFeatures"].as_object().unwrap();
        let got = serde_json::json!({
            "devicename": ping.devicename,
            "deviceGroupName": ping.device_group_name,
            "version": ping.version,
            "corePackageVersion": ping.core_package_version,
            "features": features.iter().filter(|(_, on)| **on == true).map(|(name, _)| name).collect::<Vec<_>>(),
            "allowedServices": ping.allowed_services,
        });
        same(&got, &case["expect"])
    });
}

#[test]
fn control_lines_and_twin_keys() {
    replay(include_str!("../../../vectors/control_lines.json"), |case| {
        let twin = case["twin"] == true;
        let mut reader = if twin { ControlReader::of_twin_session() } else { ControlReader::default() };
        let mut words = Vec::new();
        for piece in case["pieces"].as_array().unwrap() {
            if reader.feed(piece.as_str().unwrap().as_bytes(), |word| words.push(shown(&word))).is_err() {
                return same(Json::from("too long"), case["words"].clone());
            }
        }
        same(Json::from(words), case["words"].clone())
    });
}

/// A word as the vectors write it: keys by what they make of a text on the wire.
fn shown(word: &ControlLine) -> Json {
    let on_the_wire = |key: &DirectionKey| {
        let plain = b"GET / HTTP/1.1\r\n\r\n";
        let mut out = [0; 18 + CtrStream::SLACK];
        hex_lower(key.stream().unwrap().apply(plain, &mut out).unwrap())
    };
    match word {
        ControlLine::Connect(keys) => {
            serde_json::json!({"c2d": on_the_wire(&keys.c2d), "d2c": on_the_wire(&keys.d2c)})
        }
        ControlLine::ConnectPlain => "plain".into(),
        _ => "other".into(),
    }
}

#[test]
fn permit_open() {
    replay(include_str!("../../../vectors/permit_open.json"), |case| {
        let list = PermitOpen::parse(text(case, "list"));
        let Some(allowed) = case["allowed"].as_bool() else { return same(list.is_err(), true) };
        let port = u16::try_from(case["port"].as_u64().unwrap()).unwrap();
        let target = HostPort { host: text(case, "host").to_owned(), port };
        same(list.map(|list| list.allows(&target)).map_err(|error| error.to_string()), Ok(allowed))
    });
}

#[test]
fn device_names() {
    replay(include_str!("../../../vectors/device_names.json"), |case| {
        let name = DeviceName::parse(text(case, "typed")).ok();
        same(name.as_ref().map(DeviceName::as_str), case["name_on_the_wire"].as_str())
    });
}

#[test]
fn durations() {
    replay(include_str!("../../../vectors/durations.json"), |case| {
        let millis = parse_span(text(case, "typed")).ok().map(|span| span.as_millis());
        same(millis, case["millis"].as_u64().map(u128::from))
    });
}
