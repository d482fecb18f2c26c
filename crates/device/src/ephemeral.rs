//! Ephemeral ssh keys, for clients that do not encrypt: their ssh tunnel is let in for seconds.

use std::path::PathBuf;
use std::sync::Arc;

use postern_client::home_dir;
use postern_crypto::{SshAlgorithm, SshKeyPair};
use postern_proto::Uuid;
use postern_session::EphemeralSshKey;

use crate::authorized_keys::{self, EphemeralLine};
use crate::daemon::Daemon;
use crate::limits::EPHEMERAL_KEY;

impl Daemon {
    /// Makes a key, lets it in and has it taken out again. `None`: it could not be let in; the client's own key may do.
    pub(crate) async fn ephemeral_key(self: &Arc<Self>, session: &Uuid) -> Option<EphemeralSshKey> {
        let pair = match self.config.ssh_algorithm {
            SshAlgorithm::Ed25519 => SshKeyPair::generate(SshAlgorithm::Ed25519).ok()?,
            // Seconds on a gateway: beside other work.
            SshAlgorithm::Rsa => {
                tokio::task::spawn_blocking(|| SshKeyPair::generate(SshAlgorithm::Rsa)).await.ok()?.ok()?
            }
        };
        let ssh_dir = ssh_dir()?;
        let line = EphemeralLine {
            session,
            key: pair.public_line(),
            sshd_port: self.config.sshd_port,
            more: &self.config.ephemeral_options,
        };
        {
            let _one_at_a_time = self.keys_file.lock().await;
            if let Err(error) = authorized_keys::add_ephemeral(&ssh_dir, &line) {
                tracing::warn!(%error, "could not add an ephemeral key to authorized_keys");
                return None;
            }
        }
        let (daemon, session) = (Arc::clone(self), session.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = daemon.tasks.token().cancelled() => {}
                () = tokio::time::sleep(EPHEMERAL_KEY) => {}
            }
            let _one_at_a_time = daemon.keys_file.lock().await;
            if let Err(error) = authorized_keys::remove_ephemeral(&ssh_dir, &session) {
                tracing::warn!(%error, "could not remove an ephemeral key from authorized_keys");
            }
        });
        EphemeralSshKey::parse(pair.private_pem())
    }

    /// What a daemon that was killed could not take out.
    pub(crate) fn remove_leftover_keys(&self) {
        if let Some(ssh_dir) = ssh_dir()
            && let Err(error) = authorized_keys::remove_leftovers(&ssh_dir)
        {
            tracing::warn!(%error, "could not look for ephemeral keys that were left in authorized_keys");
        }
    }
}

fn ssh_dir() -> Option<PathBuf> {
    match home_dir() {
        Ok(home) => Some(home.join(".ssh")),
        Err(error) => {
            tracing::warn!(%error, "no home directory");
            None
        }
    }
}
