//! A server in this process and raw clients that see every TLS record.
#![allow(dead_code, reason = "each test file uses its part of this")]
#![allow(unreachable_pub, reason = "shared by several test crates")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

pub mod operator;
pub mod process;
pub mod readers;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use postern_crypto::{RsaPrivateKey, SignatureHash, sha512_hex};
use postern_proto::AtSign;
use postern_server::{Config, Home, Limits, RunningServer, Server, Wanted};
use postern_store::Store;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Nothing on loopback takes this long.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// RSA keys take long to make: all atSigns of a test share one.
pub static KEY: LazyLock<RsaPrivateKey> = LazyLock::new(|| RsaPrivateKey::generate().unwrap());

pub struct World {
    pub runtime: Runtime,
    pub server: Option<RunningServer>,
    pub address: SocketAddr,
    pub store: Arc<dyn Store>,
    pub home: Home,
    pub dir: TempDir,
    tls: Arc<ClientConfig>,
    host: String,
}

impl World {
    pub fn start() -> Self {
        Self::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Self {
        Self::with_host("localhost", limits)
    }

    /// Whose directory answers with this host.
    pub fn at(host: &str) -> Self {
        Self::with_host(host, Limits::default())
    }

    fn with_host(host: &str, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home_dir = dir.path().join("srv");
        let listen = "127.0.0.1:0".parse().unwrap();
        let home = Home::init(&home_dir, &Wanted { host: host.into(), listen, tls: None }).unwrap();
        let store = home.store().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let config = Config {
            host: home.settings().host.clone(),
            listen,
            advertised_port: None,
            tls: home.tls().unwrap(),
            store: Arc::clone(&store),
            limits,
            peers: None,
        };
        let server = runtime.block_on(async { Server::start(config) }).unwrap();
        let tls = client_config(&std::fs::read(home.ca().unwrap()).unwrap());
        Self { address: server.address(), server: Some(server), runtime, store, home, dir, tls, host: host.to_owned() }
    }

    /// Adds an atSign, gives its CRAM secret.
    pub fn add(&self, name: &str) -> String {
        let name = AtSign::parse(name).unwrap();
        self.runtime.block_on(self.home.add(self.store.as_ref(), &name, None)).unwrap().to_string()
    }

    /// Adds an atSign and stores the public half of [`KEY`] as its legacy key.
    pub fn add_activated(&self, name: &str) {
        let secret = self.add(name);
        let mut client = self.connect();
        client.cram(name, &secret);
        let public = KEY.public_key().unwrap().to_base64();
        client.ask(&format!("update:privatekey:at_pkam_publickey {public}"), &format!("data:-1\n@{name}@"));
    }

    pub fn connect(&self) -> Client {
        let mut client = self.unread();
        client.expect("@");
        client
    }

    /// A connection whose greeting was not read yet, to the host that the directory names.
    pub fn unread(&self) -> Client {
        let tcp = TcpStream::connect_timeout(&self.address, PATIENCE).unwrap();
        Client::over_as(&self.host, tcp, Arc::clone(&self.tls))
    }

    /// Logged in as our own programs do, with their ALPN name.
    pub fn login_as_postern(&self, name: &str) -> Client {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = vec![b"postern/1".to_vec()];
        let mut client = Client::connect(self.address, Arc::new(tls));
        client.expect("@");
        client.pkam(name);
        client
    }

    /// Logged in by the legacy key.
    pub fn login(&self, name: &str) -> Client {
        let mut client = self.connect();
        client.pkam(name);
        client
    }
}

pub fn client_config(ca_pem: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

/// A client that reads one TLS record at a time, as some real ones do.
pub struct Client {
    tcp: TcpStream,
    tls: ClientConnection,
    /// Plain text of records not asked for yet.
    ahead: Vec<u8>,
    /// Records after the handshake that held no plain text.
    silent: usize,
}

impl Client {
    pub fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let tcp = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        Self::over(tcp, config)
    }

    pub fn over(tcp: TcpStream, config: Arc<ClientConfig>) -> Self {
        Self::over_as("localhost", tcp, config)
    }

    fn over_as(host: &str, mut tcp: TcpStream, config: Arc<ClientConfig>) -> Self {
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        let mut tls = ClientConnection::new(config, ServerName::try_from(host.to_owned()).unwrap()).unwrap();
        while tls.is_handshaking() {
            while tls.wants_write() {
                tls.write_tls(&mut tcp).unwrap();
            }
            if tls.is_handshaking() {
                read_record(&mut tcp, &mut tls).unwrap();
            }
        }
        while tls.wants_write() {
            tls.write_tls(&mut tcp).unwrap();
        }
        Self { tcp, tls, ahead: Vec::new(), silent: 0 }
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        for piece in bytes.chunks(16 * 1024) {
            self.tls.writer().write_all(piece)?;
            while self.tls.wants_write() {
                self.tls.write_tls(&mut self.tcp)?;
            }
        }
        Ok(())
    }

    /// The plain text of the next record; empty at the end of the connection.
    pub fn record(&mut self) -> Vec<u8> {
        self.try_record().unwrap()
    }

    pub fn try_record(&mut self) -> std::io::Result<Vec<u8>> {
        if !self.ahead.is_empty() {
            return Ok(std::mem::take(&mut self.ahead));
        }
        loop {
            if !read_record(&mut self.tcp, &mut self.tls)? {
                return Ok(Vec::new());
            }
            let mut plain = vec![0; 17 * 1024];
            match self.tls.reader().read(&mut plain) {
                Ok(n) => {
                    plain.truncate(n);
                    return Ok(plain); // zero: closed in order
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.silent += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// How many records came since the handshake that held no plain text: session tickets and their like.
    pub fn records_without_text(&self) -> usize {
        self.silent
    }

    pub fn text(&mut self) -> String {
        String::from_utf8(self.record()).unwrap()
    }

    /// One record, exactly.
    pub fn expect(&mut self, want: &str) {
        assert_eq!(self.text(), want);
    }

    pub fn ask(&mut self, line: &str, want: &str) {
        self.send(format!("{line}\n").as_bytes());
        assert_eq!(self.text(), want, "{line}");
    }

    /// Sends a line, gives the reply as it came.
    pub fn reply(&mut self, line: &str) -> String {
        self.send(format!("{line}\n").as_bytes());
        self.text()
    }

    /// The peer has closed.
    pub fn expect_end(&mut self) {
        match self.try_record() {
            Ok(rest) => assert_eq!(String::from_utf8_lossy(&rest), ""),
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe),
                "{error}"
            ),
        }
    }

    /// Nothing comes for a moment that is long on loopback: a record sent now arrives first.
    pub fn expect_silence(&mut self) {
        self.ask("noop:0", "data:ok\n");
    }

    /// `from`, gives the challenge.
    pub fn challenge(&mut self, name: &str) -> String {
        let reply = self.reply(&format!("from:@{name}"));
        let text = reply.strip_prefix("data:").unwrap_or_else(|| panic!("{reply}"));
        text.split('\n').next().unwrap().to_owned()
    }

    pub fn cram(&mut self, name: &str, secret: &str) {
        let challenge = self.challenge(name);
        let digest = sha512_hex(&[secret.as_bytes(), challenge.as_bytes()]);
        self.ask(&format!("cram:{digest}"), &format!("data:success\n@{name}@"));
    }

    pub fn pkam(&mut self, name: &str) {
        let challenge = self.challenge(name);
        let signature = KEY.sign(SignatureHash::Sha256, challenge.as_bytes()).unwrap();
        self.ask(&format!("pkam:{signature}"), &format!("data:success\n@{name}@"));
    }
}

/// Feeds exactly one record to the connection. False at the end of the stream.
fn read_record(tcp: &mut TcpStream, tls: &mut ClientConnection) -> std::io::Result<bool> {
    let mut record = vec![0; 5];
    match tcp.read_exact(&mut record) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
        outcome => outcome?,
    }
    let len = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + len, 0);
    tcp.read_exact(&mut record[5..])?;
    let mut rest = &record[..];
    while !rest.is_empty() {
        tls.read_tls(&mut rest)?;
        tls.process_new_packets().map_err(std::io::Error::other)?;
    }
    Ok(true)
}

/// Asks until the answer is right or patience ends.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
