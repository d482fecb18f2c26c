//! Who asks a policy service in somebody else's name learns nothing, and who answers in its name is not heard.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use postern_client::{Client, Identity, Inbox, KeyFile, Settings, parse_root};
use postern_house::in_house;
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_proto::AtSign;
use postern_rules::rpc::{Domain, Kind, Reply, Request, RequestIds};
use postern_rules::{Answer, Question};
use postern_testkit::limits::READY;
use postern_testkit::{Options, Process, World, say};
use tokio::time::timeout;

const POLICY: &str = "@policy";
const LIAR: &str = "@liar";
/// A reply takes two notifications.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_device_learns_about_itself_alone() -> anyhow::Result<()> {
    let strangers = [POLICY, LIAR].map(str::to_owned).to_vec();
    in_house(Options { strangers, own_daemon: false, ..Options::default() }, |world| {
        let rules = world.dir().join("rules.yaml");
        std::fs::write(
            &rules,
            "userGroups: {a: {userAtSigns: ['@client'], permissions: {daemonAtSigns: ['@device'], deviceNames: {gateway: ['localhost:22']}}}}\n",
        )?;
        let mut npp = world.postern(POLICY);
        npp.args(["npp_file", "--debug", "-a", POLICY, "--root-domain", &world.root(), "--yaml"]).arg(&rules);
        npp.arg("-k").arg(world.key_file(POLICY));
        let mut npp = Process::start(npp)?;
        npp.wait_for_line(READY, |line| line.contains("monitor started for "))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut device = Asker::connect(world, World::DEVICE).await?;
            let mut liar = Asker::connect(world, LIAR).await?;
            let about = |daemon: &str| Question {
                daemon: AtSign::parse(daemon).expect("an atSign"),
                device: World::DEVICE_NAME.to_owned(),
                group: "__none__".to_owned(),
                client: AtSign::parse(World::CLIENT).expect("an atSign"),
            };
            // The device itself.
            let reply = device.ask(&about(World::DEVICE), 0).await?;
            ensure!(reply.kind() == Kind::Success, "{reply:?}");
            let answer = Answer::from_json(&reply.payload).context("no answer")?;
            ensure!(answer.authorized && answer.permit_open == Some(vec!["localhost:22".to_owned()]), "{answer:?}");
            // Somebody in its name.
            let reply = liar.ask(&about(World::DEVICE), 0).await?;
            ensure!(reply.kind() == Kind::Nack && reply.payload == serde_json::json!({}), "{reply:?}");
            ensure!(reply.message.as_deref() == Some("payload.daemonAtsign is not who asks"), "{reply:?}");
            say(format_args!("a liar is told: {}", reply.print()));
            // The same in its own name: no rule names it.
            let reply = liar.ask(&about(LIAR), 0).await?;
            ensure!(Answer::from_json(&reply.payload).is_some_and(|answer| !answer.authorized), "{reply:?}");
            // The number in the text is not the one in the key.
            let reply = device.ask(&about(World::DEVICE), 1).await?;
            ensure!(reply.kind() == Kind::Nack, "{reply:?}");
            device.tasks.close_and_wait(PATIENCE).await;
            liar.tasks.close_and_wait(PATIENCE).await;
            anyhow::Ok(())
        })?;
        ensure!(npp.is_running());
        Ok(())
    })
}

/// Who asks, by the rules of the transport and no others.
struct Asker {
    client: Client,
    inbox: Inbox,
    domain: Domain,
    ids: RequestIds,
    tasks: Tasks,
}

impl Asker {
    async fn connect(world: &World, at_sign: &str) -> anyhow::Result<Self> {
        let ca: &Path = &world.dir().join("server/ca.pem");
        let keys = KeyFile::load(&world.key_file(at_sign)).ok().context("no keys")?;
        let identity = Identity { at_sign: AtSign::parse(at_sign)?, keys: std::sync::Arc::new(keys) };
        let domain = Domain::checks("sshnp");
        let settings = Settings {
            root: parse_root(&world.root())?,
            trust: Trust::only_pem(&std::fs::read(ca)?).ok().context("no trust")?,
            heartbeat: Duration::from_secs(60),
            monitor: Some(domain.replies_regex()),
        };
        let tasks = Tasks::new();
        let (client, inbox) = Client::connect(identity, settings, &tasks).await?;
        Ok(Self { client, inbox, domain, ids: RequestIds::new(0), tasks })
    }

    /// Asks, with a number in the text that is `off` above the one in the key, and waits for the last word.
    async fn ask(&mut self, question: &Question, off: u64) -> anyhow::Result<Reply> {
        let policy = AtSign::parse(POLICY)?;
        let id = self.ids.next(1);
        let other = (0..off).fold(id, |_, _| self.ids.next(1));
        let text = Request::print(other, question.to_json());
        self.client.notify(&policy, &self.domain.name(Kind::Request, id), &text, None).await?;
        loop {
            let push = timeout(PATIENCE, self.inbox.next()).await?.context("the client has stopped")?;
            let Some(key) = self.domain.read(&push.bare_key()) else { bail!("not a reply: {}", push.key) };
            ensure!(push.from == policy && key.id == id, "a reply to something else: {}", push.key);
            let reply = Reply::read(key, &self.client.open(&push).await?)?;
            if reply.kind() != Kind::Ack {
                return Ok(reply);
            }
        }
    }
}
