use std::sync::LazyLock;
use std::time::Duration;

use postern_crypto::{Ed25519PrivateKey, RsaPrivateKey};
use postern_identity::{DeviceName, Envelope, Expected, StatementError, VoucherClaim};
use postern_proto::SigningKeyName;

use super::*;
use crate::limits::REMEMBERED_OF_CLIENT;
use crate::request::{RelayEnd, SshRequest};
use crate::sealed::{Offer, RefusalCode, RequestError};

fn request(n: u8, port: u16) -> SessionRequest {
    SessionRequest {
        session_id: Uuid::from_random([n; 16]),
        relay: RelayEnd { host: "r".into(), port: 1, auth: None },
        target: HostPort::localhost(port),
        ephemeral_key: None,
        twin_keys: true,
        multi: None,
        is_ssh: true,
    }
}

fn manager(name: &str) -> Guest {
    let name = AtSign::parse(name).unwrap();
    Guest::manager(std::slice::from_ref(&name), &name).unwrap()
}

#[test]
fn it_listens_where_its_list_says_and_policy_narrows_that() {
    let [alice, bob] = ["alice", "bob"].map(|name| AtSign::parse(name).unwrap());
    let manager = Guest::manager(std::slice::from_ref(&alice), &alice).unwrap();
    let by_policy = |list| Guest::by_policy(&bob, PermitOpen::parse(list).unwrap());
    let never = Door::new(PermitOpen::anything());
    assert_eq!(
        never.may_listen(&manager, 8080).unwrap_err().to_string(),
        "Listening on port 8080 denied based on daemon --permit-listen []"
    );
    let door = never.with_listen(PermitListen::parse("8080").unwrap());
    assert!(door.may_listen(&manager, 8080).is_ok() && door.may_listen(&manager, 8081).is_err());
    assert!(door.may_listen(&by_policy("localhost:22,listen:8080"), 8080).is_ok());
    let narrowed = door.may_listen(&by_policy("localhost:8080"), 8080).unwrap_err();
    assert!(matches!(narrowed, Denied::Listen { by_policy: true, .. }), "{narrowed}");
    assert!(door.may_listen(&by_policy("listen:*"), 9000).is_err(), "policy widens nothing");
}

#[test]
fn both_lists_must_allow() {
    let alice = AtSign::parse("alice").unwrap();
    let mut door = Door::new(PermitOpen::default());
    let guest = Guest::by_policy(&alice, PermitOpen::parse("localhost:22,localhost:2233").unwrap());
    assert!(door.knock(&guest, request(1, 22)).is_ok());
    assert_eq!(
        door.knock(&guest, request(2, 3389)).unwrap_err().to_string(),
        "Connection to localhost:3389 denied based on POLICY --permit-open [localhost:22,localhost:2233]"
    );
    assert!(matches!(door.knock(&guest, request(3, 2233)), Err(Denied::Target { .. })));
    assert!(Guest::manager(&[], &alice).is_none());
}

#[test]
fn the_list_decides_and_says_both_names() {
    let alice = manager("alice");
    let mut door = Door::new(PermitOpen::default());
    assert!(door.knock(&alice, request(1, 22)).is_ok());
    let denied = door.knock(&alice, request(2, 23)).unwrap_err();
    assert_eq!(
        denied.to_string(),
        "Connection to localhost:23 denied based on daemon --permit-open [localhost:22,localhost:3389]"
    );
}

#[test]
fn a_session_id_is_good_once_per_client() {
    let (alice, bob) = (manager("alice"), manager("bob"));
    let mut door = Door::new(PermitOpen::default());
    assert!(door.knock(&alice, request(1, 22)).is_ok());
    assert_eq!(door.knock(&alice, request(1, 22)).unwrap_err(), Denied::Replayed);
    assert!(door.knock(&bob, request(1, 22)).is_ok());
}

const NOW: u64 = 1_800_000_000_000;

/// A client with an identity key, and what it asks.
struct Asking {
    voucher: Voucher,
    text: String,
    identity: Ed25519PrivateKey,
}

static KEY: LazyLock<RsaPrivateKey> = LazyLock::new(|| RsaPrivateKey::generate().unwrap());

impl Asking {
    fn new(at_sign: &str) -> Self {
        Self::speaking_for(at_sign, None)
    }

    fn speaking_for(at_sign: &str, device: Option<&DeviceName>) -> Self {
        let at_sign = AtSign::parse(at_sign).unwrap();
        let identity = Ed25519PrivateKey::generate().unwrap();
        let name = SigningKeyName::new(None, &at_sign).unwrap();
        let text = Voucher::issue(&identity.public_key(), device, &KEY, (&name, &KEY), NOW, 86_400_000).unwrap();
        let expected = Expected { at_sign: &at_sign, device };
        let claim = VoucherClaim::parse(&text).unwrap();
        let voucher = claim.believe(expected, &KEY.public_key().unwrap(), None, NOW).unwrap();
        Self { voucher, text, identity }
    }

    /// What [`SignedRequest::verify`] says at the device `gw-17@device`.
    fn ask(&self, change: impl Fn(&mut Offer)) -> Result<SignedRequest, RequestError> {
        let mut offer = offer();
        change(&mut offer);
        // The session is named by the first byte of what stands for the hello.
        let id = Uuid::from_random([offer.hello[0]; 16]);
        let by = (&self.identity, self.text.as_str());
        let text = Envelope::sign_sealed(&SshRequest::sealed(&id, &offer), &KEY, None, by).unwrap();
        self.verify(&text)
    }

    fn verify(&self, text: &str) -> Result<SignedRequest, RequestError> {
        let (at_sign, device) = (AtSign::parse("device").unwrap(), DeviceName::parse("gw-17").unwrap());
        let envelope = Envelope::parse(text).unwrap();
        SignedRequest::verify::<SshRequest>(&envelope, self.voucher.clone(), &at_sign, &device)
    }

    fn guest(&self) -> Guest {
        manager(self.voucher.at_sign().as_str())
    }

    fn live(&self, epoch: u32) -> LiveSession {
        LiveSession { client: self.voucher.at_sign().clone(), key: *self.voucher.key(), epoch }
    }
}

fn offer() -> Offer {
    Offer {
        hello: vec![1],
        to: AtSign::parse("device").unwrap(),
        device: DeviceName::parse("gw-17").unwrap(),
        issued_ms: NOW,
        expires_ms: NOW + 30_000,
        nonce: postern_crypto::random(),
        epoch: 0,
        resume: Duration::ZERO,
        relays: Vec::new(),
        only: true,
    }
}

fn knock(
    door: &mut Door,
    who: &Asking,
    live: Option<&LiveSession>,
    now: u64,
    change: impl Fn(&mut Offer),
) -> Result<Admitted, Denied> {
    door.knock_sealed(&who.guest(), who.ask(change).unwrap(), 22, live, now)
}

#[test]
fn a_sealed_request_acts_once() {
    let (alice, bob) = (Asking::new("alice"), Asking::new("bob"));
    let mut door = Door::new(PermitOpen::default());
    let signed = alice.ask(|_| ()).unwrap();
    let admitted = door.knock_sealed(&alice.guest(), signed.clone(), 22, None, NOW).unwrap();
    assert_eq!((admitted.voucher(), admitted.request_hash()), (&alice.voucher, signed.hash()));
    // Until its time is over, and then it is too late.
    let end = NOW + 30_000 + CLOCK_TOLERANCE_MS;
    for now in [NOW, NOW + 30_000, end - 1] {
        assert_eq!(door.knock_sealed(&alice.guest(), signed.clone(), 22, None, now).err(), Some(Denied::Replayed));
    }
    let late = door.knock_sealed(&alice.guest(), signed.clone(), 22, None, end).unwrap_err();
    assert_eq!(late, Denied::Expired { seconds: 300 });
    // Somebody else's session may have the same name; another request of the same epoch may not.
    assert!(knock(&mut door, &bob, None, NOW, |_| ()).is_ok());
    assert_eq!(knock(&mut door, &alice, None, NOW, |_| ()).err(), Some(Denied::Replayed));
    // What is over is forgotten; a clock set back does not bring it back.
    assert!(
        knock(&mut door, &alice, None, end, |offer| (offer.hello[0], offer.issued_ms, offer.expires_ms) =
            (7, end, end + 1))
        .is_ok()
    );
    assert_eq!(door.knock_sealed(&alice.guest(), signed, 22, None, NOW).err(), Some(Denied::Replayed));
}

#[test]
fn a_nonce_is_good_once() {
    let alice = Asking::new("alice");
    let mut door = Door::new(PermitOpen::default());
    assert!(knock(&mut door, &alice, None, NOW, |offer| offer.nonce = [1; 16]).is_ok());
    let again = knock(&mut door, &alice, None, NOW, |offer| (offer.nonce, offer.hello[0]) = ([1; 16], 2));
    assert_eq!(again.err(), Some(Denied::Replayed));
}

#[test]
fn a_refused_request_is_remembered_as_well() {
    let alice = Asking::new("alice");
    let mut door = Door::new(PermitOpen::nothing());
    let signed = alice.ask(|_| ()).unwrap();
    let knock = |door: &mut Door| door.knock_sealed(&alice.guest(), signed.clone(), 22, None, NOW).unwrap_err();
    assert!(matches!(knock(&mut door), Denied::Target { .. }));
    assert_eq!(knock(&mut door), Denied::Replayed);
}

#[test]
fn a_session_goes_on_with_its_client_key_and_a_higher_epoch() {
    let (alice, bob, other) = (Asking::new("alice"), Asking::new("bob"), Asking::new("alice"));
    let at = |who: &Asking, live: Option<&LiveSession>, epoch| {
        let mut door = Door::new(PermitOpen::default());
        knock(&mut door, who, live, NOW, |offer| offer.epoch = epoch).err()
    };
    let live = alice.live(2);
    assert_eq!(at(&alice, Some(&live), 3), None);
    assert_eq!(at(&alice, Some(&live), 2), Some(Denied::Replayed));
    assert_eq!(at(&alice, Some(&live), 0), Some(Denied::Live));
    assert_eq!(at(&alice, None, 1), Some(Denied::NoSession));
    assert_eq!(at(&bob, Some(&live), 3), Some(Denied::NoSession), "another client");
    assert_eq!(at(&other, Some(&live), 3), Some(Denied::NoSession), "another enrolment of the client");
}

#[test]
fn clocks_may_differ_by_five_minutes() {
    let alice = Asking::new("alice");
    let at = |now| knock(&mut Door::new(PermitOpen::default()), &alice, None, now, |_| ()).err();
    assert_eq!(at(NOW - CLOCK_TOLERANCE_MS), None);
    let early = at(NOW - CLOCK_TOLERANCE_MS - 2000).unwrap();
    assert!(early.to_string().contains("302 s ahead"), "{early}");
    assert_eq!(early.code(), RefusalCode::Expired);
    assert_eq!(at(NOW + CLOCK_TOLERANCE_MS + 30_000), Some(Denied::Expired { seconds: 300 }));
}

#[test]
fn who_asks_is_who_signed_and_asks_us() {
    let (alice, bob) = (Asking::new("alice"), Asking::new("bob"));
    let mut door = Door::new(PermitOpen::default());
    let signed = alice.ask(|_| ()).unwrap();
    assert_eq!(door.knock_sealed(&bob.guest(), signed, 22, None, NOW).err(), Some(Denied::Identity));
    let gw18 = DeviceName::parse("gw-18").unwrap();
    let other = AtSign::parse("other").unwrap();
    assert_eq!(alice.ask(|offer| offer.device = gw18.clone()).err(), Some(RequestError::OtherDevice));
    assert_eq!(alice.ask(|offer| offer.to = other.clone()).err(), Some(RequestError::OtherDevice));
    let device = Asking::speaking_for("alice", Some(&gw18));
    assert_eq!(device.ask(|_| ()).err(), Some(RequestError::NotAClient));
    // Signed by another key than the voucher's.
    let by = (&bob.identity, alice.text.as_str());
    let id = Uuid::from_random([1; 16]);
    let forged = Envelope::sign_sealed(&SshRequest::sealed(&id, &offer()), &KEY, None, by).unwrap();
    assert_eq!(alice.verify(&forged).err(), Some(RequestError::Statement(StatementError::Signature)));
}

#[test]
fn both_lists_count_at_the_moment_of_dialling() {
    let alice = Asking::new("alice");
    let mut door = Door::new(PermitOpen::parse("localhost:22,db:5432").unwrap());
    let guest = Guest::by_policy(alice.voucher.at_sign(), PermitOpen::parse("localhost:*").unwrap());
    let admitted = door.knock_sealed(&guest, alice.ask(|_| ()).unwrap(), 22, None, NOW).unwrap();
    let guest = admitted.guest();
    assert_eq!((guest.rule(), door.may_reach(guest, &HostPort::localhost(22))), ("policy", Ok(())));
    assert!(matches!(door.may_reach(guest, &HostPort { host: "db".into(), port: 5432 }), Err(Denied::Policy { .. })));
    assert!(matches!(door.may_reach(guest, &HostPort::localhost(23)), Err(Denied::Target { .. })));
}

#[test]
fn a_name_does_not_lead_to_metadata_unless_the_address_is_listed() {
    let guest = manager("alice");
    let open = Door::new(PermitOpen::anything());
    let at = |text: &str| SocketAddr::new(text.parse().unwrap(), 80);
    for special in [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "100.100.100.200",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
    ] {
        assert_eq!(open.may_dial(&guest, at(special)), Err(Denied::Address(special.parse().unwrap())), "{special}");
    }
    for usual in ["127.0.0.1", "::1", "10.0.0.1", "192.168.1.1", "203.0.113.7", "fd00::1", "2001:db8::1"] {
        assert_eq!(open.may_dial(&guest, at(usual)), Ok(()), "{usual}");
    }
    let listed = Door::new(PermitOpen::parse("*:*,169.254.169.254:80,[fe80::1]:*").unwrap());
    assert_eq!(listed.may_dial(&guest, at("169.254.169.254")), Ok(()));
    assert_eq!(listed.may_dial(&guest, at("::ffff:169.254.169.254")), Ok(()));
    assert_eq!(listed.may_dial(&guest, at("fe80::1")), Ok(()));
    assert!(listed.may_dial(&guest, "169.254.169.254:81".parse().unwrap()).is_err());
    let policy = Guest::by_policy(guest.at_sign(), PermitOpen::parse("169.254.169.254:80").unwrap());
    assert_eq!(open.may_dial(&policy, at("169.254.169.254")), Ok(()));
}

#[test]
fn a_full_memory_refuses_and_forgets_nothing() {
    let alice = AtSign::parse("alice").unwrap();
    let id = |n: u8| Uuid::from_random([n; 16]);
    let mut memory = Memory::default();
    let mut admit = |n: usize, now| {
        memory.admit(
            &alice,
            (id(1), u32::try_from(n).unwrap()),
            u128::try_from(n).unwrap().to_be_bytes(),
            NOW + 1000,
            now,
        )
    };
    for n in 0..REMEMBERED_OF_CLIENT {
        assert_eq!(admit(n, NOW), Ok(()));
    }
    assert_eq!(admit(REMEMBERED_OF_CLIENT, NOW), Err(Denied::Full));
    assert_eq!(admit(0, NOW), Err(Denied::Replayed));
    assert_eq!(
        memory.admit(&AtSign::parse("bob").unwrap(), (id(1), 0), [0; 16], NOW + 1000, NOW),
        Ok(()),
        "others are not touched"
    );
    assert_eq!(memory.admit(&alice, (id(1), 1 << 20), [0xff; 16], NOW + 2000, NOW + 1000), Ok(()), "time frees it");
}
