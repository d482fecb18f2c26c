//! What `join` has written, so that `leave` takes away that and nothing else.

use std::path::{Path, PathBuf};

use postern_identity::DeviceName;
use serde::{Deserialize, Serialize};

use crate::fail::{Fail, Kind};
use crate::files;
use crate::limits::OWN_FILE_BYTES;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Receipt {
    pub(crate) at_sign: String,
    pub(crate) device: String,
    pub(crate) directory: String,
    pub(crate) enrollment: String,
    /// SHA-256 of the invitation, to know it again; it says nothing of its secret.
    pub(crate) invitation: String,
    pub(crate) keys: PathBuf,
    pub(crate) config: PathBuf,
    /// The certificate that was added to the file of the own CAs.
    pub(crate) ca: Option<String>,
    /// The manager, if it was not known before.
    pub(crate) pin: Option<String>,
    pub(crate) service: Option<String>,
}

impl Receipt {
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Fail> {
        let text =
            files::read(path, OWN_FILE_BYTES).map_err(|error| Fail::world(format!("{}: {error}", path.display())))?;
        let damaged = |error| Fail::new(Kind::Taken, format!("{} is damaged ({error}); move it away", path.display()));
        text.map(|text| serde_json::from_str(&text).map_err(damaged)).transpose()
    }

    /// The one there is, or the one of this device. `None`: there is none.
    pub(crate) fn only(folder: &Path, device: Option<&DeviceName>) -> Result<Option<Self>, Fail> {
        let told = |error| Fail::world(format!("{}: {error}", folder.display()));
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(told(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            found.extend(Self::read(&entry.map_err(told)?.path())?);
        }
        found.retain(|one| device.is_none_or(|device| one.device == device.as_str()));
        if found.len() > 1 {
            let names: Vec<String> = found.iter().map(|one| format!("{}{}", one.device, one.at_sign)).collect();
            return Err(Fail::usage(format!("this machine has joined several times; say which: {}", names.join(", "))));
        }
        Ok(found.pop())
    }

    pub(crate) fn file_name(&self) -> String {
        format!("{}{}.json", self.device, self.at_sign)
    }

    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        files::replace(path, &format!("{}\n", serde_json::to_string_pretty(self)?), 0o600)
    }
}
