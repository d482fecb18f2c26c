//! What each fuzz target does with its bytes. The targets in `fuzz/` discover new inputs; the replay
//! test of the house runs the committed ones.
//!
//! Every function must return for every input: a panic is a finding.

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use postern_crypto::{AeadAlgorithm, AesKey, AtKeys, Ed25519PrivateKey, Iv, RsaPrivateKey, encode_base64};
use postern_identity::{
    Arrival, BadInvitation, Expected as Vouched, Fingerprint, Invitation, Label, Pins, Statement, Verdict, Voucher,
    VoucherClaim,
};
use postern_proto::{
    AtKey, AtSign, DirectoryAnswer, DirectoryQuery, LineReader, Request, ServerLine, SigningKeyName, Uuid,
};
use postern_rendezvous::hints::{DiscoverRequest, Discovered, Latencies, ModesHint, RelayMap};
use postern_rendezvous::{
    AdvertisedKeys, AuthLine, Challenge, EscrLine, EscrParties, Expected, Hall, HallAction, HallRules, Refusal,
    RelayPlace, RelayRecord, RelayReply, RelayRequest, Side, SocketId, Ticket, TicketClaim, TicketTo,
};
use postern_rules::manage::Operation;
use postern_rules::rpc;
use postern_rules::{Answer, FileRules, Group, Question, RuleFile, Tables};
use postern_seal::{Answer as SealAnswer, Asked, DeviceEnd, Knock, Records};
use postern_session::{
    Admitted, ControlReader, DeviceName, Door, Envelope, Guest, HostKeys, NptRequest, Offer, PermitOpen, PingResponse,
    Proof, Refused, SealedReply, SignedRequest, SshPublicKey, SshRequest, parse_span,
};

use postern_streams::{Ask, Event, Side as End, Streams, limits as streams_limits};

/// A target: its name, which is also its directory under `fuzz/corpus`, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 26] = [
    ("request", request),
    ("server_line", server_line),
    ("directory", directory),
    ("line_reader", line_reader),
    ("at_key", at_key),
    ("key_file", key_file),
    ("relay_request", relay_request),
    ("relay_reply", relay_reply),
    ("relay_auth_line", relay_auth_line),
    ("envelope", envelope),
    ("pins", pins),
    ("invitation", invitation),
    ("control", control),
    ("device_words", device_words),
    ("sealed_text", sealed_text),
    ("relay_challenge", relay_challenge),
    ("relay_hints", relay_hints),
    ("relay_ticket", relay_ticket),
    ("relay_hall", relay_hall),
    ("policy_messages", policy_messages),
    ("policy_file", policy_file),
    ("policy_tables", policy_tables),
    ("stream_frames", stream_frames),
    ("sealed_records", sealed_records),
    ("sealed_words", sealed_words),
    ("sealed_handshake", sealed_handshake),
];

/// A line to an atServer. What is understood prints as something that is understood the same way.
pub fn request(line: &[u8]) {
    let Ok(request) = Request::parse(line) else { return };
    let printed = request.to_string();
    assert!(!printed.contains('\n') || line.contains(&b'\n'), "a line grew a second one: {printed}");
    let Ok(again) = Request::parse(printed.as_bytes()) else { panic!("not understood when printed: {printed}") };
    assert!(again == request, "understood differently when printed: {printed} / {again}");
}

/// A line from an atServer. A push prints as the same push.
pub fn server_line(line: &[u8]) {
    let Ok(text) = std::str::from_utf8(line) else { return };
    let ServerLine::Push(push) = ServerLine::parse(text) else { return };
    let printed = push.push_line();
    assert_eq!(ServerLine::parse(&printed), ServerLine::Push(push), "{printed}");
}

/// The directory's question and answer.
pub fn directory(line: &[u8]) {
    // A name `exit` can be asked for without its `@` only; with it, it is the word that ends the talk.
    if let DirectoryQuery::Find(name) = DirectoryQuery::parse(line)
        && name.as_str() != "@exit"
    {
        assert_eq!(DirectoryQuery::parse(name.as_str().as_bytes()), DirectoryQuery::Find(name.clone()));
    }
    let Ok(text) = std::str::from_utf8(line) else { return };
    if let Some(answer) = DirectoryAnswer::parse(text) {
        let printed = answer.to_string();
        assert_eq!(DirectoryAnswer::parse(&printed), Some(answer), "{printed}");
    }
}

/// Lines are the same however the bytes are cut; nothing past the limit is ever handed out.
/// The first byte chooses limit and cut.
pub fn line_reader(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let limit = usize::from(first & 0x3f);
    let cut = usize::from(first >> 6) * 5 + 1;
    let at_once = lines(rest, limit, rest.len().max(1));
    let in_pieces = lines(rest, limit, cut);
    assert_eq!(at_once, in_pieces);
    assert!(at_once.iter().flatten().all(|line| line.len() <= limit));
}

/// All lines of a stream that arrives in pieces; `None` stands for "too long", which ends it.
fn lines(bytes: &[u8], limit: usize, piece: usize) -> Vec<Option<Vec<u8>>> {
    let mut reader = LineReader::new(limit);
    let mut all = Vec::new();
    for piece in bytes.chunks(piece) {
        reader.extend(piece);
        loop {
            match reader.next_line() {
                Ok(Some(line)) => all.push(Some(line.to_vec())),
                Ok(None) => break,
                Err(_) => {
                    all.push(None);
                    return all;
                }
            }
        }
    }
    all
}

/// The name of a record. What is understood prints as something that is understood the same way.
pub fn at_key(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = AtSign::parse(text);
    let Ok(key) = AtKey::parse(text) else { return };
    let printed = key.to_string();
    assert_eq!(AtKey::parse(&printed).as_ref(), Ok(&key), "{printed}");
}

/// A key file somebody edited.
pub fn key_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = AtKeys::parse(text);
}

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

/// `known_atsigns` as somebody edited it: it prints as it was, and a key that nobody wrote down is never known.
pub fn pins(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let pins = Pins::parse(text);
    assert_eq!(pins.to_string().trim_end_matches('\n'), text.trim_end_matches('\n'));
    assert_eq!(Pins::parse(&pins.to_string()), pins);
    for pin in pins.iter() {
        let known = pins.check(&pin.name, pin.algorithm, pin.fingerprint, false);
        assert_eq!(known, Verdict::Known, "{pin}");
        let stranger = Fingerprint::parse("SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").expect("32 zeros");
        if pins.of(&pin.name).all(|pin| pin.fingerprint != stranger) {
            let verdict = pins.check(&pin.name, pin.algorithm, stranger, false);
            assert!(matches!(verdict, Verdict::Changed { .. } | Verdict::Unreadable { .. }), "{pin}: {verdict:?}");
        }
    }
}

/// An invitation, and what a device that took it says of itself.
pub fn invitation(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(read) = Invitation::parse(text) {
        let line = read.print();
        let Ok(again) = Invitation::parse(&line) else { panic!("not read when printed: {}", *line) };
        assert_eq!(*again.print(), *line);
        let cut = Invitation::parse(&line[..line.len() - 1]).err();
        assert_eq!(cut, Some(BadInvitation::Mistyped), "a cut line is taken: {}", *line);
    }
    if let Some(arrival) = Arrival::parse(text) {
        assert_eq!(Arrival::parse(&arrival.to_string()), Some(arrival));
    }
}

/// A signed envelope and what may be in it.
pub fn envelope(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(envelope) = Envelope::parse(text) {
        let client = AtSign::parse("client").expect("an atSign");
        if let Ok(Some(claim)) = envelope.enrollment_claim(&client) {
            assert!(claim.key_name().owner() == &client, "a key of somebody else: {}", claim.key_name());
            let _ = envelope.verify_enrollment(claim, text);
        }
    }
    if let Ok(request) = serde_json::from_str::<SshRequest>(text) {
        let _ = request.check(22);
    }
    if let Ok(request) = serde_json::from_str::<NptRequest>(text) {
        let _ = request.check();
    }
    if let Some(ping) = PingResponse::parse(text) {
        let printed = ping.print();
        assert!(PingResponse::parse(&printed).is_some(), "{printed}");
    }
}

/// The control channel of a session, cut in two ways. (Clients that end no line make the number of
/// words depend on the cut; a client can only hurt its own session.)
pub fn control(bytes: &[u8]) {
    for piece in [1, 77, bytes.len().max(1)] {
        let mut reader = ControlReader::default();
        let mut words = 0;
        for piece in bytes.chunks(piece) {
            if reader.feed(piece, |_| words += 1).is_err() {
                break;
            }
        }
        assert!(words <= bytes.len(), "{words} words from {} bytes", bytes.len());
    }
}

/// Small words people and clients give a daemon: names, permits, keys, spans of time.
pub fn device_words(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(name) = DeviceName::parse(text) {
        assert_eq!(DeviceName::parse(name.as_str()).ok().as_ref().map(DeviceName::as_str), Some(name.as_str()));
    }
    if let Ok(permit) = PermitOpen::parse(text) {
        let printed = permit.to_string();
        assert!(PermitOpen::parse(&printed).is_ok(), "{printed}");
    }
    if let Ok(key) = SshPublicKey::parse(text) {
        let line = key.to_string();
        assert!(!line.contains(['\n', '\r', '\0']), "a pushed key with a second line: {line:?}");
        assert!(key.is_in_line(&line), "{line}");
    }
    let _ = parse_span(text);
}

/// A value somebody changed on its way: opened or refused, never longer than it was.
pub fn sealed_text(bytes: &[u8]) {
    let key = AesKey::from_bytes([7; 32]);
    if let Ok(plain) = key.decrypt_padded(Iv::ZERO, bytes) {
        assert!(plain.len() < bytes.len());
        assert_eq!(key.encrypt_padded(Iv::ZERO, &plain).ok().as_deref(), Some(bytes));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = key.decrypt_text(Iv::ZERO, text);
        let _ = Iv::from_base64(text);
    }
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
static HALL_GUESTS: LazyLock<Vec<(Ed25519PrivateKey, String, Voucher)>> = LazyLock::new(|| {
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

/// What a device and its policy service, a manager and that service say to each other.
pub fn policy_messages(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let domain = rpc::Domain::checks("sshnp");
    if let Some(key) = domain.read(text) {
        assert_eq!(domain.name(key.kind, key.id), text);
    }
    for kind in ["request", "ack", "success", "error"] {
        let Some(key) = domain.read(&format!("{kind}.7.auth_checks.__rpcs.sshnp")) else { panic!("{kind} is a kind") };
        if let Ok(reply) = rpc::Reply::read(key, text) {
            assert!(rpc::Reply::read(key, &reply.print()).is_ok());
        }
        let _ = rpc::Request::read(key.id, text);
    }
    let Ok(json) = serde_json::from_str(text) else { return };
    if let Some(question) = Question::from_json(&json) {
        assert_eq!(Question::from_json(&question.to_json()), Some(question));
    }
    if let Some(answer) = Answer::from_json(&json) {
        assert_eq!(Answer::from_json(&answer.to_json()), Some(answer));
    }
    if let Ok(operation) = Operation::from_json(&json) {
        let _ = operation.to_json();
    }
}

/// A file of rules as an administrator edits it. Whoever it does not name gets nothing.
pub fn policy_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(file) = postern_config::parse::<RuleFile>(text) else { return };
    let _ = FileRules::check(&file);
}

/// Rules as they are stored, by other programs too: what passes the check passes it again, unchanged.
pub fn policy_tables(bytes: &[u8]) {
    if let Ok(tables) = serde_json::from_slice::<Tables>(bytes)
        && let Ok(tables) = tables.check()
    {
        assert_eq!(tables.clone().check(), Ok(tables));
    }
    if let Ok(group) = serde_json::from_slice::<Group>(bytes)
        && let Ok(group) = group.check()
    {
        assert_eq!(group.clone().check(), Ok(group));
    }
}

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

fn same_when_printed<T>(text: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let Ok(value) = serde_json::from_str::<T>(text) else { return };
    let printed = serde_json::to_string(&value).expect("our types are JSON");
    assert_eq!(serde_json::from_str::<T>(&printed).expect("it was printed"), value);
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

fn at_sign(name: &str) -> AtSign {
    AtSign::parse(name).expect("a good name")
}

fn device() -> DeviceName {
    DeviceName::parse("gw-17").expect("a good name")
}

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
