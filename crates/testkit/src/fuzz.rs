//! What each fuzz target does with its bytes. The targets in `fuzz/` discover new inputs; the replay
//! test of the house runs the committed ones.
//!
//! Every function must return for every input: a panic is a finding.

mod relay;
mod sealed;

use postern_crypto::{AesKey, AtKeys, Iv};
use postern_identity::{Activation, Arrival, BadLine, Fingerprint, Invitation, Pins, Verdict};
use postern_proto::{AtKey, AtSign, DirectoryAnswer, DirectoryQuery, LineReader, Request, ServerLine};
use postern_rules::manage::Operation;
use postern_rules::rpc;
use postern_rules::{Answer, FileRules, Group, Question, RuleFile, Tables};
use postern_session::{
    ControlReader, DeviceName, Envelope, NptRequest, PermitOpen, PingResponse, SshPublicKey, SshRequest, parse_span,
};

pub use relay::{relay_auth_line, relay_challenge, relay_hall, relay_hints, relay_reply, relay_request, relay_ticket};
pub use sealed::{sealed_handshake, sealed_records, sealed_words, stream_frames};

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

/// An invitation, what a device that took it says of itself, and an activation.
pub fn invitation(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(read) = Invitation::parse(text) {
        let line = read.print();
        let Ok(again) = Invitation::parse(&line) else { panic!("not read when printed: {}", *line) };
        assert_eq!(*again.print(), *line);
        let cut = Invitation::parse(&line[..line.len() - 1]).err();
        assert_eq!(cut, Some(BadLine::Mistyped), "a cut line is taken: {}", *line);
    }
    if let Ok(read) = Activation::parse(text) {
        let line = read.print();
        let Ok(again) = Activation::parse(&line) else { panic!("not read when printed: {}", *line) };
        assert_eq!(*again.print(), *line);
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

fn same_when_printed<T>(text: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let Ok(value) = serde_json::from_str::<T>(text) else { return };
    let printed = serde_json::to_string(&value).expect("our types are JSON");
    assert_eq!(serde_json::from_str::<T>(&printed).expect("it was printed"), value);
}

fn at_sign(name: &str) -> AtSign {
    AtSign::parse(name).expect("a good name")
}

fn device() -> DeviceName {
    DeviceName::parse("gw-17").expect("a good name")
}
