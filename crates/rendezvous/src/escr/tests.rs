use super::*;
use postern_crypto::RsaPrivateKey;
use proptest::prelude::*;
use std::sync::OnceLock;

const SESSION: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";

fn key() -> &'static RsaPrivateKey {
    static KEY: OnceLock<RsaPrivateKey> = OnceLock::new();
    KEY.get_or_init(|| RsaPrivateKey::generate().unwrap())
}

fn advertised() -> AdvertisedKeys {
    AdvertisedKeys::parse(&key().public_key().unwrap().to_base64()).unwrap()
}

fn at(name: &str) -> AtSign {
    AtSign::parse(name).unwrap()
}

fn parties() -> EscrParties {
    EscrParties { session_id: SESSION.into(), client: at("client"), device: at("device") }
}

fn secret() -> AesKey {
    AesKey::from_bytes([7; 32])
}

fn challenge() -> Challenge {
    Challenge::new([1; 32])
}

fn prover(side: Side, name: &str) -> EscrProver {
    let signer =
        ChallengeSigner::new(SigningKeyName::parse(name).unwrap(), |text| key().sign(SignatureHash::Sha256, text));
    EscrProver::new(SESSION, side, secret(), signer)
}

fn answer(side: Side, name: &str) -> String {
    prover(side, name).answer(&challenge(), Some(3), Iv::generate()).unwrap()
}

fn check(line: &str, side: Option<Side>) -> Result<Proven, AuthFailure> {
    EscrLine::parse(line.as_bytes())?.open(&secret(), &challenge(), &parties(), side)?.verify(&advertised())
}

const CLIENT_KEY: &str = "public:_apsk.primary.a.__e@client";

#[test]
fn a_good_answer_proves_side_key_and_number() {
    let proven = check(&answer(Side::A, CLIENT_KEY), Some(Side::A)).unwrap();
    assert_eq!((proven.side(), proven.number()), (Side::A, Some(3)));
    assert_eq!(proven.key().to_string(), CLIENT_KEY);
    let device = answer(Side::B, "public:_apsk.6f-1.a.__e@device");
    assert_eq!(check(&device, None).unwrap().side(), Side::B, "a port for all learns the side");
}

/// Everything fixed but the signature: what goes over the wire, byte for byte.
#[test]
fn the_wire_form_is_pinned() {
    let signer = ChallengeSigner::new(SigningKeyName::parse(CLIENT_KEY).unwrap(), |text| {
        assert_eq!(
            text,
            br#"{"sid":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","c":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","side":"a"}"#
        );
        Ok("c2ln".to_owned())
    });
    let prover = EscrProver::new(SESSION, Side::A, AesKey::from_bytes([0; 32]), signer);
    let iv = Iv::from_base64("AAECAwQFBgcICQoLDA0ODw==").unwrap();
    let line = prover.answer(&challenge(), None, iv).unwrap();
    let sealed = line.strip_prefix("6f9619ff-8b86-4d01-b42d-00cf4fc964ff:").unwrap().strip_suffix('\n').unwrap();
    let sealed = String::from_utf8(Base64::decode_vec(sealed).unwrap()).unwrap();
    let e = sealed.strip_prefix(r#"{"iv":"AAECAwQFBgcICQoLDA0ODw==","e":""#).unwrap().strip_suffix("\"}").unwrap();
    let inner = AesKey::from_bytes([0; 32]).decrypt_text(iv, e).unwrap();
    assert_eq!(Base64::decode_vec(e).unwrap().len() % 16, 0, "padded although it is counter mode");
    assert_eq!(
        String::from_utf8(Base64::decode_vec(&inner).unwrap()).unwrap(),
        r#"{"p":{"sid":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","c":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","side":"a"},"s":"c2ln","ha":"sha256","sa":"rsa2048","sk":"public:_apsk.primary.a.__e@client"}"#
    );
}

#[test]
fn an_answer_is_good_for_one_challenge_one_side_and_one_atsign() {
    let line = answer(Side::A, CLIENT_KEY);
    let open = |challenge: &Challenge, parties: &EscrParties, side| {
        EscrLine::parse(line.as_bytes()).unwrap().open(&secret(), challenge, parties, side).map(drop)
    };
    assert_eq!(open(&challenge(), &parties(), Some(Side::A)), Ok(()));
    assert_eq!(open(&Challenge::new([2; 32]), &parties(), Some(Side::A)), Err(AuthFailure::OtherSession), "a replay");
    assert_eq!(open(&challenge(), &parties(), Some(Side::B)), Err(AuthFailure::OtherSide));
    let others = EscrParties { client: at("mallory"), ..parties() };
    assert_eq!(open(&challenge(), &others, Some(Side::A)), Err(AuthFailure::Key));
    let other = EscrParties { session_id: SESSION.replace("6f", "7f"), ..parties() };
    assert_eq!(open(&challenge(), &other, Some(Side::A)), Err(AuthFailure::OtherSession));
    let same_owner = EscrParties { client: at("client"), device: at("client"), session_id: SESSION.into() };
    assert_eq!(open(&challenge(), &same_owner, Some(Side::B)), Err(AuthFailure::OtherSide), "one atSign at both ends");
}

#[test]
fn faults_are_named() {
    let line = answer(Side::A, CLIENT_KEY);
    assert_eq!(check("garbage", None).unwrap_err(), AuthFailure::Malformed);
    assert_eq!(check("", None).unwrap_err(), AuthFailure::Malformed);
    assert_eq!(check(&format!("{SESSION}:"), None).unwrap_err(), AuthFailure::Malformed);
    assert_eq!(check(&line.replace('\n', ":x"), None).unwrap_err(), AuthFailure::Malformed, "three parts");
    assert_eq!(check(&line.replace(':', ": "), None).unwrap_err(), AuthFailure::Malformed, "a space");
    assert_eq!(check(&format!("{line}\n"), None).unwrap_err(), AuthFailure::Malformed, "two lines");
    assert_eq!(check(&"x".repeat(AUTH_LINE_BYTES + 1), None).unwrap_err(), AuthFailure::TooLong);
    let wrong_key = EscrLine::parse(line.as_bytes()).unwrap();
    let wrong_key = wrong_key.open(&AesKey::from_bytes([8; 32]), &challenge(), &parties(), None);
    assert!(matches!(wrong_key.unwrap_err(), AuthFailure::Sealed | AuthFailure::Malformed));
    let other = AdvertisedKeys::parse(&RsaPrivateKey::generate().unwrap().public_key().unwrap().to_base64()).unwrap();
    let claim = EscrLine::parse(line.as_bytes()).unwrap().open(&secret(), &challenge(), &parties(), None).unwrap();
    assert_eq!(claim.verify(&other).unwrap_err(), AuthFailure::Signature);
}

#[test]
fn only_what_is_a_challenge_is_ever_signed() {
    let line = challenge().line();
    assert_eq!(Challenge::parse(&line), Some(challenge()));
    assert_eq!(line.len(), Challenge::CHARS + 1);
    for bad in [
        "",
        "ok",
        "_6f9619ff-8b86-4d01-b42d-00cf4fc964ff@client:0f",
        "AAAA",
        &"A".repeat(44),
        "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n\n",
        "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB\"E=",
    ] {
        assert_eq!(Challenge::parse(bad), None, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(line in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(parsed) = EscrLine::parse(&line) {
            prop_assert!(parsed.open(&secret(), &challenge(), &parties(), None).is_err());
        }
    }

    #[test]
    fn a_changed_byte_proves_nothing_else(at in 0_usize..600, byte in 33_u8..127) {
        static LINE: OnceLock<String> = OnceLock::new();
        let mut line = LINE.get_or_init(|| answer(Side::A, CLIENT_KEY)).clone().into_bytes();
        if let Some(place) = line.get_mut(at) { *place = byte; }
        let proven = EscrLine::parse(&line)
            .and_then(|l| l.open(&secret(), &challenge(), &parties(), Some(Side::A)))
            .and_then(|claim| claim.verify(&advertised()));
        // The number is not signed; everything else that could be changed is.
        if let Ok(proven) = proven { prop_assert_eq!(proven.key().to_string(), CLIENT_KEY); }
    }
}
