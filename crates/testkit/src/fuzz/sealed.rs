//! What either end of a sealed session is sent.

use postern_crypto::{AeadAlgorithm, Ed25519PrivateKey, RsaPrivateKey};
use postern_identity::{Expected as Vouched, Label, Statement, Voucher, VoucherClaim};
use postern_proto::{SigningKeyName, Uuid};
use postern_seal::{Answer as SealAnswer, Asked, DeviceEnd, Knock, Records};
use postern_session::{
    Admitted, Door, Envelope, Guest, HostKeys, NptRequest, Offer, PermitOpen, Proof, Refused, SealedReply,
    SignedRequest, SshRequest,
};
use postern_streams::{Ask, Event, Side as End, Streams, limits as streams_limits};
use std::sync::LazyLock;
use std::time::Duration;

use super::relay::HALL_GUESTS;
use super::{at_sign, device, same_when_printed};

/// Frames of an end that is in, to the other: the first byte says which end listens, whether it can resume, and how the
/// bytes are cut. What it holds for its programs stays within the windows that it granted.
pub fn stream_frames(bytes: &[u8]) {
    let Some((&how, bytes)) = bytes.split_first() else { return };
    let side = if how & 1 == 0 { End::Client } else { End::Device };
    let resume = Duration::from_secs(u64::from(how & 2) * 30);
    let mut streams = Streams::new(side, resume, Duration::ZERO);
    if how & 4 != 0 {
        streams.preopen();
    }
    let ours = streams.open("localhost:22");
    if how & 8 != 0 && streams.lost(Duration::from_secs(1)) {
        streams.resumed(Duration::from_secs(2));
    }
    let mut held = 0;
    for (piece, now) in bytes.chunks(usize::from(how >> 4) + 1).zip(2_u64..) {
        let now = Duration::from_secs(now);
        let (mut opened, mut came) = (Vec::new(), Vec::new());
        let received = streams.receive(piece, now, &mut |event| match event {
            Event::Opened(id, text) => {
                if let Some(ask) = Ask::parse(text) {
                    assert_eq!(ask.to_string(), text, "what is asked can be written in two ways");
                }
                opened.push(id);
            }
            Event::Data(id, bytes) => came.push((id, bytes.len())),
            _ => {}
        });
        held += came.iter().map(|(_, length)| length).sum::<usize>();
        assert!(held <= streams_limits::CLIENT_WINDOWS, "{held} bytes held");
        if received.is_err() {
            return;
        }
        opened.iter().for_each(|id| assert!(streams.accept(*id)));
        for (id, length) in came {
            streams.consumed(id, length, now);
            held -= length;
        }
        ours.iter().for_each(|id| streams.ready(*id));
        if let Some(turn) = streams.turn() {
            let mut chunk = streams.chunk(turn);
            chunk.room(turn.room).fill(7);
            chunk.fill(turn.room.min(100));
            streams.data(turn.stream, chunk);
        }
        let _ = streams.on_timeout(now);
        while streams.transmit(&mut |_, _| {}) {}
    }
}

/// Bytes from a relay where records are expected: as they are, and as a true record in which one bit is another. Only what
/// the other end said comes out.
pub fn sealed_records(bytes: &[u8]) {
    let (key, back) = ([1; 32], [2; 32]);
    let cipher = if bytes.len().is_multiple_of(2) { AeadAlgorithm::Aes256Gcm } else { AeadAlgorithm::ChaCha20Poly1305 };
    let end = |sealing: &[u8], opening: &[u8]| {
        Records::danger_with_keys(cipher, sealing, opening).expect("keys of 32 bytes are keys")
    };
    let raw = end(&back, &key).read(&mut bytes.to_vec(), &mut |_| panic!("nobody sealed this"));
    assert!(raw.is_err() || raw == Ok(0) || bytes.is_empty());
    let Some((&[high, low, bit], text)) = bytes.split_first_chunk() else { return };
    let (mut one, mut other) = (end(&key, &back), end(&back, &key));
    let mut tls = Vec::new();
    one.write(text, &[], &mut tls).expect("a fresh key seals");
    if tls.is_empty() {
        return;
    }
    let at = usize::from(u16::from_be_bytes([high, low])) % tls.len();
    tls[at] ^= 1 << (bit % 8);
    let mut said = Vec::new();
    let outcome = other.read(&mut tls, &mut |plain| said.extend_from_slice(plain));
    // Version bytes are covered by the tag as everything else is; a longer length waits for what never comes.
    assert!(outcome.is_err() || outcome.is_ok_and(|taken| taken < tls.len()), "a changed record was taken");
    assert!(text.starts_with(&said), "something came out that was not said");
}

/// What is said in and around sealed sessions: an offer within its bounds prints as the same offer; refusals, replies and
/// proofs print as themselves.
pub fn sealed_words(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = VoucherClaim::parse(text);
    if let Ok(statement) = Statement::parse(text) {
        let (_, _) = (statement.voucher().is_ok(), statement.hash());
    }
    if let Ok(request) = serde_json::from_str::<NptRequest>(text)
        && let Some(Ok(sealed)) = request.sealed_request()
    {
        assert_eq!(sealed.offer.to_wire().check(), Ok(sealed.offer.clone()));
        assert!(request.check().is_none(), "a sealed request became a session of 2024");
    }
    if let Ok(request) = serde_json::from_str::<SshRequest>(text)
        && request.sealed_request().is_some()
    {
        assert!(request.check(22).is_none(), "a sealed request became a session of 2024");
    }
    same_when_printed::<Refused>(text);
    same_when_printed::<SealedReply>(text);
    same_when_printed::<Proof>(text);
    same_when_printed::<HostKeys>(text);
    // Also where the device itself signed it: each key is one line of a file of known hosts.
    let (key, _, voucher) = &HALL_GUESTS[2];
    let signed = format!(r#"{{"payload":{text},"s":"{}"}}"#, Label::HostKeys.sign(text, key));
    if let Ok(statement) = Statement::parse(&signed)
        && let Ok(keys) = HostKeys::verify(&statement, voucher, 0)
    {
        assert!(keys.iter().all(|key| !key.to_string().contains(['\n', '\r'])), "a key became two lines");
    }
}

/// An admitted request and the device's key: made once, for they cost what RSA costs.
static ADMITTED: LazyLock<(Admitted, Ed25519PrivateKey)> = LazyLock::new(|| {
    let key = RsaPrivateKey::generate().expect("keys can be made");
    let identity = Ed25519PrivateKey::generate().expect("keys can be made");
    let (client, to) = (at_sign("client"), at_sign("device"));
    let name = SigningKeyName::new(None, &client).expect("the first enrolment has a name");
    let issued = Voucher::issue(&identity.public_key(), None, &key, (&name, &key), 0, 1000);
    let text = issued.expect("the key signs");
    let public = key.public_key().expect("it has one");
    let claim = VoucherClaim::parse(&text).expect("it was printed");
    let voucher = claim.believe(Vouched { at_sign: &client, device: None }, &public, None, 0).expect("it is true");
    let (_, hello) = Knock::new().expect("there is randomness");
    let device = device();
    let offer = Offer {
        hello,
        to: to.clone(),
        device: device.clone(),
        issued_ms: 0,
        expires_ms: 1000,
        nonce: [0; 16],
        epoch: 0,
        resume: Duration::ZERO,
        relays: Vec::new(),
        only: true,
    };
    let request = NptRequest::sealed(&Uuid::from_random([1; 16]), &offer, None);
    let signed = Envelope::sign_sealed(&request, &key, None, (&identity, &text)).expect("the key signs");
    let envelope = Envelope::parse(&signed).expect("it was printed");
    let signed = SignedRequest::verify::<NptRequest>(&envelope, voucher, &to, &device).expect("it is true");
    let guest = Guest::by_policy(&client, PermitOpen::nothing());
    let admitted = Door::new(PermitOpen::nothing()).knock_sealed(&guest, signed, 22, None, 0).expect("it is new");
    (admitted, identity)
});

/// Bytes from a relay where a handshake is expected, at either end, at once and byte by byte: nobody is believed and nothing
/// comes out.
pub fn sealed_handshake(bytes: &[u8]) {
    let (admitted, identity) = &*ADMITTED;
    let (own, device) = (at_sign("device"), device());
    for piece in [bytes.len().max(1), 1] {
        let answer = SealAnswer {
            at_sign: &own,
            device: &device,
            identity,
            voucher: "{}",
            resume: Duration::ZERO,
            ssh_host_keys: &[],
            now_ms: 0,
        };
        let mut end = DeviceEnd::accept(admitted, &answer).expect("the hello is ours");
        let mut waiting = Vec::new();
        for piece in bytes.chunks(piece) {
            waiting.extend_from_slice(piece);
            match end.read(&mut waiting, &mut |_| panic!("something was heard")) {
                Ok(taken) => drop(waiting.drain(..taken)),
                Err(_) => break,
            }
            assert!(!end.proven());
        }
        let (knock, _) = Knock::new().expect("there is randomness");
        let asked = Asked {
            request: [0; 32],
            session_id: Uuid::from_random([1; 16]),
            epoch: 0,
            at_sign: own.clone(),
            device: device.clone(),
            own: at_sign("client"),
        };
        let (mut client, mut waiting) = (knock.asked(asked), Vec::new());
        for piece in bytes.chunks(piece) {
            waiting.extend_from_slice(piece);
            match client.read(&waiting) {
                Ok(taken) => drop(waiting.drain(..taken)),
                Err(_) => break,
            }
            assert!(client.reply().is_none());
        }
    }
}
