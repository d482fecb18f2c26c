//! Logins that stay, and the sessions that begin with them: nothing but the request itself and the device's answer is
//! waited for.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use postern_client::trust::{KnownKeys, Places};
use postern_client::{AddressBook, Client, Fan, Identity, Settings, default_key_file, home_dir, identity, parse_root};
use postern_identity::PinName;
use postern_link::sealed::Future;
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_observe::Verbosity;
use postern_proto::{AtSign, Uuid};
use postern_session::{DeviceName, Dialect, NAMESPACE};
use tokio::sync::watch;

use super::sessions::{Dialled, Dialler, Failure, local_of};
use super::words::Wish;
use crate::arrival::{self, Parties};
use crate::limits::HEARTBEAT;
use crate::relay::relay_auth;
use crate::sealed::{self, Begun, Least, Ready, Sealing};
use crate::session::{Common, Wanted};
use crate::steps::Steps;
use crate::trouble::Trouble;

/// The logins of an agent. Clones are the same.
#[derive(Clone)]
pub(super) struct Warm {
    logins: Arc<Mutex<BTreeMap<String, Login>>>,
    tasks: Tasks,
}

/// A login, and who hears what arrives on it.
#[derive(Clone)]
struct Login {
    client: Client,
    fan: Fan,
    settings: Settings,
    /// Which key file it was made with.
    keys: Option<SystemTime>,
    /// Why there is none.
    refused: watch::Receiver<Option<String>>,
    tasks: Tasks,
}

impl Warm {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self { logins: Arc::default(), tasks }
    }

    /// The login that is there, or a new one, which has begun.
    fn login(&self, common: &Common, identity: &Identity) -> Result<Login, Trouble> {
        let file = key_file(common);
        let keys = file.as_ref().and_then(|file| std::fs::metadata(file).ok()?.modified().ok());
        let name = name(common);
        if let Some(login) = lock(&self.logins).get(&name)
            // Keys that were made anew may mean that the old ones are void.
            && login.keys == keys
        {
            return Ok(login.clone());
        }
        let settings = Settings {
            root: common.root.clone(),
            trust: Trust::load().map_err(Trouble::Trust)?,
            heartbeat: HEARTBEAT,
            // Of this kind and for us: what belongs to which session is sorted here.
            monitor: Some(format!(".{NAMESPACE}@")),
        };
        // Sessions that used the one before log in by themselves when they have to.
        self.forget(&name);
        let tasks = Tasks::under(self.tasks.token());
        let (client, inbox, begun) = Client::begin(identity.clone(), settings.clone(), AddressBook::usual(), &tasks);
        let (tell, refused) = watch::channel(None);
        let login = Login { client, fan: inbox.fan_out(&tasks), settings, keys, refused, tasks };
        lock(&self.logins).insert(name.clone(), login.clone());
        let warm = self.clone();
        drop(self.tasks.spawn(async move {
            if let Err(error) = begun.outcome().await {
                // Whoever comes now tries again.
                warm.forget(&name);
                tell.send_replace(Some(Trouble::Client(error).to_string()));
            }
        }));
        Ok(login)
    }

    fn forget(&self, name: &str) {
        if let Some(login) = lock(&self.logins).remove(name) {
            login.tasks.token().cancel();
        }
    }

    async fn set_up(self, wish: Wish, first: Option<StdUnixStream>) -> Result<Dialled, Failure> {
        let common = common(&wish).map_err(|why| Failure { why, refusal: false })?;
        let steps = Steps::kept(common.verbosity);
        let identity =
            identity(&common.from, common.key_file.as_deref()).map_err(Trouble::Start).map_err(Failure::from)?;
        let mut outcome = Box::pin(self.attempt(&common, &identity, first.as_ref(), &steps)).await;
        if outcome.as_ref().is_err_and(Trouble::is_relay_unreachable) {
            // A relay that was remembered is not there any more; it has been forgotten now.
            outcome = Box::pin(self.attempt(&common, &identity, first.as_ref(), &steps)).await;
        }
        if matches!(outcome, Err(Trouble::Client(_))) {
            // A login that does not answer may be void by now: the next wish begins another.
            self.forget(&name(&common));
        }
        let session = outcome.map_err(Failure::from)?;
        steps.report();
        Ok(Dialled { session, told: steps.into_lines() })
    }

    async fn attempt(
        &self,
        common: &Common,
        identity: &Identity,
        first: Option<&StdUnixStream>,
        steps: &Steps,
    ) -> Result<postern_link::sealed::Sealed, Trouble> {
        let wanted = Wanted::Ssh { push_key: None, user_name: false };
        let ready = Ready::find(common, identity)?.ok_or(Trouble::Crypto)?;
        let login = self.login(common, identity)?;
        let session = Uuid::from_random(postern_crypto::random());
        let tasks = Tasks::under(self.tasks.token());
        let parties = Parties {
            device_at_sign: common.to.clone(),
            device: common.device.clone(),
            relay: None,
            session: session.clone(),
        };
        let inbox = login.fan.inbox(tasks.token().clone());
        let arrivals = arrival::sort(parties, login.client.clone(), inbox, &tasks);
        let begun = Begun {
            common,
            wanted: &wanted,
            steps,
            client: login.client.clone(),
            session,
            settings: Settings { monitor: login.settings.monitor.clone(), ..login.settings.clone() },
            // Its own: a session that logs in anew ends what it had before.
            login: Tasks::under(tasks.token()),
            stop: tasks.token().clone(),
            refusals: arrivals.refusal,
        };
        let local = first.map(local_of).transpose().map_err(Trouble::Stdio)?;
        let mut refused = login.refused.clone();
        let no_login = async {
            let why = refused.wait_for(Option::is_some).await.map(|why| (*why).clone());
            match why {
                Ok(why) => Trouble::Agent { why: why.unwrap_or_default(), refusal: true },
                Err(_) => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            biased; // why there is no login says more than that nothing was answered
            why = no_login => Err(why),
            outcome = Box::pin(sealed::alone(ready, begun, local, &tasks)) => outcome,
        };
        match &outcome {
            Ok(session) => {
                let session = session.clone();
                drop(self.tasks.spawn(async move {
                    session.ended().await;
                    tasks.token().cancel();
                }));
            }
            Err(_) => tasks.token().cancel(),
        }
        outcome
    }
}

impl Dialler for Warm {
    fn ground(&self, wish: &Wish) -> String {
        let (Ok(to), Ok(device)) = (AtSign::parse(&wish.to), DeviceName::parse(&wish.device)) else {
            return String::new();
        };
        let known = KnownKeys::new(Places::of_user(), wish.strict);
        let Ok(pins) = known.pins() else { return "unreadable".to_owned() };
        let of = |name: PinName| pins.of(&name).map(|pin| pin.fingerprint.to_string()).collect::<Vec<_>>().join(",");
        format!("{} {}", of(PinName::Device(device, to.clone())), of(PinName::AtSign(to)))
    }

    fn dial(&self, wish: Wish, first: Option<StdUnixStream>) -> Future<'static, Result<Dialled, Failure>> {
        Box::pin(self.clone().set_up(wish, first))
    }
}

/// What a program would have done by itself.
fn common(wish: &Wish) -> Result<Common, String> {
    let at_sign = |text: &str| AtSign::parse(text).map_err(|error| format!("{text:?}: {error}"));
    Ok(Common {
        from: at_sign(&wish.from)?,
        to: at_sign(&wish.to)?,
        device: DeviceName::parse(&wish.device).map_err(|error| error.to_string())?,
        relays: wish.relays.iter().map(|relay| at_sign(relay)).collect::<Result<_, _>>()?,
        key_file: wish.key_file.clone(),
        root: parse_root(&wish.root).map_err(|error| error.to_string())?,
        authenticate_client: true,
        authenticate_device: true,
        relay_auth: relay_auth(None, false, Dialect::Current).expect("what is usual is allowed"),
        encrypt: true,
        ping_timeout: wish.patience,
        verbosity: Verbosity::of(wish.verbose, false),
        quiet: true,
        dialect: Dialect::Current,
        sealing: Sealing { least: Least::Sealed, strict_pins: wish.strict, resume: wish.resume },
    })
}

/// Whose login, where, with which keys.
fn name(common: &Common) -> String {
    format!("{} {} {}", common.root, common.from, key_file(common).unwrap_or_default().display())
}

fn key_file(common: &Common) -> Option<PathBuf> {
    common.key_file.clone().or_else(|| Some(default_key_file(&home_dir().ok()?, &common.from)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
