//! `sshnp --list-devices`: which devices have told us of themselves, and which of them answer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use postern_client::{Client, Inbox, Settings, identity};
use postern_net::signals;
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_observe::{Verbosity, Waiting, print, say};
use postern_proto::verb::Scan;
use postern_proto::{AtSign, Request, ServerAddress};
use postern_session::{DeviceName, NAMESPACE, PingResponse};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, timeout_at};

use crate::limits::{DRAIN, HEARTBEAT, LISTED_DEVICES, LISTING};
use crate::trouble::Trouble;

/// What `--list-devices` is to do.
pub(crate) struct Listing {
    pub(crate) from: AtSign,
    /// Without one, the devices of all atSigns.
    pub(crate) to: Option<AtSign>,
    /// Without one, devices of any name.
    pub(crate) device: Option<DeviceName>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) root: ServerAddress,
    pub(crate) verbosity: Verbosity,
    /// Data on stdout instead of text on stderr.
    pub(crate) json: bool,
}

/// Name and atSign.
type Place = (String, AtSign);

struct Device {
    info: Option<PingResponse>,
    is_active: bool,
}

/// Lists, asks each device whether it is there, and waits for the answers.
pub(crate) async fn run(listing: Listing) -> Result<ExitCode, Trouble> {
    let stop = signals::shutdown_token().map_err(Trouble::Ssh)?;
    let tasks = Tasks::under(&stop);
    let waiting = Waiting::on_terminal();
    waiting.on("the devices' answers");
    let work = list(&listing, &tasks);
    let devices = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(Trouble::Interrupted),
        devices = work => devices?,
    };
    drop(waiting);
    if listing.json {
        print(json_of(&devices));
    } else {
        tell(&listing, &devices);
    }
    tasks.close_and_wait(DRAIN).await;
    Ok(ExitCode::SUCCESS)
}

async fn list(listing: &Listing, tasks: &Tasks) -> Result<BTreeMap<Place, Device>, Trouble> {
    if !listing.json {
        say("Searching for devices...");
    }
    let identity = identity(&listing.from, listing.key_file.as_deref()).map_err(Trouble::Start)?;
    let settings = Settings {
        root: listing.root.clone(),
        trust: Trust::load().map_err(Trouble::Trust)?,
        heartbeat: HEARTBEAT,
        monitor: Some(format!(r"heartbeat\..*\.{NAMESPACE}@")),
    };
    let (client, mut inbox) = Box::pin(Client::connect(identity, settings, tasks)).await?;
    let mut devices = BTreeMap::new();
    for place in places(listing, &client).await? {
        devices.insert(place, Device { info: None, is_active: false });
    }
    let deadline = Instant::now() + LISTING;
    let asking: Vec<_> = devices
        .keys()
        .cloned()
        .map(|place| {
            let client = client.clone();
            tasks.spawn(async move {
                let (name, at_sign) = &place;
                let ping = format!("ping.{name}.{NAMESPACE}");
                let record = format!("device_info.{name}.{NAMESPACE}");
                let (sent, record) =
                    tokio::join!(client.notify(at_sign, &ping, "ping", None), client.get_shared(at_sign, &record));
                if let Err(error) = sent {
                    tracing::debug!(%at_sign, %error, "could not ask a device");
                }
                (record.ok().and_then(|text| PingResponse::parse(&text)), place)
            })
        })
        .collect();
    let _ = timeout_at(deadline, hear(&client, &mut inbox, &mut devices)).await;
    for told in asking {
        // What a device answers is newer than what it once wrote down.
        if let Ok(Ok((Some(info), place))) = timeout_at(deadline, told).await
            && let Some(device) = devices.get_mut(&place)
        {
            device.info.get_or_insert(info);
        }
    }
    Ok(devices)
}

/// Devices that share a record with us.
async fn places(listing: &Listing, client: &Client) -> Result<Vec<Place>, Trouble> {
    let name = listing.device.as_ref().map_or("[^.]+", DeviceName::as_str);
    let regex = Some(format!(r"device_info\.{name}\.{NAMESPACE}@"));
    let scan = Scan { show_hidden: false, other: listing.to.clone(), regex };
    let text = client.request(Request::Scan(scan)).await?;
    let names: Vec<String> = serde_json::from_str(&text).unwrap_or_default();
    let mut places: Vec<Place> = names.iter().filter_map(|name| place_of(name, &listing.from)).collect();
    places.retain(|(device, at_sign)| {
        listing.device.as_ref().is_none_or(|wanted| wanted.as_str() == device)
            && listing.to.as_ref().is_none_or(|wanted| wanted == at_sign)
    });
    places.sort();
    places.dedup();
    if places.len() > LISTED_DEVICES {
        say(format_args!(
            "[WARN] only the first {LISTED_DEVICES} of {} devices are shown; name one with -d",
            places.len()
        ));
        places.truncate(LISTED_DEVICES);
    }
    Ok(places)
}

/// Reads `[cached:][@us:]device_info.⟨device⟩.sshnp@⟨owner⟩`.
fn place_of(key: &str, us: &AtSign) -> Option<Place> {
    let key = key.strip_prefix("cached:").unwrap_or(key);
    let key = key.strip_prefix(&format!("{us}:")).unwrap_or(key);
    let (name, owner) = key.rsplit_once('@')?;
    let device = name.strip_prefix("device_info.")?.strip_suffix(NAMESPACE)?.strip_suffix('.')?;
    let owner = AtSign::parse(owner).ok().filter(|owner| owner != us)?;
    Some((DeviceName::parse(device).ok()?.to_string(), owner))
}

/// Marks the devices that answer; ends when all have.
async fn hear(client: &Client, inbox: &mut Inbox, devices: &mut BTreeMap<Place, Device>) {
    while devices.values().any(|device| !device.is_active) {
        let Some(push) = inbox.next().await else { return };
        let key = push.bare_key();
        let name =
            key.strip_prefix("heartbeat.").and_then(|k| k.strip_suffix(NAMESPACE)).and_then(|k| k.strip_suffix('.'));
        let Some(name) = name.map(str::to_owned) else { continue };
        let Some(device) = devices.get_mut(&(name, push.from.clone())) else { continue };
        device.is_active = true;
        if let Ok(text) = client.open(&push).await {
            device.info = PingResponse::parse(&text);
        }
    }
}

fn tell(listing: &Listing, devices: &BTreeMap<Place, Device>) {
    if devices.is_empty() {
        return say("[X] No devices found");
    }
    for (title, active) in [("Active Devices:", true), ("Inactive Devices:", false)] {
        say(title);
        let mut none = true;
        for ((name, at_sign), device) in devices.iter().filter(|(_, device)| device.is_active == active) {
            none = false;
            let place = if listing.to.is_some() { name.clone() } else { format!("{name}{at_sign}") };
            match &device.info {
                Some(info) => {
                    let (version, core) = (clean(&info.version), clean(&info.core_package_version));
                    say(format_args!("  {place} - v{version} (core v{core})"));
                    let services: Vec<String> = info.allowed_services.iter().map(|s| clean(s)).collect();
                    say(format_args!("  - allowedServices: {}", services.join(" ")));
                    if info.twin {
                        say("  - two machines run with its keys: is one a copy of the other's disk or SD card?");
                    }
                }
                None => say(format_args!("  {place}")),
            }
        }
        if none {
            say("  No devices found");
        }
    }
}

fn json_of(devices: &BTreeMap<Place, Device>) -> Json {
    devices
        .iter()
        .map(|((name, at_sign), device)| {
            json!({"device": name, "atSign": at_sign.as_str(), "active": device.is_active, "info": device.info})
        })
        .collect()
}

/// What a device says of itself, fit for a terminal.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_records_in_all_their_forms() {
        let us = AtSign::parse("@client").unwrap();
        let place = |key| place_of(key, &us).map(|(device, owner)| format!("{device}{owner}"));
        for key in [
            "device_info.pi.sshnp@device",
            "@client:device_info.pi.sshnp@device",
            "cached:@client:device_info.pi.sshnp@device",
        ] {
            assert_eq!(place(key).as_deref(), Some("pi@device"), "{key}");
        }
        for key in ["", "username.pi.sshnp@device", "@other:device_info.pi.sshnp@device", "device_info.pi.sshnp@client"]
        {
            assert_eq!(place(key), None, "{key}");
        }
    }
}
