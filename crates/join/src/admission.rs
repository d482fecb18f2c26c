//! From the request to the keys.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use postern_client::{ClientError, Decision, EnrollmentRequest, PendingEnrollment, Settings};
use postern_crypto::AtKeys;
use postern_identity::{Fingerprint, Invitation};
use postern_observe::{Waiting, say};
use postern_proto::{ErrorCode, Uuid};
use zeroize::Zeroizing;

use crate::fail::{Fail, Kind};
use crate::limits::{ASK_FIRST, ASK_LATER, KEY_REFUSALS, OWN_FILE_BYTES};
use crate::patience::patiently;
use crate::{APP, files, namespaces, now};

/// An enrolment that was approved.
pub(crate) struct Admitted {
    pub(crate) id: Uuid,
    pub(crate) keys: AtKeys,
}

/// Asks, or goes on with what was asked before, until there is an answer. `pending`: where it is kept meanwhile.
pub(crate) async fn ask_and_wait(
    invitation: &Invitation,
    settings: &Settings,
    pending: &Path,
    patience: Duration,
    waiting: &Waiting,
) -> Result<Admitted, Fail> {
    waiting.on(format!("the server of {}", invitation.at_sign));
    let request = match begun(invitation, settings, pending)? {
        Some(request) => request,
        None => {
            let request = patiently(patience, async || ask(invitation, settings).await).await;
            let request = request.map_err(|refused| refused.told(invitation))?;
            files::replace(pending, &request.keep(), 0o600)
                .map_err(|error| Fail::world(format!("{}: {error}; ask for another invitation", pending.display())))?;
            request
        }
    };
    waiting.on("the inviter's word");
    let outcome = wait(invitation, &request).await;
    if outcome.as_ref().is_err_and(|fail| fail.kind() != Kind::World) {
        let _ = fs::remove_file(pending);
    }
    outcome.map(|keys| Admitted { id: request.id().clone(), keys })
}

fn begun(invitation: &Invitation, settings: &Settings, pending: &Path) -> Result<Option<PendingEnrollment>, Fail> {
    let kept = files::read(pending, OWN_FILE_BYTES);
    let Some(kept) = kept.map_err(|error| Fail::world(format!("{}: {error}", pending.display())))? else {
        return Ok(None);
    };
    say("going on with the request that was made before");
    Ok(PendingEnrollment::again(settings, &invitation.at_sign, &kept, invitation.enrollment_key()))
}

/// Why there is no request.
struct Refused {
    error: ClientError,
    /// The server shows another key for the atSign than the invitation.
    other_key: bool,
}

impl crate::patience::Passing for Refused {
    fn is_passing(&self) -> bool {
        self.error.is_passing()
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

async fn ask(invitation: &Invitation, settings: &Settings) -> Result<PendingEnrollment, Refused> {
    let wanted = EnrollmentRequest {
        app: APP.to_owned(),
        device: invitation.device.to_string(),
        namespaces: namespaces(),
        passcode: Zeroizing::new(invitation.passcode.as_str().to_owned()),
        keys_life: None,
    };
    let other_key = Cell::new(false);
    let takes = |key: &postern_crypto::RsaPublicKey| {
        other_key.set(!invitation.is_key_of_at_sign(Fingerprint::from(key)));
        !other_key.get()
    };
    PendingEnrollment::request_under(settings, &invitation.at_sign, wanted, invitation.enrollment_key(), takes)
        .await
        .map_err(|error| Refused { error, other_key: other_key.get() })
}

impl Refused {
    fn told(self, invitation: &Invitation) -> Fail {
        let Invitation { at_sign, device, .. } = invitation;
        if self.other_key {
            return Fail::new(
                Kind::Impostor,
                format!("the server shows another key for {at_sign} than the invitation names; nothing was told to it"),
            );
        }
        let ClientError::Server(why) = &self.error else { return Fail::world(self.error) };
        let text = why.to_string();
        // There is one code for all that can be wrong with a request; the atProtocol tells them apart by words alone.
        if text.contains("invalid otp") {
            return Fail::new(
                Kind::Invitation,
                format!(
                    "the invitation is used up, expired or cancelled: the server of {at_sign} does not take its passcode. Ask for another: postern invite {device}"
                ),
            );
        }
        if text.contains("Another enrollment") {
            return Fail::new(
                Kind::Invitation,
                format!(
                    "there is a device {device} of {at_sign} already. Ask for an invitation with another name, or have the old one revoked: at_activate revoke -a {at_sign} -A {APP} -D {device}"
                ),
            );
        }
        if why.code == Some(ErrorCode::KeyNotFound) {
            return Fail::world(format!("{at_sign} is not activated on its server"));
        }
        Fail::world(&self.error)
    }
}

async fn wait(invitation: &Invitation, request: &PendingEnrollment) -> Result<AtKeys, Fail> {
    say("waiting for the inviter: postern invite approves by itself while it runs, otherwise postern invite approve");
    // By the clock as it is now: it may be set meanwhile.
    let left = Duration::from_secs(u64::from(invitation.expires).saturating_sub(now()));
    let (begun, mut pause) = (Instant::now(), ASK_FIRST);
    let (mut was_pending, mut refusals, mut is_away) = (false, 0, false);
    loop {
        match request.look().await {
            Ok(Decision::Approved(keys)) => return Ok(*keys),
            Ok(Decision::Pending) => (was_pending, refusals, is_away) = (true, 0, false),
            Ok(Decision::KeyRefused { replaced }) => {
                refusals += 1;
                if replaced || was_pending && refusals >= KEY_REFUSALS {
                    return Err(Fail::new(
                        Kind::Impostor,
                        "the request was decided, and the server does not take the key made here: it keeps another one in its place. Somebody has changed the request on its way; ask for another invitation, and look at the server",
                    ));
                }
            }
            Err(error) if error.is_passing() => {
                if !is_away {
                    say(format_args!("{error}; will ask again"));
                }
                is_away = true;
            }
            Err(ClientError::Server(why)) => return Err(refused(invitation, &why)),
            Err(ClientError::Crypto(what) | ClientError::Malformed(what)) => {
                return Err(Fail::new(
                    Kind::Impostor,
                    format!(
                        "{what} are not what the inviter would give: ask for another invitation, and look at the server"
                    ),
                ));
            }
            Err(error) => return Err(Fail::world(error)),
        }
        if begun.elapsed() > left {
            return Err(Fail::new(
                Kind::Invitation,
                "the invitation has expired, and nobody has approved this device: ask for another",
            ));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(ASK_LATER);
    }
}

fn refused(invitation: &Invitation, why: &postern_proto::WireError) -> Fail {
    let what = match why.code {
        Some(ErrorCode::EnrollmentDenied) => {
            "the inviter has refused this device: the invitation was cancelled, has expired, or what arrived did not fit it"
        }
        Some(ErrorCode::EnrollmentRevoked) => "this device was let in and thrown out again",
        Some(ErrorCode::EnrollmentExpired) => "nobody has decided on this device in time",
        _ => return Fail::world(format!("the server of {}: {why}", invitation.at_sign)),
    };
    Fail::new(Kind::Invitation, format!("{what}. Ask for another invitation: postern invite {}", invitation.device))
}
