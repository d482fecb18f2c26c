//! Several operators, each with a server of its own, a directory, and a certificate authority.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use postern_crypto::SignatureHash;
use postern_proto::{AtKey, AtSign, Metadata, Record};
use postern_server::{Home, Wanted};
use postern_store::{Batch, LogAs, Store};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use super::process::Process;
use super::{Client, KEY, client_config};

/// One operator. Its server is a process that can be killed and started again on the same port.
pub struct Operator {
    pub home: Home,
    pub dir: PathBuf,
    pub port: u16,
    pub process: Option<Process>,
    tls: Arc<ClientConfig>,
    _temp: TempDir,
}

pub fn name(text: &str) -> AtSign {
    AtSign::parse(text).unwrap()
}

impl Operator {
    /// A home for these atSigns, activated with [`KEY`]. Nothing runs yet.
    pub fn new(host: &str, at_signs: &[&str]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("srv");
        let port = free_port();
        let listen = format!("127.0.0.1:{port}").parse().unwrap();
        let home = Home::init(&dir, &Wanted { host: host.into(), listen, tls: None }).unwrap();
        let store = home.store().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for at_sign in at_signs.iter().map(|text| name(text)) {
                home.add(store.as_ref(), &at_sign, None).await.unwrap();
                put(store.as_ref(), &at_sign, &AtKey::private_key("at_pkam_publickey"), &public_key()).await;
            }
        });
        let tls = client_config(&std::fs::read(home.ca().unwrap()).unwrap());
        Self { home, dir, port, process: None, tls, _temp: temp }
    }

    /// Adds an atSign with a port of its own, which it gives. Before the start.
    pub fn add_with_port(&self, text: &str) -> u16 {
        let (store, port) = (self.store(), free_port());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.home.add(store.as_ref(), &name(text), Some(port))).unwrap();
        port
    }

    /// Connects to one of those ports.
    pub fn connect_to_port(&self, port: u16) -> Client {
        let mut client = Client::connect(format!("127.0.0.1:{port}").parse().unwrap(), Arc::clone(&self.tls));
        client.expect("@");
        client
    }

    /// Adds lines to the settings.
    pub fn with_settings(self, lines: &str) -> Self {
        let file = self.dir.join("server.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}\n{lines}\n")).unwrap();
        self
    }

    /// Starts the server; the directories of `others` are the ones it asks.
    pub fn start(&mut self, others: &[&Self]) {
        let mut args = Vec::new();
        for other in others {
            let ca = other.home.ca().unwrap();
            args.extend(["--directory".to_owned(), other.address()]);
            args.extend(["--peer-ca".to_owned(), ca.to_str().unwrap().to_owned()]);
        }
        self.process = Some(Process::start_on(&self.dir, &format!("127.0.0.1:{}", self.port), &args));
    }

    pub fn address(&self) -> String {
        format!("{}:{}", self.home.settings().host, self.port)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    pub fn connect(&self) -> Client {
        self.connect_with(Arc::clone(&self.tls))
    }

    /// The same, showing the certificate of another server.
    pub fn connect_as(&self, certificate: &[u8], key: &[u8]) -> Client {
        let chain = CertificateDer::pem_slice_iter(certificate).map(|one| one.unwrap()).collect();
        let key = PrivateKeyDer::from_pem_slice(key).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        for one in CertificateDer::pem_file_iter(self.home.ca().unwrap()).unwrap() {
            roots.add(one.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        self.connect_with(Arc::new(config))
    }

    fn connect_with(&self, tls: Arc<ClientConfig>) -> Client {
        let address = format!("127.0.0.1:{}", self.port).parse().unwrap();
        let mut client = Client::connect(address, tls);
        client.expect("@");
        client
    }

    pub fn login(&self, name: &str) -> Client {
        let mut client = self.connect();
        client.pkam(name);
        client
    }

    /// The store, as another process sees it.
    pub fn store(&self) -> Arc<dyn Store> {
        self.home.store().unwrap()
    }

    /// Writes a record behind the server's back.
    pub fn put(&self, owner: &str, key: &AtKey, value: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(put(self.store().as_ref(), &name(owner), key, value));
    }

    /// Certificate and key of its server.
    pub fn certificate(&self) -> (Vec<u8>, Vec<u8>) {
        let read = |file: &str| std::fs::read(self.dir.join(file)).unwrap();
        (read("server.pem"), read("server.key"))
    }
}

/// The test as the server of `who`: claims the name, publishes the proof in its operator's store, and says `pol`.
pub fn claim(client: &mut Client, home: &Operator, who: &str) -> String {
    let challenge = client.challenge(who);
    let (session, proof) = challenge.strip_prefix("proof:").unwrap().split_once(':').unwrap();
    let session = session.strip_suffix(&format!("@{who}")).unwrap();
    assert!(session.starts_with('_') && session.len() == 37 && proof.len() == 36, "{challenge}");
    home.put(who, &AtKey::public("signing_publickey", &name(who)), &public_key());
    let signature = KEY.sign(SignatureHash::Sha256, proof.as_bytes()).unwrap();
    home.put(who, &AtKey::public(session, &name(who)), &signature);
    client.reply("pol")
}

async fn put(store: &dyn Store, owner: &AtSign, key: &AtKey, value: &str) {
    let record = Record::new(value, Metadata::default(), 0);
    store.commit(Batch::new(0).put(owner, key, record, LogAs::Nothing)).await.unwrap();
}

pub fn public_key() -> String {
    KEY.public_key().unwrap().to_base64()
}

/// Below the range from which the kernel takes ports for outgoing connections: the port is still free after a restart.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let start = u16::try_from(std::process::id() % 1_500).unwrap() * 13;
        let port = 10_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
