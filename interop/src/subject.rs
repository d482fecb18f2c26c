//! The server under test: ours, or one that stands somewhere.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use postern_testkit::{Options, Piece, World};
use serde::Deserialize;

/// The name and port that programs without a choice insist on.
pub(crate) const FAMOUS: (&str, u16) = ("root.atsign.org", 64);

/// The port at which such programs expect the device's ssh server.
const SSH_PORT: u16 = 22;

/// What every case talks to.
pub(crate) enum Subject {
    /// Server, relay and sshd of our own, in a network of their own.
    Ours(Box<World>),
    /// Somebody's atDirectory with atSigns that nobody has activated yet.
    Reference(Reference),
}

/// How to reach a reference server: a JSON file named by `INTEROP_REFERENCE`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reference {
    /// `host:port` of its atDirectory.
    root: String,
    /// The certificates to trust.
    ca_file: PathBuf,
    /// atSigns to use up: name and CRAM secret.
    at_signs: VecDeque<(String, String)>,
}

impl Subject {
    /// `SUBJECT=ours` (the default) or `reference`.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        match std::env::var("SUBJECT").as_deref() {
            Err(_) | Ok("" | "ours") => Self::ours(),
            Ok("reference") => {
                let file = std::env::var_os("INTEROP_REFERENCE")
                    .context("SUBJECT=reference needs INTEROP_REFERENCE: a JSON file, see interop/README.md")?;
                let text = std::fs::read_to_string(&file)
                    .with_context(|| format!("cannot read {}", Path::new(&file).display()))?;
                Ok(Self::Reference(serde_json::from_str(&text).context("INTEROP_REFERENCE")?))
            }
            Ok(other) => bail!("SUBJECT is ours or reference, not {other}"),
        }
    }

    fn ours() -> anyhow::Result<Self> {
        let options = Options {
            server_name: Some((FAMOUS.0.to_owned(), FAMOUS.1)),
            ssh_port: Some(SSH_PORT),
            own_daemon: false,
            ..Options::default()
        };
        Ok(Self::Ours(Box::new(World::start(options)?)))
    }

    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Self::Ours(_))
    }

    /// Our house, for cases about more than the server.
    pub(crate) fn world(&mut self) -> anyhow::Result<&mut World> {
        match self {
            Self::Ours(world) => Ok(world),
            Self::Reference(_) => bail!("this case needs our own house"),
        }
    }

    /// `host:port` of the atDirectory.
    pub(crate) fn root(&self) -> String {
        match self {
            Self::Ours(world) => world.root(),
            Self::Reference(reference) => reference.root.clone(),
        }
    }

    /// The certificates to trust.
    pub(crate) fn ca_file(&self) -> PathBuf {
        match self {
            Self::Ours(world) => world.ca_file(),
            Self::Reference(reference) => reference.ca_file.clone(),
        }
    }

    /// A new atSign and the secret that activates it. `name` is a wish.
    pub(crate) fn fresh(&mut self, name: &str) -> anyhow::Result<(String, String)> {
        match self {
            Self::Ours(world) => Ok((name.to_owned(), world.add_at_sign(name)?)),
            Self::Reference(reference) => {
                reference.at_signs.pop_front().context("INTEROP_REFERENCE has no atSign left to activate")
            }
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.world()?.kill_piece(Piece::Server)
    }

    /// Starts the server again.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        self.world()?.start_piece(Piece::Server)
    }

    /// What the servers said last.
    pub(crate) fn last_words(&self) -> String {
        match self {
            Self::Ours(world) => world.last_words(),
            Self::Reference(_) => String::new(),
        }
    }
}
