//! The shared vectors of who speaks: statements, vouchers, fingerprints.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

#[path = "../../../vectors/replay.rs"]
mod replay;

use postern_crypto::{Ed25519PublicKey, RsaPublicKey, encode_base64};
use postern_identity::{
    DeviceName, Expected, Fingerprint, Label, Statement, StatementError, VoucherClaim, VoucherError,
};
use postern_proto::AtSign;
use serde_json::Value as Json;

use replay::{replay, same, text};

#[test]
fn statements() {
    replay(include_str!("../../../vectors/statements.json"), |case| {
        let key = Ed25519PublicKey::from_base64(text(case, "key")).unwrap();
        let label = match text(case, "label") {
            "request" => Label::Request,
            "reply" => Label::Reply,
            "proof" => Label::Proof,
            "ticket" => Label::Ticket,
            "hostkeys" => Label::HostKeys,
            "refusal" => Label::Refusal,
            other => return Err(format!("no label {other}")),
        };
        let read = Statement::parse(text(case, "text"));
        let outcome = read.and_then(|read| read.verify::<Json>(label, &key).map(|_| encode_base64(&read.hash())));
        let error = outcome.as_ref().err().map(|error| match error {
            StatementError::Malformed => "malformed",
            StatementError::Signature => "signature",
            _ => "another",
        });
        same(error, case["error"].as_str())?;
        same(outcome.ok().as_deref(), case["hash"].as_str())
    });
}

#[test]
fn vouchers() {
    let keys: Json = serde_json::from_str(include_str!("../../../vectors/keys.json")).unwrap();
    let signer = RsaPublicKey::from_base64(text(&keys["signer"], "public")).unwrap();
    replay(include_str!("../../../vectors/vouchers.json"), |case| {
        let at_sign = AtSign::parse(text(case, "atSign")).unwrap();
        let device = case["device"].as_str().map(|name| DeviceName::parse(name).unwrap());
        let expected = Expected { at_sign: &at_sign, device: device.as_ref() };
        let (record, now) = (case["record"].as_str(), case["now"].as_u64().unwrap());
        let claim = VoucherClaim::parse(text(case, "text"));
        let believed = claim.and_then(|claim| claim.believe(expected, &signer, record, now));
        let error = believed.as_ref().err().map(|error| match error {
            VoucherError::Malformed => "malformed",
            VoucherError::SomebodyElse => "somebody else",
            VoucherError::Dates => "dates",
            VoucherError::Signature => "signature",
            VoucherError::Enrollment(_) => "enrollment",
            _ => "another",
        });
        same(error, case["error"].as_str())?;
        same(believed.ok().map(|voucher| voucher.key().to_base64()).as_deref(), case["key"].as_str())
    });
}

#[test]
fn fingerprints() {
    replay(include_str!("../../../vectors/fingerprints.json"), |case| {
        let key = text(case, "key");
        let shown = match text(case, "algorithm") {
            "rsa2048" => Fingerprint::from(&RsaPublicKey::from_base64(key).unwrap()),
            _ => Fingerprint::from(&Ed25519PublicKey::from_base64(key).unwrap()),
        };
        same(shown.to_string().as_str(), text(case, "fingerprint"))
    });
}
