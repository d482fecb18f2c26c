//! The ssh server inside the daemon: who may log in as whom, and what it may dial for them.

use std::path::PathBuf;
use std::sync::Arc;

use postern_client::trust::Places;
use postern_link::sealed::{Authorize, Local, Refusal, Target};
use postern_observe::journal::{Entry, Event};
use postern_session::{Guest, HostPort, SshPublicKey};
use postern_sshd::{Access, Dial, HostKey, own_user};

use crate::cli::Config;
use crate::limits::BUILTIN_BUFFER;
use crate::reach::Reach;

/// The server, where one is asked for.
pub(crate) struct BuiltinSsh {
    key: HostKey,
}

impl BuiltinSsh {
    /// With its host key, which is made at first use beside the identity of the device.
    ///
    /// # Errors
    /// There is a key, and it cannot be used.
    pub(crate) fn start(config: &Config, places: &Places) -> Result<Self, postern_sshd::HostKeyError> {
        let Some(path) = key_file(config, places) else {
            tracing::warn!(
                "there is no home to keep the host key of the built-in ssh server in: it is new at each start"
            );
            return Ok(Self { key: HostKey::new() });
        };
        match HostKey::read_or_make(&path) {
            Ok(key) => Ok(Self { key }),
            Err(postern_sshd::HostKeyError::File(path, error)) => {
                let path = path.display();
                tracing::warn!(%path, %error, "cannot keep the host key of the built-in ssh server: it is new at each start");
                Ok(Self { key: HostKey::new() })
            }
            Err(error) => Err(error),
        }
    }

    /// For the clients' `known_hosts`.
    pub(crate) fn public(&self) -> Option<SshPublicKey> {
        SshPublicKey::parse(&self.key.public()).ok()
    }
}

fn key_file(config: &Config, places: &Places) -> Option<PathBuf> {
    let name = format!("{}{}_ed25519", config.device, config.at_sign);
    Some(places.state.as_ref()?.join("ssh").join(name))
}

impl Reach {
    /// `None`: the target is not the built-in server.
    pub(crate) fn serve_ssh(&self, guest: &Guest, target: &HostPort) -> Option<Result<Local, Refusal>> {
        let server = self.daemon.builtin_ssh.as_ref().filter(|_| self.daemon.answers_ssh(target))?;
        if let Err(refusal) = self.admit(guest, target) {
            return Some(Err(refusal));
        }
        let (ours, theirs) = tokio::io::duplex(BUILTIN_BUFFER);
        let (key, access, tasks) = (server.key.clone(), Arc::new(self.clone()), self.daemon.tasks.clone());
        self.daemon.tasks.spawn(async move {
            // Boxed: it is large, and most of its life it waits.
            Box::pin(postern_sshd::serve(theirs, &key, access, &tasks)).await;
        });
        Some(Ok(Local::new(ours)))
    }

    fn login_entry(&self, event: Event, user: &str) -> Entry {
        let target = HostPort::localhost(self.daemon.config.sshd_port).to_string();
        let user: String = user.chars().filter(char::is_ascii_graphic).take(32).collect();
        Entry { why: Some(format!("ssh as {user}")), ..self.entry(event, &self.guest, &target) }
    }
}

impl Access for Reach {
    fn client(&self) -> String {
        self.guest.at_sign().to_string()
    }

    fn may_be(&self, user: &str) -> Result<(), String> {
        // As it is now: the stream may be older than a change of the list of managers.
        let guest = self.daemon.live.guest(&self.id).ok_or("the session is over")?;
        self.daemon.config.ssh_users.may_be(&guest, user, own_user().as_deref())
    }

    fn logged_in(&self, user: &str, outcome: Result<(), &str>) {
        match outcome {
            Ok(()) => self.daemon.journal.record(self.login_entry(Event::Login, user)),
            Err(why) => {
                let entry = self.login_entry(Event::Refused, user);
                let why = entry.why.as_deref().map(|who| format!("{who}: {why}"));
                self.daemon.journal.record(Entry { why, ..entry });
            }
        }
    }

    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dial<'a> {
        Box::pin(async move {
            let target = Target::HostPort(HostPort { host: host.to_owned(), port });
            Authorize::dial(self, &target)
                .await
                .map_err(|Refusal { code, text }| if text.is_empty() { code.to_string() } else { text })
        })
    }
}
