//! A server with two atSigns, for the tests.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, reason = "as above")]
#![allow(missing_docs, reason = "the names say it")]

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use postern_client::{Client, Identity, Inbox, Settings, parse_root};
use postern_crypto::AtKeys;
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_proto::{AtKey, AtSign, Metadata, Notification, Record};
use postern_server::{Config, Home, Limits, RunningServer, Server, Wanted};
use postern_store::{Batch, LogAs, Store};
use tempfile::TempDir;
use tokio::time::timeout;

/// Nothing on loopback takes this long; a reconnect may take some of it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// RSA keys take long to make: the tests share two sets.
pub static KEYS: LazyLock<[Arc<AtKeys>; 2]> = LazyLock::new(|| [(); 2].map(|()| Arc::new(AtKeys::generate().unwrap())));

pub struct House {
    pub server: Option<RunningServer>,
    pub address: SocketAddr,
    pub store: Arc<dyn Store>,
    pub home: Home,
    pub tasks: Tasks,
    pub _dir: TempDir,
}

impl House {
    /// A server with @alice and @bob, both activated in the legacy form.
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listen = "127.0.0.1:0".parse().unwrap();
        let home =
            Home::init(&dir.path().join("srv"), &Wanted { host: "localhost".into(), listen, tls: None }).unwrap();
        let store = home.store().unwrap();
        let mut house = Self { server: None, address: listen, store, home, tasks: Tasks::new(), _dir: dir };
        for (name, keys) in [("alice", &KEYS[0]), ("bob", &KEYS[1])] {
            let name = at(name);
            house.home.add(house.store.as_ref(), &name, None).await.unwrap();
            let mut batch = Batch::new(0);
            for (key, value) in [
                (AtKey::private_key("at_pkam_publickey"), keys.pkam.public_key().unwrap().to_base64()),
                (AtKey::public("publickey", &name), keys.encryption_public.to_base64()),
            ] {
                batch = batch.put(&name, &key, Record::new(value, Metadata::default(), 0), LogAs::Nothing);
            }
            house.store.commit(batch).await.unwrap();
        }
        house.start();
        house
    }

    pub fn start(&mut self) {
        let config = Config {
            host: self.home.settings().host.clone(),
            listen: self.address,
            advertised_port: None,
            tls: self.home.tls().unwrap(),
            store: Arc::clone(&self.store),
            limits: Limits::default(),
            peers: None,
        };
        let server = Server::start(config).unwrap();
        self.address = server.address();
        self.server = Some(server);
    }

    pub fn settings(&self, monitor: Option<&str>) -> Settings {
        let pem = std::fs::read(self.home.ca().unwrap()).unwrap();
        Settings {
            root: parse_root(&format!("localhost:{}", self.address.port())).unwrap(),
            trust: Trust::only_pem(&pem).unwrap(),
            heartbeat: Duration::from_secs(60),
            monitor: monitor.map(str::to_owned),
        }
    }

    pub async fn connect(&self, name: &str, keys: &Arc<AtKeys>, monitor: Option<&str>) -> (Client, Inbox) {
        let identity = Identity { at_sign: at(name), keys: Arc::clone(keys) };
        Client::connect(identity, self.settings(monitor), &self.tasks).await.unwrap()
    }

    pub async fn alice(&self) -> Client {
        self.connect("alice", &KEYS[0], None).await.0
    }

    pub async fn bob(&self, monitor: &str) -> (Client, Inbox) {
        self.connect("bob", &KEYS[1], Some(monitor)).await
    }
}

pub fn at(name: &str) -> AtSign {
    AtSign::parse(name).unwrap()
}

pub async fn next(inbox: &mut Inbox) -> Notification {
    timeout(PATIENCE, inbox.next()).await.expect("no notification in time").expect("the client has stopped")
}
