//! `at_activate enroll`: keys for a further device.

use std::path::Path;
use std::time::Duration;

use postern_client::{ClientError, EnrollmentRequest, KeyFile, PendingEnrollment};
use postern_observe::{print, say};
use postern_proto::ErrorCode;

use crate::cli::{EnrollTask, Target};
use crate::patience::patiently;

/// Pause between questions whether it is approved. Source: the reference.
const EVERY: Duration = Duration::from_secs(10);
/// The first pauses are shorter, each twice the one before: approvals given at once are found at once.
const FIRST: Duration = Duration::from_millis(500);

/// Asks, waits, writes the file. Gives a sentence on what went wrong.
pub(crate) async fn run(target: &Target, task: EnrollTask) -> Result<(), String> {
    let at_sign = &target.at_sign;
    KeyFile::check_free(&target.key_file).map_err(|trouble| trouble.to_string())?;
    say("Submitting enrollment request");
    let pending = patiently(target, async || {
        let wanted = EnrollmentRequest {
            app: task.app.clone(),
            device: task.device.clone(),
            namespaces: task.namespaces.iter().cloned().collect(),
            passcode: task.passcode.clone(),
            keys_life: task.expiry,
        };
        PendingEnrollment::request(&target.settings, at_sign, wanted).await
    })
    .await
    .map_err(|error| match &error {
        ClientError::Server(why) if why.code == Some(ErrorCode::KeyNotFound) => {
            format!("{at_sign} is not activated yet; run at_activate onboard first")
        }
        _ => error.to_string(),
    })?;
    print(format_args!("Enrollment ID: {}", pending.id()));
    say("Waiting for approval; will check every 10 seconds");
    let keys = loop_until_decided(&pending).await?;
    say("Creating atKeys file");
    let text = keys.print(at_sign.as_str()).map_err(|_| "the keys cannot be written as text".to_owned())?;
    write(&target.key_file, &text)
}

async fn loop_until_decided(pending: &PendingEnrollment) -> Result<postern_crypto::AtKeys, String> {
    let mut pause = FIRST;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(EVERY);
        match pending.poll().await {
            Ok(Some(keys)) => return Ok(keys),
            Ok(None) => {}
            // A device may be carried about while somebody makes up their mind.
            Err(error) if error.is_passing() => say(format_args!("{error}; will check again")),
            Err(ClientError::Server(why)) if why.code == Some(ErrorCode::EnrollmentDenied) => {
                return Err(format!("the enrollment {} was denied", pending.id()));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    KeyFile::create(path, text).map_err(|trouble| {
        format!("the enrollment is approved but its keys could not be saved: {trouble}; revoke it and enroll again")
    })?;
    say(format_args!("[Success] Your .atKeys file saved at {}", path.display()));
    Ok(())
}
