//! `postern leave`: undoes `postern join`.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use postern_client::trust::KnownKeys;
use postern_client::{Client, ClientError, Identity, KeyFile, Settings, parse_root};
use postern_identity::PinName;
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_observe::say;
use postern_proto::{AtSign, ErrorCode, Uuid};

use crate::fail::{Fail, Kind};
use crate::join_cli::LeaveFlags;
use crate::limits::{CONNECT, FAREWELL, HEARTBEAT, OWN_FILE_BYTES};
use crate::place::Place;
use crate::receipt::Receipt;
use crate::service::Manager;
use crate::{APP, config_text, files};

/// Leaves.
pub(crate) async fn run(flags: &LeaveFlags) -> Result<(), Fail> {
    let place = Place::of(&flags.wishes.wishes(), Manager::find())?;
    let Some(receipt) = Receipt::only(&place.receipts(), flags.name.as_ref())? else {
        return Err(Fail::new(
            Kind::Taken,
            format!("there is nothing in {} that says that this machine has joined", place.receipts().display()),
        ));
    };
    let at_sign = AtSign::parse(&receipt.at_sign).map_err(|error| Fail::world(format!("the receipt: {error}")))?;
    let mut stays: Vec<String> = Vec::new();
    if let Some(manager) = receipt.service.as_deref().and_then(Manager::of_name)
        && let Err(fail) = manager.stop()
    {
        stays.push(format!("the service runs on: {fail}"));
    }
    if flags.offline {
        stays.push(revoke_by_hand(&receipt));
    } else if let Err(why) = give_back(&place, &receipt, &at_sign).await {
        stays.push(format!("{} ({why})", revoke_by_hand(&receipt)));
    }
    let mut remove = |path: &Path| match fs::remove_file(path) {
        Ok(()) => say(format_args!("removed {}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => stays.push(format!("{}: {error}", path.display())),
    };
    remove(&receipt.keys);
    let identity = place.state.join("identity").join(format!("{}{at_sign}.key", receipt.device));
    remove(&identity);
    remove(&identity.with_extension("voucher"));
    let is_ours = config_text::is_ours(&receipt.config);
    if is_ours {
        remove(&receipt.config);
    }
    if let Some(pem) = &receipt.ca
        && let Err(error) = take_out(&place.ca(), pem)
    {
        stays.push(format!("the server's certificate in {}: {error}", place.ca().display()));
    }
    if let Some(manager) = receipt.pin.as_deref().and_then(|name| AtSign::parse(name).ok())
        && let Err(error) = KnownKeys::new(place.places(), false).forget(&PinName::AtSign(manager))
    {
        stays.push(format!("the manager's pin: {error}"));
    }
    if receipt.config.exists() && !is_ours {
        stays.push(format!("{}: not as join wrote it", receipt.config.display()));
    }
    stays.push(
        "what the daemon has written meanwhile: its journal, keys that managers sent to authorized_keys".to_owned(),
    );
    let path = place.receipts().join(receipt.file_name());
    fs::remove_file(&path).map_err(|error| Fail::world(format!("{}: {error}", path.display())))?;
    say(format_args!("{}{at_sign} has left. What stays:", receipt.device));
    for one in stays {
        say(format_args!("  {one}"));
    }
    Ok(())
}

fn revoke_by_hand(receipt: &Receipt) -> String {
    let Receipt { at_sign, enrollment, device, .. } = receipt;
    format!(
        "the enrolment {enrollment} is still good on the server: at_activate revoke -a {at_sign} -i {enrollment}, where the keys of {at_sign} are ({APP}, {device})"
    )
}

/// Asks the server to take our enrolment back.
async fn give_back(place: &Place, receipt: &Receipt, at_sign: &AtSign) -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    let id = Uuid::parse(&receipt.enrollment).ok_or("the receipt names no enrolment")?;
    let keys = KeyFile::load(&receipt.keys).map_err(|trouble| told(&trouble))?;
    let ca = files::read(&place.ca(), OWN_FILE_BYTES).map_err(|error| told(&error))?;
    let trust = match ca {
        Some(pem) if receipt.ca.is_some() => Trust::only_pem(pem.as_bytes()),
        _ => Trust::load(),
    };
    let settings = Settings {
        root: parse_root(&receipt.directory).map_err(|error| told(&error))?,
        trust: trust.map_err(|error| told(&error))?,
        heartbeat: HEARTBEAT,
        monitor: None,
    };
    let tasks = Tasks::new();
    let identity = Identity { at_sign: at_sign.clone(), keys: keys.into() };
    let work = async {
        let (client, _inbox) = Client::connect(identity, settings, &tasks).await?;
        client.revoke(&id, true).await
    };
    let outcome = tokio::time::timeout(CONNECT + Duration::from_secs(10), work).await;
    tasks.close_and_wait(FAREWELL).await;
    match outcome {
        Ok(Ok(_)) => {
            say("the server has taken the enrolment back");
            Ok(())
        }
        // It is gone already, or closes the connection in the middle of its answer.
        Ok(Err(ClientError::LoginRefused(_, why))) if why.code == Some(ErrorCode::EnrollmentRevoked) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// Takes one certificate out of a file; an empty file goes.
fn take_out(file: &Path, pem: &str) -> io::Result<()> {
    let Some(text) = files::read(file, OWN_FILE_BYTES)? else { return Ok(()) };
    let rest = text.replacen(pem, "", 1);
    if rest.trim().is_empty() { fs::remove_file(file) } else { files::replace(file, &rest, 0o644) }
}
