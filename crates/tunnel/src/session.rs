//! Setting a session up: a sealed one where it can be, else one of 2024.

use std::path::PathBuf;
use std::time::Duration;

use postern_client::{AddressBook, Client, Settings, identity};
use postern_link::sealed::{Local, Sealed};
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_observe::Verbosity;
use postern_proto::{AtSign, ServerAddress, Uuid};
use postern_rendezvous::ModeWish;
use postern_session::{DeviceName, Dialect, EphemeralKey, NAMESPACE, SshPublicKey};
use tokio_util::sync::CancellationToken;

use crate::arrival::{self, Arrivals, Parties};
use crate::choose;
use crate::journal;
use crate::legacy::{self, Setup};
use crate::limits::{HEARTBEAT, REQUEST_LIFE};
use crate::sealed::{self, Begun, Ready, Sealing};
use crate::steps::Steps;
use crate::trouble::Trouble;

/// What both programs are told on their command lines.
pub(crate) struct Common {
    pub(crate) from: AtSign,
    pub(crate) to: AtSign,
    pub(crate) device: DeviceName,
    /// One, or several of which the nearest is taken.
    pub(crate) relays: Vec<AtSign>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) root: ServerAddress,
    pub(crate) authenticate_client: bool,
    pub(crate) authenticate_device: bool,
    /// How sockets prove whose they are, and whether all go through one port.
    pub(crate) relay_auth: ModeWish,
    pub(crate) encrypt: bool,
    pub(crate) ping_timeout: Duration,
    pub(crate) verbosity: Verbosity,
    pub(crate) quiet: bool,
    /// Whose habits we have.
    pub(crate) dialect: Dialect,
    /// Whether the session is to be sealed.
    pub(crate) sealing: Sealing,
}

/// What kind of session is asked for.
pub(crate) enum Wanted {
    /// The device's ssh server.
    Ssh {
        /// Public key to push.
        push_key: Option<SshPublicKey>,
        /// Fetch the device's user name.
        user_name: bool,
    },
    /// Any target that the device permits.
    Npt { host: String, port: u16, timeout: Duration },
}

/// A session that stands: the device has agreed.
pub(crate) struct Standing {
    pub(crate) way: Way,
    pub(crate) user_name: Option<String>,
    /// Names the session.
    pub(crate) session: Uuid,
}

/// How the bytes of a session travel.
pub(crate) enum Way {
    /// End to end; for ssh with the local end that [`establish`] was given.
    Sealed(Sealed),
    /// As in 2024.
    Legacy(Box<legacy::Standing>),
}

/// Sets a session up. `local` makes what stands at our end of the device's ssh server: a sealed session has it from the
/// start, so that ssh's first words travel with our proof.
pub(crate) async fn establish(
    common: &Common,
    wanted: &Wanted,
    local: &dyn Fn() -> Option<Local>,
    steps: &Steps,
    tasks: &Tasks,
) -> Result<Standing, Trouble> {
    let first = Box::pin(attempt(common, wanted, local(), steps, tasks)).await;
    match first {
        // A relay that was remembered is not there any more; it has been forgotten now.
        Err(trouble) if trouble.is_relay_unreachable() => {
            tracing::debug!(%trouble, "looking for the relay anew");
            Box::pin(attempt(common, wanted, local(), steps, tasks)).await
        }
        outcome => outcome,
    }
}

async fn attempt(
    common: &Common,
    wanted: &Wanted,
    local: Option<Local>,
    steps: &Steps,
    tasks: &Tasks,
) -> Result<Standing, Trouble> {
    let session = Uuid::from_random(postern_crypto::random());
    let identity = identity(&common.from, common.key_file.as_deref()).map_err(Trouble::Start)?;
    let ready = Ready::find(common, &identity)?;
    let alone = ready.as_ref().is_some_and(|ready| ready.only);
    // RSA takes longer than the whole login: begin at once, on a thread of its own.
    let making = (common.encrypt && !alone).then(|| tokio::task::spawn_blocking(EphemeralKey::generate));
    let settings = Settings {
        root: common.root.clone(),
        trust: Trust::load().map_err(Trouble::Trust)?,
        heartbeat: HEARTBEAT,
        monitor: Some(monitor_regex(common, &session, alone)),
    };
    let logged_in = Tasks::under(tasks.token());
    // The first requests do not wait for the login's answer: they travel behind the proof.
    let (client, mut inbox, mut login) = Client::begin(identity, settings.clone(), AddressBook::usual(), &logged_in);
    let refused = async {
        // TCP, TLS, and the claim with the directory's question.
        steps.follow("reaching the atServer", 3, 2, login.reached()).await;
        steps.nothing_before_now();
        match steps.follow("login", 1, 1, login.outcome()).await {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    };
    let parties = |relay| Parties {
        device_at_sign: common.to.clone(),
        device: common.device.clone(),
        relay,
        session: session.clone(),
    };
    let begun = |refusals| Begun {
        common,
        wanted,
        steps,
        client: client.clone(),
        session: session.clone(),
        settings,
        login: logged_in.clone(),
        stop: tasks.token().clone(),
        refusals,
    };
    // Boxed here and below: these states are large, and used once.
    let way = Box::pin(async {
        let ready = match ready {
            Some(ready) if ready.only => {
                let arrivals = arrival::sort(parties(None), client.clone(), inbox, &logged_in);
                let sealed = Box::pin(sealed::alone(ready, begun(arrivals.refusal), local, tasks)).await;
                return sealed.map(Way::Sealed);
            }
            ready => ready,
        };
        let relay = Box::pin(choose::nearest(common, &client, &mut inbox, steps)).await;
        let arrivals = arrival::sort(parties(Some(relay.clone())), client.clone(), inbox, &logged_in);
        let setup = Setup::new(common, wanted, steps, client.clone(), session.clone(), relay);
        let Arrivals { answers, refusal } = arrivals;
        match ready {
            None => Box::pin(setup.run(answers, making, None)).await.map(|standing| Way::Legacy(Box::new(standing))),
            Some(ready) => {
                let line = sealed::prepare(ready, begun(refusal));
                Box::pin(sealed::beside(line, setup, answers, making, local, tasks)).await
            }
        }
    });
    let user_name = user_name(common, wanted, &client, steps);
    let pushed = push_key(common, wanted, &client, steps);
    let standing = async { tokio::try_join!(way, user_name, pushed) };
    let outcome = tokio::select! {
        biased; // why there is no login says more than that nothing was answered
        error = refused => Err(error.into()),
        standing = standing => standing,
    };
    match outcome {
        Ok((way, user_name, ())) => {
            if let Way::Sealed(sealed) = &way {
                journal::follow(sealed, &session, common, wanted, tasks);
            }
            Ok(Standing { way, user_name, session: session.clone() })
        }
        Err(trouble) => {
            logged_in.token().cancel();
            Err(trouble)
        }
    }
}

/// What the atServer is asked to push: nothing but what belongs to this session.
fn monitor_regex(common: &Common, session: &Uuid, alone: bool) -> String {
    if alone {
        return format!(r"{session}\.");
    }
    let choosing = choose::monitor_regex(common).map(|regex| format!("|{regex}")).unwrap_or_default();
    format!(r"heartbeat\.{}\.{NAMESPACE}@|{session}\.{choosing}", common.device)
}

async fn user_name(
    common: &Common,
    wanted: &Wanted,
    client: &Client,
    steps: &Steps,
) -> Result<Option<String>, Trouble> {
    let Wanted::Ssh { user_name: true, .. } = wanted else { return Ok(None) };
    steps.tell("Resolving remote username for user session");
    let name = format!("username.{}.{NAMESPACE}", common.device);
    let record = client.get_shared(&common.to, &name);
    match steps.follow("user name on the device", 1, 2, record).await {
        Ok(name) if is_user_name(&name) => Ok(Some(name.trim().to_owned())),
        Ok(_) => Err(Trouble::NoUser),
        Err(error) => {
            tracing::debug!(%error, "no user name");
            Err(Trouble::NoUser)
        }
    }
}

async fn push_key(common: &Common, wanted: &Wanted, client: &Client, steps: &Steps) -> Result<(), Trouble> {
    let Wanted::Ssh { push_key: Some(key), .. } = wanted else { return Ok(()) };
    steps.tell("Sharing ssh public key");
    let name = format!("sshpublickey.{}.{NAMESPACE}", common.device);
    let text = key.to_string();
    let sent = client.notify(&common.to, &name, &text, Some(REQUEST_LIFE));
    Ok(steps.follow("ssh public key", 1, 1, sent).await?)
}

/// Part of the command line of ssh: nothing that could be taken for an option or a second word.
pub(crate) fn is_user_name(name: &str) -> bool {
    let name = name.trim();
    let good = |c: char| !c.is_whitespace() && !c.is_control() && !"'\"`$&|;<>()\\@".contains(c);
    !name.is_empty() && name.len() <= 64 && !name.starts_with('-') && name.chars().all(good)
}

/// The token that ends a session when its program is told to stop.
pub(crate) fn stop_of(tasks: &Tasks) -> CancellationToken {
    tasks.token().child_token()
}
