//! Whom we believe, against a real server whose records lie as a hostile operator's would.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use postern_client::trust::{KnownKeys, OwnIdentity, Places, TrustError, now_ms};
use postern_client::{Client, Identity, Settings, parse_root};
use postern_crypto::{AtKeys, Ed25519PrivateKey};
use postern_identity::{
    DeviceName, EnrollmentFault, Fingerprint, Origin, PinName, Voucher, VoucherClaim, VoucherError,
};
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_proto::{AtKey, AtSign, Metadata, Record, SigningKeyName};
use postern_server::{Config, Home, Limits, RunningServer, Server, Wanted};
use postern_store::{Batch, LogAs, Store};
use tempfile::TempDir;

/// Alice's, the device's, and those of whoever lies.
static KEYS: LazyLock<[Arc<AtKeys>; 3]> = LazyLock::new(|| [(); 3].map(|()| Arc::new(AtKeys::generate().unwrap())));

struct House {
    store: Arc<dyn Store>,
    home: Home,
    server: RunningServer,
    tasks: Tasks,
    dir: TempDir,
}

impl House {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let home =
            Home::init(&dir.path().join("srv"), &Wanted { host: "localhost".into(), listen, tls: None }).unwrap();
        let store = home.store().unwrap();
        for (name, keys) in [("alice", &KEYS[0]), ("device", &KEYS[1])] {
            home.add(store.as_ref(), &at(name), None).await.unwrap();
            let login = AtKey::private_key("at_pkam_publickey");
            put(&*store, &at(name), &login, keys.pkam.public_key().unwrap().to_base64()).await;
            put(&*store, &at(name), &AtKey::public("publickey", &at(name)), keys.encryption_public.to_base64()).await;
        }
        let config = Config {
            host: home.settings().host.clone(),
            listen,
            advertised_port: None,
            tls: home.tls().unwrap(),
            store: Arc::clone(&store),
            limits: Limits::default(),
            peers: None,
        };
        let server = Server::start(config).unwrap();
        Self { store, home, server, tasks: Tasks::new(), dir }
    }

    /// A fresh connection: nothing is cached.
    async fn connect(&self, name: &str, keys: &Arc<AtKeys>) -> Client {
        let pem = std::fs::read(self.home.ca().unwrap()).unwrap();
        let settings = Settings {
            root: parse_root(&format!("localhost:{}", self.server.address().port())).unwrap(),
            trust: Trust::only_pem(&pem).unwrap(),
            heartbeat: Duration::from_secs(60),
            monitor: None,
        };
        let identity = Identity { at_sign: at(name), keys: Arc::clone(keys) };
        Client::connect(identity, settings, &self.tasks).await.unwrap().0
    }

    async fn alice(&self) -> Client {
        self.connect("alice", &KEYS[0]).await
    }

    /// The device makes its key and its voucher, as the daemon does.
    async fn device(&self, name: &str) -> (OwnIdentity, VoucherClaim) {
        let client = self.connect("device", &KEYS[1]).await;
        let places = places(&self.dir.path().join(format!("home of {name}")));
        let own = OwnIdentity::load(&places, client.identity(), Some(&named(name))).unwrap();
        let claim = VoucherClaim::parse(&own.voucher(&client).await.unwrap()).unwrap();
        (own, claim)
    }

    fn known(&self, strict: bool) -> KnownKeys {
        KnownKeys::new(places(&self.dir.path().join("alice")), strict)
    }

    async fn put(&self, key: &AtKey, value: String) {
        put(&*self.store, &at("device"), key, value).await;
    }
}

async fn put(store: &dyn Store, owner: &AtSign, key: &AtKey, value: String) {
    let record = Record::new(value, Metadata::default(), 0);
    store.commit(Batch::new(0).put(owner, key, record, LogAs::Nothing)).await.unwrap();
}

fn places(home: &Path) -> Places {
    Places { config: Some(home.join("config")), state: Some(home.join("state")) }
}

fn at(name: &str) -> AtSign {
    AtSign::parse(name).unwrap()
}

fn named(name: &str) -> DeviceName {
    DeviceName::parse(name).unwrap()
}

fn pin(name: &str) -> PinName {
    PinName::parse(name).unwrap()
}

/// A voucher of somebody who has these keys: `encryption` and an enrolment with `enrolled`.
fn forged(device: &str, encryption: &AtKeys, enrolled: (Option<&str>, &AtKeys)) -> (VoucherClaim, Fingerprint) {
    let key = Ed25519PrivateKey::generate().unwrap().public_key();
    let name = SigningKeyName::new(enrolled.0, &at("device")).unwrap();
    let signer = (&name, &enrolled.1.pkam);
    let text = Voucher::issue(&key, Some(&named(device)), &encryption.encryption, signer, now_ms(), 86_400_000);
    (VoucherClaim::parse(&text.unwrap()).unwrap(), Fingerprint::from(&key))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_contact_is_remembered_and_a_lying_server_is_refused_with_both_fingerprints() {
    let house = House::new().await;
    let ((own, claim), alice) = (house.device("gw-17").await, house.alice().await);
    let (known, device, gw) = (house.known(false), at("device"), named("gw-17"));
    assert!(!known.knows_device(&device, &gw).unwrap());
    let believed = known.believe_device(&alice, &claim, &device, &gw).await.unwrap();
    assert_eq!(*believed.voucher().key(), own.key().public_key());
    assert!(known.pins().unwrap().iter().next().is_none(), "pinned before anything was verified");
    assert_eq!(known.remember(&believed).unwrap().len(), 2);
    let text = std::fs::read_to_string(known.file().unwrap()).unwrap();
    assert!(text.contains(&format!("gw-17@device ed25519 {} seen 20", own.fingerprint())), "{text}");
    assert!(text.contains("@device rsa2048 SHA256:"), "{text}");

    // The operator shows other keys, all of them consistent.
    house.put(&AtKey::public("publickey", &device), KEYS[2].encryption_public.to_base64()).await;
    let record = SigningKeyName::new(None, &device).unwrap().key();
    house.put(&record, KEYS[2].pkam.public_key().unwrap().to_base64()).await;
    let (lie, shown) = forged("gw-17", &KEYS[2], (None, &KEYS[2]));
    let (known, alice) = (house.known(false), house.alice().await);
    let error = known.believe_device(&alice, &lie, &device, &gw).await.err().unwrap();
    assert!(error.is_pin(), "{error}");
    let text = error.to_string();
    let (real, fake) = (Fingerprint::from(&KEYS[1].encryption_public), Fingerprint::from(&KEYS[2].encryption_public));
    assert!(text.contains(&real.to_string()) && text.contains(&fake.to_string()), "{text}");
    assert!(text.ends_with(&format!("postern pin accept @device {fake}")), "{text}");
    // The honest device is still believed, whatever is served.
    assert!(known.believe_device(&alice, &claim, &device, &gw).await.is_ok());

    // A person accepts the new atSign key; the device's own key is another question.
    known.accept(pin("@device"), fake).unwrap();
    let text = known.believe_device(&alice, &lie, &device, &gw).await.err().unwrap().to_string();
    assert!(text.contains(&own.fingerprint().to_string()) && text.contains(&shown.to_string()), "{text}");
    assert!(text.ends_with(&format!("postern pin accept gw-17@device {shown}")), "{text}");
    known.accept(pin("gw-17@device"), shown).unwrap();
    assert!(known.believe_device(&alice, &lie, &device, &gw).await.is_ok());
}

/// Every device of an atSign holds its encryption key, and must not be able to speak for another one all the same.
#[tokio::test(flavor = "multi_thread")]
async fn one_device_cannot_speak_for_another() {
    let house = House::new().await;
    let device = at("device");
    let (id_a, id_b) = ("6f9619ff-8b86-4d01-b42d-00cf4fc964ff", "7f9619ff-8b86-4d01-b42d-00cf4fc964ff");
    for (id, keys) in [(id_a, &KEYS[2]), (id_b, &KEYS[1])] {
        let record = SigningKeyName::new(Some(id), &device).unwrap().key();
        house.put(&record, keys.pkam.public_key().unwrap().to_base64()).await;
    }
    let (known, alice) = (house.known(false), house.alice().await);
    // It names the enrolment of B, at first contact too.
    let (claim, _) = forged("gw-b", &KEYS[1], (Some(id_b), &KEYS[2]));
    let error = known.believe_device(&alice, &claim, &device, &named("gw-b")).await.err().unwrap();
    let fault = TrustError::Voucher(VoucherError::Enrollment(EnrollmentFault::Signature));
    assert_eq!(error.to_string(), fault.to_string());
    // It names an enrolment that there is not.
    let (claim, _) = forged("gw-b", &KEYS[1], (Some("8f9619ff-8b86-4d01-b42d-00cf4fc964ff"), &KEYS[2]));
    let error = known.believe_device(&alice, &claim, &device, &named("gw-b")).await.err().unwrap().to_string();
    assert!(error.contains("is not published"), "{error}");
    // Its own enrolment vouches for B's name, and B is known.
    let (claim, real) = forged("gw-b", &KEYS[1], (Some(id_b), &KEYS[1]));
    let believed = known.believe_device(&alice, &claim, &device, &named("gw-b")).await.unwrap();
    known.remember(&believed).unwrap();
    let (claim, shown) = forged("gw-b", &KEYS[1], (Some(id_a), &KEYS[2]));
    let error = known.believe_device(&alice, &claim, &device, &named("gw-b")).await.err().unwrap();
    assert!(matches!(&error, TrustError::Changed { pinned, .. } if pinned.fingerprint == real), "{error}");
    assert!(error.to_string().contains(&shown.to_string()), "{error}");
    // A's voucher for A is none for B.
    let (claim, _) = forged("gw-a", &KEYS[1], (Some(id_a), &KEYS[2]));
    let error = known.believe_device(&alice, &claim, &device, &named("gw-b")).await.err().unwrap();
    assert!(matches!(error, TrustError::Voucher(VoucherError::SomebodyElse)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_mode_believes_what_was_given_and_nothing_else() {
    let house = House::new().await;
    let ((own, claim), alice) = (house.device("gw-17").await, house.alice().await);
    let (device, gw) = (at("device"), named("gw-17"));
    let easy = house.known(false);
    let believed = easy.believe_device(&alice, &claim, &device, &gw).await.unwrap();
    easy.remember(&believed).unwrap();
    let strict = house.known(true);
    let error = strict.believe_device(&alice, &claim, &device, &gw).await.err().unwrap();
    assert!(matches!(error, TrustError::NotGiven { .. }), "what was only seen counted: {error}");
    strict.accept(pin("gw-17@device"), own.fingerprint()).unwrap();
    strict.forget(&pin("@device")).unwrap();
    let believed = strict.believe_device(&alice, &claim, &device, &gw).await.unwrap();
    assert!(strict.remember(&believed).unwrap().is_empty(), "strict mode wrote down what it saw");
    assert!(strict.pins().unwrap().iter().all(|pin| pin.origin == Origin::Given));
}

/// A client may be enrolled anew under the same atSign; an enrolment that ended lets nobody in.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_known_by_its_atsign_and_its_enrolment_must_be_alive() {
    let house = House::new().await;
    let device = house.connect("device", &KEYS[1]).await;
    let (known, name) = (house.known(false), at("alice"));
    let client = house.alice().await;
    let own = OwnIdentity::load(&places(&house.dir.path().join("laptop")), client.identity(), None).unwrap();
    let claim = VoucherClaim::parse(&own.voucher(&client).await.unwrap()).unwrap();
    let believed = known.believe_client(&device, &claim, &name).await.unwrap();
    let names: Vec<_> = known.remember(&believed).unwrap().iter().map(|pin| pin.name.to_string()).collect();
    assert_eq!(names, ["@alice"], "the keys of enrolments are not pinned");
    let other = OwnIdentity::load(&places(&house.dir.path().join("desk")), client.identity(), None).unwrap();
    let claim = VoucherClaim::parse(&other.voucher(&client).await.unwrap()).unwrap();
    assert!(!known.believe_client(&device, &claim, &name).await.unwrap().is_first_contact());

    // Revoked: its record has moved.
    let record = own.enrollment();
    let moved = AtKey::public(&record.ended_records()[0], &name);
    let batch = Batch::new(0).remove_unlogged(&name, &record.key());
    house.store.commit(batch).await.unwrap();
    put(&*house.store, &name, &moved, KEYS[0].pkam.public_key().unwrap().to_base64()).await;
    let error = known.believe_client(&device, &claim, &name).await.err().unwrap();
    let revoked = matches!(error, TrustError::Voucher(VoucherError::Enrollment(EnrollmentFault::Revoked)));
    assert!(revoked, "{error}");
}

/// Without a place to write, the process remembers, and is not fooled within its life.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_home_is_remembered_for_in_the_process() {
    let house = House::new().await;
    let ((_, claim), alice) = (house.device("gw-17").await, house.alice().await);
    let (device, gw) = (at("device"), named("gw-17"));
    let known = KnownKeys::new(Places::default(), false);
    let believed = known.believe_device(&alice, &claim, &device, &gw).await.unwrap();
    assert_eq!(known.remember(&believed).unwrap().len(), 2);
    assert!(known.knows_device(&device, &gw).unwrap());
    let (lie, _) = forged("gw-17", &KEYS[1], (None, &KEYS[1]));
    let error = known.believe_device(&alice, &lie, &device, &gw).await.err().unwrap();
    assert!(error.is_pin(), "{error}");
}
