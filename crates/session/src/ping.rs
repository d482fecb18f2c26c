//! `ping` and the heartbeat that answers it.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::dialect::Dialect;

/// What a daemon can do. Unknown names are ignored; a name must be `true`, not merely present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Features {
    /// Authenticates its relay sockets.
    pub sr_auth: bool,
    /// Encrypts traffic.
    pub sr_e2ee: bool,
    /// Takes pushed ssh keys.
    pub accepts_public_keys: bool,
    /// Serves `npt_request`.
    pub supports_port_choice: bool,
    /// Obeys `timeout`.
    pub adjustable_timeout: bool,
    /// Takes heartbeats on the control channel.
    pub control_channel_heartbeats: bool,
    /// A key for each direction.
    pub twin_keys: bool,
    /// Answers a relay's challenges (relay authentication mode `escr`).
    pub supports_ram_escr: bool,
    /// Numbers its relay sockets, or opens them in the order in which they were asked for. Ours alone say so.
    pub numbers_sockets: bool,
    /// Serves sealed sessions. Ours alone say so; absent when false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sealed: bool,
}

/// The heartbeat, also stored as `device_info`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PingResponse {
    /// Device name.
    pub devicename: String,
    /// Group for policy; `__none__` without.
    pub device_group_name: String,
    /// Version of the program.
    pub version: String,
    /// Version of the protocol core.
    pub core_package_version: String,
    /// Absent in version 4 daemons, which take public keys and know nothing else.
    pub supported_features: Features,
    /// Permit-open list.
    pub allowed_services: Vec<String>,
    /// Where the key lies that proves the daemon's relay sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_signing_key_uri: Option<String>,
    /// Another machine was seen to run with the same keys. Ours alone say so; absent when false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub twin: bool,
}

fn version_4() -> Features {
    Features { accepts_public_keys: true, ..Features::default() }
}

/// Something the user's options need and the daemon lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingFeature(&'static str);

impl Features {
    /// A name must be `true`; anything else is a no.
    fn of(names: &Map<String, Json>) -> Self {
        let has = |name: &str| names.get(name) == Some(&Json::Bool(true));
        Self {
            sr_auth: has("srAuth"),
            sr_e2ee: has("srE2ee"),
            accepts_public_keys: has("acceptsPublicKeys"),
            supports_port_choice: has("supportsPortChoice"),
            adjustable_timeout: has("adjustableTimeout"),
            control_channel_heartbeats: has("controlChannelHeartbeats"),
            twin_keys: has("twinKeys"),
            supports_ram_escr: has("supportsRamEscr"),
            numbers_sockets: has("numbersSockets"),
            sealed: has("sealed"),
        }
    }

    /// The first feature that `wanted` has and `self` lacks.
    pub fn missing(self, wanted: Self) -> Option<MissingFeature> {
        [
            (self.sr_auth, wanted.sr_auth, "authenticate to the socket rendezvous"),
            (self.sr_e2ee, wanted.sr_e2ee, "encrypt traffic to the socket rendezvous"),
            (self.accepts_public_keys, wanted.accepts_public_keys, "accept ssh public keys from the client"),
            (self.supports_port_choice, wanted.supports_port_choice, "support requests for specific device ports"),
            (self.adjustable_timeout, wanted.adjustable_timeout, "support the 'timeout' value in npt session requests"),
            (self.supports_ram_escr, wanted.supports_ram_escr, "support the 'escr' relay auth mode"),
        ]
        .into_iter()
        .find(|(has, wants, _)| *wants && !*has)
        .map(|(_, _, text)| MissingFeature(text))
    }
}

impl PingResponse {
    /// Reads a heartbeat. `None` when it is no JSON object; a member of another type counts as absent, so that
    /// one odd field does not hide a device.
    pub fn parse(text: &str) -> Option<Self> {
        let Json::Object(json) = serde_json::from_str(text).ok()? else { return None };
        let text = |name: &str| json.get(name).and_then(Json::as_str).map(str::to_owned);
        let services = json.get("allowedServices").and_then(Json::as_array);
        let services = services.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned);
        Some(Self {
            devicename: text("devicename").unwrap_or_default(),
            device_group_name: text("deviceGroupName").unwrap_or_default(),
            version: text("version").unwrap_or_default(),
            core_package_version: text("corePackageVersion").unwrap_or_default(),
            supported_features: match json.get("supportedFeatures") {
                Some(Json::Object(features)) => Features::of(features),
                _ => version_4(),
            },
            allowed_services: services.collect(),
            public_signing_key_uri: text("publicSigningKeyUri"),
            twin: json.get("twin") == Some(&Json::Bool(true)),
        })
    }

    /// The JSON text.
    pub fn print(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The JSON text as a daemon of this generation writes it: without what it did not know.
    pub fn print_as(&self, dialect: Dialect) -> String {
        let Ok(Json::Object(mut json)) = serde_json::to_value(self) else { return String::new() };
        json.shift_remove("twin");
        let mut forget = |features: &[&str]| {
            if let Some(Json::Object(known)) = json.get_mut("supportedFeatures") {
                for name in features {
                    known.shift_remove(*name);
                }
            }
        };
        match dialect {
            Dialect::Current => return self.print(),
            Dialect::V5_11 => forget(&["numbersSockets", "sealed"]),
            Dialect::V5_6 => {
                forget(&["numbersSockets", "sealed", "controlChannelHeartbeats", "twinKeys", "supportsRamEscr"])
            }
            Dialect::C2024 => {
                forget(&[
                    "numbersSockets",
                    "sealed",
                    "controlChannelHeartbeats",
                    "twinKeys",
                    "supportsRamEscr",
                    "adjustableTimeout",
                ]);
                json.shift_remove("deviceGroupName");
                json.insert("corePackageVersion".into(), "c0.1.0".into());
                // It prints a wild port as the number it keeps it in.
                let services = self.allowed_services.iter();
                let services =
                    services.map(|s| s.strip_suffix(":*").map_or_else(|| s.clone(), |host| format!("{host}:0")));
                json.insert("allowedServices".into(), services.collect::<Vec<_>>().into());
            }
            Dialect::V4 => {
                for name in ["deviceGroupName", "supportedFeatures", "allowedServices"] {
                    json.shift_remove(name);
                }
            }
        }
        Json::Object(json).to_string()
    }
}

impl fmt::Display for MissingFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "This device daemon does not {}", self.0)
    }
}

impl std::error::Error for MissingFeature {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_of_all_ages() {
        let now = PingResponse::parse(
            r#"{"devicename":"pi","deviceGroupName":"__none__","version":"5.6.3","corePackageVersion":"6.2.0","supportedFeatures":{"srAuth":true,"srE2ee":true,"acceptsPublicKeys":false,"supportsPortChoice":true,"adjustableTimeout":true,"supportsRamEscr":true},"allowedServices":["localhost:22"],"npCpVersion":"1.5.0"}"#,
        )
        .unwrap();
        assert!(now.supported_features.sr_e2ee && !now.supported_features.twin_keys);
        let old = PingResponse::parse(r#"{"devicename":"pi","version":"4.0.5"}"#).unwrap();
        let wanted = Features { sr_auth: true, ..Features::default() };
        assert_eq!(
            old.supported_features.missing(wanted).unwrap().to_string(),
            "This device daemon does not authenticate to the socket rendezvous"
        );
        assert!(
            old.supported_features.missing(Features { accepts_public_keys: true, ..Features::default() }).is_none()
        );
        assert_eq!(PingResponse::parse("pong"), None);
        let all = Features { adjustable_timeout: true, twin_keys: true, sealed: true, ..Features::default() };
        let ours = PingResponse { supported_features: all, allowed_services: vec!["*:*".into()], ..now.clone() };
        let heard = |dialect| PingResponse::parse(&ours.print_as(dialect)).unwrap();
        assert_eq!(heard(Dialect::Current), ours);
        let twin = PingResponse { twin: true, ..ours.clone() };
        assert_eq!(PingResponse::parse(&twin.print_as(Dialect::Current)), Some(twin.clone()));
        assert!([twin.print_as(Dialect::V5_11), ours.print()].iter().all(|said| !said.contains("\"twin\":")));
        let older = Features { sealed: false, ..all };
        assert_eq!(heard(Dialect::V5_11), PingResponse { supported_features: older, ..ours.clone() });
        assert!(!heard(Dialect::V5_6).supported_features.twin_keys);
        assert!(heard(Dialect::V5_6).supported_features.adjustable_timeout);
        assert!(!heard(Dialect::C2024).supported_features.adjustable_timeout);
        assert_eq!(heard(Dialect::C2024).allowed_services, ["*:0"]);
        assert!(heard(Dialect::V4).supported_features.accepts_public_keys);
        assert_eq!(PingResponse::parse(&now.print()), Some(now));
    }
}
