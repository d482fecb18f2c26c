//! The worked dialogues of the atProtocol, each line as it stands there. What the C daemon, the Dart client and the
//! current activation say is in `dialogue.rs`, the enrolment of a further device in `enrollment.rs`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use common::operator::{Operator, public_key};
use common::{Client, KEY, PATIENCE, World};
use postern_crypto::{RsaPublicKey, SignatureHash, sha512_hex};
use postern_net::tls::PrivateCa;
use postern_proto::Uuid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// `_⟨uuid⟩@alice:⟨uuid⟩` of a reply.
fn challenge(reply: &str, prompt: &str) -> String {
    let text = reply.strip_prefix("data:").and_then(|text| text.strip_suffix(&format!("\n{prompt}"))).unwrap();
    let (session, proof) = text.split_once("@alice:").unwrap();
    assert!(Uuid::parse(session.strip_prefix('_').unwrap()).is_some() && Uuid::parse(proof).is_some(), "{reply}");
    assert_eq!(text, text.to_lowercase());
    text.to_owned()
}

#[test]
fn old_onboarding_as_java_and_python_do_it() {
    let world = World::start();
    let secret = world.add("alice");
    let public = public_key();
    let mut client = world.unread();
    client.expect("@");
    let first = challenge(&client.reply("from:@alice"), "@");
    let digest = sha512_hex(&[secret.as_bytes(), first.as_bytes()]);
    client.ask(&format!("cram:{digest}"), "data:success\n@alice@");
    client.ask(&format!("update:privatekey:at_pkam_publickey {public}"), "data:-1\n@alice@");
    // The same session, a new proof, and the prompt of a connection that is authenticated already.
    let second = challenge(&client.reply("from:@alice"), "@alice@");
    assert_eq!(first.split(':').next(), second.split(':').next());
    assert_ne!(first, second);
    let signature = KEY.sign(SignatureHash::Sha256, second.as_bytes()).unwrap();
    client.ask(&format!("pkam:{signature}"), "data:success\n@alice@");
    client.ask(&format!("update:public:publickey@alice {public}"), "data:0\n@alice@");
    client.ask("delete:privatekey:at_secret", "data:-1\n@alice@");
    world.connect().ask("lookup:publickey@alice", &format!("data:{public}\n@"));
}

#[test]
fn the_monitor_connection_of_the_c_daemon() {
    let limits = postern_server::Limits { stats_every: std::time::Duration::from_millis(50), ..Default::default() };
    let world = World::with(limits);
    world.add_activated("alice");
    world.add_activated("bob");
    let mut daemon = world.login("alice");
    daemon.send(b"monitor dev1.sshnp@\r\n");
    let stats = daemon.text();
    let (head, tail) = stats.split_once("\"epochMillis\":").unwrap();
    assert_eq!(
        head,
        r#"notification: {"id":"-1","from":"@alice","to":"@alice","key":"statsNotification.@alice","value":"-1","operation":"update","#
    );
    let (millis, tail) = tail.split_once(',').unwrap();
    assert!(millis.parse::<i64>().is_ok());
    assert_eq!(tail, "\"messageType\":\"MessageType.key\",\"isEncrypted\":false,\"metadata\":null}\n");
    world
        .login("bob")
        .ask("notify:id:77:update:isEncrypted:true:@alice:ssh_request.dev1.sshnp@bob:Vt==", "data:77\n@bob@");
    daemon.send(b"noop:0\r\n");
    let (mut pushed, mut ok) = (0, 0);
    while pushed == 0 || ok == 0 {
        let line = daemon.text();
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "one line, no prompt: {line:?}");
        ok += usize::from(line == "data:ok\n");
        pushed += usize::from(line.starts_with(
            r#"notification: {"id":"77","from":"@bob","to":"@alice","key":"@alice:ssh_request.dev1.sshnp@bob","value":"Vt==","operation":"update","epochMillis":"#,
        ));
    }
}

/// The directory and the atServer of another operator, as the reference would answer; tells what it hears.
struct Stranger {
    port: u16,
    ca: std::path::PathBuf,
    heard: Receiver<String>,
    _dir: tempfile::TempDir,
}

impl Stranger {
    fn start() -> Self {
        let ca = PrivateCa::make(&["localhost".to_owned()], &[]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, &ca.ca_pem).unwrap();
        let chain = CertificateDer::pem_slice_iter(ca.cert_pem.as_bytes()).map(|one| one.unwrap()).collect();
        let key = PrivateKeyDer::from_pem_slice(ca.key_pem.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, heard) = channel();
        let tls = Arc::new(tls);
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let (tls, tell) = (Arc::clone(&tls), tell.clone());
                std::thread::spawn(move || converse(tcp, tls, port, &tell));
            }
        });
        Self { port, ca: file, heard, _dir: dir }
    }

    fn next(&self) -> String {
        self.heard.recv_timeout(PATIENCE).unwrap()
    }
}

/// Ends when the other side does: errors are its way of leaving.
fn converse(tcp: TcpStream, tls: Arc<ServerConfig>, port: u16, tell: &Sender<String>) {
    let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), tcp);
    if stream.write_all(b"@").is_err() {
        return;
    }
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if !matches!(reader.read_line(&mut line), Ok(1..)) {
            return;
        }
        let line = line.trim_end_matches('\n').to_owned();
        let reply = match line.as_str() {
            "bob" => format!("localhost:{port}\r\n@"),
            "@exit" => return,
            name if !name.contains(':') && name != "pol" => "null\r\n@".to_owned(),
            "lookup:all:publickey@bob" => {
                format!("data:{{\"key\":\"public:publickey@bob\",\"data\":\"{}\",\"metaData\":{{}}}}\n@", public_key())
            }
            "from:@alice" => {
                let proof = "proof:_0f8f1e2d-0000-4000-8000-000000000001@alice:5c1e0000-0000-4000-8000-000000000002";
                format!("data:{proof}\n@")
            }
            "pol" => "@alice@".to_owned(),
            notify if notify.starts_with("notify:") => "data:success\n@alice@".to_owned(),
            _ => "error:AT0003-Exception: invalid command\n@".to_owned(),
        };
        if line != "bob" {
            tell.send(line).unwrap();
        }
        let out = reader.get_mut();
        if out.write_all(reply.as_bytes()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

#[test]
fn delivery_of_one_notification_to_a_server_of_the_reference() {
    let bob = Stranger::start();
    let mut alice = Operator::new("localhost", &["alice"]);
    alice.process = Some(common::process::Process::start_on(
        &alice.dir,
        &format!("127.0.0.1:{}", alice.port),
        &[
            "--directory".to_owned(),
            format!("localhost:{}", bob.port),
            "--peer-ca".to_owned(),
            bob.ca.to_str().unwrap().to_owned(),
        ],
    ));
    alice.login("alice").ask(
        "notify:id:3f1c:update:ttln:900000:ttl:10000:isEncrypted:true:ivNonce:8m==:@bob:ping.dev1.sshnp@alice:Vt==",
        "data:3f1c\n@alice@",
    );
    let mut heard = Vec::new();
    while heard.last().is_none_or(|line: &String| !line.starts_with("notify:")) {
        let line = bob.next();
        // As the verifier does between `pol` and its prompt: a fresh connection, nobody logged in.
        if line == "pol" {
            let mut check: Client = alice.connect();
            let reply = check.reply("lookup:_0f8f1e2d-0000-4000-8000-000000000001@alice");
            let signature = reply.strip_prefix("data:").unwrap().strip_suffix("\n@").unwrap().to_owned();
            let reply = check.reply("lookup:signing_publickey@alice");
            let key = RsaPublicKey::from_base64(reply.strip_prefix("data:").unwrap().strip_suffix("\n@").unwrap());
            let signed = b"5c1e0000-0000-4000-8000-000000000002";
            assert!(key.unwrap().verify(SignatureHash::Sha256, signed, &signature).is_ok());
        }
        heard.push(line);
    }
    heard.retain(|line| line != "alice"); // what else the directory is asked
    let notify = heard.pop().unwrap();
    assert_eq!(heard, ["lookup:all:publickey@bob", "from:@alice", "pol"]);
    // In the order of the reference's grammar, which refuses any other. What is left of its life may be less by now.
    let (head, rest) = notify.split_once(":ttln:").unwrap();
    let (life, rest) = rest.split_once(':').unwrap();
    assert_eq!(head, "notify:id:3f1c:update:messageType:key:notifier:SYSTEM");
    assert!((890_000..=900_000).contains(&life.parse::<i64>().unwrap()), "{notify}");
    assert_eq!(rest, "ttl:10000:isEncrypted:true:ivNonce:8m==:@bob:ping.dev1.sshnp@alice:Vt==");
    let mut own = alice.login("alice");
    common::until("the delivery to be noted", || own.reply("notify:status:3f1c") == "data:delivered\n@alice@");
}
