//! Where what a device needs lies.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use postern_client::trust::Places;
use postern_client::{default_key_file, home_dir};
use postern_identity::{DeviceName, Invitation};
use postern_proto::AtSign;

use crate::fail::Fail;
use crate::files;
use crate::service::Manager;

/// Where the daemon looks for its configuration by itself.
pub(crate) const STANDARD_CONFIG: &str = "/etc/noports/sshnpd.yaml";

/// What the person said about places.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wishes {
    /// The daemon's home, if it is not ours.
    pub(crate) dir: Option<PathBuf>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) keys: Option<PathBuf>,
}

/// The daemon's files.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) home: PathBuf,
    /// Its home is not the one of who runs this.
    pub(crate) is_elsewhere: bool,
    /// Holds pins and the CA.
    pub(crate) settings: PathBuf,
    /// Holds identities and our notes.
    pub(crate) state: PathBuf,
    pub(crate) config: PathBuf,
    keys: Option<PathBuf>,
}

impl Place {
    /// `service`: who will start the daemon; its home is the daemon's, unless another one was named.
    pub(crate) fn of(wishes: &Wishes, service: Option<Manager>) -> Result<Self, Fail> {
        let is_root = rustix::process::geteuid().is_root();
        let named = wishes.dir.clone();
        let home_of_service = || service.filter(|_| is_root).and_then(Manager::home);
        let dir = named.clone().or_else(home_of_service);
        let no_home = || Fail::usage("HOME is not set; set it, or name the daemon's home with --dir");
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|error| Fail::usage(format!("{}: {error}", path.display())))
        };
        let (home, settings, state) = match &dir {
            Some(dir) => {
                let home = absolute(dir)?;
                (home.clone(), home.join(".config/postern"), home.join(".local/state/postern"))
            }
            None => {
                let places = Places::of_user();
                let (Some(settings), Some(state)) = (places.config, places.state) else { return Err(no_home()) };
                (home_dir().map_err(|_| no_home())?, settings, state)
            }
        };
        let is_elsewhere = dir.is_some() && home_dir().ok().as_ref() != Some(&home);
        let config = match (&wishes.config, &named) {
            (Some(config), _) => absolute(config)?,
            (None, Some(_)) => home.join("sshnpd.yaml"),
            (None, None) if is_root => STANDARD_CONFIG.into(),
            (None, None) => settings.join("sshnpd.yaml"),
        };
        let keys = wishes.keys.as_deref().map(absolute).transpose()?;
        Ok(Self { home, is_elsewhere, settings, state, config, keys })
    }

    pub(crate) fn keys(&self, at_sign: &AtSign) -> PathBuf {
        self.keys.clone().unwrap_or_else(|| default_key_file(&self.home, at_sign))
    }

    pub(crate) fn places(&self) -> Places {
        Places { config: Some(self.settings.clone()), state: Some(self.state.clone()) }
    }

    /// Where the daemon and all other programs look for a CA of one's own.
    pub(crate) fn ca(&self) -> PathBuf {
        self.settings.join("ca.pem")
    }

    /// What was asked and not answered yet. Has a private key in it.
    pub(crate) fn pending(&self, invitation: &Invitation) -> PathBuf {
        self.state.join("joining").join(format!("{}{}", invitation.device, invitation.at_sign))
    }

    pub(crate) fn receipts(&self) -> PathBuf {
        self.state.join("joined")
    }

    pub(crate) fn receipt(&self, device: &DeviceName, at_sign: &AtSign) -> PathBuf {
        self.receipts().join(format!("{device}{at_sign}.json"))
    }

    /// Gives what lies under the home to whom the home belongs, if that is somebody else: the daemon runs as them.
    pub(crate) fn hand_over(&self, keys: &Path) -> std::io::Result<()> {
        let owner = fs::metadata(&self.home)?;
        if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
            return Ok(());
        }
        let own = |path: &Path| std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid()));
        let mut waiting: Vec<PathBuf> =
            [".atsign", ".config", ".local"].iter().map(|name| self.home.join(name)).collect();
        waiting.push(keys.to_owned());
        while let Some(path) = waiting.pop() {
            let Ok(found) = fs::symlink_metadata(&path) else { continue };
            own(&path)?;
            if found.is_dir() {
                waiting.extend(fs::read_dir(&path)?.filter_map(Result::ok).map(|entry| entry.path()));
            }
        }
        Ok(())
    }
}

/// What was made on the way; taken back unless it is kept.
#[derive(Default)]
pub(crate) struct Made {
    folders: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Made {
    /// Makes the folder of a file, and sees that a file can be written there.
    pub(crate) fn room_for(&mut self, file: &Path, mode: u32) -> Result<(), Fail> {
        let folder = file.parent().unwrap_or(Path::new("/"));
        let outcome = files::make_folders(folder, mode)
            .map(|made| self.folders.extend(made))
            .and_then(|()| files::try_to_write(file));
        outcome.map_err(|error| {
            Fail::world(format!(
                "cannot write into {}: {error}; nothing was changed. Make room or rights there, or name another place with --dir, --config or -k",
                folder.display()
            ))
        })
    }

    /// This file is new.
    pub(crate) fn file(&mut self, path: &Path) {
        self.files.push(path.to_owned());
    }

    /// Nothing is taken back.
    pub(crate) fn keep(mut self) {
        self.folders.clear();
        self.files.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
        // Those alone that are empty now.
        for folder in self.folders.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}
