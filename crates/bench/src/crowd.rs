//! Many connected identities in our own process: the load on a server.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use postern_client::{Client, ClientError, Identity, Inbox, KeyFile, Settings, parse_root};
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_proto::AtSign;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::product::House;

/// Where clients of one house live, and what they need.
pub(crate) struct Crowd {
    runtime: Runtime,
    settings: Settings,
    tasks: Tasks,
}

impl Crowd {
    /// A runtime of the bench's own, told where the house is.
    pub(crate) fn of(house: &House, heartbeat: Duration) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let settings = Settings {
            root: parse_root(house.root())?,
            trust: Trust::only_pem(&std::fs::read(house.ca_file())?)?,
            heartbeat,
            monitor: None,
        };
        Ok(Self { runtime, settings, tasks: Tasks::new() })
    }

    /// Logs in as `identity`; with a monitor if `monitor`.
    pub(crate) fn connect(
        &self,
        identity: &Identity,
        monitor: bool,
    ) -> impl Future<Output = Result<(Client, Inbox), ClientError>> + Send + use<> {
        let settings = Settings { monitor: monitor.then(String::new), ..self.settings.clone() };
        let (identity, tasks) = (identity.clone(), self.tasks.clone());
        async move { Client::connect(identity, settings, &tasks).await }
    }

    /// Does something with them.
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Starts something that ends with the crowd.
    pub(crate) fn start<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let _inside = self.runtime.enter();
        self.tasks.spawn(work)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.tasks.close_and_wait(Duration::from_secs(5)));
    }
}

/// An atSign of the house, with its keys.
pub(crate) fn identity(house: &House, name: &str) -> anyhow::Result<Identity> {
    let keys = KeyFile::load(&house.keys(name)).map_err(|trouble| anyhow!("{trouble}"))?;
    let at_sign = AtSign::parse(name).ok().context("an atSign of the house")?;
    Ok(Identity { at_sign, keys: Arc::new(keys) })
}
