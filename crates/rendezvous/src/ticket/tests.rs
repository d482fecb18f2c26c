use std::sync::LazyLock;

use postern_crypto::RsaPrivateKey;
use postern_identity::DeviceName;
use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000_000;
const DAY: u64 = 86_400_000;

/// The keys of an atSign and of its enrolment, an identity key, and its voucher.
struct Guest {
    encryption: RsaPublicKey,
    record: String,
    identity: Ed25519PrivateKey,
    voucher: String,
}

impl Guest {
    fn new(name: &str, device: Option<&str>) -> Self {
        let [encryption, enrolled] = [(); 2].map(|()| RsaPrivateKey::generate().unwrap());
        let identity = Ed25519PrivateKey::generate().unwrap();
        let name = SigningKeyName::new(Some("6f9619ff-8b86-4d01-b42d-00cf4fc964ff"), &at(name)).unwrap();
        let device = device.map(|device| DeviceName::parse(device).unwrap());
        let key = identity.public_key();
        let voucher = Voucher::issue(&key, device.as_ref(), &encryption, (&name, &enrolled), NOW, 365 * DAY).unwrap();
        let record = enrolled.public_key().unwrap().to_base64();
        Self { encryption: encryption.public_key().unwrap(), record, identity, voucher }
    }

    fn line(&self, to: &TicketTo) -> String {
        Ticket::make(to, &self.identity, &self.voucher, NOW, [7; 16])
    }

    fn present(&self, line: &str, now: u64) -> Result<Ticket, Refusal> {
        let claim = TicketClaim::parse(line.as_bytes())?;
        claim.check(&at("r"), now)?;
        let voucher = claim.believe(&self.encryption, &self.record, now)?;
        claim.verify(&voucher, &at("r"), now)
    }
}

static CLIENT: LazyLock<Guest> = LazyLock::new(|| Guest::new("client", None));
static DEVICE: LazyLock<Guest> = LazyLock::new(|| Guest::new("device", Some("gw-17")));

fn at(name: &str) -> AtSign {
    AtSign::parse(name).unwrap()
}

fn to(side: Side) -> TicketTo {
    TicketTo {
        relay: at("r"),
        session: Uuid::parse("6f9619ff-8b86-4d01-b42d-00cf4fc964ff").unwrap(),
        epoch: 3,
        side,
        client: at("client"),
        device: at("device"),
    }
}

fn code<T>(outcome: Result<T, Refusal>) -> RefusalCode {
    outcome.map(drop).expect_err("refused").code
}

fn json(line: &str) -> String {
    String::from_utf8(Base64::decode_vec(line.trim().strip_prefix(PREFIX).unwrap()).unwrap()).unwrap()
}

fn line_of(json: &str) -> String {
    format!("{PREFIX}{}\n", encode_base64(json.as_bytes()))
}

#[test]
fn made_shown_and_believed() {
    for (guest, side) in [(&CLIENT, Side::A), (&DEVICE, Side::B)] {
        let line = guest.line(&to(side));
        assert!(line.len() < AUTH_LINE_BYTES * 3 / 4, "{}", line.len());
        let ticket = guest.present(&line, NOW).unwrap();
        assert_eq!((ticket.to(), ticket.key()), (&to(side), &guest.identity.public_key()));
        assert_eq!(ticket.mark(), guest.present(&line, NOW + 1).unwrap().mark());
        let other = Ticket::make(&to(side), &guest.identity, &guest.voucher, NOW, [8; 16]);
        assert_ne!(ticket.mark().hash, guest.present(&other, NOW).unwrap().mark().hash);
    }
}

#[test]
fn the_wire_form_is_pinned() {
    let text = json(&CLIENT.line(&to(Side::A)));
    let expected = concat!(
        r#"{"payload":{"v":1,"relay":"@r","sessionId":"6f9619ff-8b86-4d01-b42d-00cf4fc964ff","epoch":3,"side":"a","#,
        r#""atSignA":"@client","atSignB":"@device","iat":1800000000000,"exp":1800000060000,"#,
        r#""nonce":"BwcHBwcHBwcHBwcHBwcHBw=="},"s":""#
    );
    assert!(text.starts_with(expected), "{text}");
    assert!(text.ends_with(&format!(r#","voucher":{}}}"#, CLIENT.voucher)), "{text}");
}

#[test]
fn nobody_speaks_for_the_other_side() {
    // The client's voucher on the device's side, and the other way; another atSign's on either.
    assert_eq!(code(CLIENT.present(&CLIENT.line(&to(Side::B)), NOW)), RefusalCode::BadTicket);
    assert_eq!(code(DEVICE.present(&DEVICE.line(&to(Side::A)), NOW)), RefusalCode::BadTicket);
    let stolen = Ticket::make(&to(Side::A), &DEVICE.identity, &CLIENT.voucher, NOW, [7; 16]);
    assert_eq!(code(CLIENT.present(&stolen, NOW)), RefusalCode::BadTicket);
    // A device of the client's atSign is not the client.
    let device = Guest::new("client", Some("gw-1"));
    assert_eq!(code(device.present(&device.line(&to(Side::A)), NOW)), RefusalCode::BadTicket);
    // Another atSign's keys behind the right name.
    let mallory = Guest::new("client", None);
    let claim = TicketClaim::parse(mallory.line(&to(Side::A)).as_bytes()).unwrap();
    assert_eq!(code(claim.believe(&CLIENT.encryption, &CLIENT.record, NOW)), RefusalCode::UnknownKey);
    assert_eq!(code(claim.believe(&mallory.encryption, &CLIENT.record, NOW)), RefusalCode::UnknownKey);
    // A voucher that is believed, and of somebody else.
    let voucher = claim.believe(&mallory.encryption, &mallory.record, NOW).unwrap();
    let claim = TicketClaim::parse(DEVICE.line(&to(Side::B)).as_bytes()).unwrap();
    assert_eq!(code(claim.verify(&voucher, &at("r"), NOW)), RefusalCode::BadTicket);
}

#[test]
fn for_one_relay_and_for_a_minute() {
    let elsewhere = CLIENT.line(&TicketTo { relay: at("r2"), ..to(Side::A) });
    assert_eq!(code(CLIENT.present(&elsewhere, NOW)), RefusalCode::BadTicket);
    let line = CLIENT.line(&to(Side::A));
    for (now, good) in [
        (NOW - CLOCK_TOLERANCE_MS - 1, false),
        (NOW - CLOCK_TOLERANCE_MS, true),
        (NOW + TICKET_LIFE_MS + CLOCK_TOLERANCE_MS - 1, true),
        (NOW + TICKET_LIFE_MS + CLOCK_TOLERANCE_MS, false),
    ] {
        assert_eq!(CLIENT.present(&line, now).is_ok(), good, "{now}");
    }
    let longer = line_of(&json(&line).replace("1800000060000", "1800000060001"));
    assert_eq!(code(CLIENT.present(&longer, NOW)), RefusalCode::BadTicket);
}

#[test]
fn every_changed_word_is_refused() {
    let text = json(&CLIENT.line(&to(Side::A)));
    for (from, into) in [
        (r#""epoch":3"#, r#""epoch":4"#),
        (r#""epoch":3"#, r#""epoch":-1"#),
        ("6f9619ff", "7f9619ff"),
        ("@device", "@other"),
        ("BwcH", "CwcH"),
        ("1800000060000", "1800000059999"),
        (r#""v":1"#, r#""v":2"#),
        (r#","voucher""#, r#","voucher2""#),
        (r#""side":"a""#, r#""side":"a","side":"a""#),
        (r#""side":"a""#, r#""side":"c""#),
        (r#""nonce":"BwcHBwcHBwcHBwcHBwcHBw==""#, r#""nonce":"BwcH""#),
    ] {
        let changed = text.replacen(from, into, 1);
        assert_ne!(changed, text);
        assert_eq!(code(CLIENT.present(&line_of(&changed), NOW)), RefusalCode::BadTicket, "{from} {into}");
    }
    for nonsense in ["", "ticket", "ticket:", "ticket:!!!!", "ticket:e30=", "ticket:W10=", "SSH-2.0-x"] {
        assert_eq!(code(TicketClaim::parse(nonsense.as_bytes())), RefusalCode::BadTicket, "{nonsense}");
    }
    let long = vec![b'A'; AUTH_LINE_BYTES + 1];
    assert_eq!(code(TicketClaim::parse(&long)), RefusalCode::BadTicket);
}

proptest! {
    #[test]
    fn what_is_made_is_read(session: [u8; 16], epoch: u32, nonce: [u8; 16], device_side: bool) {
        let side = if device_side { Side::B } else { Side::A };
        let guest = if device_side { &DEVICE } else { &CLIENT };
        let to = TicketTo { session: Uuid::from_random(session), epoch, ..to(side) };
        let line = Ticket::make(&to, &guest.identity, &guest.voucher, NOW, nonce);
        let ticket = guest.present(&line, NOW).unwrap();
        prop_assert_eq!(ticket.to(), &to);
    }

    #[test]
    fn a_changed_byte_opens_nothing_else(at in 0_usize..2000, flip in 1_u8..=255) {
        let line = CLIENT.line(&to(Side::A));
        let mut text = json(&line).into_bytes();
        let at = at % text.len();
        text[at] ^= flip;
        if let Ok(ticket) = CLIENT.present(&line_of(&String::from_utf8_lossy(&text)), NOW) {
            // Not a byte of the payload: the voucher's two signatures are looked at in full.
            prop_assert_eq!(ticket.to(), &to(Side::A));
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(TicketClaim::parse(&bytes).is_err());
        let line = [PREFIX.as_bytes(), encode_base64(&bytes).as_bytes()].concat();
        prop_assert!(TicketClaim::parse(&line).is_err());
    }
}
