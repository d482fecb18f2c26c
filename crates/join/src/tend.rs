//! Seeing to the invitations that were given out: who came is let in or refused.

use postern_client::trust::{KnownKeys, Places};
use postern_client::{Client, ClientError, EnrollmentInfo, EnrollmentStatus};
use postern_identity::{Arrival, Fingerprint, Invitation, PinName};
use postern_observe::say;
use postern_proto::{AtKey, AtSign};

use crate::book::{Book, Entry, State};
use crate::fail::Fail;
use crate::{APP, namespaces, now};

/// What became of an invitation just now.
pub(crate) struct News {
    pub(crate) entry: Entry,
}

/// Looks once at everything. `Err`: the server cannot be asked.
pub(crate) async fn look(client: &Client, book: &Book, at_sign: &AtSign) -> Result<Vec<News>, Fail> {
    let mut all = book.all()?;
    all.retain(|entry| entry.at_sign == *at_sign);
    let mut news = Vec::new();
    let asking = client.enrollments(&[EnrollmentStatus::Pending]).await.map_err(Fail::world)?;
    for mut entry in all {
        let before = entry.state;
        let device = entry.device.clone();
        for request in asking.iter().filter(|one| one.app == APP && one.device == device.as_str()) {
            // A second one of the same name is refused by the server as long as there is the first.
            decide(client, &mut entry, request).await?;
        }
        if entry.state == State::Open && now() > entry.expires.into() {
            entry.end(State::Expired);
        }
        if entry.state == State::Approved {
            greet(client, &mut entry).await?;
        }
        if entry.state != before {
            book.keep(&entry)?;
            news.push(News { entry });
        }
    }
    Ok(news)
}

/// Lets a request in, if the invitation is good and the request is the one that was invited.
async fn decide(client: &Client, entry: &mut Entry, request: &EnrollmentInfo) -> Result<(), Fail> {
    let name = format!("{}{}", entry.device, entry.at_sign);
    let invitation = entry.invitation.as_ref().filter(|_| entry.state == State::Open);
    let verdict = match invitation {
        None => Err((entry.state, format!("its invitation is {}", entry.state.as_str()))),
        Some(invitation) => judge(client, invitation, request),
    };
    match verdict {
        Ok(()) => {
            client.approve(request).await.map_err(Fail::world)?;
            say(format_args!("{name}: asked as invited, and is let in"));
            entry.state = State::Approved;
            entry.enrollment = Some(request.id.clone());
        }
        Err((state, why)) => {
            match client.deny(&request.id).await {
                Ok(_) => say(format_args!("{name}: REFUSED: {why}")),
                Err(error) => say(format_args!("{name}: cannot be refused ({error}): {why}")),
            }
            if entry.state == State::Open {
                entry.end(state);
            }
        }
    }
    Ok(())
}

fn judge(client: &Client, invitation: &Invitation, request: &EnrollmentInfo) -> Result<(), (State, String)> {
    if now() > invitation.expires.into() {
        return Err((State::Expired, "it came after the invitation's end".to_owned()));
    }
    if !client.is_asked_under(request, &invitation.enrollment_key()) {
        let why = "who asks does not know the secret of the invitation, or the server has changed the request. The \
                   invitation is burned; give out another, and if this happens again, look at the server";
        return Err((State::Burned, why.to_owned()));
    }
    if request.namespaces != namespaces() {
        return Err((State::Burned, "it asks for other rights than a device has; the invitation is burned".to_owned()));
    }
    Ok(())
}

/// Reads which key the device has made, and pins it.
async fn greet(client: &Client, entry: &mut Entry) -> Result<(), Fail> {
    let Some(invitation) = entry.invitation.clone() else { return Ok(()) };
    let record = invitation.arrival_record();
    let text = match client.get_own(&record).await {
        Ok(text) => text,
        Err(error) if error.is_no_such_key() => return Ok(()),
        Err(ClientError::Inactive) => return Ok(()),
        Err(error) => return Err(Fail::world(error)),
    };
    let name = format!("{}{}", entry.device, entry.at_sign);
    let arrival = Arrival::parse(&text).filter(|arrival| Some(&arrival.enrollment) == entry.enrollment.as_ref());
    let Some(arrival) = arrival else {
        // Of an earlier life of that name.
        tracing::debug!(%name, "an arrival of another enrolment");
        return Ok(());
    };
    if !invitation.is_shown_by(&arrival) {
        say(format_args!(
            "{name}: what it says of its key ({}) does not prove the invitation's secret: not pinned. Compare it by hand with postern fingerprint on the device",
            arrival.identity
        ));
        entry.end(State::Burned);
        return Ok(());
    }
    let known = KnownKeys::new(Places::of_user(), false);
    let own = Fingerprint::from(&client.identity().keys.encryption_public);
    known
        .accept(PinName::Device(entry.device.clone(), entry.at_sign.clone()), arrival.identity)
        .map_err(Fail::world)?;
    known.accept(PinName::AtSign(entry.at_sign.clone()), own).map_err(Fail::world)?;
    let _ = client.delete(&AtKey::own(&record, &entry.at_sign)).await;
    entry.identity = Some(arrival.identity);
    entry.end(State::Joined);
    Ok(())
}
