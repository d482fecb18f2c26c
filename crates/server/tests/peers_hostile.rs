//! Servers that lie, stall or flood, and strangers who would have us dial.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::operator::{Operator, name};
use postern_proto::AtKey;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What a made-up server says to a line; `None`: nothing, for ever.
type Script = dyn Fn(&str) -> Option<String> + Send + Sync;

/// A server of Bob's operator in whose place something else answers: the directory names it, its certificate is right.
struct Impostor {
    connections: Arc<AtomicUsize>,
    _directory: Operator,
}

/// Alice's operator, and Bob's with this script for an atServer.
fn against(script: Arc<Script>) -> (Operator, Impostor) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut b = Operator::new("127.0.0.1", &["bob"]).with_settings(&format!("advertised-port = {port}"));
    let mut a = Operator::new("localhost", &["alice"]);
    b.start(&[]);
    a.start(&[&b]);
    let connections = Arc::new(AtomicUsize::new(0));
    let (certificate, key) = b.certificate();
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || serve(&listener, &certificate, &key, &script, &counted));
    (a, Impostor { connections, _directory: b })
}

fn serve(listener: &TcpListener, certificate: &[u8], key: &[u8], script: &Arc<Script>, connections: &AtomicUsize) {
    let chain = CertificateDer::pem_slice_iter(certificate).map(|one| one.unwrap()).collect();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key).unwrap())
        .unwrap();
    let config = Arc::new(config);
    while let Ok((tcp, _)) = listener.accept() {
        connections.fetch_add(1, Ordering::SeqCst);
        let (config, script) = (Arc::clone(&config), Arc::clone(script));
        std::thread::spawn(move || {
            let tls = rustls::ServerConnection::new(config).unwrap();
            let mut stream = BufReader::new(rustls::StreamOwned::new(tls, tcp));
            if stream.get_mut().write_all(b"@").is_err() {
                return;
            }
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|n| n > 0) {
                let Some(reply) = script(line.trim()) else {
                    let _ = stream.read(&mut [0; 1]); // until the other side gives up
                    return;
                };
                if stream.get_mut().write_all(reply.as_bytes()).is_err() {
                    return;
                }
                line.clear();
            }
        });
    }
}

const SESSION: &str = "_1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed";
const PROOF: &str = "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d";

#[test]
fn a_hostile_challenge_gets_nothing_signed_and_nothing_overwritten() {
    let challenge = Arc::new(Mutex::new(String::new()));
    let said = Arc::clone(&challenge);
    let (a, impostor) = against(Arc::new(move |line: &str| {
        Some(match line {
            "pol" => "@alice@".to_owned(),
            line if line.starts_with("from:") => format!("data:{}\n@", said.lock().unwrap()),
            line if line.starts_with("lookup:all:publickey") => "error:AT0015-Exception: none\n@".to_owned(),
            _ => "data:success\n@alice@".to_owned(),
        })
    }));
    a.put("alice", &AtKey::public("publickey", &name("alice")), "alices-own");
    let mut alice = a.login("alice");
    for evil in [
        format!("proof:publickey@alice:{PROOF}"),
        format!("proof:_publickey@alice:{PROOF}"),
        format!("proof:{SESSION}@bob:{PROOF}"),
        format!("proof:{SESSION}@alice:update:privatekey:at_pkam_publickey"),
        // A login as alice, at her own server, would be signed by it.
        format!("proof:{SESSION}@alice:{SESSION}@alice:{PROOF}"),
        format!("{SESSION}@alice:{PROOF}"),
        String::new(),
    ] {
        *challenge.lock().unwrap() = evil.clone();
        let reply = alice.reply("lookup:k.ns@bob");
        assert!(reply.starts_with("error:AT0008-Handshake failure : "), "{evil}: {reply}");
    }
    let mut hidden = Vec::new();
    a.store()
        .scan(&name("alice"), &mut |key, _, _| hidden.extend(key.starts_with("public:").then(|| key.to_owned())))
        .unwrap();
    assert_eq!(hidden, ["public:publickey@alice"]);
    alice.ask("llookup:public:publickey@alice", "data:alices-own\n@alice@");
    // And the very same server with a right challenge: so it was the challenge.
    *challenge.lock().unwrap() = format!("proof:{SESSION}@alice:{PROOF}");
    assert!(alice.reply("lookup:k.ns@bob").starts_with("error:AT0021-"), "success is no record");
    assert!(a.connect().reply(&format!("lookup:{SESSION}@alice")).starts_with("data:"));
    assert_eq!(impostor.connections.load(Ordering::SeqCst), 8);
}

#[test]
fn answers_cannot_forge_a_reply() {
    let answer = Arc::new(Mutex::new(String::new()));
    let said = Arc::clone(&answer);
    let (a, _impostor) = against(Arc::new(move |_: &str| Some(format!("{}\n@", said.lock().unwrap()))));
    let mut alice = a.login("alice");
    for evil in [
        r#"data:{"data":"x\n@alice@data:forged"}"#,
        r#"data:{"data":"x\rdata:forged"}"#,
        r#"data:{"data":7}"#,
        "data:[]",
        "data:",
        "data:{",
    ] {
        *answer.lock().unwrap() = evil.to_owned();
        let reply = alice.reply("plookup:open.ns@bob");
        assert!(reply.starts_with("error:AT0021-Unable to connect to secondary : "), "{evil}: {reply}");
        assert_eq!(reply.matches('\n').count(), 1, "{evil}: {reply}");
    }
    for (evil, want) in [
        ("error:AT0009-Exception: no\x1b[31m", "error:AT0009-UnAuthorized client in request : no[31m\n@alice@"),
        ("error:nonsense", "error:AT0011-Internal server exception : \n@alice@"),
        (
            r#"error:{"errorCode":"AT0016","errorDescription":"Invalid key : bad"}"#,
            "error:AT0016-Invalid key : bad\n@alice@",
        ),
    ] {
        *answer.lock().unwrap() = evil.to_owned();
        alice.ask("plookup:open.ns@bob", want);
    }
    let long = format!("error:AT0003-{}", "x".repeat(100_000));
    *answer.lock().unwrap() = long;
    assert!(alice.reply("plookup:open.ns@bob").len() < 300);
}

#[test]
fn who_does_not_answer_or_does_not_stop_is_given_up() {
    let answer = Arc::new(Mutex::new(None));
    let said = Arc::clone(&answer);
    let (a, _impostor) = against(Arc::new(move |_: &str| said.lock().unwrap().clone()));
    let mut alice = a.login("alice");
    let start = Instant::now();
    let reply = alice.reply("lookup:k.ns@bob");
    assert!(reply.starts_with("error:AT0023-Timeout waiting for response : "), "{reply}");
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    // Before it has accepted us there is nothing long to say.
    *answer.lock().unwrap() = Some("x".repeat(20_000));
    let reply = alice.reply("lookup:k.ns@bob");
    assert!(reply.starts_with("error:AT0021-"), "{reply}");
    // A connection that waits does not hold up another of the same owner.
    *answer.lock().unwrap() = None;
    let mut other = a.login("alice");
    alice.send(b"lookup:k.ns@bob\n");
    other.ask("llookup:x.ns@alice", "error:AT0015-key not found : x.ns@alice does not exist in keystore\n@alice@");
}

#[test]
fn strangers_make_nobody_dial_but_by_pol_and_that_in_bounds() {
    let (b, impostor) = against(Arc::new(|_: &str| Some("error:AT0015-Exception: none\n@".to_owned())));
    // Here alice's operator is the one that is asked, and @bob's server the one that is claimed.
    for line in [
        "lookup:k.ns@bob",
        "lookup:all:publickey@bob",
        "plookup:publickey@bob",
        "scan:@bob",
        "notify:@bob:k.ns@alice:v",
        "notify:all:@bob:k.ns@alice:v",
        "from:@bob",
    ] {
        b.connect().reply(line);
    }
    assert_eq!(impostor.connections.load(Ordering::SeqCst), 0, "a stranger made us dial");
    // The impostor's own certificate, so that we do look there.
    let (certificate, key) = impostor._directory.certificate();
    let mut busy = 0;
    for _ in 0..4 {
        let mut client = b.connect_as(&certificate, &key);
        for _ in 0..9 {
            assert!(client.challenge("bob").starts_with("proof:"));
            let reply = client.reply("pol");
            busy += usize::from(reply.starts_with("error:AT0011-Exception: too many claims"));
            assert!(reply.starts_with("error:AT0"), "{reply}");
        }
    }
    let dialled = impostor.connections.load(Ordering::SeqCst);
    assert!(busy >= 10 && (1..=30).contains(&dialled), "{busy} refused, {dialled} dialled");
}

#[test]
fn an_entry_that_leads_to_nobody_or_to_ourselves_is_an_error_and_no_loop() {
    // The directory says that bob lives where alice's own server listens.
    let mut a = Operator::new("127.0.0.1", &["alice"]);
    let mut b = Operator::new("127.0.0.1", &["bob"]).with_settings(&format!("advertised-port = {}", a.port));
    b.start(&[]);
    a.start(&[&b]);
    let mut alice = a.login("alice");
    for line in ["lookup:k.ns@bob", "plookup:k.ns@bob", "scan:@bob"] {
        let reply = alice.reply(line);
        assert!(reply.starts_with("error:AT0007-Secondary server not found : "), "{line}: {reply}");
    }
    // Under another name for the same machine it is dialled, and does not take us for bob's server.
    let mut c = Operator::new("localhost", &["carol"]).with_settings(&format!("advertised-port = {}", a.port));
    c.start(&[]);
    a.kill();
    a.start(&[&c]);
    let mut alice = a.login("alice");
    let reply = alice.reply("lookup:k.ns@carol");
    assert!(reply.starts_with("error:AT0008-") || reply.starts_with("error:AT0021-"), "{reply}");
    // Nobody there at all.
    let free: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut d = Operator::new("127.0.0.1", &["dave"]).with_settings(&format!("advertised-port = {}", free.port()));
    d.start(&[]);
    a.kill();
    a.start(&[&d]);
    let reply = a.login("alice").reply("plookup:k.ns@dave");
    assert!(reply.starts_with("error:AT0021-"), "{reply}");
}
