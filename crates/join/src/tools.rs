//! The configuration of the clients, as far as an invitation has to do with it.

use std::path::PathBuf;

use postern_client::trust::Places;
use postern_identity::DeviceName;
use postern_observe::say;
use postern_proto::{AtSign, ServerAddress};
use serde::Deserialize;

use crate::fail::Fail;
use crate::files;

/// Names the file instead of the usual place.
const VARIABLE: &str = "POSTERN_CONFIG";

/// What we want of it; the rest is for others to read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Tools {
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) root: Option<String>,
    relay: Option<String>,
    hosts: std::collections::BTreeMap<String, Option<Host>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Host {
    to: Option<String>,
    device: Option<String>,
}

impl Tools {
    fn file() -> Option<PathBuf> {
        let named = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        named.or_else(|| Some(Places::of_user().config?.join("config.yaml")))
    }

    pub(crate) fn read() -> Result<Self, Fail> {
        let Some(file) = Self::file() else { return Ok(Self::default()) };
        postern_config::read(&file).map(Option::unwrap_or_default).map_err(Fail::usage)
    }

    /// The name by which ssh reaches the device, if the configuration leads there.
    fn leads_to(&self, at_sign: &AtSign, device: &DeviceName) -> bool {
        let is = |text: &Option<String>, wanted: &AtSign| {
            text.as_deref().is_some_and(|text| AtSign::parse(text).is_ok_and(|found| found == *wanted))
        };
        match self.hosts.get(device.as_str()) {
            None | Some(None) => is(&self.to, at_sign),
            Some(Some(host)) => {
                let to = if host.to.is_some() { &host.to } else { &self.to };
                is(to, at_sign) && host.device.as_deref().is_none_or(|name| name == device.as_str())
            }
        }
    }

    /// Sees that `ssh NAME.np` finds its way, and says how to call it.
    pub(crate) fn lead(from: &AtSign, at_sign: &AtSign, device: &DeviceName, root: &ServerAddress) -> Result<(), Fail> {
        let Some(file) = Self::file() else { return Ok(()) };
        let told = |error: std::io::Error| Fail::world(format!("{}: {error}", file.display()));
        if !file.exists() {
            let text = format!(
                "# Written by `postern invite`; it is yours from now on.\nfrom: \"{from}\"   # who we are\nto: \"{at_sign}\"   # whose devices names without a dot mean\nroot: \"{root}\"\n# relay: \"@relay\"   # the relay's atSign\n"
            );
            files::make_folders(file.parent().unwrap_or(&file), 0o755).map_err(told)?;
            files::replace(&file, &text, 0o644).map_err(told)?;
            say(format_args!("wrote {}", file.display()));
        }
        let tools = Self::read()?;
        let name = if tools.leads_to(at_sign, device) {
            format!("{device}.np")
        } else {
            format!("{device}.{}.np", at_sign.body())
        };
        match &tools.relay {
            Some(_) => say(format_args!(
                "reach it with  ssh {name}   (postern ssh-config --install teaches ssh the name, once)"
            )),
            None => say(format_args!(
                "write the atSign of your relay into {} (relay: \"@relay\"), and reach it with  ssh {name}",
                file.display()
            )),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_there() {
        let tools = |text: &str| postern_config::parse::<Tools>(text).unwrap();
        let (device, gw) = (AtSign::parse("@device").unwrap(), DeviceName::parse("gw-17").unwrap());
        for (text, leads) in [
            ("to: '@device'\nagent: off\n", true),
            ("to: '@other'\n", false),
            ("", false),
            ("to: '@device'\nhosts: {gw-17: {to: '@other'}}\n", false),
            ("to: '@other'\nhosts: {gw-17: {to: '@device', user: rak}}\n", true),
            ("to: '@device'\nhosts:\n  gw-17:\n", true),
        ] {
            assert_eq!(tools(text).leads_to(&device, &gw), leads, "{text}");
        }
    }
}
