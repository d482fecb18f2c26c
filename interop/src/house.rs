//! What the cases share: the subject, the agents, our own client.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_client::{Client, Identity, Inbox, KeyFile, Settings, parse_root};
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_proto::AtSign;
use postern_testkit::{postern_bin, run};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::agent::{Agent, Files};
use crate::case::Program;
use crate::limits::ANSWER;
use crate::subject::Subject;

/// Two people who use the same program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// Her keys were made by our `at_activate`.
    Alice,
    /// His keys were made by the program itself, on first activation.
    Bob,
}

/// Everything a case may use.
pub(crate) struct House {
    agents: BTreeMap<(Program, Who), Rc<Agent>>,
    /// Who has been activated, with a key file in the program's home.
    names: BTreeMap<(Program, Who), String>,
    ours: Option<Rc<Ours>>,
    pub(crate) subject: Subject,
    /// One virtual environment a program.
    environments: PathBuf,
    dir: TempDir,
    runtime: Rc<Runtime>,
}

/// Our own client library, connected, with a monitor.
pub(crate) struct Ours {
    pub(crate) client: Client,
    inbox: std::cell::RefCell<Inbox>,
    runtime: Rc<Runtime>,
    _tasks: Tasks,
}

impl House {
    pub(crate) fn new(subject: Subject, environments: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self {
            agents: BTreeMap::new(),
            names: BTreeMap::new(),
            ours: None,
            subject,
            environments: environments.to_owned(),
            dir: tempfile::Builder::new().prefix("postern-interop-").tempdir()?,
            runtime: Rc::new(runtime),
        })
    }

    /// Somebody with this program, logged in; made when first asked for.
    pub(crate) fn agent(&mut self, program: Program, who: Who) -> anyhow::Result<Rc<Agent>> {
        if let Some(agent) = self.agents.get(&(program, who)) {
            return Ok(Rc::clone(agent));
        }
        let known = self.names.get(&(program, who)).cloned();
        let agent = match known {
            Some(name) => Rc::new(self.new_agent(program, &name)?),
            None => self.first_time(program, who)?,
        };
        agent.ask("login", json!({}))?;
        self.agents.insert((program, who), Rc::clone(&agent));
        Ok(agent)
    }

    fn first_time(&mut self, program: Program, who: Who) -> anyhow::Result<Rc<Agent>> {
        let wish = format!("@{}_{}", if who == Who::Alice { "alice" } else { "bob" }, program.short());
        let (name, secret) = self.subject.fresh(&wish)?;
        let agent = Rc::new(self.new_agent(program, &name)?);
        match who {
            Who::Alice => self.activate(&name, &secret, &self.key_file(program, &name))?,
            Who::Bob => agent.ask("onboard", json!({ "secret": secret })).map(drop)?,
        }
        self.names.insert((program, who), name);
        Ok(agent)
    }

    /// Ends an agent whose connections are dead; the next question finds it logged in anew.
    pub(crate) fn forget_agent(&mut self, program: Program, who: Who) {
        self.agents.remove(&(program, who));
    }

    /// An agent that has done nothing yet.
    pub(crate) fn new_agent(&self, program: Program, at_sign: &str) -> anyhow::Result<Agent> {
        let home = self.home(program);
        std::fs::create_dir_all(&home)?;
        let files = Files { home, ca_file: self.subject.ca_file() };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("atsdk/agent.py");
        Agent::start(&self.bin(program, "python"), &script, at_sign, &self.subject.root(), &files)
    }

    /// Where this program's SDK looks for an atSign's keys.
    pub(crate) fn key_file(&self, program: Program, at_sign: &str) -> PathBuf {
        self.home(program).join(format!(".atsign/keys/{at_sign}_key.atKeys"))
    }

    /// A program of a virtual environment.
    pub(crate) fn bin(&self, program: Program, name: &str) -> PathBuf {
        self.environments.join(program.environment()).join("bin").join(name)
    }

    /// Activates an atSign with our `at_activate`.
    pub(crate) fn activate(&self, at_sign: &str, secret: &str, key_file: &Path) -> anyhow::Result<()> {
        let mut command = self.postern("at_activate")?;
        command.args(["onboard", "-a", at_sign, "-c", secret, "-r", &self.subject.root(), "-k"]).arg(key_file);
        run(command, ANSWER)?.success().with_context(|| format!("activation of {at_sign}"))?;
        Ok(())
    }

    /// A program of ours.
    pub(crate) fn postern(&self, program: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(postern_bin()?);
        command.arg(program).env("HOME", self.dir.path()).env("POSTERN_CA_FILE", self.subject.ca_file());
        Ok(command)
    }

    /// Our client library as an atSign of its own.
    pub(crate) fn ours(&mut self) -> anyhow::Result<Rc<Ours>> {
        if let Some(ours) = &self.ours {
            return Ok(Rc::clone(ours));
        }
        let (name, secret) = self.subject.fresh("@ours")?;
        let key_file = self.dir.path().join("ours.atKeys");
        self.activate(&name, &secret, &key_file)?;
        let ours = Rc::new(self.connect(&name, &key_file)?);
        self.ours = Some(Rc::clone(&ours));
        Ok(ours)
    }

    /// Our client library with somebody's key file.
    pub(crate) fn connect(&self, at_sign: &str, key_file: &Path) -> anyhow::Result<Ours> {
        let keys = KeyFile::load(key_file).map_err(|trouble| anyhow::anyhow!("{trouble}"))?;
        let at_sign: AtSign = at_sign.parse().map_err(|_| anyhow::anyhow!("{at_sign} is no atSign"))?;
        let settings = Settings {
            root: parse_root(&self.subject.root())?,
            trust: Trust::only_pem(&std::fs::read(self.subject.ca_file())?)?,
            heartbeat: Duration::from_secs(10),
            monitor: Some(String::new()),
        };
        let tasks = Tasks::new();
        let identity = Identity { at_sign, keys: Arc::new(keys) };
        let (client, inbox) = self.runtime.block_on(Client::connect(identity, settings, &tasks))?;
        Ok(Ours { client, inbox: inbox.into(), runtime: Rc::clone(&self.runtime), _tasks: tasks })
    }

    fn home(&self, program: Program) -> PathBuf {
        self.dir.path().join(program.short())
    }
}

impl Ours {
    /// The atSign.
    pub(crate) fn at_sign(&self) -> String {
        self.client.at_sign().to_string()
    }

    /// Waits for an answer.
    pub(crate) fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, postern_client::ClientError>>,
    ) -> anyhow::Result<T> {
        Ok(self.runtime.block_on(work)?)
    }

    /// Waits until a notification with this text has come from `peer`.
    pub(crate) fn wait_for_text(&self, peer: &str, wanted: &str, deadline: Duration) -> anyhow::Result<()> {
        let mut inbox = self.inbox.borrow_mut();
        let mut others = Vec::new();
        let work = async {
            while let Some(push) = inbox.next().await {
                if push.from.to_string() != peer {
                    continue;
                }
                match self.client.open(&push).await {
                    Ok(text) if *text == wanted => return true,
                    Ok(text) => others.push(text.to_string()),
                    Err(error) => others.push(format!("({error})")),
                }
            }
            false
        };
        let heard = self.runtime.block_on(async { tokio::time::timeout(deadline, work).await.unwrap_or(false) });
        ensure!(heard, "no notification {wanted:?} of {peer} within {deadline:?}; but {others:?}");
        Ok(())
    }
}
