//! The daemon's configuration, with a word on everything.

use std::path::Path;

use postern_identity::Invitation;

use crate::files;
use crate::join_cli::JoinFlags;
use crate::limits::OWN_FILE_BYTES;

/// Begins what `join` wrote.
const FIRST_LINE: &str = "# Written by `postern join`; it is yours from now on.";

/// Whether a file is one of those.
pub(crate) fn is_ours(file: &Path) -> bool {
    let text = files::read(file, OWN_FILE_BYTES);
    text.is_ok_and(|text| text.is_some_and(|text| text.starts_with(FIRST_LINE)))
}

/// What goes to `sshnpd.yaml`.
pub(crate) fn of(invitation: &Invitation, keys: &Path, flags: &JoinFlags) -> String {
    let Invitation { directory, at_sign, device, manager, .. } = invitation;
    // A JSON string is a YAML string as well.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let port = flags.sshd_port;
    let mut permit = vec![format!("localhost:{port}")];
    permit.extend(flags.permit_open.iter().cloned());
    let permit: String = permit.iter().map(|one| format!("    - {}\n", quoted(one))).collect();
    let host_keys = match &flags.ssh_host_keys {
        Some(paths) => format!("  host-keys: {}\n", quoted(paths)),
        None => "  # host-keys: auto\n".to_owned(),
    };
    format!(
        "{FIRST_LINE}
# All that may stand here: postern sshnpd --help. What is typed there wins over what is written here.

atsign:
  atsign: {at_sign}
  # Keys of this device alone, made here. Whoever has them is this device.
  keys: {keys}
  root: {directory}

access:
  # Who may come in. Read again when this file changes. \"@bob until 2026-12-01T18:00Z\" may until then.
  managers:
    - {manager}
  # What they may reach from here: host:port, *:port, host:*.
  permitopen:
{permit}  # Only the sealed sessions, which need no trust in any server: sealed. Those of older programs as well: legacy.
  # min-security: sealed

device:
  name: {device}
  # Say nothing of this device to the managers but what they ask for.
  # hide: true

ssh:
  # Where the ssh server of this device listens, on this device.
  sshd-port: {port}
  # Public host keys of that server, which are signed and told to the managers so that ssh need not ask.
{host_keys}  # Add the ssh keys that managers send to authorized_keys.
  add-publickeys: {add}

runtime:
  # For how many seconds a session waits for a lost link.
  resume: 120
  # verbose: true
",
        at_sign = quoted(at_sign.as_str()),
        keys = quoted(&keys.to_string_lossy()),
        directory = quoted(&directory.to_string()),
        manager = quoted(manager.as_str()),
        device = quoted(device.as_str()),
        add = flags.sshpublickey,
    )
}
