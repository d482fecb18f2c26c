//! The sealed session, as clients set it up. Source: docs/protocol/sealed.md.
//!
//! A device whose identity key is pinned is asked for nothing else; any other is asked for it beside the session of 2024,
//! where the relay takes tickets. The first answer decides: the device's reply inside the tunnel, its reply as in 2024, or
//! its signed refusal.

mod again;
mod believe;
mod line;
mod local;
mod near;
mod relays;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use postern_client::trust::{KnownKeys, OwnIdentity, Places};
use postern_client::{Client, Identity, Settings};
use postern_identity::Statement;
use postern_link::sealed::{DialError, Local, Sealed};
use postern_net::tasks::Tasks;
use postern_proto::Uuid;
use postern_session::Dialect;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::arrival::Answers;
use crate::legacy::{Making, Offering, Setup};
use crate::limits::HINT;
use crate::offline;
use crate::session::{Common, Wanted, Way};
use crate::steps::Steps;
use crate::trouble::Trouble;

pub(crate) use line::{Knocked, Line};
pub(crate) use local::Late;

/// What the user has said about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealing {
    pub(crate) least: Least,
    /// Only keys that were given in advance are believed.
    pub(crate) strict_pins: bool,
    /// How long a lost connection may stay lost; zero: not at all.
    pub(crate) resume: Duration,
}

/// The least that will do. In the configuration file `legacy` or `sealed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Least {
    /// A session of 2024 where the other programs can do no better and the device is not known to.
    Legacy,
    /// A sealed session.
    Sealed,
    #[serde(skip)]
    /// A session of 2024 is what is wanted, for a test of one; devices that are known to do better are refused.
    NotSealed,
}

/// Who we are and whom we know: what a sealed session needs before anything is sent.
pub(crate) struct Ready {
    own: Arc<OwnIdentity>,
    known: Arc<KnownKeys>,
    /// Nothing but a sealed session will do.
    pub(crate) only: bool,
}

impl Ready {
    /// `None`: a session of 2024 is asked for.
    pub(crate) fn find(common: &Common, identity: &Identity) -> Result<Option<Self>, Trouble> {
        let Sealing { least, strict_pins, .. } = common.sealing;
        if common.dialect != Dialect::Current {
            return Ok(None);
        }
        let places = Places::of_user();
        let known = KnownKeys::new(places.clone(), strict_pins);
        let pinned = known.knows_device(&common.to, &common.device).map_err(Trouble::Pins)?;
        match (least, pinned) {
            (Least::NotSealed, true) => return Err(Trouble::WouldDowngrade(common.device.clone(), common.to.clone())),
            (Least::NotSealed, false) => return Ok(None),
            (Least::Legacy | Least::Sealed, _) => {}
        }
        let only = pinned || strict_pins || least == Least::Sealed;
        if !only && !common.encrypt {
            return Ok(None);
        }
        if !common.encrypt {
            tracing::warn!("--no-encrypt-rvd-traffic is passed over: the session is sealed");
        }
        let own = OwnIdentity::load(&places, identity, None).map_err(Trouble::Pins)?;
        Ok(Some(Self { own: Arc::new(own), known: Arc::new(known), only }))
    }
}

/// What a session has at hand once its login has begun.
pub(crate) struct Begun<'a> {
    pub(crate) common: &'a Common,
    pub(crate) wanted: &'a Wanted,
    pub(crate) steps: &'a Steps,
    pub(crate) client: Client,
    pub(crate) session: Uuid,
    /// With which the login was begun, and can be once more.
    pub(crate) settings: Settings,
    /// The login's own.
    pub(crate) login: Tasks,
    /// Ends everything.
    pub(crate) stop: CancellationToken,
    pub(crate) refusals: mpsc::Receiver<Statement>,
}

/// Finds where to meet, and has our voucher ready. `None`: no relay takes tickets.
pub(crate) async fn prepare(ready: Ready, begun: Begun<'_>) -> Result<Option<Arc<Line>>, Trouble> {
    let Begun { common, client, steps, .. } = &begun;
    let vouched = async {
        if ready.own.ready_voucher().is_none() {
            steps.follow("our voucher", 2, 2, ready.own.voucher(client)).await.map_err(Trouble::Pins)?;
        }
        Ok(())
    };
    let places = async { Ok::<_, Trouble>(relays::find(common, client, steps).await) };
    let (places, ()) = tokio::try_join!(places, vouched)?;
    if places.is_empty() {
        return Ok(None);
    }
    Ok(Some(Arc::new(Line::new(ready, begun, places))))
}

/// A sealed session and nothing else.
pub(crate) async fn alone(
    ready: Ready,
    begun: Begun<'_>,
    local: Option<Local>,
    tasks: &Tasks,
) -> Result<Sealed, Trouble> {
    let (common, steps, client) = (begun.common, begun.steps, begun.client.clone());
    let no_relay = || Trouble::NoSealedRelay {
        relays: common.relays.clone(),
        device: common.device.clone(),
        at_sign: common.to.clone(),
    };
    let line = Box::pin(prepare(ready, begun)).await?.ok_or_else(no_relay)?;
    let knocked = line.knock_alone(0)?;
    steps.tell("Sending request for a sealed session to the device daemon");
    let text = knocked.text.clone();
    let mut known = None;
    let work = async {
        let asking = async {
            line.send(&client, &text).await?;
            std::future::pending::<Result<std::convert::Infallible, Trouble>>().await
        };
        let meeting = line.meet(knocked, local, common.ping_timeout, tasks);
        let meeting = steps.follow("the device's answer in the tunnel", 2, 1, meeting);
        tokio::pin!(asking, meeting);
        let hint = tokio::time::sleep(HINT);
        tokio::pin!(hint);
        loop {
            tokio::select! {
                met = &mut meeting => return met,
                asked = &mut asking => return asked.map(|never| match never {}),
                () = &mut hint, if !hint.is_elapsed() => {
                    offline::hint(common);
                    line.has_its_owners_key_changed(&client).await?;
                    known = offline::known_of(&client, &common.to, &common.device).await;
                }
            }
        }
    };
    match timeout(common.ping_timeout, Box::pin(work)).await {
        Err(_) => Err(Trouble::NoAnswer(known)),
        Ok(Err(Trouble::Sealed(DialError::Silent(_)))) => Err(Trouble::NoAnswer(known)),
        Ok(Err(Trouble::Sealed(DialError::Refused(_, refusal)))) if refusal.code == ALONE => {
            Err(Trouble::NoAnswer(known))
        }
        Ok(Err(error)) => {
            line.forget_places(&error);
            Err(error)
        }
        Ok(Ok(session)) => {
            line.tell(&session, steps);
            line.look_at_relays_again(tasks);
            Ok(session)
        }
    }
}

/// A sealed session beside one of 2024, in one request: the first answer decides. A device that knows sealed sessions does
/// not answer as in 2024.
pub(crate) async fn beside(
    line: impl Future<Output = Result<Option<Arc<Line>>, Trouble>>,
    setup: Setup<'_>,
    answers: Answers,
    making: Option<Making>,
    local: Option<Local>,
    tasks: &Tasks,
) -> Result<Way, Trouble> {
    let (common, steps) = (setup.common, setup.steps);
    let (tell_line, hear_line) = oneshot::channel();
    let (tell_knocked, hear_knocked) = oneshot::channel();
    let offering = Offering { line: hear_line, knocked: tell_knocked };
    let why_not_sealed = RefCell::new(None);
    let sealed = async {
        let line = line.await.unwrap_or_else(|trouble| {
            tracing::warn!(%trouble, "not asking for a sealed session");
            None
        });
        let _ = tell_line.send(line);
        let Ok((line, knocked)) = hear_knocked.await else { return Ok(None) };
        match line.meet(knocked, local, common.ping_timeout, tasks).await {
            Ok(session) => {
                line.tell(&session, steps);
                line.look_at_relays_again(tasks);
                Ok(Some(Way::Sealed(session)))
            }
            Err(trouble) if trouble.ends_both() => Err(trouble),
            Err(trouble) => {
                tracing::debug!(%trouble, "no sealed session");
                line.forget_places(&trouble);
                why_not_sealed.replace(Some(trouble));
                Ok(None)
            }
        }
    };
    let legacy = async {
        let standing = Box::pin(setup.run(answers, making, Some(offering))).await?;
        Ok(Way::Legacy(Box::new(standing)))
    };
    let (mut sealed, mut legacy) = (Box::pin(sealed), Box::pin(legacy));
    let outcome = tokio::select! {
        biased;
        way = &mut sealed => match way? {
            Some(way) => return Ok(way),
            None => legacy.await,
        },
        outcome = &mut legacy => match outcome {
            // Maybe the network lets us to the relay's one port, and not to those of this session.
            Err(trouble @ Trouble::RelayPort(..)) => sealed.await?.ok_or(trouble),
            outcome => outcome,
        },
    };
    outcome.map_err(|trouble| why_not_sealed.take().unwrap_or(trouble))
}

/// A relay says so when the other side did not come.
const ALONE: &str = "alone";
