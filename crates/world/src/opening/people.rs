//! Who lives in this world, and whom each believes.

use std::sync::LazyLock;

use postern_crypto::{Ed25519PrivateKey, RsaPrivateKey, RsaPublicKey};
use postern_identity::{
    DeviceName, Expected, Fingerprint, Origin, PinAlgorithm, PinName, Pins, Verdict, Voucher, VoucherClaim,
};
use postern_proto::{AtSign, SigningKeyName};

/// Where virtual time begins, in milliseconds since 1970.
pub(crate) const START_MS: u64 = 1_800_000_000_000;

/// An atSign and its encryption key.
pub(crate) struct Person {
    pub(crate) at_sign: AtSign,
    pub(crate) private: RsaPrivateKey,
    pub(crate) public: RsaPublicKey,
}

/// An identity key, and what vouches for it.
pub(crate) struct Identity {
    pub(crate) at_sign: AtSign,
    pub(crate) device: Option<DeviceName>,
    pub(crate) key: Ed25519PrivateKey,
    pub(crate) voucher: String,
}

/// Honest clients: two enrolments of one atSign, and one of another. `MALLORY` lives here too: she is a manager of the
/// first device, and so may come in under her own name.
pub(crate) const LAPTOP: usize = 0;
pub(crate) const PHONE: usize = 1;
pub(crate) const BOB: usize = 2;
pub(crate) const MALLORY: usize = 3;

pub(crate) struct People {
    persons: Vec<Person>,
    pub(crate) clients: Vec<Identity>,
    pub(crate) devices: Vec<Identity>,
    /// What Mallory made: the identities of all clients and devices, signed with her own key.
    pub(crate) forged_clients: Vec<Identity>,
    pub(crate) forged_devices: Vec<Identity>,
    pins: Pins,
    pub(crate) relay: AtSign,
}

/// Made once: RSA keys take their time.
pub(crate) static PEOPLE: LazyLock<People> = LazyLock::new(People::new);

impl People {
    fn new() -> Self {
        let at = |name: &str| AtSign::parse(name).expect("a name of ours");
        let persons: Vec<Person> = ["alice", "bob", "device", "mallory"]
            .map(|name| {
                let private = RsaPrivateKey::generate().expect("randomness");
                Person { at_sign: at(name), public: private.public_key().expect("a key of ours"), private }
            })
            .into();
        let [alice, bob, device, mallory] = persons.as_slice() else { unreachable!("four") };
        let names = ["gw-17", "gw-18"].map(|name| DeviceName::parse(name).expect("a name of ours"));
        let client = |who: &Person, by: &Person| Identity::new(&who.at_sign, None, &by.private);
        let clients = vec![client(alice, alice), client(alice, alice), client(bob, bob), client(mallory, mallory)];
        let forged_clients = [alice, alice, bob].map(|who| client(who, mallory)).into();
        let devices: Vec<Identity> =
            names.iter().map(|name| Identity::new(&device.at_sign, Some(name), &device.private)).collect();
        let forged_devices = names.iter().map(|name| Identity::new(&device.at_sign, Some(name), &mallory.private));
        let mut pins = Pins::default();
        for person in &persons {
            let name = PinName::AtSign(person.at_sign.clone());
            pins.add(pin(name, Fingerprint::from(&person.public)));
        }
        for own in &devices {
            let name = PinName::Device(own.device.clone().expect("a device"), own.at_sign.clone());
            pins.add(pin(name, Fingerprint::from(&own.key.public_key())));
        }
        Self {
            clients,
            forged_clients,
            forged_devices: forged_devices.collect(),
            devices,
            pins,
            relay: at("relay"),
            persons,
        }
    }

    pub(crate) fn person(&self, at_sign: &AtSign) -> Option<&Person> {
        self.persons.iter().find(|person| person.at_sign == *at_sign)
    }

    /// Whom each device obeys.
    pub(crate) fn managers(&self, device: usize) -> Vec<AtSign> {
        let who: &[usize] = if device == 0 { &[LAPTOP, BOB, MALLORY] } else { &[LAPTOP, BOB] };
        who.iter().map(|who| self.clients[*who].at_sign.clone()).collect()
    }

    /// What a directory shows as somebody's encryption key.
    pub(crate) fn shown(&self, at_sign: &AtSign, lies: bool) -> Option<&RsaPublicKey> {
        let whose = if lies { &self.clients[MALLORY].at_sign } else { at_sign };
        self.person(whose).map(|person| &person.public)
    }

    /// Believes a voucher as both ends do: the pins first, then what the directory says. `no_pins`: the directory alone.
    pub(crate) fn believe(
        &self,
        claim: &VoucherClaim,
        expected: Expected<'_>,
        lies: bool,
        no_pins: bool,
        now_ms: u64,
    ) -> Option<Voucher> {
        let shown = self.shown(expected.at_sign, lies)?;
        let known = |name: PinName, algorithm: PinAlgorithm, shown: Fingerprint| {
            no_pins || self.pins.check(&name, algorithm, shown, false) == Verdict::Known
        };
        if !known(PinName::AtSign(expected.at_sign.clone()), PinAlgorithm::Rsa2048, Fingerprint::from(shown)) {
            return None;
        }
        if let Some(device) = expected.device {
            let key = claim.claimed_key().ok()?;
            let name = PinName::Device(device.clone(), expected.at_sign.clone());
            if !known(name, PinAlgorithm::Ed25519, Fingerprint::from(&key)) {
                return None;
            }
        }
        claim.believe(expected, shown, Some(&shown.to_base64()), now_ms).ok()
    }
}

impl Identity {
    fn new(at_sign: &AtSign, device: Option<&DeviceName>, by: &RsaPrivateKey) -> Self {
        let key = Ed25519PrivateKey::generate().expect("randomness");
        let name = SigningKeyName::new(None, at_sign).expect("a name of ours");
        let voucher = Voucher::issue(&key.public_key(), device, by, (&name, by), START_MS, 30 * 86_400_000);
        let voucher = voucher.expect("a key of ours signs");
        Self { at_sign: at_sign.clone(), device: device.cloned(), key, voucher }
    }

    pub(crate) fn device_name(&self) -> &DeviceName {
        self.device.as_ref().expect("asked of devices alone")
    }
}

fn pin(name: PinName, shown: Fingerprint) -> postern_identity::Pin {
    postern_identity::Pin::made(name, shown, Origin::Given, START_MS)
}
