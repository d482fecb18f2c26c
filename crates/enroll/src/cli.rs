//! Commands of `at_activate`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use postern_client::{Settings, default_key_file, home_dir, parse_root};
use postern_net::tls::Trust;
use postern_observe::{Verbosity, say};
use postern_proto::AtSign;
use zeroize::Zeroizing;

/// Makes the keys of an atSign and tells its state.
///
/// Without a command, `onboard` is meant. Exit status: 0 success, 1 failure;
/// for `status` see there.
#[derive(Parser)]
#[command(name = "at_activate", version, max_term_width = 100)]
struct Flags {
    #[command(subcommand)]
    command: Word,
}

#[derive(Subcommand)]
enum Word {
    /// Activate an atSign with its CRAM secret: make keys, publish the public one, write the key file.
    Onboard(Onboard),
    /// Tell whether an atSign is activated.
    ///
    /// Exit status: 0 activated, 1 no public key yet, 2 its atServer cannot be
    /// reached, 3 not in the directory, 4 the directory cannot be reached.
    Status(Common),
}

#[derive(Args)]
struct Common {
    /// The atSign.
    #[arg(short = 'a', long = "atsign", value_name = "@NAME")]
    at_sign: String,
    /// The atDirectory, host or host:port.
    #[arg(short = 'r', long = "rootServer", aliases = ["root-server", "root-domain"], default_value = "root.atsign.org")]
    root: String,
    /// Key file [default: ~/.atsign/keys/@NAME_key.atKeys].
    #[arg(short = 'k', long = "keys", value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Log what happens.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Log every decision.
    #[arg(long)]
    debug: bool,
    /// Tries to reach the servers, 3 s apart.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    mca: u32,
    /// Accepted and not used: a self-hosted server hands out the secret itself.
    #[arg(short = 'g', long = "registrarUrl", hide = true)]
    registrar: Option<String>,
}

#[derive(Args)]
struct Onboard {
    #[command(flatten)]
    common: Common,
    /// CRAM secret that the server's operator gave you; `-` reads it from standard input.
    #[arg(short = 'c', long = "cramkey", alias = "license-key", value_name = "SECRET")]
    secret: Option<String>,
    /// Accepted for scripts; there is no question to answer.
    #[arg(short = 'y', long)]
    yes: bool,
}

/// What is to be done, checked.
pub(crate) enum Command {
    Onboard(OnboardTask),
    Status(Target),
}

pub(crate) struct Target {
    pub(crate) at_sign: AtSign,
    pub(crate) settings: Settings,
    pub(crate) tries: u32,
}

pub(crate) struct OnboardTask {
    pub(crate) target: Target,
    pub(crate) key_file: PathBuf,
    pub(crate) secret: Zeroizing<String>,
}

/// Commands of the reference that belong to enrolment; named, so that nobody thinks of a typing error.
const LATER: [&str; 12] =
    ["otp", "spp", "enroll", "list", "fetch", "approve", "auto", "deny", "revoke", "unrevoke", "delete", "interactive"];

/// The command line, for completions.
pub(crate) fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

/// Reads the arguments; on trouble everything has been said and the code is to be returned.
pub(crate) fn read(mut args: Vec<OsString>) -> Result<Command, ExitCode> {
    match args.get(1).and_then(|first| first.to_str()) {
        Some(first) if first.starts_with('-') && !["-h", "--help", "-V", "--version"].contains(&first) => {
            args.insert(1, "onboard".into());
        }
        Some(first) if LATER.contains(&first) => {
            say(format_args!("at_activate: {first} is not supported by this version; onboard and status are"));
            return Err(ExitCode::FAILURE);
        }
        _ => {}
    }
    let flags = Flags::try_parse_from(args).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    })?;
    let (word, common, secret) = match flags.command {
        Word::Onboard(onboard) => ("onboard", onboard.common, onboard.secret),
        Word::Status(common) => ("status", common, None),
    };
    postern_observe::init(match (common.debug, common.verbose) {
        (true, _) => Verbosity::Debug,
        (_, true) => Verbosity::Info,
        _ => Verbosity::Quiet,
    });
    check(word, &common, secret.map(Zeroizing::new)).map_err(|why| {
        say(format_args!("at_activate {word}: {why}\nTry at_activate {word} --help."));
        ExitCode::FAILURE
    })
}

fn check(word: &str, common: &Common, secret: Option<Zeroizing<String>>) -> Result<Command, String> {
    let at_sign = AtSign::parse(&common.at_sign).map_err(|error| format!("{:?}: {error}", common.at_sign))?;
    let target = Target {
        settings: Settings {
            root: parse_root(&common.root).map_err(|e| e.to_string())?,
            trust: Trust::load().map_err(|e| e.to_string())?,
            heartbeat: Duration::from_secs(60),
            monitor: None,
        },
        tries: common.mca,
        at_sign,
    };
    if word == "status" {
        return Ok(Command::Status(target));
    }
    let key_file = match &common.keys {
        Some(path) => with_suffix(path.clone()),
        None => default_key_file(&home_dir().map_err(|e| e.to_string())?, &target.at_sign),
    };
    let secret = match secret.as_deref().map(String::as_str) {
        Some("-") => {
            let mut line = Zeroizing::new(String::new());
            std::io::stdin().read_line(&mut line).map_err(|e| format!("standard input: {e}"))?;
            Zeroizing::new(line.trim().to_owned())
        }
        Some(secret) => Zeroizing::new(secret.trim().to_owned()),
        None => return Err("give the CRAM secret of the atSign with -c; `postern server add` prints it".into()),
    };
    if secret.is_empty() || secret.len() > 1024 {
        return Err("the CRAM secret is empty or longer than 1024 characters".into());
    }
    Ok(Command::Onboard(OnboardTask { target, key_file, secret }))
}

/// Key files end in `.atKeys`.
fn with_suffix(path: PathBuf) -> PathBuf {
    if path.extension().is_some_and(|e| e == "atKeys") {
        return path;
    }
    let mut name = path.into_os_string();
    name.push(".atKeys");
    name.into()
}
