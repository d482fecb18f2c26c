//! What can be known of a device that does not answer.

use postern_client::{Client, ClientError};
use postern_observe::say;
use postern_proto::verb::Lookup;
use postern_proto::{AtSign, Detail, Request};
use postern_session::{DeviceName, NAMESPACE};
use serde_json::Value as Json;

use crate::session::Common;

/// Tells a person what the device's silence probably means: a daemon says nothing to strangers.
pub(crate) fn hint(common: &Common) {
    let Common { from, to, device, .. } = common;
    say(format_args!(
        "No answer from the device daemon yet. Likely causes: {from} is not in the --managers list of {to}, no device is called {device:?}, or the daemon is not running.",
        device = device.as_str()
    ));
}

/// One sentence. The device's daemon writes a record for each of its managers when it starts and every few hours.
pub(crate) async fn known_of(client: &Client, to: &AtSign, device: &DeviceName) -> Option<String> {
    let name = format!("device_info.{device}.{NAMESPACE}");
    let lookup = Lookup { bypass_cache: true, detail: Detail::Meta, name, owner: to.clone() };
    match client.request(Request::Lookup(lookup)).await {
        Ok(text) => {
            let meta: Json = serde_json::from_str(&text).ok()?;
            let when = ["updatedAt", "createdAt"].iter().find_map(|name| meta.get(*name)?.as_str())?;
            let when: String =
                when.chars().map(|c| if c == ' ' { 'T' } else { c }).filter(char::is_ascii_graphic).take(16).collect();
            Some(format!("its daemon last wrote of itself at {when}Z"))
        }
        Err(error) if error.is_no_such_key() => {
            Some(format!("{to} tells us of no such device: a wrong name, a hidden one, or we are not its manager"))
        }
        Err(ClientError::NotInDirectory(who, _)) => Some(format!("the atDirectory does not know {who}")),
        Err(_) => None,
    }
}
