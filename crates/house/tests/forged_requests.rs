//! Session requests that a manager's own client would not make (H4 to H9 of the original's suite): what the device says
//! to each, and that it dials nowhere.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_client::{Client, Identity, Inbox, KeyFile, Settings, parse_root};
use postern_house::in_house;
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_proto::{AtSign, SigningKeyName, Uuid};
use postern_session::{Envelope, NAMESPACE};
use postern_testkit::{Options, World, say};
use serde_json::{Value as Json, json};
use tokio::time::timeout;

/// A reply takes two notifications.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn forged_requests_are_refused_by_name() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        // In the place of a relay: sees whether the device dials.
        let relay = TcpListener::bind("127.0.0.1:0")?;
        relay.set_nonblocking(true)?;
        let dialled = || relay.accept().is_ok();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut forger = Forger::connect(world).await?;
            let ask = |id: &str| request(world, id, relay.local_addr().map_or(0, |a| a.port()));
            let mine = forger.client.publish_signing_key().await?;
            let other = SigningKeyName::parse(&mine.to_string().replace("@client", "@device")).context("a key name")?;
            let never = SigningKeyName::parse("public:_apsk.00000000-0000-4000-8000-000000000000.a.__e@client");

            let id = forger.id();
            let text = forger.sign(&ask(&id), Some(&mine))?;
            let (head, tail) = text.rsplit_once("\"s\":\"").context("no second signature")?;
            let (first, rest) = tail.split_at(1);
            let spoiled = format!("{head}\"s\":\"{}{rest}", if first == "A" { "B" } else { "A" });
            forger.expect(&id, &spoiled, "Enrollment signature not verified: signature does not verify").await?;

            let id = forger.id();
            let text = forger.sign(&ask(&id), Some(&other))?;
            forger.expect(&id, &text, "its key is of @device, not the requester").await?;

            // The second signature is over another request than the first.
            let id = forger.id();
            let elsewhere = forger.sign(&ask(&forger.id()), Some(&mine))?;
            let borrowed: Json = serde_json::from_str(&elsewhere)?;
            let mut text: Json = serde_json::from_str(&forger.sign(&ask(&id), None)?)?;
            text["enrollmentSignature"] = borrowed["enrollmentSignature"].clone();
            forger
                .expect(&id, &text.to_string(), "Enrollment signature not verified: signature does not verify")
                .await?;

            let id = forger.id();
            let text = forger
                .sign(&ask(&id), Some(&mine))?
                .replace("\"requestedHost\":\"localhost\"", "\"requestedHost\":\"elsewhere\"");
            let said = forger.send(&id, &text).await?;
            ensure!(said.contains("ignature not verified"), "a changed payload: {said}");
            ensure!(!dialled(), "the device dialled for a forged request");

            // Nobody has published this key, and this device demands none: it goes ahead. While the session lives, its
            // id is taken.
            let id = forger.id();
            let text = forger.sign(&ask(&id), never.as_ref())?;
            forger.expect(&id, &text, "\"status\":\"connected\"").await?;
            let _session = relay.accept().context("it says connected and has not dialled")?;
            let again = forger.sign(&ask(&id), Some(&mine))?;
            forger.expect(&id, &again, "is already live").await?;
            ensure!(!dialled(), "the device dialled twice for one session id");
            anyhow::Ok(())
        })
    })
}

fn request(world: &World, id: &str, relay_port: u16) -> Json {
    json!({
        "sessionId": id, "rvdHost": "127.0.0.1", "rvdPort": relay_port, "requestedPort": world.ssh_port(),
        "requestedHost": "localhost", "authenticateToRvd": false, "clientNonce": "c", "rvdNonce": "r",
        "encryptRvdTraffic": false, "timeout": 30_000,
    })
}

/// The client's keys in the hands of somebody who writes requests himself.
struct Forger {
    client: Client,
    inbox: Inbox,
    _tasks: Tasks,
}

impl Forger {
    async fn connect(world: &World) -> anyhow::Result<Self> {
        let keys = KeyFile::load(&world.key_file(World::CLIENT)).ok().context("no keys")?;
        let identity = Identity { at_sign: AtSign::parse(World::CLIENT)?, keys: Arc::new(keys) };
        let settings = Settings {
            root: parse_root(&world.root())?,
            trust: Trust::only_pem(&std::fs::read(world.dir().join("server/ca.pem"))?).ok().context("no trust")?,
            heartbeat: Duration::from_secs(60),
            monitor: Some(format!(r"\.{}\.{NAMESPACE}@", World::DEVICE_NAME)),
        };
        let tasks = Tasks::new();
        let (client, inbox) = Client::connect(identity, settings, &tasks).await?;
        Ok(Self { client, inbox, _tasks: tasks })
    }

    fn id(&self) -> String {
        Uuid::from_random(postern_crypto::random()).to_string()
    }

    fn sign(&self, payload: &Json, name: Option<&SigningKeyName>) -> anyhow::Result<String> {
        let keys = &self.client.identity().keys;
        let signed = match name {
            Some(name) => Envelope::sign_twice(payload, &keys.encryption, name, &keys.pkam),
            None => Envelope::sign(payload, &keys.encryption),
        };
        signed.ok().context("cannot sign")
    }

    async fn expect(&mut self, id: &str, text: &str, words: &str) -> anyhow::Result<()> {
        let said = self.send(id, text).await?;
        say(format_args!("the device: {said}"));
        ensure!(said.contains(words), "not {words:?} but {said:?}");
        Ok(())
    }

    /// What the device answers.
    async fn send(&mut self, id: &str, text: &str) -> anyhow::Result<String> {
        let device = AtSign::parse(World::DEVICE)?;
        let name = format!("npt_request.{}.{NAMESPACE}", World::DEVICE_NAME);
        self.client.notify(&device, &name, text, None).await?;
        let wanted = format!("{id}.{}.{NAMESPACE}", World::DEVICE_NAME);
        loop {
            let push = timeout(PATIENCE, self.inbox.next()).await.context("the device says nothing")?;
            let push = push.context("the client has stopped")?;
            if push.from == device && push.bare_key() == wanted {
                return Ok(self.client.open(&push).await?.to_string());
            }
        }
    }
}
