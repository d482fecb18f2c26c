//! `sshnpd --doctor`: what keeps this device from being reached, and what to do about it. Nothing is changed by it, and the
//! daemon may run meanwhile.

use std::process::ExitCode;

use postern_client::home_dir;
use postern_client::trust::Places;
use postern_doctor::{Finding, Report, Subject, Way, clock, folder, link, ssh_server};
use postern_identity::Statement;
use postern_net::tasks::{Tasks, blocking};
use postern_observe::state_dir;
use postern_session::{HostKeys, SshPublicKey};

use crate::cli::Config;
use crate::host_keys::usable;
use crate::limits::DRAIN;
use crate::status::running;

/// Looks, prints what was found, and returns 0 when nothing fails, else 1.
pub(crate) async fn run(config: &Config, json: bool) -> ExitCode {
    let tasks = Tasks::new();
    let findings = examine(config, &tasks).await;
    tasks.close_and_wait(DRAIN).await;
    Report::new("device", findings).show(json)
}

async fn examine(config: &Config, tasks: &Tasks) -> Vec<Finding> {
    let policy = config.policy.iter().cloned();
    let subject = Subject {
        root: config.root.clone(),
        at_sign: config.at_sign.clone(),
        key_file: config.key_file.clone(),
        others: config.managers.iter().map(|manager| manager.at_sign.clone()).chain(policy).collect(),
    };
    let (source, port) = (config.host_keys.clone(), config.sshd_port);
    let read_keys = blocking(move || usable(&source, port));
    let (way, (sshd, _), (named, keys), link) =
        tokio::join!(Way::walk(&subject, tasks), ssh_server(port), read_keys, blocking(link));
    let mut findings = vec![clock(way.server.as_ref().and_then(|server| server.skew_ms))];
    findings.push(link);
    let host_keys = host_keys(config, &way, named, &keys).await;
    findings.extend(way.findings);
    #[cfg(feature = "sshd")]
    let sshd = match config.ssh_server {
        crate::cli::SshServer::Builtin => Finding::ok("sshd", "built in, without a socket"),
        crate::cli::SshServer::System => sshd,
    };
    findings.extend([sshd, host_keys]);
    findings.extend(folders(config));
    findings.push(daemons(config));
    #[cfg(feature = "sandbox")]
    findings.push(sandbox(config));
    findings
}

/// What the kernel would keep from a thief of the daemon: tried, not believed.
#[cfg(feature = "sandbox")]
fn sandbox(config: &Config) -> Finding {
    use crate::sandbox::{Sandbox, tried};
    let id = "sandbox";
    if config.sandbox == Sandbox::Off {
        return Finding::skip(id, "--sandbox off");
    }
    if crate::sandbox::serves_logins(config) {
        return Finding::skip(id, "none with the built-in ssh server, whose users may do what they may");
    }
    let required = config.sandbox == Sandbox::Require;
    match tried(config) {
        Ok((got, open)) if !open.is_empty() => Finding::fail(
            id,
            format!("{got}; but this was still possible: {}", open.join(", ")),
            "tell us: this should not be",
        ),
        Ok((got, _)) if got.is_whole() => Finding::ok(id, format!("tried: {got}")),
        Ok((got, _)) if required => Finding::fail(
            id,
            format!("this kernel can do part of it alone: {got}"),
            "use --sandbox auto, or a newer kernel",
        ),
        Ok((got, _)) => Finding::ok(id, format!("as far as this kernel can: {got}")),
        Err(why) if required => Finding::fail(id, why, "use --sandbox auto"),
        Err(why) => Finding::warn(id, why, "the daemon runs without"),
    }
}

/// What lies on this disk against what managers are told.
async fn host_keys(config: &Config, way: &Way, named: usize, keys: &[SshPublicKey]) -> Finding {
    let id = "host-keys";
    if keys.is_empty() {
        let todo = "name the keys of your ssh server with --ssh-host-keys; until then ssh asks people to trust it";
        return match named {
            0 => Finding::warn(id, "no host keys of an ssh server were found", todo),
            _ => Finding::warn(id, "the ssh server shows none of the host keys that were found", todo),
        };
    }
    let count = keys.len();
    let (Some(client), Some(manager)) = (&way.client, config.managers.first()) else {
        return Finding::skip(id, format!("{count} are here; what managers are told could not be looked at"));
    };
    if config.hide {
        return Finding::skip(id, format!("{count} are here; --hide keeps them from managers"));
    }
    let told = client.get_sent(&manager.at_sign, &HostKeys::record(&config.device)).await;
    let told = match told {
        Ok(text) => Statement::parse(&text).and_then(|statement| statement.claimed::<HostKeys>()),
        Err(error) if error.is_no_such_key() => {
            let todo = "start the daemon: it publishes them when it starts, and every hour";
            return Finding::warn(id, format!("{} is not told of any host key yet", manager.at_sign), todo);
        }
        Err(error) => return Finding::skip(id, format!("what managers are told could not be read: {error}")),
    };
    let Ok(told) = told else {
        return Finding::warn(id, "what managers are told is damaged", "restart the daemon: it publishes them anew");
    };
    let here: Vec<String> = keys.iter().map(ToString::to_string).collect();
    let differs = told.keys().len() != here.len() || !told.keys().iter().all(|key| here.contains(key));
    if differs {
        return Finding::fail(
            id,
            format!("the ssh server's keys are not those that {} is told", manager.at_sign),
            "if you changed them: restart the daemon, which tells the new ones. If you did not, somebody else answers at \
             that port, or another device runs under this name",
        )
        .because("ssh on the clients refuses a server whose key is not the one that the device signed");
    }
    Finding::ok(id, format!("{count}, as {} is told", manager.at_sign))
}

/// Where the daemon writes.
fn folders(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    match Places::of_user().config {
        Some(path) => found.push(folder("config-dir", &path, "whom we know")),
        None => found.push(Finding::fail("config-dir", "HOME is not set", "set HOME for the service")),
    }
    found.extend(state_dir().map(|path| folder("state-dir", &path, "the identity key and the journal")));
    if config.accept_keys
        && let Ok(home) = home_dir()
    {
        found.push(folder("ssh-dir", &home.join(".ssh"), "the ssh keys that managers send"));
    }
    found
}

/// Daemons of this name on this machine.
fn daemons(config: &Config) -> Finding {
    let running = running(config);
    let name = format!("{}{}", config.device, config.at_sign);
    if running.iter().any(|(_, twin)| *twin) {
        return Finding::fail(
            "daemon",
            format!("another machine runs as {name}, with the same keys"),
            "is one a copy of the other's disk or SD card? Give this one keys of its own (at_activate enroll, postern join) \
             and another name",
        )
        .because("both answer the same clients, and whoever is faster gets the session");
    }
    match running.as_slice() {
        [] => Finding::warn("daemon", format!("no daemon runs here for {name}"), "start it; its log says why it ended"),
        [(pid, _)] => Finding::ok("daemon", format!("runs for {name}, pid {pid}")),
        pids => Finding::warn(
            "daemon",
            format!(
                "{} daemons run here for {name}: pids {}",
                pids.len(),
                pids.iter().map(|(pid, _)| pid.to_string()).collect::<Vec<_>>().join(", ")
            ),
            "they share the work, which costs data twice: stop all but one",
        ),
    }
}
