//! `npp.yaml`: the flags of `npp`, by their names.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::Persistence;

/// Where the file is looked for when no flag names one.
pub(super) const DEFAULT_FILE: &str = "/etc/noports/npp.yaml";

/// What the file says.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct NppConfig {
    pub(super) atsign: Option<String>,
    pub(super) key_file: Option<PathBuf>,
    /// Accepted: nothing is stored locally.
    #[allow(dead_code, reason = "read only to be known")]
    pub(super) storage_path: Option<PathBuf>,
    pub(super) verbose: Option<bool>,
    pub(super) root_domain: Option<String>,
    pub(super) base_namespace: Option<String>,
    pub(super) domain_namespace: Option<String>,
    pub(super) persistence_method: Option<Persistence>,
    pub(super) policy_directory: Option<PathBuf>,
    pub(super) manager_allow_list: Option<Names>,
    pub(super) daemon_atsigns: Option<Names>,
    pub(super) event_logging_atsign: Option<String>,
}

/// A list, or one text with commas.
pub(super) struct Names(Vec<String>);

impl NppConfig {
    /// Reads the file that was named, or the usual one if it is there.
    pub(super) fn load(named: Option<&Path>) -> Result<Self, String> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        let config = postern_config::read(path).map_err(|error| error.to_string())?;
        match (config, named) {
            (Some(config), _) => Ok(config),
            (None, None) => Ok(Self::default()),
            (None, Some(path)) => Err(format!("there is no file {}", path.display())),
        }
    }
}

impl From<Names> for Vec<String> {
    fn from(names: Names) -> Self {
        names.0
    }
}

impl<'de> Deserialize<'de> for Persistence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        clap::ValueEnum::from_str(&text, true).map_err(|_| serde::de::Error::custom("write atserver, file or none"))
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListOrText;

        impl<'de> Visitor<'de> for ListOrText {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of atSigns, or one text with commas")
            }

            fn visit_str<E>(self, text: &str) -> Result<Names, E> {
                Ok(Names(super::csv(text)))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Names, A::Error> {
                let mut names = Vec::new();
                while let Some(name) = list.next_element()? {
                    names.push(name);
                }
                Ok(Names(names))
            }
        }

        deserializer.deserialize_any(ListOrText)
    }
}

/// The file with every option in comments.
pub(super) const DEFAULT: &str = include_str!("config_default.yaml");

#[cfg(test)]
mod tests {
    use super::*;

    /// An option that is added to the file has to be explained in the default one.
    #[test]
    fn the_default_file_names_every_option_and_no_other() {
        postern_config::parse::<NppConfig>(DEFAULT).unwrap();
        let every = postern_config::every_option(DEFAULT);
        postern_config::parse::<NppConfig>(&every).unwrap();
        let unknown = postern_config::parse::<NppConfig>("x: 1").err().unwrap();
        for option in unknown.unknown().unwrap().1 {
            assert!(every.lines().any(|line| line.starts_with(&format!("{option}:"))), "no {option}");
        }
    }
}
