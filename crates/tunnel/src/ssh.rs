//! The ssh command that goes through the tunnel.

use std::path::{Path, PathBuf};
use std::process::Command;

use postern_proto::AtSign;
use postern_session::{DeviceName, SshPublicKey};

use crate::limits::SSH_KEEP_ALIVE;

/// Everything of the command but its first word.
pub(crate) struct SshCommand {
    words: Vec<String>,
}

/// What the user said about ssh.
pub(crate) struct SshOptions {
    pub(crate) identity: Option<PathBuf>,
    /// Extra words, each as typed: `-L 8080:localhost:80` is two.
    pub(crate) extra: Vec<String>,
    /// The remote command.
    pub(crate) command: Vec<String>,
    /// Ask every 15 s whether the other end is there.
    pub(crate) keep_alive: bool,
    /// A file with the host keys that the device has signed: ssh believes these and asks nothing.
    pub(crate) host_keys: Option<PathBuf>,
}

/// The name under which ssh knows a device's host keys when `sshnp` starts it.
pub(crate) fn host_key_alias(at_sign: &AtSign, device: &DeviceName) -> String {
    format!("{device}.{}.noports", at_sign.body())
}

/// ssh's own files beside ours, for who has keys of devices in them.
const SYSTEM_KNOWN_HOSTS: &str = "/etc/ssh/ssh_known_hosts";

impl SshCommand {
    /// `ssh -p PORT … USER@localhost -i IDENTITY [-- COMMAND]`.
    ///
    /// The local port differs from run to run, so the host key is remembered under
    /// the device's name and not under the port.
    pub(crate) fn new(port: u16, user: &str, at_sign: &AtSign, device: &DeviceName, options: &SshOptions) -> Self {
        let mut words: Vec<String> = vec!["-p".into(), port.to_string()];
        let mut option = |value: String| words.extend(["-o".into(), value]);
        option(format!("HostKeyAlias={}", host_key_alias(at_sign, device)));
        option("CheckHostIP=no".into());
        if let Some(file) = &options.host_keys {
            option(format!("GlobalKnownHostsFile=\"{}\" {SYSTEM_KNOWN_HOSTS}", file.display()));
            option("StrictHostKeyChecking=yes".into());
        } else if options.identity.is_some() {
            option("StrictHostKeyChecking=accept-new".into());
        }
        if options.identity.is_some() {
            option("IdentitiesOnly=yes".into());
        }
        if options.keep_alive {
            words.extend(["-o".into(), format!("ServerAliveInterval={}", SSH_KEEP_ALIVE.as_secs())]);
        }
        words.extend(options.extra.iter().flat_map(|e| split_words(e)));
        words.push(format!("{user}@localhost"));
        if let Some(identity) = &options.identity {
            words.extend(["-i".into(), identity.display().to_string()]);
        }
        if !options.command.is_empty() {
            words.push("--".into());
            words.extend(options.command.iter().cloned());
        }
        Self { words }
    }

    /// One line for a shell.
    pub(crate) fn print(&self) -> String {
        let mut line = String::from("ssh");
        for word in &self.words {
            line.push(' ');
            line.push_str(&quoted(word));
        }
        line
    }

    /// Ready to run, with our own standard streams.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(program());
        command.args(&self.words);
        command
    }
}

/// OpenSSH's client.
pub(crate) fn program() -> &'static Path {
    let system = Path::new("/usr/bin/ssh");
    if system.exists() { system } else { Path::new("ssh") }
}

/// Words as a shell would cut them: spaces part, quotes hold together.
pub(crate) fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut begun = false;
    for c in text.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                begun = true;
            }
            (None, c) if c.is_whitespace() => {
                if begun {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (None, c) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The public half of an identity: what `ssh-keygen -y` says, or the `.pub` file beside it.
pub(crate) fn public_half(identity: &Path) -> Result<SshPublicKey, String> {
    let run = Command::new("ssh-keygen").args(["-y", "-P", "", "-f"]).arg(identity).output();
    let derived =
        run.ok().filter(|out| out.status.success()).map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    let text = match derived {
        Some(text) => text,
        None => {
            let mut name = identity.as_os_str().to_owned();
            name.push(".pub");
            std::fs::read_to_string(&name).map_err(|error| {
                format!("cannot read the public half of {}: {error}; with -s its .pub file or a key without passphrase is needed", identity.display())
            })?
        }
    };
    SshPublicKey::parse(text.trim()).map_err(|error| format!("{}: {error}", identity.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(options: &SshOptions) -> String {
        let device = DeviceName::parse("pi").unwrap();
        SshCommand::new(4022, "root", &AtSign::parse("@dev").unwrap(), &device, options).print()
    }

    #[test]
    fn one_line_as_scripts_expect_it() {
        let none = SshOptions { identity: None, extra: vec![], command: vec![], keep_alive: false, host_keys: None };
        assert_eq!(command(&none), "ssh -p 4022 -o HostKeyAlias=pi.dev.noports -o CheckHostIP=no root@localhost");
        let all = SshOptions {
            identity: Some("/keys/my id".into()),
            extra: vec!["-L 8080:localhost:80".into(), "-o 'SetEnv A=b c'".into()],
            command: vec!["sh".into(), "-c".into(), "echo 'x'".into()],
            keep_alive: true,
            host_keys: None,
        };
        assert_eq!(
            command(&all),
            r"ssh -p 4022 -o HostKeyAlias=pi.dev.noports -o CheckHostIP=no -o StrictHostKeyChecking=accept-new -o IdentitiesOnly=yes -o ServerAliveInterval=15 -L 8080:localhost:80 -o 'SetEnv A=b c' root@localhost -i '/keys/my id' -- sh -c 'echo '\''x'\'''"
        );
    }

    #[test]
    fn signed_host_keys_are_all_that_ssh_believes() {
        let host_keys = Some(PathBuf::from("/my cache/pi@dev"));
        let options = SshOptions { identity: None, extra: vec![], command: vec![], keep_alive: false, host_keys };
        assert_eq!(
            command(&options),
            "ssh -p 4022 -o HostKeyAlias=pi.dev.noports -o CheckHostIP=no -o 'GlobalKnownHostsFile=\"/my cache/pi@dev\" /etc/ssh/ssh_known_hosts' -o StrictHostKeyChecking=yes root@localhost"
        );
    }
}
