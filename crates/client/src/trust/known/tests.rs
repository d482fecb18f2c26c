use std::fs;
use std::path::Path;

use postern_crypto::Ed25519PrivateKey;

use super::*;

fn places(dir: &Path) -> Places {
    Places { config: Some(dir.join("config")), state: Some(dir.join("state")) }
}

fn print() -> Fingerprint {
    Fingerprint::from(&Ed25519PrivateKey::generate().unwrap().public_key())
}

/// Each program reads, adds and replaces; none may take the lines of another away.
#[test]
fn many_programs_at_once_lose_no_pin() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    fs::create_dir_all(dir.path().join("config")).unwrap();
    fs::write(places.pins().unwrap(), "# of a person\n").unwrap();
    std::thread::scope(|scope| {
        for number in 10..26 {
            let places = places.clone();
            scope.spawn(move || {
                let known = KnownKeys::new(places, false);
                known.accept(PinName::parse(&format!("gw-{number}@device")).unwrap(), print()).unwrap();
            });
        }
    });
    let known = KnownKeys::new(places.clone(), false);
    assert_eq!(known.pins().unwrap().iter().count(), 16);
    let text = fs::read_to_string(places.pins().unwrap()).unwrap();
    assert!(text.starts_with("# of a person\n"), "{text}");
    assert!(known.forget(&PinName::parse("gw-10@device").unwrap()).unwrap());
    assert!(!known.forget(&PinName::parse("gw-10@device").unwrap()).unwrap());
    assert_eq!(known.pins().unwrap().iter().count(), 15);
}

#[cfg(unix)]
#[test]
fn a_file_that_is_kept_elsewhere_stays_there() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    fs::create_dir_all(dir.path().join("config")).unwrap();
    let elsewhere = dir.path().join("dotfiles");
    fs::write(&elsewhere, "").unwrap();
    std::os::unix::fs::symlink(&elsewhere, places.pins().unwrap()).unwrap();
    KnownKeys::new(places, false).accept(PinName::parse("@alice").unwrap(), print()).unwrap();
    assert!(fs::read_to_string(elsewhere).unwrap().starts_with("@alice rsa2048 SHA256:"));
}

/// What a file forbids that cannot be read is not known.
#[test]
fn a_file_that_cannot_be_read_is_not_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    fs::create_dir_all(places.pins().unwrap()).unwrap();
    assert!(matches!(KnownKeys::new(places, false).pins(), Err(TrustError::File(..))));
}
