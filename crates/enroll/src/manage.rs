//! Commands of somebody who is logged in: passcodes, lists, decisions.

use postern_client::{Client, ClientError, EnrollmentInfo, EnrollmentStatus, Inbox, identity};
use postern_net::tasks::Tasks;
use postern_observe::{print, say};
use postern_proto::{ErrorCode, Uuid};
use serde_json::json;

use crate::cli::{Decision, Filter, Manage, Target, Which};
use crate::patience::patiently;

/// What `auto` listens for. Source: the atProtocol, names of enrolment records.
const NEWS: &str = r".*\.new\.enrollments\.__manage";

/// A connection of the owner's, and what arrives on it.
pub(crate) struct Desk {
    client: Client,
    inbox: Inbox,
}

impl Desk {
    /// Logs in with the key file. `listening`: hears of new requests.
    pub(crate) async fn open(target: &Target, listening: bool, tasks: &Tasks) -> Result<Self, String> {
        let identity = identity(&target.at_sign, Some(&target.key_file)).map_err(|trouble| trouble.to_string())?;
        let mut settings = target.settings.clone();
        settings.monitor = listening.then(|| NEWS.to_owned());
        let (client, inbox) =
            patiently(target, async || Client::connect(identity.clone(), settings.clone(), tasks).await)
                .await
                .map_err(|error| error.to_string())?;
        Ok(Self { client, inbox })
    }

    /// Does it; an error says what went wrong.
    pub(crate) async fn perform(&mut self, task: Manage) -> Result<(), String> {
        let client = &self.client;
        let told = |error: ClientError| error.to_string();
        match task {
            Manage::Otp(life) => print(client.one_time_passcode(life).await.map_err(told)?),
            Manage::Spp(code, life) => respond(&client.set_passcode(&code, life).await.map_err(told)?),
            Manage::List(states, filter) => list(&find(client, &states, &filter).await.map_err(told)?),
            Manage::Fetch(id) => match fetch(client, &id).await.map_err(told)? {
                Some(found) => print(format_args!("Fetched enrollment OK: {}", shown(&found))),
                None => return Err(format!("Enrollment ID {id} not found")),
            },
            Manage::Decide(decision, which) => self.decide(decision, which).await?,
            Manage::Auto { filter, limit, existing } => self.auto(&filter, limit, existing).await?,
            Manage::Delete(id) => {
                print(format_args!("Deleting enrollmentId {id}"));
                respond(&client.delete_enrollment(&id).await.map_err(told)?);
            }
        }
        Ok(())
    }

    async fn decide(&self, decision: Decision, which: Which) -> Result<(), String> {
        let client = &self.client;
        let told = |error: ClientError| error.to_string();
        let found = match which {
            Which::Id(id) => fetch(client, &id).await.map_err(told)?.into_iter().collect(),
            Which::Matching(filter) => find(client, &[decision.wants()], &filter).await.map_err(told)?,
        };
        if found.is_empty() {
            return Err("No matching enrollment(s) found".into());
        }
        let mut failed = None;
        for enrollment in &found {
            if let Err(error) = decision.carry_out(client, enrollment).await {
                say(format_args!("{}: {error}", enrollment.id));
                failed = Some(error);
            }
        }
        match failed {
            None => Ok(()),
            Some(error) if found.len() == 1 => Err(error.to_string()),
            Some(_) => Err("not all of them; see above".into()),
        }
    }

    /// Approves what matches, as it comes, until there were `limit`.
    async fn auto(&mut self, filter: &Filter, limit: usize, existing: bool) -> Result<(), String> {
        let mut left = limit;
        if existing {
            let waiting = find(&self.client, &[EnrollmentStatus::Pending], filter).await;
            for enrollment in waiting.map_err(|error| error.to_string())? {
                if left == 0 {
                    break;
                }
                left -= usize::from(self.approve(&enrollment).await);
            }
        }
        if left > 0 {
            say(format_args!("Waiting for enrollment requests; will approve {left} that match"));
        }
        while left > 0 {
            let push = self.inbox.next().await.ok_or("the connection was closed")?;
            let Some(enrollment) = EnrollmentInfo::from_push(&push) else { continue };
            if filter.lets(&enrollment) {
                left -= usize::from(self.approve(&enrollment).await);
            } else {
                say(format_args!("Passed over enrollmentId {}: names do not match", enrollment.id));
            }
        }
        Ok(())
    }

    async fn approve(&self, enrollment: &EnrollmentInfo) -> bool {
        let outcome = Decision::Approve.carry_out(&self.client, enrollment).await;
        if let Err(error) = &outcome {
            say(format_args!("{}: {error}", enrollment.id));
        }
        outcome.is_ok()
    }
}

impl Decision {
    /// In which state those are that it is about.
    fn wants(self) -> EnrollmentStatus {
        match self {
            Self::Approve | Self::Deny => EnrollmentStatus::Pending,
            Self::Revoke { .. } => EnrollmentStatus::Approved,
            Self::Unrevoke => EnrollmentStatus::Revoked,
        }
    }

    async fn carry_out(self, client: &Client, enrollment: &EnrollmentInfo) -> Result<(), ClientError> {
        let id = &enrollment.id;
        let verb = match self {
            Self::Approve => "Approving",
            Self::Deny => "Denying",
            Self::Revoke { .. } => "Revoking",
            Self::Unrevoke => "Unrevoking",
        };
        print(format_args!("{verb} enrollmentId {id}"));
        let response = match self {
            Self::Approve => client.approve(enrollment).await?,
            Self::Deny => client.deny(id).await?,
            Self::Revoke { force } => client.revoke(id, force).await?,
            Self::Unrevoke => client.unrevoke(id).await?,
        };
        respond(&response);
        Ok(())
    }
}

impl Filter {
    fn lets(&self, enrollment: &EnrollmentInfo) -> bool {
        let matches = |regex: &Option<regex_lite::Regex>, name: &str| regex.as_ref().is_none_or(|r| r.is_match(name));
        matches(&self.app, &enrollment.app) && matches(&self.device, &enrollment.device)
    }
}

fn respond(response: &str) {
    print(format_args!("Server response: {response}"));
}

async fn find(
    client: &Client,
    states: &[EnrollmentStatus],
    filter: &Filter,
) -> Result<Vec<EnrollmentInfo>, ClientError> {
    let mut found = client.enrollments(states).await?;
    found.retain(|enrollment| filter.lets(enrollment));
    Ok(found)
}

async fn fetch(client: &Client, id: &Uuid) -> Result<Option<EnrollmentInfo>, ClientError> {
    match client.enrollment(id).await {
        Ok(found) => Ok(Some(found)),
        Err(ClientError::Server(why))
            if matches!(why.code, Some(ErrorCode::EnrollmentExpired | ErrorCode::KeyNotFound)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Columns as wide as the reference's.
fn list(found: &[EnrollmentInfo]) {
    print(format_args!("Found {} matching enrollment records", found.len()));
    if found.is_empty() {
        return;
    }
    print(row("Enrollment ID", "Status", "AppName", "DeviceName", "Namespaces"));
    for enrollment in found {
        let namespaces = json!(enrollment.namespaces).to_string();
        let EnrollmentInfo { id, status, app, device, .. } = enrollment;
        print(row(id.as_str(), status.as_str(), &plain(app), &plain(device), &plain(&namespaces)));
    }
}

fn row(id: &str, status: &str, app: &str, device: &str, namespaces: &str) -> String {
    format!("{id:<38}{status:<10}{app:<20}{device:<38}{namespaces}")
}

/// Names are a stranger's choice: nothing in them may move the cursor of whoever decides.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn shown(enrollment: &EnrollmentInfo) -> String {
    let EnrollmentInfo { id, status, app, device, namespaces, .. } = enrollment;
    plain(
        &json!({
            "enrollmentId": id.as_str(), "appName": app, "deviceName": device,
            "namespaces": namespaces, "status": status.as_str(),
        })
        .to_string(),
    )
}
