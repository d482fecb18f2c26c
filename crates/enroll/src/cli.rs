//! Commands of `at_activate`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use postern_client::{EnrollmentStatus, Settings, default_key_file, home_dir, parse_root};
use postern_net::tls::Trust;
use postern_observe::{Verbosity, say};
use postern_proto::{AtSign, Uuid};
use regex_lite::Regex;
use zeroize::Zeroizing;

use crate::span::parse_span;

/// Makes the keys of an atSign and of its further devices, and decides who gets any.
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
    /// Print a one-time passcode, with which one device may ask to be enrolled.
    Otp(Otp),
    /// Set the lasting passcode, with which any number of devices may ask.
    Spp(Spp),
    /// Ask for keys of one's own for this device, wait for the approval, write the key file.
    Enroll(Enroll),
    /// List enrolments.
    List(List),
    /// Show one enrolment.
    Fetch(One),
    /// Grant pending enrolments.
    Approve(Several),
    /// Refuse pending enrolments.
    Deny(Several),
    /// Take approved enrolments back; their connections end.
    Revoke(Several),
    /// Grant revoked enrolments again.
    Unrevoke(Several),
    /// Wait for requests and approve those that match.
    Auto(Auto),
    /// Forget a denied or revoked enrolment.
    Delete(One),
    /// Do several of these over one connection: prompts for commands.
    Interactive(Common),
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
    /// CRAM secret that the server's operator gave you, for onboard; `-` reads it from standard input [env: TO_CRAM, as
    /// compose files have it].
    #[arg(short = 'c', long = "cramkey", alias = "license-key", value_name = "SECRET", hide = true)]
    secret: Option<String>,
    /// Accepted and not used: a self-hosted server hands out the secret itself.
    #[arg(short = 'g', long = "registrarUrl", hide = true)]
    registrar: Option<String>,
    /// Refused: key files under a pass phrase cannot be read.
    #[arg(short = 'P', long = "pass-phrase", hide = true)]
    pass_phrase: Option<String>,
}

#[derive(Args)]
#[command(mut_arg("secret", |arg| arg.hide(false)))]
struct Onboard {
    #[command(flatten)]
    common: Common,
    /// Accepted for scripts; there is no question to answer.
    #[arg(short = 'y', long)]
    yes: bool,
    /// Do nothing, and succeed, when the key file is there: for services that are started again and again.
    #[arg(long)]
    if_missing: bool,
}

#[derive(Args)]
struct Otp {
    #[command(flatten)]
    common: Common,
    /// How long it is good, as 2d, 1h, 10m, 20s, 999ms or several of them with commas [default: 5 minutes].
    #[arg(short = 'e', long, value_name = "SPAN", value_parser = parse_span)]
    expiry: Option<Duration>,
}

#[derive(Args)]
struct Spp {
    #[command(flatten)]
    common: Common,
    /// The passcode: 6 to 16 letters and digits.
    #[arg(short = 's', long, value_parser = passcode)]
    spp: String,
    /// How long it is good [default: for ever].
    #[arg(short = 'e', long, value_name = "SPAN", value_parser = parse_span)]
    expiry: Option<Duration>,
}

#[derive(Args)]
#[command(mut_arg("keys", |arg| arg.required(true).help("The key file to be written")))]
struct Enroll {
    #[command(flatten)]
    common: Common,
    /// Passcode from `at_activate otp` or `spp`, run on an activated device.
    #[arg(short = 's', long)]
    passcode: String,
    /// Name of the application.
    #[arg(short = 'p', long)]
    app: String,
    /// Name of this device; with the application's unique.
    #[arg(short = 'd', long)]
    device: String,
    /// What it may read (r) or write too (rw), as sshnp:rw,sshrvd:rw.
    #[arg(short = 'n', long, value_delimiter = ',', value_parser = namespace, required = true)]
    namespaces: Vec<(String, String)>,
    /// How long the keys live once they are approved [default: for ever].
    #[arg(short = 'e', long, value_name = "SPAN", value_parser = parse_span)]
    expiry: Option<Duration>,
}

#[derive(Args)]
struct List {
    #[command(flatten)]
    common: Common,
    /// Only those: pending, approved, denied, revoked or expired.
    #[arg(short = 's', long = "enrollmentStatus", value_parser = status, value_delimiter = ',')]
    states: Vec<EnrollmentStatus>,
    #[command(flatten)]
    names: Names,
}

#[derive(Args)]
struct Names {
    /// Regular expression on the application's name.
    #[arg(short = 'A', long = "arx")]
    app: Option<Regex>,
    /// Regular expression on the device's name.
    #[arg(short = 'D', long = "drx")]
    device: Option<Regex>,
}

#[derive(Args)]
struct One {
    #[command(flatten)]
    common: Common,
    /// The enrolment's id.
    #[arg(short = 'i', long = "enrollmentId", value_name = "ID", value_parser = id)]
    id: Uuid,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["id", "app", "device"]))]
struct Several {
    #[command(flatten)]
    common: Common,
    /// The enrolment's id.
    #[arg(short = 'i', long = "enrollmentId", value_name = "ID", value_parser = id, conflicts_with_all = ["app", "device"])]
    id: Option<Uuid>,
    #[command(flatten)]
    names: Names,
    /// Even one's own.
    #[arg(short = 'f', long)]
    force: bool,
}

#[derive(Args)]
#[command(mut_arg("app", |arg| arg.required(true)), mut_arg("device", |arg| arg.required(true)))]
struct Auto {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    names: Names,
    /// How many to approve before this ends.
    #[arg(short = 'L', long, default_value_t = 1)]
    limit: usize,
    /// Those that wait already count too.
    #[arg(long)]
    approve_existing: bool,
}

/// What is to be done, checked.
pub(crate) struct Command {
    /// As typed.
    pub(crate) word: &'static str,
    pub(crate) target: Target,
    pub(crate) task: Task,
}

/// Whom and where.
pub(crate) struct Target {
    pub(crate) at_sign: AtSign,
    pub(crate) settings: Settings,
    pub(crate) tries: u32,
    pub(crate) key_file: PathBuf,
}

pub(crate) enum Task {
    Onboard(Zeroizing<String>),
    /// The keys are there.
    Nothing,
    Status,
    Enroll(EnrollTask),
    Interactive,
    /// Done by somebody who is logged in.
    Manage(Manage),
}

pub(crate) struct EnrollTask {
    pub(crate) passcode: Zeroizing<String>,
    pub(crate) app: String,
    pub(crate) device: String,
    pub(crate) namespaces: Vec<(String, String)>,
    pub(crate) expiry: Option<Duration>,
}

pub(crate) enum Manage {
    Otp(Option<Duration>),
    Spp(String, Option<Duration>),
    List(Vec<EnrollmentStatus>, Filter),
    Fetch(Uuid),
    Decide(Decision, Which),
    Auto { filter: Filter, limit: usize, existing: bool },
    Delete(Uuid),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Approve,
    Deny,
    Revoke { force: bool },
    Unrevoke,
}

pub(crate) enum Which {
    Id(Uuid),
    Matching(Filter),
}

/// Names to look for; `None`: any.
pub(crate) struct Filter {
    pub(crate) app: Option<Regex>,
    pub(crate) device: Option<Regex>,
}

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
        _ => {}
    }
    let flags = Flags::try_parse_from(args).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    })?;
    let (word, common, wanted) = flags.command.split();
    postern_observe::init(Verbosity::of(common.verbose, common.debug));
    check(word, common, wanted).map_err(|why| {
        say(format_args!("at_activate {word}: {why}\nTry at_activate {word} --help."));
        ExitCode::FAILURE
    })
}

/// A line of the interactive mode: the same commands without the words that say whom and where.
pub(crate) fn read_line(line: &str) -> Result<Manage, String> {
    let words = ["at_activate".to_owned()].into_iter().chain(line.split_whitespace().map(str::to_owned));
    let mut words: Vec<String> = words.collect();
    // Whom and where is known already; the parser wants to hear it all the same.
    words.extend(["-a".to_owned(), "@interactive".to_owned()]);
    let flags = Flags::try_parse_from(words).map_err(|error| error.to_string())?;
    match flags.command.split() {
        (_, _, Wanted::Manage(manage)) => Ok(manage),
        (word, ..) => Err(format!("{word} is a command of its own; end this with exit first")),
    }
}

/// What a command wants beside whom and where.
enum Wanted {
    Onboard { if_missing: bool },
    Status,
    Enroll(EnrollTask),
    Interactive,
    Manage(Manage),
}

impl Word {
    fn split(self) -> (&'static str, Common, Wanted) {
        let decide = |word, some: Several, decision: Decision| {
            let which = match some.id {
                Some(id) => Which::Id(id),
                None => Which::Matching(some.names.into()),
            };
            (word, some.common, Wanted::Manage(Manage::Decide(decision, which)))
        };
        match self {
            Self::Onboard(Onboard { common, yes: _, if_missing }) => {
                ("onboard", common, Wanted::Onboard { if_missing })
            }
            Self::Status(common) => ("status", common, Wanted::Status),
            Self::Otp(otp) => ("otp", otp.common, Wanted::Manage(Manage::Otp(otp.expiry))),
            Self::Spp(spp) => ("spp", spp.common, Wanted::Manage(Manage::Spp(spp.spp, spp.expiry))),
            Self::Enroll(enroll) => {
                let Enroll { common, passcode, app, device, namespaces, expiry } = enroll;
                let passcode = Zeroizing::new(passcode);
                ("enroll", common, Wanted::Enroll(EnrollTask { passcode, app, device, namespaces, expiry }))
            }
            Self::List(list) => ("list", list.common, Wanted::Manage(Manage::List(list.states, list.names.into()))),
            Self::Fetch(one) => ("fetch", one.common, Wanted::Manage(Manage::Fetch(one.id))),
            Self::Approve(some) => decide("approve", some, Decision::Approve),
            Self::Deny(some) => decide("deny", some, Decision::Deny),
            Self::Revoke(some) => {
                let force = some.force;
                decide("revoke", some, Decision::Revoke { force })
            }
            Self::Unrevoke(some) => decide("unrevoke", some, Decision::Unrevoke),
            Self::Auto(auto) => {
                let Auto { common, names, limit, approve_existing } = auto;
                let task = Manage::Auto { filter: names.into(), limit, existing: approve_existing };
                ("auto", common, Wanted::Manage(task))
            }
            Self::Delete(one) => ("delete", one.common, Wanted::Manage(Manage::Delete(one.id))),
            Self::Interactive(common) => ("interactive", common, Wanted::Interactive),
        }
    }
}

impl From<Names> for Filter {
    fn from(names: Names) -> Self {
        Self { app: names.app, device: names.device }
    }
}

fn check(word: &'static str, common: Common, wanted: Wanted) -> Result<Command, String> {
    if common.pass_phrase.is_some() {
        return Err("key files under a pass phrase cannot be read; give an .atKeys file without one".into());
    }
    let at_sign = AtSign::parse(&common.at_sign).map_err(|error| format!("{:?}: {error}", common.at_sign))?;
    let key_file = match common.keys {
        Some(path) => with_suffix(path),
        None => default_key_file(&home_dir().map_err(|e| e.to_string())?, &at_sign),
    };
    let settings = Settings {
        root: parse_root(&common.root).map_err(|e| e.to_string())?,
        trust: Trust::load().map_err(|e| e.to_string())?,
        heartbeat: Duration::from_secs(60),
        monitor: None,
    };
    let target = Target { at_sign, settings, tries: common.mca, key_file };
    let task = match wanted {
        Wanted::Onboard { if_missing: true } if target.key_file.exists() => Task::Nothing,
        Wanted::Onboard { .. } => Task::Onboard(secret(common.secret.map(Zeroizing::new))?),
        Wanted::Status => Task::Status,
        Wanted::Enroll(task) => Task::Enroll(task),
        Wanted::Interactive => Task::Interactive,
        Wanted::Manage(manage) => Task::Manage(manage),
    };
    Ok(Command { word, target, task })
}

fn secret(given: Option<Zeroizing<String>>) -> Result<Zeroizing<String>, String> {
    // Words of a command line are everybody's to read.
    let given = given.or_else(|| std::env::var("TO_CRAM").ok().filter(|text| !text.is_empty()).map(Zeroizing::new));
    let secret = match given.as_deref().map(String::as_str) {
        Some("-") => {
            let mut line = Zeroizing::new(String::new());
            std::io::stdin().read_line(&mut line).map_err(|e| format!("standard input: {e}"))?;
            Zeroizing::new(line.trim().to_owned())
        }
        Some(secret) => Zeroizing::new(secret.trim().to_owned()),
        None => {
            return Err("give the CRAM secret of the atSign with -c; `postern server add` prints it, and no registrar is asked for one".into());
        }
    };
    if secret.is_empty() || secret.len() > 1024 {
        return Err("the CRAM secret is empty or longer than 1024 characters".into());
    }
    Ok(secret)
}

fn passcode(text: &str) -> Result<String, String> {
    let fits = (6..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if fits { Ok(text.to_owned()) } else { Err("a passcode has 6 to 16 letters or digits".into()) }
}

fn namespace(text: &str) -> Result<(String, String), String> {
    match text.trim().split_once(':') {
        Some((name, access @ ("r" | "rw"))) if !name.is_empty() => Ok((name.to_owned(), access.to_owned())),
        _ => Err("write each namespace as name:r or name:rw".into()),
    }
}

fn status(text: &str) -> Result<EnrollmentStatus, String> {
    text.parse().map_err(|()| "pending, approved, denied, revoked or expired".to_owned())
}

fn id(text: &str) -> Result<Uuid, String> {
    Uuid::parse(text.trim()).ok_or_else(|| "not the id of an enrolment, which looks like 6f9619ff-8b86-…".to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn lines_of_the_interactive_mode_are_the_same_commands() {
        let id = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff";
        assert!(matches!(read_line("otp -e 1h"), Ok(Manage::Otp(Some(span))) if span == Duration::from_secs(3600)));
        assert!(matches!(read_line(&format!("approve -i {id}")), Ok(Manage::Decide(Decision::Approve, Which::Id(_)))));
        assert!(matches!(read_line("deny -A app -D pi.*"), Ok(Manage::Decide(Decision::Deny, Which::Matching(_)))));
        for bad in ["", "approve", "approve -i 7", "list -s odd", "onboard", "status", "interactive", "auto -A x"] {
            assert!(read_line(bad).is_err(), "{bad}");
        }
        assert!(read_line(&format!("revoke -i {id} -A app")).is_err());
    }

    #[test]
    fn key_files_get_their_suffix() {
        assert_eq!(with_suffix("a/b".into()), PathBuf::from("a/b.atKeys"));
        assert_eq!(with_suffix("a/b.atKeys".into()), PathBuf::from("a/b.atKeys"));
    }
}
