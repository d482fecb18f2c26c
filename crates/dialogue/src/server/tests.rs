use super::*;
use postern_crypto::{RsaPrivateKey, SignatureHash};
use postern_proto::{AtKey, Request};
use std::collections::BTreeMap;
use std::sync::LazyLock;

static KEY: LazyLock<RsaPrivateKey> = LazyLock::new(|| RsaPrivateKey::generate().unwrap());
const SECRET: &str = "secret";

fn alice() -> AtSign {
    AtSign::parse("alice").unwrap()
}

fn challenged(connection: &mut Connection, seed: u8, now: Instant) -> String {
    let Reply::Data(text) = connection.on_from(&From::plain(alice()), [seed; 32], now) else { panic!() };
    text
}

fn cram(text: &str) -> Cram {
    Cram { digest: sha512_hex(&[SECRET.as_bytes(), text.as_bytes()]) }
}

fn pkam(line: &str) -> Pkam {
    let Ok(Request::Pkam(pkam)) = Request::parse(line.as_bytes()) else { panic!("{line}") };
    pkam
}

fn signed(text: &str) -> Pkam {
    pkam(&format!("pkam:{}", KEY.sign(SignatureHash::Sha256, text.as_bytes()).unwrap()))
}

fn public() -> String {
    KEY.public_key().unwrap().to_base64()
}

fn code(outcome: Result<(), ProtocolError>) -> &'static str {
    outcome.map_or_else(|error| error.code.code(), |()| "ok")
}

#[test]
fn the_session_stays_and_the_proof_is_fresh() {
    let (mut connection, now) = (Connection::new(), Instant::now());
    let one = challenged(&mut connection, 1, now);
    let two = challenged(&mut connection, 2, now);
    assert_eq!(one.split_once(':').unwrap().0, two.split_once(':').unwrap().0);
    assert_ne!(one, two);
    assert!(one.starts_with("_01010101-0101-4101-8101-010101010101@alice:"), "{one}");
    assert_eq!(code(connection.on_cram(&cram(&one), Some(SECRET), now)), "AT0401");
}

#[test]
fn a_proof_counts_once_and_in_time() {
    let (mut connection, now) = (Connection::new(), Instant::now());
    assert_eq!(code(connection.on_cram(&cram(""), Some(SECRET), now)), "AT0015");
    let text = challenged(&mut connection, 1, now);
    assert_eq!(code(connection.on_cram(&cram(&text), Some(SECRET), now)), "ok");
    assert_eq!(connection.prompt(), Prompt::Owner(alice()));
    // The same proof again: refused, and what was won before is gone.
    assert_eq!(code(connection.on_cram(&cram(&text), Some(SECRET), now)), "AT0015");
    assert_eq!(connection.prompt(), Prompt::Anonymous);
    let text = challenged(&mut connection, 2, now);
    assert_eq!(code(connection.on_legacy_pkam(&signed(&text), Some(&public()), now + PROOF_LIFE)), "AT0015");
    let text = challenged(&mut connection, 3, now);
    assert_eq!(code(connection.on_legacy_pkam(&signed(&text), Some(&public()), now)), "ok");
    // A claim alone takes nothing away.
    challenged(&mut connection, 4, now);
    assert!(connection.authority().is_some());
}

#[test]
fn guessing_has_an_end() {
    let (mut connection, now) = (Connection::new(), Instant::now());
    for n in 0..MAX_FAILED_PROOFS {
        assert!(!connection.has_failed_too_often());
        challenged(&mut connection, u8::try_from(n).unwrap(), now);
        assert_eq!(code(connection.on_cram(&cram("x"), Some(SECRET), now)), "AT0401");
    }
    assert!(connection.has_failed_too_often());
}

#[test]
fn a_deleted_secret_admits_nobody() {
    let (mut connection, now) = (Connection::new(), Instant::now());
    let text = challenged(&mut connection, 1, now);
    let error = connection.on_cram(&cram(&text), None, now).unwrap_err();
    assert_eq!(error.message, "privatekey:at_secret does not exist in keystore");
}

const ID: &str = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";

fn enrollment(state: EnrollmentState, namespaces: &[(&str, &str)]) -> Enrollment {
    let map: BTreeMap<String, String> = namespaces.iter().map(|(n, a)| ((*n).into(), (*a).into())).collect();
    let namespaces = Namespaces::from_map(&map);
    Enrollment { id: Uuid::parse(ID).unwrap(), state, public_key: public(), namespaces, expires_at: None }
}

#[test]
fn the_state_of_an_enrolment_is_told() {
    for (state, want) in [
        (Some(EnrollmentState::Approved), "ok"),
        (Some(EnrollmentState::Denied), "AT0025"),
        (Some(EnrollmentState::Pending), "AT0026"),
        (Some(EnrollmentState::Revoked), "AT0027"),
        (Some(EnrollmentState::Expired), "AT0028"),
        (None, "AT0028"),
    ] {
        let (mut connection, now) = (Connection::new(), Instant::now());
        let text = challenged(&mut connection, 1, now);
        let signature = KEY.sign(SignatureHash::Sha512, text.as_bytes()).unwrap();
        let line = format!("pkam:signingAlgo:rsa2048:hashingAlgo:sha512:enrollmentId:{ID}:{signature}");
        let outcome = connection.on_enrolled_pkam(&pkam(&line), state.map(|s| enrollment(s, &[])), now);
        assert_eq!(connection.authority().is_some(), want == "ok");
        assert_eq!(code(outcome), want);
    }
}

#[test]
fn an_enrolment_reaches_its_namespaces_and_no_root_of_trust() {
    let limited =
        Authority::by_enrollment(alice(), enrollment(EnrollmentState::Approved, &[("sshnp", "rw"), ("photos", "r")]));
    let full =
        Authority::by_enrollment(alice(), enrollment(EnrollmentState::Approved, &[("*", "rw"), ("__manage", "rw")]));
    let may = |who: &Authority, key: &str, wanted| who.check("update", &AtKey::parse(key).unwrap(), wanted).is_ok();
    for (key, read, write) in [
        ("@bob:request.dev1.sshnp@alice", true, true),
        ("a.photos@alice", true, false),
        ("a.other@alice", false, false),
        ("sshnp@alice", false, false),
        ("a.notsshnp@alice", false, false),
        ("public:publickey@alice", true, false),
        ("shared_key.bob@alice", true, true),
        ("@bob:shared_key@alice", true, true),
        ("my_shared_key.other@alice", false, false),
    ] {
        assert_eq!((may(&limited, key, Access::Read), may(&limited, key, Access::Write)), (read, write), "{key}");
    }
    assert!(!may(&limited, "privatekey:at_pkam_publickey", Access::Write));
    assert!(may(&full, "privatekey:at_pkam_publickey", Access::Write));
    assert!(may(&full, "public:publickey@alice", Access::Write) && may(&full, "a.other@alice", Access::Write));
    assert!(!may(&full, "x.new.enrollments.__manage@alice", Access::Read));
    assert!(full.is_full() && full.manages() && !limited.manages());
}

#[test]
fn a_revoked_enrolment_loses_its_connection() {
    let (mut connection, now) = (Connection::new(), Instant::now());
    let text = challenged(&mut connection, 1, now);
    let mut proof = signed(&text);
    proof.enrollment_id = Uuid::parse(ID);
    connection.on_enrolled_pkam(&proof, Some(enrollment(EnrollmentState::Approved, &[("a", "r")])), now).unwrap();
    connection.renew(Some(enrollment(EnrollmentState::Approved, &[("b", "r")]))).unwrap();
    assert!(connection.authority().unwrap().limits().unwrap().reach("x.b", Access::Read));
    assert_eq!(code(connection.renew(Some(enrollment(EnrollmentState::Revoked, &[])))), "AT0027");
    assert_eq!(connection.prompt(), Prompt::Anonymous);
}

#[test]
fn nobody_grants_what_is_not_theirs() {
    let mine = |namespaces: &[(&str, &str)]| {
        Authority::by_enrollment(alice(), enrollment(EnrollmentState::Approved, namespaces))
    };
    let full = mine(&[("*", "rw"), ("__manage", "rw")]);
    let some = mine(&[("photos", "rw"), ("logs", "r"), ("__manage", "rw")]);
    let gap = mine(&[("*", "rw"), ("secret.photos", "r"), ("__manage", "rw")]);
    for (wanted, by_full, by_some, by_gap) in [
        (("photos", "rw"), true, true, false),
        (("photos", "r"), true, true, true),
        (("Photos", "rw"), true, true, false),
        (("summer.photos", "rw"), true, true, true),
        (("logs", "r"), true, true, true),
        (("logs", "rw"), true, false, true),
        (("other", "r"), true, false, true),
        (("morephotos", "r"), true, false, true),
        (("*", "r"), true, false, true),
        (("*", "rw"), true, false, false),
        (("secret.photos", "rw"), true, true, false),
        (("__manage", "rw"), true, true, true),
    ] {
        let map = BTreeMap::from([(wanted.0.to_owned(), wanted.1.to_owned())]);
        for (who, want) in [(&full, by_full), (&some, by_some), (&gap, by_gap)] {
            assert_eq!(who.covers(&map).is_ok(), want, "{wanted:?}");
        }
    }
    let unmanaged = mine(&[("*", "rw")]);
    assert_eq!(unmanaged.covers(&BTreeMap::from([("__manage".into(), "r".into())])), Err("__manage"));
}

#[test]
fn the_signing_record_is_written_by_its_own_enrolment() {
    let limited = Authority::by_enrollment(alice(), enrollment(EnrollmentState::Approved, &[("sshnp", "rw")]));
    let all = Authority::by_enrollment(alice(), enrollment(EnrollmentState::Approved, &[("*", "rw")]));
    let own = AtKey::parse(&format!("public:_apsk.{ID}.a.__e@alice")).unwrap();
    assert!(limited.check("update", &own, Access::Write).is_ok());
    for name in [
        "public:_apsk.7f9619ff-8b86-4d01-b42d-00cf4fc964ff.a.__e@alice",
        "public:_apsk.primary.a.__e@alice",
        &format!("public:_apsk.{ID}.r.__e@alice"),
    ] {
        let key = AtKey::parse(name).unwrap();
        for who in [&limited, &all] {
            assert!(who.check("update", &key, Access::Write).is_err(), "{name}");
            assert!(who.check("llookup", &key, Access::Read).is_ok(), "{name}");
        }
    }
}
