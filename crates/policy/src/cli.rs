//! Flags of `npp`, `npp_file` and `npp_atserver`, read into one checked value before anything starts.

mod config_file;
mod words;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, ValueEnum};
use postern_client::parse_root;
use postern_observe::{Verbosity, say};
use postern_proto::AtSign;

use crate::cli::config_file::NppConfig;
use crate::cli::words::Word;
use crate::keep::{Keep, TABLE_FILE};
use crate::offline::Query;
use crate::remote::Remote;
use crate::service::ServiceConfig;

/// What is to be done, checked.
pub(crate) enum Task {
    /// Run the service.
    Serve(Box<ServiceConfig>),
    /// Look at a file.
    Check(PathBuf),
    /// Ask a file.
    SimulateFile(PathBuf, Query),
    /// Ask a service, or change its rules.
    Remote(Box<Remote>),
}

/// The policy service: answers devices who may come in.
///
/// Without a command, runs the service: devices that were started with --policy-manager ask it about every client that
/// is no manager of theirs, and managers change its rules with the commands below.
///
/// Exit status: 0 stopped by a signal or done, 1 cannot run or refused, 3 simulate: denied.
#[derive(Parser)]
#[command(name = "npp", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Npp {
    #[command(flatten)]
    serve: NppFlags,
    #[command(subcommand)]
    word: Option<Word>,
}

#[derive(Args)]
struct NppFlags {
    /// atSign of this policy service.
    #[arg(short = 'a', long = "atsign", value_name = "@POLICY")]
    at_sign: Option<String>,
    /// Key file of the atSign [default: ~/.atsign/keys/@POLICY_key.atKeys].
    #[arg(short = 'k', long, aliases = ["keyFile", "keys"], value_name = "FILE")]
    key_file: Option<PathBuf>,
    #[arg(short = 's', long, hide = true)]
    storage_path: Option<PathBuf>,
    /// Log what happens.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Log every decision.
    #[arg(long)]
    debug: bool,
    /// The atDirectory, host or host:port [default: root.atsign.org].
    #[arg(long, aliases = ["root-server", "rootDomain"])]
    root_domain: Option<String>,
    /// Namespace of devices' questions and of the rules [default: sshnp].
    #[arg(long, alias = "namespace")]
    base_namespace: Option<String>,
    /// Domain of managers' requests [default: npp].
    #[arg(long)]
    domain_namespace: Option<String>,
    /// Where the rules are kept [default: atserver].
    #[arg(long, value_enum)]
    persistence_method: Option<Persistence>,
    /// Directory of tables.json, for --persistence-method file.
    #[arg(long, value_name = "DIRECTORY")]
    policy_directory: Option<PathBuf>,
    /// atSigns that may change the rules, separated by commas; "" is nobody [default: the service's own].
    #[arg(long, value_name = "@A,@B")]
    manager_allow_list: Option<String>,
    /// Devices' atSigns that may ask, separated by commas [default: all, each about itself alone].
    #[arg(long, value_name = "@A,@B")]
    daemon_atsigns: Option<String>,
    #[arg(long, hide = true)]
    event_logging_atsign: Option<String>,
    /// Settings named like these flags; flags win [default: /etc/noports/npp.yaml, if there].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Where rules are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Persistence {
    /// Records at the atServer of the service.
    Atserver,
    /// A file.
    File,
    /// Memory alone.
    None,
}

/// A policy service whose rules are a file: change the file and the rules change.
///
/// Exit status: 0 stopped by a signal, 1 cannot run (arguments, keys, rules).
#[derive(Parser)]
#[command(name = "npp_file", version, max_term_width = 100)]
struct NppFile {
    #[command(flatten)]
    common: Common,
    /// File of user groups; `npp check FILE` says whether it is good.
    #[arg(long, value_name = "FILE")]
    yaml: PathBuf,
}

/// A policy service whose rules are groups, records at its own atServer: see `npp groups`.
///
/// Exit status: 0 stopped by a signal, 1 cannot run (arguments, keys, rules).
#[derive(Parser)]
#[command(name = "npp_atserver", version, max_term_width = 100)]
struct NppAtserver {
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Common {
    /// atSign of this policy service.
    #[arg(short = 'a', long = "atsign", value_name = "@POLICY")]
    at_sign: String,
    /// Key file of the atSign [default: ~/.atsign/keys/@POLICY_key.atKeys].
    #[arg(short = 'k', long, alias = "keyFile", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Devices' atSigns that may ask, separated by commas [default: all, each about itself alone].
    #[arg(long, default_value = "", value_name = "@A,@B", hide_default_value = true)]
    daemon_atsigns: String,
    /// Log what happens.
    #[arg(short = 'v', long)]
    verbose: bool,
    /// Log every decision.
    #[arg(long)]
    debug: bool,
    /// The atDirectory, host or host:port.
    #[arg(long, aliases = ["root-server", "rootDomain"], default_value = "root.atsign.org")]
    root_domain: String,
}

/// Namespace when none is named.
const BASE: &str = postern_session::NAMESPACE;
/// Domain when none is named.
const DOMAIN: &str = "npp";
/// Directory when none is named.
const ROOT: &str = "root.atsign.org";

pub(crate) fn npp_command() -> clap::Command {
    Npp::command()
}

pub(crate) fn file_command() -> clap::Command {
    NppFile::command()
}

pub(crate) fn atserver_command() -> clap::Command {
    NppAtserver::command()
}

/// Arguments of `npp`; on trouble everything has been said and the code is to be returned.
pub(crate) fn read_npp(args: Vec<OsString>) -> Result<Task, ExitCode> {
    let flags = parse::<Npp>(args)?;
    let task = match flags.word {
        Some(word) => word.check(),
        None => NppConfig::load(flags.serve.config.as_deref()).and_then(|config| flags.serve.check(config)),
    };
    task.map_err(|why| told("npp", &why))
}

/// The configuration file with every option in comments.
pub(crate) const CONFIG_DEFAULT: &str = config_file::DEFAULT;

/// Where it is looked for when no flag names it.
pub(crate) fn config_path() -> PathBuf {
    config_file::DEFAULT_FILE.into()
}

/// Whether a file is as the service wants it; who it is may still be typed.
pub(crate) fn config_check(path: &Path) -> Result<(), String> {
    let file = NppConfig::load(Some(path))?;
    let flags = Npp::try_parse_from(["npp", "-a", "@policy"]).map_err(|error| error.to_string())?;
    flags.serve.check(file).map(drop).map_err(|why| format!("{}: {why}", path.display()))
}

/// Arguments of `npp_file`.
pub(crate) fn read_file(args: Vec<OsString>) -> Result<Task, ExitCode> {
    let flags = parse::<NppFile>(args)?;
    flags.common.check(Keep::RuleFile(flags.yaml)).map_err(|why| told("npp_file", &why))
}

/// Arguments of `npp_atserver`.
pub(crate) fn read_atserver(args: Vec<OsString>) -> Result<Task, ExitCode> {
    let flags = parse::<NppAtserver>(args)?;
    flags.common.check(Keep::Groups).map_err(|why| told("npp_atserver", &why))
}

fn parse<T: Parser>(args: Vec<OsString>) -> Result<T, ExitCode> {
    T::try_parse_from(args).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    })
}

fn told(name: &str, why: &str) -> ExitCode {
    say(format_args!("{name}: {why}\nTry {name} --help."));
    ExitCode::FAILURE
}

impl Task {
    /// How much to log meanwhile.
    pub(crate) fn verbosity(&self) -> Verbosity {
        match self {
            Self::Serve(config) => config.verbosity,
            Self::Remote(remote) => remote.verbosity,
            Self::Check(_) | Self::SimulateFile(..) => Verbosity::Quiet,
        }
    }
}

impl NppFlags {
    fn check(self, file: NppConfig) -> Result<Task, String> {
        let at_sign_text = self.at_sign.or(file.atsign).ok_or("name the service's atSign with --atsign")?;
        let policy = at_sign(&at_sign_text)?;
        if self.event_logging_atsign.or(file.event_logging_atsign).is_some() {
            say("[WARN] --event-logging-atsign: this version does not send session events anywhere");
        }
        let directory = self.policy_directory.or(file.policy_directory);
        let keep = match (self.persistence_method.or(file.persistence_method), directory) {
            (Some(Persistence::File), Some(directory)) => Keep::TableFile(directory.join(TABLE_FILE)),
            (Some(Persistence::File), None) => {
                return Err("name the directory of the rules with --policy-directory".into());
            }
            (_, Some(_)) => return Err("--policy-directory needs --persistence-method file".into()),
            (Some(Persistence::None), None) => Keep::Nowhere,
            (Some(Persistence::Atserver) | None, None) => Keep::Rows,
        };
        if let Keep::TableFile(path) = &keep
            && !path.parent().is_some_and(Path::is_dir)
        {
            return Err(format!("{}: no such directory", path.display()));
        }
        let managers = match self.manager_allow_list.map(|list| csv(&list)).or(file.manager_allow_list.map(Vec::from)) {
            Some(list) => at_signs(&list)?,
            None => vec![policy.clone()],
        };
        let daemons = self.daemon_atsigns.map(|list| csv(&list)).or(file.daemon_atsigns.map(Vec::from));
        Ok(Task::Serve(Box::new(ServiceConfig {
            at_sign: policy,
            key_file: self.key_file.or(file.key_file),
            root: root(self.root_domain.or(file.root_domain).as_deref())?,
            daemons: not_empty(at_signs(&daemons.unwrap_or_default())?),
            managers,
            keep,
            base: namespace(self.base_namespace.or(file.base_namespace).as_deref().unwrap_or(BASE))?,
            domain: namespace(self.domain_namespace.or(file.domain_namespace).as_deref().unwrap_or(DOMAIN))?,
            verbosity: Verbosity::of(self.verbose || file.verbose.unwrap_or_default(), self.debug),
        })))
    }
}

impl Common {
    fn check(self, keep: Keep) -> Result<Task, String> {
        Ok(Task::Serve(Box::new(ServiceConfig {
            at_sign: at_sign(&self.at_sign)?,
            key_file: self.key_file,
            root: root(Some(&self.root_domain))?,
            daemons: not_empty(at_signs(&csv(&self.daemon_atsigns))?),
            managers: Vec::new(),
            keep,
            base: BASE.to_owned(),
            domain: DOMAIN.to_owned(),
            verbosity: Verbosity::of(self.verbose, self.debug),
        })))
    }
}

fn at_sign(text: &str) -> Result<AtSign, String> {
    AtSign::parse(text).map_err(|error| format!("{text:?}: {error}"))
}

fn at_signs(list: &[String]) -> Result<Vec<AtSign>, String> {
    list.iter().map(|text| at_sign(text)).collect()
}

fn csv(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn not_empty(list: Vec<AtSign>) -> Option<Vec<AtSign>> {
    (!list.is_empty()).then_some(list)
}

fn root(text: Option<&str>) -> Result<postern_proto::ServerAddress, String> {
    parse_root(text.unwrap_or(ROOT)).map_err(|error| error.to_string())
}

/// Words and dots: it becomes part of keys and of a regex.
fn namespace(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if text.is_empty() || text.len() > 64 || !text.chars().all(fits) {
        return Err(format!("{text:?} is no namespace: letters, digits, _, - and . are"));
    }
    Ok(text.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(words: &[&str]) -> Result<ServiceConfig, String> {
        serve_with(words, NppConfig::default())
    }

    fn serve_with(words: &[&str], config: NppConfig) -> Result<ServiceConfig, String> {
        let flags = Npp::try_parse_from(std::iter::once(&"npp").chain(words)).map_err(|error| error.to_string())?;
        match flags.serve.check(config)? {
            Task::Serve(config) => Ok(*config),
            _ => Err("no service".into()),
        }
    }

    #[test]
    fn the_defaults() {
        let config = serve(&["-a", "@Policy"]).unwrap();
        assert_eq!((config.base.as_str(), config.domain.as_str()), ("sshnp", "npp"));
        assert_eq!(config.managers, [AtSign::parse("@policy").unwrap()]);
        assert_eq!((config.keep, config.daemons), (Keep::Rows, None));
    }

    #[test]
    fn nobody_manages_when_the_list_is_empty() {
        assert!(serve(&["-a", "@p", "--manager-allow-list", ""]).unwrap().managers.is_empty());
        assert_eq!(serve(&["-a", "@p", "--manager-allow-list", "@a, b"]).unwrap().managers.len(), 2);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for words in [
            &[][..],
            &["-a", "@p", "--persistence-method", "file"],
            &["-a", "@p", "--policy-directory", "/tmp"],
            &["-a", "@p", "--persistence-method", "file", "--policy-directory", "/no/such/directory"],
            &["-a", "@p", "--daemon-atsigns", "@a b"],
            &["-a", "@p", "--base-namespace", "a@b"],
        ] {
            assert!(serve(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let text = "atsign: '@p'\nroot-domain: a:1\nmanager-allow-list: ['@m', '@n']\npersistence-method: none\nverbose: true\ndaemon-atsigns: '@d,@e'\n";
        let file = || postern_config::parse::<NppConfig>(text).unwrap();
        let config = serve_with(&["--root-domain", "b:2"], file()).unwrap();
        assert_eq!((config.at_sign.as_str(), config.root.to_string().as_str()), ("@p", "b:2"));
        assert_eq!((config.managers.len(), config.daemons.unwrap().len()), (2, 2));
        assert_eq!((config.keep, config.verbosity), (Keep::Nowhere, Verbosity::Info));
        assert!(postern_config::parse::<NppConfig>("atsing: '@p'\n").is_err());
    }
}
