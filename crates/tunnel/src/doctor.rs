//! `postern doctor client`: what keeps this machine from reaching devices.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use postern_client::home_dir;
use postern_client::trust::Places;
use postern_doctor::{Finding, Report, Subject, Way, clock, fit, folder, link, relay};
use postern_net::tasks::{Tasks, blocking};
use postern_observe::{Verbosity, say};
use postern_proto::AtSign;
use postern_session::{DeviceName, NAMESPACE, PingResponse};

use crate::hosts::{Common, Hosts};
use crate::limits::DRAIN;
use crate::relay::relays;

/// Looks for what keeps this machine from reaching devices. Without options it looks at what config.yaml says.
///
/// Exit status: 0 nothing fails, 1 something does, 2 wrong usage.
#[derive(Parser)]
#[command(name = "doctor client", version, args_override_self = true, max_term_width = 100)]
struct Flags {
    /// Configuration file [default: as for connect].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Our atSign.
    #[arg(short = 'f', long, value_name = "@CLIENT")]
    from: Option<String>,
    /// atSign of the device.
    #[arg(short = 't', long, value_name = "@DEVICE")]
    to: Option<String>,
    /// Name of the device, to look at its version.
    #[arg(short = 'd', long, value_name = "NAME")]
    device: Option<String>,
    /// The relay, or several, separated by commas.
    #[arg(short = 'r', long, alias = "srvd", value_name = "@RELAY")]
    relay: Option<String>,
    /// Our key file [default: ~/.atsign/keys/@CLIENT_key.atKeys].
    #[arg(short = 'k', long, alias = "keyFile", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The atDirectory, host or host:port.
    #[arg(long, alias = "root-server", alias = "rootDomain", value_name = "HOST[:PORT]")]
    root_domain: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Log what happens.
    #[arg(short = 'v', long)]
    verbose: bool,
}

/// Runs `doctor client` with its arguments, the program name first.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let flags = match Flags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    postern_observe::init(Verbosity::of(flags.verbose, false));
    postern_net::tasks::install_panic_hook();
    let (common, told) = match settled(&flags) {
        Ok(settled) => settled,
        Err(finding) => return Report::new("client", vec![*finding]).show(flags.json),
    };
    let device = match flags.device.as_deref().map(DeviceName::parse).transpose() {
        Ok(device) => device,
        Err(error) => {
            say(format_args!("doctor client: {error}"));
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(format_args!("doctor client: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let findings = runtime.block_on(Box::pin(async {
        let tasks = Tasks::new();
        let found = examine(&common, device.as_ref(), &tasks).await;
        tasks.close_and_wait(DRAIN).await;
        found
    }));
    runtime.shutdown_background();
    Report::new("client", std::iter::once(told).chain(findings).collect()).show(flags.json)
}

/// What is configured: the file, and what was typed over it.
fn settled(flags: &Flags) -> Result<(Common, Finding), Box<Finding>> {
    let id = "config";
    let path = Hosts::path(flags.config.as_deref());
    let bad = |why: String| Box::new(Finding::fail(id, why, "mend it, or give the options"));
    let hosts = Hosts::read(flags.config.as_deref()).map_err(|error| bad(error.to_string()))?;
    let mut common = hosts.common().map_err(|error| bad(error.to_string()))?;
    let at_sign = |text: &String| AtSign::parse(text).map_err(|error| bad(format!("{text:?}: {error}")));
    if let Some(from) = &flags.from {
        common.from = Some(at_sign(from)?);
        common.key_file = None;
    }
    if let Some(to) = &flags.to {
        common.to = Some(at_sign(to)?);
    }
    if let Some(names) = &flags.relay {
        common.relays = relays(names).map_err(bad)?;
    }
    if let Some(root) = &flags.root_domain {
        common.root = postern_client::parse_root(root).map_err(|error| bad(error.to_string()))?;
    }
    if let Some(path) = &flags.key_file {
        common.key_file = Some(path.clone());
    }
    if common.from.is_none() {
        let what = format!("who we are is said neither by -f nor by {}", path.display());
        return Err(Box::new(Finding::fail(id, what, "write from: \"@you\" there, or give -f @you")));
    }
    let told = if path.exists() {
        Finding::ok(id, format!("{} can be read", path.display()))
    } else {
        Finding::ok(id, "no file, options alone")
    };
    Ok((common, told))
}

async fn examine(common: &Common, device: Option<&DeviceName>, tasks: &Tasks) -> Vec<Finding> {
    let Some(from) = &common.from else { return Vec::new() };
    let subject = Subject {
        root: common.root.clone(),
        at_sign: from.clone(),
        key_file: common.key_file.clone(),
        others: common.to.iter().chain(&common.relays).cloned().collect(),
    };
    let (way, link) = tokio::join!(Way::walk(&subject, tasks), blocking(link));
    let mut findings = vec![clock(way.server.as_ref().and_then(|server| server.skew_ms)), link];
    findings.extend(way.findings);
    if let (Some(client), Some(trust)) = (&way.client, &way.trust) {
        for name in &common.relays {
            findings.push(relay(client, trust, name).await);
        }
        if common.relays.is_empty() {
            findings.push(Finding::skip("relay", "none is named: -r, or relay in the configuration file"));
        }
        if let (Some(to), Some(device)) = (&common.to, device) {
            let record = format!("device_info.{device}.{NAMESPACE}");
            findings.push(match client.get_shared(to, &record).await.map(|text| PingResponse::parse(&text)) {
                Ok(Some(info)) if info.twin => Finding::fail(
                    "device",
                    format!("two machines run as {device}{to}, with the same keys"),
                    "is one a copy of the other's disk or SD card? Give one of them keys and a name of its own",
                ),
                Ok(Some(info)) if info.supported_features.sealed => {
                    fit("device", &info.version, &format!("the device {device}{to}"))
                }
                Ok(Some(info)) => {
                    let version: String = info.version.chars().filter(|c| !c.is_control()).take(40).collect();
                    Finding::ok("device", format!("{device}{to} is another's program, {version}: sessions of 2024"))
                }
                Ok(None) => Finding::warn(
                    "device",
                    format!("what {device}{to} says of itself is damaged"),
                    "restart its daemon",
                ),
                Err(error) => Finding::warn(
                    "device",
                    format!("{device}{to} has not told us of itself"),
                    format!("is {from} among its --managers, has its daemon run, is its name right?"),
                )
                .because(error.to_string()),
            });
        }
    } else {
        findings.push(Finding::skip("relay", "not looked at: login comes first"));
    }
    if let Some(path) = Places::of_user().config {
        findings.push(folder("config-dir", &path, "whom we know"));
    }
    if let Some(path) = Places::of_user().state {
        findings.push(folder("state-dir", &path, "the identity key"));
    }
    findings.push(ssh_config());
    findings
}

/// Whether ssh knows the names of devices.
fn ssh_config() -> Finding {
    let id = "ssh-config";
    let todo = "postern ssh-config --install";
    let Ok(ssh) = home_dir().map(|home| home.join(".ssh")) else { return Finding::skip(id, "HOME is not set") };
    let Ok(ours) = fs::read_to_string(ssh.join("postern.conf")) else {
        return Finding::skip(id, format!("ssh does not know the names of devices; to teach it: {todo}"));
    };
    let includes = fs::read_to_string(ssh.join("config"))
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "Include postern.conf"));
    if !includes {
        return Finding::warn(id, "~/.ssh/config does not include postern.conf", todo);
    }
    // What ssh runs: a program that has moved since.
    let program = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
    if !program.is_empty() && !ours.contains(&program) {
        return Finding::warn(id, "ssh runs a postern at another place than this one", todo);
    }
    Finding::ok(id, "ssh knows the names of devices")
}
