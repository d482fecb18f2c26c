//! The shared vectors of the relay's language.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

#[path = "../../../vectors/replay.rs"]
mod replay;

use postern_crypto::{AesKey, Iv, RsaPrivateKey, RsaPublicKey, SignatureHash};
use postern_proto::{AtSign, SigningKeyName};
use postern_rendezvous::{
    AdvertisedKeys, AuthFailure, Challenge, ChallengeSigner, EscrLine, EscrParties, EscrProver, Expected, HashAlgo,
    RelayReply, RelayRequest, RequestError, Side, TicketClaim,
};
use serde_json::{Value as Json, json};

use replay::{replay, same, text};

#[test]
fn auth_lines() {
    let keys: Json = serde_json::from_str(include_str!("../../../vectors/keys.json")).unwrap();
    let signer = RsaPublicKey::from_base64(text(&keys["signer"], "public")).unwrap();
    let expected = Expected {
        session_id: "6f9619ff-8b86-4d01-b42d-00cf4fc964ff".into(),
        client_nonce: "2024-10-24T10:00:00.123456".into(),
        rvd_nonce: "2024-10-24T10:00:00.987654".into(),
    };
    replay(include_str!("../../../vectors/relay_auth_lines.json"), |case| {
        let outcome = expected.check(text(case, "line").as_bytes(), |signed, signature, hash| {
            let hash = match hash {
                HashAlgo::Sha256 => SignatureHash::Sha256,
                HashAlgo::Sha512 => SignatureHash::Sha512,
            };
            signer.verify_bytes(hash, signed.as_bytes(), signature).is_ok()
        });
        let error = outcome.err().map(|error| match error {
            AuthFailure::TooLong => "too long",
            AuthFailure::Malformed => "malformed",
            AuthFailure::Algorithm => "algorithm",
            AuthFailure::OtherSession => "other session",
            AuthFailure::Signature => "signature",
            _ => "another",
        });
        same(error, case["error"].as_str())?;
        same(outcome.ok().flatten().map(u64::from), case["number"].as_u64())
    });
}

#[test]
fn answers_to_challenges() {
    let keys: Json = serde_json::from_str(include_str!("../../../vectors/keys.json")).unwrap();
    let public = AdvertisedKeys::parse(text(&keys["signer"], "public")).unwrap();
    let signer = text(&keys["signer"], "private").to_owned();
    replay(include_str!("../../../vectors/escr.json"), |case| {
        let key = AesKey::from_base64(text(case, "key")).unwrap();
        let challenge = Challenge::parse(text(case, "challenge")).unwrap();
        let name = SigningKeyName::parse(text(case, "signingKeyUri")).unwrap();
        let side = if text(case, "side") == "a" { Side::A } else { Side::B };
        let (private, payload) = (RsaPrivateKey::from_base64(&signer).unwrap(), text(case, "payload").to_owned());
        let sign = move |signed: &[u8]| {
            assert_eq!(signed, payload.as_bytes());
            private.sign(SignatureHash::Sha256, signed)
        };
        let owner = name.owner().clone();
        let prover = EscrProver::new(text(case, "sessionId"), side, key.clone(), ChallengeSigner::new(name, sign));
        let line = prover.answer(&challenge, None, Iv::from_base64(text(case, "iv")).unwrap()).unwrap();
        same(line.as_str(), &format!("{}\n", text(case, "line")))?;

        let parties = EscrParties { session_id: text(case, "sessionId").into(), client: owner.clone(), device: owner };
        let opened = EscrLine::parse(line.as_bytes()).unwrap().open(&key, &challenge, &parties, Some(side));
        let proven = opened.and_then(|claim| claim.verify(&public)).map_err(|error| error.to_string())?;
        same(proven.side(), side)
    });
}

#[test]
fn messages() {
    replay(include_str!("../../../vectors/relay_messages.json"), |case| {
        let Some(request) = case["request"].as_str() else { return reply(case) };
        match RelayRequest::parse(request) {
            Ok(request) => same(Some(request.print().as_str()), case["prints"].as_str()),
            Err(RequestError::TooLong) => same(Some("too long"), case["error"].as_str()),
            Err(RequestError::Malformed(_)) => same(Some("malformed"), case["error"].as_str()),
            Err(RequestError::Field(name)) => same(Some(name), case["error"].as_str()),
            Err(error) => Err(error.to_string()),
        }
    });
}

fn reply(case: &Json) -> Result<(), String> {
    let Ok(reply) = RelayReply::parse(text(case, "reply")) else {
        return same(Some("unusable"), case["error"].as_str());
    };
    let got = json!({
        "host": reply.host,
        "portA": reply.port_a,
        "portB": reply.port_b,
        "nonce": reply.nonce,
        "detects": reply.auto_detects_auth,
    });
    same(&got, &case["expect"])?;
    same(RelayReply::parse(&reply.print_json()), Ok(reply))
}

#[test]
fn tickets() {
    let keys: Json = serde_json::from_str(include_str!("../../../vectors/keys.json")).unwrap();
    let signer = RsaPublicKey::from_base64(text(&keys["signer"], "public")).unwrap();
    let relay = AtSign::parse("relay").unwrap();
    replay(include_str!("../../../vectors/tickets.json"), |case| {
        let (record, now) = (text(case, "record"), case["now"].as_u64().unwrap());
        let outcome = TicketClaim::parse(text(case, "line").as_bytes()).and_then(|claim| {
            claim.check(&relay, now)?;
            let voucher = claim.believe(&signer, record, now)?;
            claim.verify(&voucher, &relay, now)
        });
        let code = outcome.as_ref().err().map(|refusal| refusal.code.as_str());
        same(code, case["code"].as_str())?;
        let Ok(ticket) = outcome else { return Ok(()) };
        let to = ticket.to();
        same((to.client.as_str(), to.device.as_str()), ("@alice", "@device"))?;
        same(to.session.to_string().as_str(), "6f9619ff-8b86-4d01-b42d-00cf4fc964ff")?;
        same(Some(u64::from(to.epoch)), case["epoch"].as_u64())
    });
}
