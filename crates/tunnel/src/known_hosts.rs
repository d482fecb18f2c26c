//! `known-hosts`: the host keys that devices have signed, for programs that do not ask us themselves.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use postern_client::trust::{KnownKeys, Places, TrustError, now_ms};
use postern_client::{AddressBook, Client, ClientError, Settings, identity};
use postern_identity::{Statement, VoucherError};
use postern_net::signals;
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_observe::{Verbosity, print, say};
use postern_session::{HostKeys, HostKeysError, SshPublicKey};

use crate::host_keys;
use crate::hosts::{Destination, HostName, Hosts, SUFFIX};
use crate::limits::{DRAIN, HEARTBEAT};
use crate::trouble::Trouble;

/// Fetches the ssh host keys that devices have published for us, checks that the devices signed them, and prints them as
/// lines of known_hosts. ssh itself does not need this: it asks `postern hostkeys`, which learns them from each session.
///
/// Exit status: 0 all were had, 1 some were not; why is told on standard error.
#[derive(Parser)]
#[command(name = "known-hosts", version, max_term_width = 100)]
pub(crate) struct Flags {
    /// Configuration file [default: as for connect].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Believe only keys that were given in advance, with `postern pin accept`.
    #[arg(long, env = "POSTERN_STRICT_PINS", value_parser = clap::builder::FalseyValueParser::new(), hide_env_values = true)]
    strict_pins: bool,
    /// Log every decision.
    #[arg(long)]
    debug: bool,
    /// Devices, with or without .np [default: all that the configuration file names].
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
}

impl Flags {
    pub(crate) fn verbosity(&self) -> Verbosity {
        Verbosity::of(false, self.debug)
    }
}

/// The command line, for completions.
pub(crate) fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

/// Reads the arguments; on trouble everything has been said and the code is to be returned.
pub(crate) fn read(args: Vec<OsString>) -> Result<Flags, ExitCode> {
    Flags::try_parse_from(args).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    })
}

/// Prints what can be had.
pub(crate) async fn run(flags: Flags) -> Result<ExitCode, Trouble> {
    let hosts = Hosts::read(flags.config.as_deref()).map_err(Trouble::Hosts)?;
    let names = if flags.hosts.is_empty() {
        hosts.entries().map(|(name, _)| name.clone()).collect()
    } else {
        flags.hosts.iter().map(|name| HostName::parse(name)).collect::<Result<Vec<_>, _>>().map_err(Trouble::Hosts)?
    };
    if names.is_empty() {
        say("known-hosts: name a device, or let the configuration file name some");
    }
    let stop = signals::shutdown_token().map_err(Trouble::Ssh)?;
    let known = KnownKeys::new(Places::of_user(), flags.strict_pins);
    let mut all = true;
    for name in names {
        let host = format!("{}{SUFFIX}", name.as_str());
        let tasks = Tasks::under(&stop);
        let found = hosts.find(&name).map_err(Trouble::Hosts)?;
        let keys = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Trouble::Interrupted),
            keys = Box::pin(fetch(&found, &known, &tasks)) => keys,
        };
        match keys {
            Ok(keys) => {
                host_keys::store(&found.to, &found.device, &keys);
                keys.iter().for_each(|key| print(format_args!("{host} {key}")));
            }
            Err(why) => {
                all = false;
                say(format_args!("{host}: {why}"));
            }
        }
        tasks.close_and_wait(DRAIN).await;
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn fetch(found: &Destination, known: &KnownKeys, tasks: &Tasks) -> Result<Vec<SshPublicKey>, String> {
    let Destination { from, to, device, root, key_file, .. } = found;
    let identity = identity(from, key_file.as_deref()).map_err(|error| error.to_string())?;
    let trust = Trust::load().map_err(|error| error.to_string())?;
    let settings = Settings { root: root.clone(), trust, heartbeat: HEARTBEAT, monitor: None };
    let (client, _inbox, login) = Client::begin(identity, settings, AddressBook::usual(), tasks);
    let record = client.get_shared(to, &HostKeys::record(device)).await;
    let text = match record {
        Ok(text) => text,
        Err(error) if error.is_no_such_key() => {
            return Err(format!(
                "{to} publishes no host keys of {device} for {from}; is its daemon a current one, and are we its manager?"
            ));
        }
        // The login knows why.
        Err(ClientError::Stopped) => {
            return Err(login.outcome().await.err().unwrap_or(ClientError::Stopped).to_string());
        }
        Err(error) => return Err(error.to_string()),
    };
    let malformed = |error| HostKeysError::Statement(error).to_string();
    let statement = Statement::parse(&text).map_err(malformed)?;
    let claim = statement.voucher().map_err(|error: VoucherError| error.to_string())?;
    let told = |error: TrustError| error.to_string();
    let believed = known.believe_device(&client, &claim, to, device).await.map_err(told)?;
    let keys = HostKeys::verify(&statement, believed.voucher(), now_ms()).map_err(|error| error.to_string())?;
    known.remember(&believed).map_err(told)?;
    Ok(keys)
}
