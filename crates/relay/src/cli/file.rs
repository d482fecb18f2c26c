//! `srvd.yaml`, the configuration file of NoPorts' relay.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Read when no file is named, if it is there.
const USUAL: &str = "/etc/noports/srvd.yaml";

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) atsign: Identity,
    pub(super) access: Access,
    pub(super) network: Network,
    pub(super) runtime: Runtime,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Identity {
    pub(super) atsign: Option<String>,
    pub(super) keys: Option<PathBuf>,
    pub(super) passphrase: Option<String>,
    pub(super) root: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Access {
    /// A list, or one text with commas.
    #[serde(deserialize_with = "names")]
    pub(super) managers: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Network {
    pub(super) ip: Option<String>,
    #[serde(rename = "bind-443")]
    pub(super) single: bool,
    #[serde(rename = "443-bind-port")]
    pub(super) single_port: Option<u16>,
    /// Ours.
    #[serde(rename = "bind-port")]
    pub(super) port: Option<u16>,
    #[serde(rename = "tls-cert")]
    pub(super) tls_certificate: Option<PathBuf>,
    #[serde(rename = "tls-key")]
    pub(super) tls_key: Option<PathBuf>,
    #[serde(rename = "tls-port")]
    pub(super) tls_port: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct Runtime {
    /// Ours.
    pub(super) journal: Option<PathBuf>,
    /// Ours.
    pub(super) max_rate: Option<u64>,
    pub(super) log_traffic: bool,
    pub(super) verbose: bool,
    per_session_storage: Option<bool>,
    storage_path: Option<PathBuf>,
}

impl File {
    /// The named file, which must be there; else the usual one, which need not.
    pub(super) fn find(named: Option<&Path>) -> Result<Self, String> {
        let path = named.unwrap_or(Path::new(USUAL));
        match postern_config::read(path).map_err(|error| error.to_string())? {
            Some(file) => Ok(file),
            None if named.is_none() => Ok(Self::default()),
            None => Err(format!("there is no file {}; see --config", path.display())),
        }
    }

    /// Where it is when no flag names it.
    pub(super) fn usual_path() -> PathBuf {
        std::env::var_os("SRVD_CONFIG").filter(|path| !path.is_empty()).map_or_else(|| USUAL.into(), PathBuf::from)
    }

    #[cfg(test)]
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        postern_config::parse(text).map_err(|error| error.to_string())
    }
}

fn names<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<String>, D::Error> {
    struct Names;

    impl<'de> Visitor<'de> for Names {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a name, names separated by commas, or a list of names")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text.split(',').map(|name| name.trim().to_owned()).collect())
        }

        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut names = Vec::new();
            while let Some(name) = list.next_element()? {
                names.push(name);
            }
            Ok(names)
        }
    }

    source.deserialize_any(Names)
}

/// The file with every option in comments.
pub(super) const DEFAULT: &str = include_str!("config_default.yaml");

#[cfg(test)]
mod tests {
    use super::*;

    /// An option that is added to the file has to be explained in the default one.
    #[test]
    fn the_default_file_names_every_option_and_no_other() {
        File::parse(DEFAULT).unwrap();
        let every = postern_config::every_option(DEFAULT);
        File::parse(&every).unwrap();
        let known = |text: &str| {
            let error = postern_config::parse::<File>(text).err().unwrap();
            error.unknown().unwrap().1.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        for section in known("x: 1") {
            let (_, lines) = every.split_once(&format!("\n{section}:\n")).unwrap_or_else(|| panic!("no {section}"));
            let lines: Vec<&str> = lines.lines().take_while(|line| line.is_empty() || line.starts_with(' ')).collect();
            for option in known(&format!("{section}: {{x: 1}}")) {
                assert!(lines.iter().any(|line| line.starts_with(&format!("  {option}:"))), "no {section}.{option}");
            }
        }
    }
}
