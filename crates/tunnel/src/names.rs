//! Names that are known here, for completions: from local files alone, and quickly.

use std::collections::BTreeSet;

use postern_client::home_dir;
use postern_client::trust::{KnownKeys, Places};
use postern_identity::PinName;
use postern_proto::AtSign;

use crate::hosts::{Hosts, SUFFIX};

/// What this user has met or written down. All of it has been parsed: nothing in it means something to a shell.
#[derive(Debug, Default)]
pub struct KnownNames {
    /// atSigns whose keys are in `~/.atsign/keys`.
    pub own: BTreeSet<String>,
    /// atSigns of devices.
    pub device_at_signs: BTreeSet<String>,
    /// Names of devices.
    pub devices: BTreeSet<String>,
    /// Relays that the configuration file names.
    pub relays: BTreeSet<String>,
    /// Names for ssh: `gw-17.np`.
    pub hosts: BTreeSet<String>,
    /// What a pin is of: `@alice`, `gw-17@device`.
    pub pinned: BTreeSet<String>,
}

impl KnownNames {
    /// Reads the configuration file, the pins and the names of key files. What cannot be read adds nothing.
    #[must_use]
    pub fn find() -> Self {
        let mut names = Self::default();
        names.add_keys();
        let hosts = Hosts::read(None).unwrap_or_default();
        let pins = KnownKeys::new(Places::of_user(), false).pins().unwrap_or_default();
        for pin in pins.iter() {
            names.pinned.insert(pin.name.to_string());
            if let PinName::Device(device, at_sign) = &pin.name {
                names.devices.insert(device.to_string());
                names.device_at_signs.insert(at_sign.to_string());
                let usual = hosts.devices_of().is_some_and(|usual| usual == at_sign);
                let site = if usual { String::new() } else { format!(".{}", at_sign.as_str().trim_start_matches('@')) };
                names.hosts.insert(format!("{device}{site}{SUFFIX}"));
            }
        }
        names.add_hosts(&hosts);
        names
    }

    fn add_hosts(&mut self, hosts: &Hosts) {
        self.device_at_signs.extend(hosts.devices_of().map(ToString::to_string));
        self.relays.extend(hosts.relays().iter().map(ToString::to_string));
        for (host, _) in hosts.entries() {
            self.hosts.insert(format!("{}{SUFFIX}", host.as_str()));
            if let Ok((at_sign, device)) = hosts.device(host) {
                self.devices.insert(device.to_string());
                self.device_at_signs.insert(at_sign.to_string());
            }
        }
    }

    fn add_keys(&mut self) {
        let Ok(dir) = home_dir().map(|home| home.join(".atsign/keys")) else { return };
        let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let names = files.filter_map(|file| file.file_name().into_string().ok());
        let at_signs = names.filter_map(|name| AtSign::parse(name.strip_suffix("_key.atKeys")?).ok());
        self.own.extend(at_signs.map(|at_sign| at_sign.to_string()));
    }
}
