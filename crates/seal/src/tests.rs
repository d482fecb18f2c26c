//! Both ends, and somebody between them who may do anything.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use postern_crypto::{Ed25519PrivateKey, RsaPrivateKey};
use postern_identity::limits::CLOCK_TOLERANCE_MS;
use postern_identity::{
    DeviceName, Envelope, Expected, Label, Statement, StatementError, Voucher, VoucherClaim, limits,
};
use postern_proto::{AtSign, SigningKeyName, Uuid};
use postern_session::{Admitted, Door, Guest, NptRequest, Offer, PermitOpen, Proof, SignedRequest};
use rustls::ServerConnection;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

use crate::client::{Asked, ClientEnd, Knock, Waiting};
use crate::device::{Answer, DeviceEnd, say, server_config};
use crate::error::SealError;
use crate::tls::{drain, feed, provider, statement_frame};

const NOW: u64 = 1_800_000_000_000;
const HOST_KEY: &str = "ssh-ed25519 AAAA";

/// Somebody with an identity key.
struct Party {
    at_sign: AtSign,
    device: Option<DeviceName>,
    identity: Ed25519PrivateKey,
    text: String,
    voucher: Voucher,
}

impl Party {
    fn new(at_sign: &str, device: Option<&str>) -> Self {
        static KEY: LazyLock<RsaPrivateKey> = LazyLock::new(|| RsaPrivateKey::generate().unwrap());
        let at_sign = AtSign::parse(at_sign).unwrap();
        let device = device.map(|name| DeviceName::parse(name).unwrap());
        let identity = Ed25519PrivateKey::generate().unwrap();
        let name = SigningKeyName::new(None, &at_sign).unwrap();
        let key = identity.public_key();
        let life = limits::VOUCHER_LIFE_MS;
        let text = Voucher::issue(&key, device.as_ref(), &KEY, (&name, &KEY), NOW, life).unwrap();
        let expected = Expected { at_sign: &at_sign, device: device.as_ref() };
        let claim = VoucherClaim::parse(&text).unwrap();
        let voucher = claim.believe(expected, &KEY.public_key().unwrap(), None, NOW).unwrap();
        Self { at_sign, device, identity, text, voucher }
    }

    fn device(&self) -> &DeviceName {
        self.device.as_ref().unwrap()
    }
}

struct Scene {
    client: Party,
    device: Party,
}

static SCENE: LazyLock<Scene> =
    LazyLock::new(|| Scene { client: Party::new("alice", None), device: Party::new("device", Some("gw-17")) });
static ENVELOPE_KEY: LazyLock<RsaPrivateKey> = LazyLock::new(|| RsaPrivateKey::generate().unwrap());

impl Scene {
    /// A request that the device has admitted, and the client that waits for the answer.
    fn ask(&self) -> (Waiting, Admitted) {
        self.ask_with(provider())
    }

    fn ask_with(&self, provider: Arc<CryptoProvider>) -> (Waiting, Admitted) {
        let (knock, hello) = Knock::with_provider(provider).unwrap();
        let session_id = Uuid::from_random(postern_crypto::random());
        let offer = Offer {
            hello,
            to: self.device.at_sign.clone(),
            device: self.device.device().clone(),
            issued_ms: NOW,
            expires_ms: NOW + 30_000,
            nonce: postern_crypto::random(),
            epoch: 0,
            resume: Duration::from_secs(600),
            relays: Vec::new(),
            only: true,
        };
        let request = NptRequest::sealed(&session_id, &offer, None);
        let by = (&self.client.identity, self.client.text.as_str());
        let envelope = Envelope::parse(&Envelope::sign_sealed(&request, &ENVELOPE_KEY, None, by).unwrap()).unwrap();
        let asked = Asked {
            request: envelope.payload_hash(),
            session_id,
            epoch: 0,
            at_sign: self.device.at_sign.clone(),
            device: self.device.device().clone(),
            own: self.client.at_sign.clone(),
        };
        let (voucher, at_sign) = (self.client.voucher.clone(), &self.device.at_sign);
        let signed = SignedRequest::verify::<NptRequest>(&envelope, voucher, at_sign, self.device.device()).unwrap();
        let guest = Guest::manager(std::slice::from_ref(&self.client.at_sign), &self.client.at_sign).unwrap();
        let mut door = Door::new(PermitOpen::default());
        (knock.asked(asked), door.knock_sealed(&guest, signed, 22, None, NOW).unwrap())
    }

    fn accept(&self, admitted: &Admitted) -> DeviceEnd {
        self.answer_as(&self.device, admitted, NOW)
    }

    fn answer_as(&self, device: &Party, admitted: &Admitted, now_ms: u64) -> DeviceEnd {
        let answer = Answer {
            at_sign: &device.at_sign,
            device: device.device(),
            identity: &device.identity,
            voucher: &device.text,
            resume: Duration::from_secs(300),
            ssh_host_keys: &[HOST_KEY.to_owned()],
            now_ms,
        };
        DeviceEnd::accept(admitted, &answer).unwrap()
    }

    fn open(&self, waiting: Waiting) -> Result<ClientEnd, SealError> {
        waiting.open(&self.device.voucher, &self.client.identity, NOW)
    }

    /// Both ends, and the client's first flight, which has not arrived.
    fn met(&self) -> (ClientEnd, DeviceEnd, Vec<u8>) {
        let (mut waiting, admitted) = self.ask();
        let mut device = self.accept(&admitted);
        let flight = flight(&mut device);
        assert_eq!(waiting.read(&flight), Ok(flight.len()));
        let mut client = self.open(waiting).unwrap();
        let mut tls = Vec::new();
        client.flush(&mut tls);
        (client, device, tls)
    }
}

fn flight(device: &mut DeviceEnd) -> Vec<u8> {
    let mut tls = Vec::new();
    device.flush(&mut tls);
    tls
}

/// What a device hands out of these bytes, offered until it takes no more.
fn hear(device: &mut DeviceEnd, tls: &[u8]) -> (Result<(), SealError>, Vec<u8>) {
    let (mut tls, mut plain) = (tls.to_vec(), Vec::new());
    loop {
        match device.read(&mut tls, &mut |part| plain.extend_from_slice(part)) {
            Ok(0) => return (Ok(()), plain),
            Ok(taken) => drop(tls.drain(..taken)),
            Err(error) => return (Err(error), plain),
        }
    }
}

/// Places that TLS neither protects nor uses: versions in record headers, and the empty word for middle boxes.
fn counts_for_nothing(tls: &[u8], place: usize) -> bool {
    let mut start = 0;
    loop {
        let length = usize::from(u16::from_be_bytes([tls[start + 3], tls[start + 4]]));
        if place < start + 5 + length {
            return matches!(place - start, 1 | 2) || tls[start] == 20;
        }
        start += 5 + length;
    }
}

#[test]
fn two_ends_meet_in_one_round_trip_and_talk() {
    let (mut waiting, admitted) = SCENE.ask();
    let mut device = SCENE.accept(&admitted);
    let mut first = flight(&mut device);
    let flight_end = first.len();
    device.write(b"SSH-2.0", b"-device\r\n", &mut first).unwrap();
    // It arrives in pieces of any size.
    let (mut at, mut end) = (0, 0);
    while waiting.reply().is_none() {
        end += 100;
        at += waiting.read(&first[at..end.min(first.len())]).unwrap();
    }
    assert_eq!(at, flight_end, "what lies behind the reply is left for the open end");
    assert_eq!(waiting.reply().unwrap().voucher().unwrap().at_sign(), &SCENE.device.at_sign);
    let mut client = SCENE.open(waiting).unwrap();
    assert_eq!(client.reply().ssh_host_keys, [HOST_KEY]);
    assert_eq!(client.resume(), Duration::from_secs(300));
    assert_eq!((client.facts(), client.facts().key_exchange), (device.facts(), "X25519MLKEM768"));
    let mut heard = Vec::new();
    client.read(&mut first[at..], &mut |part| heard.extend_from_slice(part)).unwrap();
    assert_eq!(heard, b"SSH-2.0-device\r\n");

    assert!(!device.proven());
    let mut tls = Vec::new();
    client.write(b"hello ", b"device", &mut tls).unwrap();
    client.close(&mut tls);
    // In small pieces, too.
    let (mut rest, mut plain) = (Vec::new(), Vec::new());
    for byte in tls {
        rest.push(byte);
        let taken = device.read(&mut rest, &mut |part| plain.extend_from_slice(part)).unwrap();
        rest.drain(..taken);
        assert!(plain.is_empty() || device.proven());
    }
    assert_eq!(plain, b"hello device");
    assert!(device.proven() && device.closed() && !client.closed());
    let mut tls = Vec::new();
    device.write(b"", &[7; 100_000], &mut tls).unwrap();
    device.close(&mut tls);
    let mut got = 0;
    client.read(&mut tls, &mut |part| got += part.len()).unwrap();
    assert!(got == 100_000 && client.closed());
}

/// Every byte of the device's flight and reply, changed: the client never opens.
#[test]
fn a_bit_flipped_in_the_devices_flight_ends_it() {
    let mut place = 0;
    loop {
        let (mut waiting, admitted) = SCENE.ask();
        let mut tls = flight(&mut SCENE.accept(&admitted));
        if place >= tls.len() {
            break;
        }
        let nothing = counts_for_nothing(&tls, place);
        tls[place] ^= 1 << (place % 8);
        let opened = match waiting.read(&tls) {
            Ok(_) if waiting.reply().is_some() => SCENE.open(waiting).is_ok(),
            _ => false,
        };
        assert!(!opened || nothing, "byte {place}");
        place += 3;
    }
    assert!(place > 1500, "the flight was looked at");
}

/// The same for Finished and proof: the device hands out nothing of what follows.
#[test]
fn a_bit_flipped_in_the_clients_flight_ends_it() {
    let mut place = 0;
    loop {
        let (mut client, mut device, mut tls) = SCENE.met();
        if place >= tls.len() {
            break;
        }
        let nothing = counts_for_nothing(&tls, place);
        tls[place] ^= 1 << (place % 8);
        client.write(b"rm -rf", b"", &mut tls).unwrap();
        let (_, plain) = hear(&mut device, &tls);
        assert!((plain.is_empty() && !device.proven()) || nothing, "byte {place}");
        place += 1;
    }
    assert!(place > 200, "the flight was looked at");
}

#[test]
fn a_flight_that_is_cut_is_no_answer() {
    let (_, admitted) = SCENE.ask();
    let whole = flight(&mut SCENE.accept(&admitted)).len();
    for cut in (0..whole).step_by(97) {
        let (mut waiting, admitted) = SCENE.ask();
        let tls = flight(&mut SCENE.accept(&admitted));
        assert!(waiting.read(&tls[..cut.min(tls.len() - 1)]).is_ok() && waiting.reply().is_none());
        assert_eq!(SCENE.open(waiting).err(), Some(SealError::NoStatement));
    }
}

#[test]
fn a_reply_is_good_for_its_request_session_epoch_client_and_device_alone() {
    let expect = |change: &dyn Fn(&mut Asked), wanted: &dyn Fn(&SealError) -> bool| {
        let (mut waiting, admitted) = SCENE.ask();
        let tls = flight(&mut SCENE.accept(&admitted));
        waiting.read(&tls).unwrap();
        change(waiting.asked_mut());
        let error = SCENE.open(waiting).unwrap_err();
        assert!(wanted(&error), "{error}");
    };
    expect(&|asked| asked.request[0] ^= 1, &|e| *e == SealError::OtherRequest);
    expect(&|asked| asked.session_id = Uuid::from_random([9; 16]), &|e| *e == SealError::OtherSession);
    expect(&|asked| asked.epoch = 1, &|e| *e == SealError::OtherSession);
    expect(&|asked| asked.own = AtSign::parse("bob").unwrap(), &|e| *e == SealError::OtherClient);
    let gw18 = DeviceName::parse("gw-18").unwrap();
    expect(&|asked| asked.device = gw18.clone(), &|e| matches!(e, SealError::OtherDevice { .. }));
    let other = AtSign::parse("other").unwrap();
    expect(&|asked| asked.at_sign = other.clone(), &|e| matches!(e, SealError::OtherDevice { .. }));
}

#[test]
fn another_device_of_the_same_at_sign_cannot_answer() {
    let other = Party::new("device", Some("gw-18"));
    let (mut waiting, admitted) = SCENE.ask();
    waiting.read(&flight(&mut SCENE.answer_as(&other, &admitted, NOW))).unwrap();
    // It shows its own voucher, or the keys of the device that was asked are taken.
    let error = waiting.open(&other.voucher, &SCENE.client.identity, NOW).unwrap_err();
    assert_eq!(error.to_string(), "gw-18@device answers where gw-17@device was asked");
    let (mut waiting, admitted) = SCENE.ask();
    waiting.read(&flight(&mut SCENE.answer_as(&other, &admitted, NOW))).unwrap();
    assert_eq!(SCENE.open(waiting).unwrap_err(), SealError::Statement(StatementError::Signature));
}

/// A new identity key under an old name: what a directory that lies would serve.
#[test]
fn a_reply_by_another_key_is_refused_with_what_to_do() {
    let again = Party::new("device", Some("gw-17"));
    let (mut waiting, admitted) = SCENE.ask();
    waiting.read(&flight(&mut SCENE.answer_as(&again, &admitted, NOW))).unwrap();
    let error = SCENE.open(waiting).unwrap_err();
    assert!(error.to_string().contains("fingerprint"), "{error}");
}

/// Somebody answers the ClientHello with TLS of his own and passes on the reply of the true device.
#[test]
fn a_true_reply_in_a_strangers_tls_is_refused() {
    let (mut waiting, admitted) = SCENE.ask();
    // The stranger holds the true reply: as if TLS to the true device had been his.
    let reply = reply_text(&admitted);
    let (config, _) = server_config().unwrap();
    let mut stranger = ServerConnection::new(Arc::new(config)).unwrap();
    feed(&mut stranger, &mut 0, &admitted.request().offer.hello).unwrap();
    say(&mut stranger, &statement_frame(&reply).unwrap()).unwrap();
    let mut tls = Vec::new();
    drain(&mut stranger, &mut tls);
    waiting.read(&tls).unwrap();
    assert_eq!(SCENE.open(waiting).unwrap_err(), SealError::OtherCertificate);
}

/// A good reply to this request, by the true device in another TLS session.
fn reply_text(admitted: &Admitted) -> String {
    let request = admitted.request();
    let reply = postern_session::SealedReply {
        v: 1,
        status: "connected".into(),
        session_id: request.session_id.to_string(),
        epoch: 0,
        request: postern_session::Digest(admitted.request_hash()),
        certificate: postern_session::Digest([1; 32]),
        from: SCENE.device.at_sign.to_string(),
        device: "gw-17".into(),
        to: SCENE.client.at_sign.to_string(),
        resume: 0,
        ssh_host_keys: Vec::new(),
        iat: NOW,
    };
    Statement::print(Label::Reply, &reply, &SCENE.device.identity, Some(&SCENE.device.text))
}

#[test]
fn data_without_a_reply_is_refused() {
    for words in [&b"\x13\0\0\x05\0\0\0\x01hello"[..], b"\x01\0\0\x02\0\0\0\0{}extra", b"", b"\x01\0\xff\xff\0\0\0\0{}"]
    {
        let (mut waiting, admitted) = SCENE.ask();
        let (config, _) = server_config().unwrap();
        let mut stranger = ServerConnection::new(Arc::new(config)).unwrap();
        feed(&mut stranger, &mut 0, &admitted.request().offer.hello).unwrap();
        say(&mut stranger, words).unwrap();
        let mut tls = Vec::new();
        drain(&mut stranger, &mut tls);
        let outcome = waiting.read(&tls);
        assert!(waiting.reply().is_none() && (outcome == Err(SealError::NoStatement) || words.is_empty()));
        assert_eq!(SCENE.open(waiting).err(), Some(SealError::NoStatement));
    }
}

/// The same request put to a second device process: what the client says to one is nothing to the other.
#[test]
fn a_replayed_hello_gets_nothing_out() {
    let (mut waiting, admitted) = SCENE.ask();
    let (mut one, mut two) = (SCENE.accept(&admitted), SCENE.accept(&admitted));
    let _ = flight(&mut two);
    waiting.read(&flight(&mut one)).unwrap();
    let mut client = SCENE.open(waiting).unwrap();
    let mut tls = Vec::new();
    client.write(b"hello", b"", &mut tls).unwrap();
    let (outcome, plain) = hear(&mut two, &tls);
    assert!(outcome.is_err() && plain.is_empty() && !two.proven());
    assert_eq!(hear(&mut one, &tls), (Ok(()), b"hello".to_vec()));
}

#[test]
fn a_proof_is_of_this_key_for_this_tls_session() {
    let prove = |label: Label, by: &Ed25519PrivateKey, change: &dyn Fn(&mut Proof)| {
        let (mut waiting, admitted) = SCENE.ask();
        let mut device = SCENE.accept(&admitted);
        waiting.read(&flight(&mut device)).unwrap();
        let (asked, mut records, exporter, mut tls) = waiting.taken_apart();
        let mut proof = Proof::new(&asked.session_id, asked.epoch, exporter);
        change(&mut proof);
        let frame = statement_frame(&Statement::print(label, &proof, by, None)).unwrap();
        records.write(&frame, &[], &mut tls).unwrap();
        records.write(b"hello", &[], &mut tls).unwrap();
        let (outcome, plain) = hear(&mut device, &tls);
        assert_eq!(
            (outcome.is_ok(), plain.as_slice()),
            (device.proven(), if device.proven() { &b"hello"[..] } else { b"" })
        );
        outcome
    };
    let key = &SCENE.client.identity;
    assert_eq!(prove(Label::Proof, key, &|_| ()), Ok(()));
    let signature = Err(SealError::Statement(StatementError::Signature));
    assert_eq!(prove(Label::Proof, &SCENE.device.identity, &|_| ()), signature);
    assert_eq!(prove(Label::Request, key, &|_| ()), signature);
    assert_eq!(prove(Label::Proof, key, &|proof| proof.exporter.0[0] ^= 1), Err(SealError::OtherExporter));
    assert_eq!(prove(Label::Proof, key, &|proof| proof.epoch = 1), Err(SealError::OtherSession));
    let other = Uuid::from_random([3; 16]).to_string();
    assert_eq!(prove(Label::Proof, key, &|proof| proof.session_id.clone_from(&other)), Err(SealError::OtherSession));
}

/// Finished is good, the proof does not come: who holds the key of the hello alone is nobody.
#[test]
fn without_a_proof_nothing_is_heard() {
    let (mut waiting, admitted) = SCENE.ask();
    let mut device = SCENE.accept(&admitted);
    waiting.read(&flight(&mut device)).unwrap();
    let (_, mut records, _, mut tls) = waiting.taken_apart();
    records.write(b"\x13\0\0\x05\0\0\0\x01", b"hello", &mut tls).unwrap();
    assert_eq!(hear(&mut device, &tls), (Err(SealError::NoStatement), Vec::new()));
    assert!(device.write(b"x", b"", &mut Vec::new()).is_err(), "it is over");
}

#[test]
fn groups_and_suites_are_ours_in_our_order() {
    use aws_lc_rs::kx_group::{SECP256R1, X25519};
    let with = |kx_groups| Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() });
    let (mut waiting, admitted) = SCENE.ask_with(with(vec![X25519]));
    let mut device = SCENE.accept(&admitted);
    waiting.read(&flight(&mut device)).unwrap();
    assert_eq!(device.facts().key_exchange, "X25519");
    // A group that we do not have, and one for which a second ClientHello would be needed.
    for groups in [vec![SECP256R1], vec![SECP256R1, X25519]] {
        let (_, admitted) = SCENE.ask_with(with(groups));
        let answer = Answer {
            at_sign: &SCENE.device.at_sign,
            device: SCENE.device.device(),
            identity: &SCENE.device.identity,
            voucher: &SCENE.device.text,
            resume: Duration::ZERO,
            ssh_host_keys: &[],
            now_ms: NOW,
        };
        assert!(matches!(DeviceEnd::accept(&admitted, &answer), Err(SealError::Handshake(_))));
    }
    use rustls::CipherSuite::{TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
    for suite in [TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256] {
        let cipher_suites = provider().cipher_suites.iter().copied().filter(|s| s.suite() == suite).collect();
        let only = Arc::new(CryptoProvider { cipher_suites, ..CryptoProvider::clone(&provider()) });
        let (mut waiting, admitted) = SCENE.ask_with(only);
        let mut device = SCENE.accept(&admitted);
        waiting.read(&flight(&mut device)).unwrap();
        let client = SCENE.open(waiting).unwrap();
        assert_eq!(Some(client.facts().cipher), suite.as_str(), "the client's choice");
    }
}

/// Somebody who takes a group out of the hello on its way changes what was signed, and what TLS hashed.
#[test]
fn a_changed_hello_is_no_downgrade() {
    let (mut waiting, admitted) = SCENE.ask();
    let mut hello = admitted.request().offer.hello.clone();
    let last = hello.len() - 1;
    hello[last] ^= 1;
    let (config, _) = server_config().unwrap();
    let mut stranger = ServerConnection::new(Arc::new(config)).unwrap();
    if feed(&mut stranger, &mut 0, &hello).is_ok() {
        let _ = say(&mut stranger, &statement_frame(&reply_text(&admitted)).unwrap());
        let mut tls = Vec::new();
        drain(&mut stranger, &mut tls);
        assert!(waiting.read(&tls).is_err());
    }
    assert!(waiting.reply().is_none());
}

#[test]
fn a_device_with_a_wrong_clock_is_told() {
    for (now, text) in
        [(NOW + CLOCK_TOLERANCE_MS + 2000, "302 s ahead of"), (NOW - CLOCK_TOLERANCE_MS - 2000, "302 s behind")]
    {
        let (mut waiting, admitted) = SCENE.ask();
        waiting.read(&flight(&mut SCENE.answer_as(&SCENE.device, &admitted, now))).unwrap();
        let error = SCENE.open(waiting).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
}
