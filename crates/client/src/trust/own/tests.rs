use std::fs;
use std::sync::LazyLock;

use super::*;

static KEYS: LazyLock<[Arc<AtKeys>; 2]> = LazyLock::new(|| [(); 2].map(|()| Arc::new(AtKeys::generate().unwrap())));

fn device(keys: &Arc<AtKeys>) -> Identity {
    Identity { at_sign: AtSign::parse("device").unwrap(), keys: Arc::clone(keys) }
}

fn places(dir: &Path) -> Places {
    Places { config: Some(dir.join("config")), state: Some(dir.join("state")) }
}

fn load(places: &Places, name: Option<&str>) -> Result<OwnIdentity, TrustError> {
    let name = name.map(|name| DeviceName::parse(name).unwrap());
    OwnIdentity::load(places, &device(&KEYS[0]), name.as_ref())
}

#[test]
fn a_key_is_made_once_private_and_one_for_each_end() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    let first = load(&places, Some("gw-17")).unwrap();
    assert_eq!(first.path().unwrap(), dir.path().join("state/identity/gw-17@device.key"));
    assert_eq!(load(&places, Some("gw-17")).unwrap().fingerprint(), first.fingerprint());
    assert_eq!(OwnIdentity::fingerprint_of(first.path().unwrap()).unwrap(), first.fingerprint());
    assert_ne!(load(&places, Some("gw-18")).unwrap().fingerprint(), first.fingerprint());
    let client = load(&places, None).unwrap();
    assert_ne!(client.fingerprint(), first.fingerprint());
    assert_eq!(client.path().unwrap(), dir.path().join("state/identity/@device.primary.key"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let path = first.path().unwrap();
        assert_eq!((mode(path), mode(path.parent().unwrap())), (0o600, 0o700));
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = load(&places, Some("gw-17")).err().unwrap().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(path, "").unwrap();
        assert!(matches!(load(&places, Some("gw-17")), Err(TrustError::Damaged(_))), "a damaged key was replaced");
    }
}

#[test]
fn many_programs_at_once_make_one_key() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    let made: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| load(&places, None).unwrap().fingerprint())).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert!(made.iter().all(|one| *one == made[0]), "{made:?}");
    assert_eq!(fs::read_dir(places.identities().unwrap()).unwrap().count(), 1, "a draft is left");
}

/// A gateway with a read-only home is the same device after each start.
#[test]
fn where_nothing_can_be_kept_the_key_follows_from_the_enrolment() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("state"), "no folder").unwrap();
    for places in [Places::default(), places(dir.path())] {
        let (one, two) = (load(&places, Some("gw-17")).unwrap(), load(&places, Some("gw-17")).unwrap());
        assert_eq!((one.path(), one.fingerprint()), (None, two.fingerprint()));
        assert_ne!(load(&places, Some("gw-18")).unwrap().fingerprint(), one.fingerprint());
        let other = OwnIdentity::load(&places, &device(&KEYS[1]), one.device.as_ref()).unwrap();
        assert_ne!(other.fingerprint(), one.fingerprint());
    }
}

#[test]
fn a_voucher_is_kept_until_its_end_comes_near_or_the_enrolment_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    let ours = load(&places, Some("gw-17")).unwrap();
    assert!(ours.ready_voucher().is_none());
    let text = ours.issue(now_ms()).unwrap();
    assert_eq!(ours.ready_voucher(), Some(Arc::clone(&text)));
    assert_eq!(load(&places, Some("gw-17")).unwrap().ready_voucher(), Some(text));

    // Enrolled anew: the identity stays, the voucher does not.
    let name = DeviceName::parse("gw-17").unwrap();
    let enrolled_anew = OwnIdentity::load(&places, &device(&KEYS[1]), Some(&name)).unwrap();
    assert_eq!(enrolled_anew.fingerprint(), ours.fingerprint());
    assert!(enrolled_anew.ready_voucher().is_none());

    let long_ago = now_ms() - (VOUCHER_LIFE_MS - VOUCHER_RENEWAL_MS + 1000);
    ours.issue(long_ago).unwrap();
    assert!(ours.ready_voucher().is_none(), "good for less than 30 days");
    assert!(load(&places, Some("gw-17")).unwrap().ready_voucher().is_none());
}
