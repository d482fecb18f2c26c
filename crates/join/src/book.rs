//! Invitations that were given out: one private file each, until they are over.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use postern_client::trust::Places;
use postern_identity::{DeviceName, Fingerprint, Invitation};
use postern_observe::say;
use postern_proto::{AtSign, Uuid};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::fail::Fail;
use crate::files;
use crate::limits::OWN_FILE_BYTES;

/// Where an invitation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Nobody has come yet.
    Open,
    /// The device is let in, and has not said yet which key it has made.
    Approved,
    /// All is done.
    Joined,
    /// Somebody came who did not know its secret: it is good for nothing any more.
    Burned,
    /// Taken back by who gave it out.
    Cancelled,
    /// Its time was over.
    Expired,
}

/// One invitation.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) at_sign: AtSign,
    pub(crate) device: DeviceName,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) expires: u32,
    pub(crate) state: State,
    pub(crate) enrollment: Option<Uuid>,
    pub(crate) identity: Option<Fingerprint>,
    /// Only while it may still be needed: there is the secret in it.
    pub(crate) invitation: Option<Invitation>,
}

/// The folder.
pub(crate) struct Book(PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    at_sign: String,
    device: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    expires: u32,
    state: State,
    enrollment: Option<String>,
    identity: Option<String>,
    line: Option<Zeroed>,
}

/// A line with a secret, zeroed when dropped.
struct Zeroed(Zeroizing<String>);

impl Serialize for Zeroed {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Zeroed {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(Zeroizing::new(text)))
    }
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approved => "approved",
            Self::Joined => "joined",
            Self::Burned => "burned",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Whether anything is still to come.
    pub(crate) fn is_waiting(self) -> bool {
        matches!(self, Self::Open | Self::Approved)
    }
}

impl Book {
    pub(crate) fn of_user() -> Result<Self, Fail> {
        let state = Places::of_user().state.ok_or_else(|| Fail::usage("HOME is not set"))?;
        Ok(Self(state.join("invitations")))
    }

    /// All of them, by name. What cannot be read is said and left out.
    pub(crate) fn all(&self) -> Result<Vec<Entry>, Fail> {
        let told = |error: io::Error| Fail::world(format!("{}: {error}", self.0.display()));
        let files = match fs::read_dir(&self.0) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(told(error)),
        };
        let mut all = Vec::new();
        for file in files {
            let path = file.map_err(told)?.path();
            if path.extension().is_none_or(|end| end != "json") {
                continue;
            }
            match files::read(&path, OWN_FILE_BYTES) {
                Ok(Some(text)) => match Entry::parse(&text) {
                    Some(entry) => all.push(entry),
                    None => say(format_args!("{} is damaged and passed over", path.display())),
                },
                Ok(None) => {}
                Err(error) => say(format_args!("{}: {error}", path.display())),
            }
        }
        all.sort_by(|a, b| (a.at_sign.as_str(), a.device.as_str()).cmp(&(b.at_sign.as_str(), b.device.as_str())));
        Ok(all)
    }

    pub(crate) fn find(&self, device: &DeviceName, at_sign: &AtSign) -> Result<Option<Entry>, Fail> {
        Ok(self.all()?.into_iter().find(|entry| entry.device == *device && entry.at_sign == *at_sign))
    }

    /// Writes it in the place of what was known of that device.
    pub(crate) fn keep(&self, entry: &Entry) -> Result<(), Fail> {
        let path = self.0.join(format!("{}{}.json", entry.device, entry.at_sign));
        let told = |error: io::Error| Fail::world(format!("{}: {error}", path.display()));
        files::make_folders(&self.0, 0o700).map_err(told)?;
        files::replace(&path, &entry.print()?, 0o600).map_err(told)
    }
}

impl Entry {
    fn parse(text: &str) -> Option<Self> {
        let text: Text = serde_json::from_str(text).ok()?;
        let optional = |text: Option<String>| text.map(|text| Uuid::parse(&text).ok_or(())).transpose().ok();
        Some(Self {
            at_sign: AtSign::parse(&text.at_sign).ok()?,
            device: DeviceName::parse(&text.device).ok()?,
            labels: text.labels,
            expires: text.expires,
            state: text.state,
            enrollment: optional(text.enrollment)?,
            identity: text.identity.map(|text| Fingerprint::parse(&text)).transpose().ok()?,
            invitation: text.line.map(|line| Invitation::parse(&line.0)).transpose().ok()?,
        })
    }

    fn print(&self) -> Result<Zeroizing<String>, Fail> {
        let text = Text {
            at_sign: self.at_sign.to_string(),
            device: self.device.to_string(),
            labels: self.labels.clone(),
            expires: self.expires,
            state: self.state,
            enrollment: self.enrollment.as_ref().map(ToString::to_string),
            identity: self.identity.map(|identity| identity.to_string()),
            line: self.invitation.as_ref().map(|invitation| Zeroed(invitation.print())),
        };
        serde_json::to_string(&text).map(Zeroizing::new).map_err(Fail::world)
    }

    /// It is over: what is secret in it is forgotten.
    pub(crate) fn end(&mut self, state: State) {
        self.state = state;
        self.invitation = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_identity::{Anchor, InvitationSecret, Passcode};

    fn entry() -> Entry {
        let (at_sign, device) = (AtSign::parse("@device").unwrap(), DeviceName::parse("gw-17").unwrap());
        let invitation = Invitation {
            directory: "gw.example.org:64".parse().unwrap(),
            anchor: Anchor::System,
            at_sign: at_sign.clone(),
            at_sign_key: [1; 16],
            device: device.clone(),
            manager: AtSign::parse("@alice").unwrap(),
            manager_key: Fingerprint::from_bytes([2; 32]),
            passcode: Passcode::parse("ABCDE2").unwrap(),
            expires: 7,
            secret: InvitationSecret::generate(),
        };
        Entry {
            at_sign,
            device,
            labels: [("site".to_owned(), "milano".to_owned())].into(),
            expires: 7,
            state: State::Open,
            enrollment: None,
            identity: None,
            invitation: Some(invitation),
        }
    }

    #[test]
    fn kept_privately_and_forgotten_in_time() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let book = Book(dir.path().join("invitations"));
        let mut entry = entry();
        book.keep(&entry).unwrap();
        let path = dir.path().join("invitations/gw-17@device.json");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let line = entry.invitation.as_ref().unwrap().print();
        let kept = book.find(&entry.device, &entry.at_sign).unwrap().unwrap();
        assert_eq!(*kept.invitation.unwrap().print(), *line);
        assert_eq!((kept.state, kept.labels.len()), (State::Open, 1));
        entry.end(State::Burned);
        book.keep(&entry).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains("postern1:"), "the secret is still there");
        let kept = book.all().unwrap();
        assert!(kept.len() == 1 && kept[0].state == State::Burned && kept[0].invitation.is_none());
    }
}
