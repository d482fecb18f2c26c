//! What a relay and its guests are sent.

use postern_crypto::{AesKey, Ed25519PrivateKey, Iv, RsaPrivateKey, encode_base64};
use postern_identity::{Expected as Vouched, Voucher, VoucherClaim};
use postern_proto::{AtSign, SigningKeyName, Uuid};
use postern_rendezvous::hints::{DiscoverRequest, Discovered, Latencies, ModesHint, RelayMap};
use postern_rendezvous::{
    AdvertisedKeys, AuthLine, Challenge, EscrLine, EscrParties, Expected, Hall, HallAction, HallRules, Refusal,
    RelayPlace, RelayRecord, RelayReply, RelayRequest, Side, SocketId, Ticket, TicketClaim, TicketTo,
};
use postern_session::DeviceName;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::Instant;

use super::{at_sign, device};

/// A client's request to a relay.
pub fn relay_request(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(request) = RelayRequest::parse(text) else { return };
    let printed = request.print();
    assert!(RelayRequest::parse(&printed) == Ok(request), "{}", *printed);
}

/// A relay's reply, in both forms.
pub fn relay_reply(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(reply) = RelayReply::parse(text) else { return };
    let json = reply.print_json();
    assert_eq!(RelayReply::parse(&json).as_ref(), Ok(&reply), "{json}");
    let csv = reply.print_csv();
    let Ok(again) = RelayReply::parse(&csv) else { panic!("not understood when printed: {csv}") };
    // Space around a nonce is lost between commas.
    let trimmed = |nonce: Option<String>| nonce.map(|nonce| nonce.trim().to_owned());
    assert_eq!((again.host, trimmed(again.nonce)), (reply.host, trimmed(reply.nonce)));
}

/// The line that opens a relay socket. No line of a stranger is let in: the signature never holds.
pub fn relay_auth_line(bytes: &[u8]) {
    let expected = Expected { session_id: "s".into(), client_nonce: "c".into(), rvd_nonce: "r".into() };
    // What is put to the check is our own text, whatever the line looks like.
    let own = AuthLine::new("s", "c", "r");
    let outcome = expected.check(bytes, |signed, _, _| {
        assert_eq!(signed, own.signed_text());
        false
    });
    assert!(outcome.is_err());
}

/// An answer to a relay's challenge: as it is, and as what lies under the seal, which only client and device can write.
/// Nobody is let in: the key that would prove it is in no record.
pub fn relay_challenge(bytes: &[u8]) {
    let session_id = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
    let key = AesKey::from_bytes([7; 32]);
    let owner = || AtSign::parse("x").expect("a letter is a name");
    let parties = EscrParties { session_id: session_id.into(), client: owner(), device: owner() };
    let challenge = Challenge::new([0; 32]);
    let try_to_enter = |line: &[u8]| {
        let Ok(line) = EscrLine::parse(line) else { return };
        if let Ok(claim) = line.open(&key, &challenge, &parties, None) {
            assert_eq!(claim.name().owner(), &owner());
            let nobodys = AdvertisedKeys::parse("[{\"alg\":\"none\"}]").expect("a list of a key");
            assert!(claim.verify(&nobodys).is_err());
        }
    };
    try_to_enter(bytes);
    let Ok(sealed) = key.encrypt_text(Iv::ZERO, &encode_base64(bytes)) else { return };
    let sealed = format!(r#"{{"iv":"{}","e":"{sealed}"}}"#, Iv::ZERO.to_base64());
    try_to_enter(format!("{session_id}:{}\n", encode_base64(sealed.as_bytes())).as_bytes());
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = AdvertisedKeys::parse(text);
        if let Some(challenge) = Challenge::parse(text) {
            assert_eq!(challenge.as_str().len(), Challenge::CHARS);
        }
    }
}

/// The small messages around a session. What is understood prints as something that is understood the same way.
pub fn relay_hints(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(hint) = ModesHint::parse(text) {
        assert_eq!(ModesHint::parse(&hint.print()), Some(hint));
    }
    if let Some(question) = DiscoverRequest::parse(text) {
        let _ = question.answer("relay.example", None);
    }
    if let Some(found) = Discovered::parse(text) {
        assert_eq!(Discovered::parse(&found.print()), Some(found));
    }
    if let Some(map) = RelayMap::parse(text) {
        assert_eq!(RelayMap::parse(&map.print()), Some(map));
    }
    if let Some(latencies) = Latencies::parse(text) {
        assert!(Latencies::parse(&latencies.print()).is_some());
    }
}

/// What a guest shows at a relay, as a line and as what is in it; a relay's refusal and its record. Nobody is let in by a
/// ticket of which no key is known.
pub fn relay_ticket(bytes: &[u8]) {
    let relay = AtSign::parse("r").expect("a letter is a name");
    let line = [b"ticket:", encode_base64(bytes).as_bytes()].concat();
    for line in [bytes, &line] {
        let Ok(claim) = TicketClaim::parse(line) else { continue };
        let _ = claim.check(&relay, claim.to().epoch.into());
        assert!(claim.to().signer() != claim.to().other() || claim.to().client == claim.to().device);
    }
    if let Some(refusal) = Refusal::parse(bytes) {
        assert_eq!(Refusal::parse(refusal.line().as_bytes()), Some(refusal));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(record) = RelayRecord::parse(text) {
        assert_eq!(RelayRecord::parse(&record.print()), Some(record));
    }
    if let Ok(place) = serde_json::from_str::<RelayPlace>(text) {
        let printed = serde_json::to_string(&place).expect("strings are always JSON");
        assert_eq!(serde_json::from_str::<RelayPlace>(&printed).ok(), Some(place), "{printed}");
    }
}

/// The relay's hall: guests with tickets come, go, wait too long, in any order. A byte is a deed: what, which session, which
/// side, which epoch. Only guests of the same session and epoch are joined, nobody is joined twice, nobody stays for ever.
pub fn relay_hall(bytes: &[u8]) {
    let rules =
        HallRules { sessions: 4, sessions_per_atsign: 3, devices_waiting: 2, remembered: 64, ..HallRules::default() };
    let (mut hall, mut now) = (Hall::new(rules), Instant::now());
    let end = now + rules.wait * 1000;
    let mut guests: Vec<(u8, u32, Side, bool)> = Vec::new();
    let (mut last, mut pairs) = (None, BTreeSet::new());
    // A long story tells nothing that a short one does not, and each ticket is signed and checked.
    if bytes.len() > 64 {
        return;
    }
    for (number, byte) in bytes.iter().enumerate() {
        let (deed, session, side, epoch) = (byte >> 5, byte & 3, (byte >> 2) & 1, u32::from((byte >> 3) & 3));
        let id = SocketId(guests.len() as u64);
        match deed {
            0..=3 => {
                let side = if side == 0 { Side::A } else { Side::B };
                let other = deed == 3;
                let ticket = if deed == 2 { last } else { Some((session, epoch, side, other, number)) };
                last = ticket;
                let Some((session, epoch, side, other, number)) = ticket else { continue };
                guests.push((session, epoch, side, false));
                hall.arrive(id, &hall_ticket(session, epoch, side, other, number), now, 0);
            }
            4 => hall.gone(SocketId(u64::from(byte & 0x1f))),
            5 => {
                let a = u64::from(byte & 0x1f);
                hall.ended(SocketId(a));
                pairs.remove(&a);
            }
            6 => {
                now += rules.wait / 3;
                hall.handle_timeout(now);
            }
            _ if byte & 0x1f == 0x1f => hall.stop(),
            _ => {}
        }
        hall_acts(&mut hall, &mut guests, &mut pairs);
        let (joined, waiting) = hall.sessions();
        assert!(joined + waiting <= rules.sessions && joined == pairs.len(), "{joined} {waiting} {pairs:?}");
    }
    hall.handle_timeout(end);
    hall_acts(&mut hall, &mut guests, &mut pairs);
    assert_eq!((hall.sessions().1, hall.poll_timeout()), (0, None), "somebody waits for ever");
}

/// Does what the hall says.
fn hall_acts(hall: &mut Hall, guests: &mut [(u8, u32, Side, bool)], pairs: &mut BTreeSet<u64>) {
    let index = |id: SocketId| usize::try_from(id.0).expect("an index of ours");
    while let Some(action) = hall.next_action() {
        match action {
            HallAction::Join { a, b } => {
                let (left, right) = (guests[index(a)], guests[index(b)]);
                assert!(left.0 == right.0 && left.1 == right.1, "joined with somebody else: {left:?} {right:?}");
                assert!(left.2 == Side::A && right.2 == Side::B && !left.3 && !right.3, "{left:?} {right:?}");
                (guests[index(a)].3, guests[index(b)].3) = (true, true);
                assert!(pairs.insert(a.0));
            }
            HallAction::Refuse { id, .. } => assert!(!guests[index(id)].3, "a live session is refused"),
            HallAction::Cut { a } => assert!(pairs.remove(&a.0), "nothing was joined there"),
        }
    }
}

/// A ticket that is believed. `other`: by another identity key of the same atSign. `number`: makes it one of its kind.
fn hall_ticket(session: u8, epoch: u32, side: Side, other: bool, number: usize) -> Ticket {
    let relay = at_sign("r");
    let (client, device) = (at_sign("client"), at_sign("device"));
    let to = TicketTo { relay: relay.clone(), session: Uuid::from_random([session; 16]), epoch, side, client, device };
    let (key, text, voucher) = &HALL_GUESTS[usize::from(side == Side::B) * 2 + usize::from(other)];
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&(number as u64).to_be_bytes());
    let line = Ticket::make(&to, key, text, 0, nonce);
    let claim = TicketClaim::parse(line.as_bytes()).expect("a ticket of ours");
    claim.verify(voucher, &relay, 0).expect("a ticket of ours is good")
}

/// Two identities of the client, two of the device.
pub(super) static HALL_GUESTS: LazyLock<Vec<(Ed25519PrivateKey, String, Voucher)>> = LazyLock::new(|| {
    let rsa = RsaPrivateKey::generate().expect("there is randomness");
    let public = rsa.public_key().expect("a key of ours");
    let guest = |name: &str, device: Option<&DeviceName>| {
        let (at_sign, key) = (at_sign(name), Ed25519PrivateKey::generate().expect("there is randomness"));
        let signer = SigningKeyName::new(None, &at_sign).expect("a name of ours");
        let text = Voucher::issue(&key.public_key(), device, &rsa, (&signer, &rsa), 0, 1000).expect("a key of ours");
        let claim = VoucherClaim::parse(&text).expect("a voucher of ours");
        let believed = claim.believe(Vouched { at_sign: &at_sign, device }, &public, None, 0);
        (key, text, believed.expect("a voucher of ours is believed"))
    };
    let name = device();
    vec![guest("client", None), guest("client", None), guest("device", Some(&name)), guest("device", Some(&name))]
});
